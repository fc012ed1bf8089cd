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
        "music_avqa_v2": "dataset.music_avqa_v2.MUSIC_AVQA_V2",
        "music_avqa_r": "dataset.music_avqa_r.MUSIC_AVQA_R",
        "avqa": "dataset.avqa.AVQA",
        "own": "dataset.own.OWN",
    },
)
"""By the name that `data.dataset` takes: how a data set's rows are read, answered and reported."""
