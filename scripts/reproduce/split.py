"""A split of questions by recording, 7 : 1 : 2, so that no test video occurs in training."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import write_json

SHARES = {"train": 7, "val": 1, "test": 2}


def write_splits(rows_of: Mapping[str, list[dict]], out: Path, seed: int = 0) -> dict[str, tuple[int, int]]:
    """Part the rows of each recording 7 : 1 : 2 and write them into `out`; return (recordings, rows) of each split."""
    if len(rows_of) < sum(SHARES.values()):
        raise UserError(f"{len(rows_of)} videos cannot be split {' : '.join(map(str, SHARES.values()))}")
    order = np.random.default_rng(seed).permutation(sorted(rows_of))
    bounds = np.cumsum(list(SHARES.values()))[:-1] * len(order) // sum(SHARES.values())
    counts = {}
    for split, recordings in zip(SHARES, np.split(order, bounds), strict=True):
        rows = [row for name in sorted(recordings) for row in rows_of[name]]
        write_json(out / f"{split}.json", rows)
        counts[split] = (len(recordings), len(rows))
    return counts
