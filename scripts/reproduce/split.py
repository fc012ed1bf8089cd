"""A split of questions by video, 7 : 1 : 2, so that no test video occurs in training (Table 2).

Mirrored copies of a video, and those with other sound (MUSIC-AVQA's version 2), go where the original goes. The paper's
own split is published: `scripts.download music_avqa_video_split` fetches it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dataset import DATASETS
from utils.errors import UserError
from utils.files import read_json, write_json

SHARES = {"train": 7, "val": 1, "test": 2}


def split_by_video(paths: Sequence[str | Path], out: Path, dataset: str = "music_avqa") -> None:
    """Write `train.json`, `val.json` and `test.json` into `out`: the rows of some files, in whatever order these come.

    Rows are kept as they are, a recording's together. Raises `UserError` naming the first row that cannot be read, and
    where there are fewer recordings than shares.
    """
    rows_of, known = defaultdict(list), DATASETS[dataset]
    for path in sorted(map(str, paths)):
        for number, row in enumerate(read_json(path), start=1):
            try:
                rows_of[known.recording(known.read_row(row)["video_id"])].append(row)
            except (UserError, AttributeError) as error:
                raise UserError(f"{path}, row {number}: {error}") from error
    write_splits(rows_of, out)


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
