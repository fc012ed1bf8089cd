"""Annotations and feature files become batches. Data sets: a file each, and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.register import Register

if TYPE_CHECKING:
    from dataset.spec import Dataset

DATASETS: Register[Dataset] = Register(
    "data.dataset",
    {
        "music_avqa": "dataset.music_avqa.MUSIC_AVQA",
        "avqa": "dataset.avqa.AVQA",
    },
)
"""By the name that `data.dataset` takes: how a data set's rows are read, answered and reported."""
