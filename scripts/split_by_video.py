"""Split MUSIC-AVQA's questions by video, 7 : 1 : 2, so that no test video occurs in training (Table 2).

    python -m scripts.split_by_video --annotations data/music_avqa/annotations/{train,val,test}.json \\
        --out data/music_avqa/annotations_video_split

The same files, in any order, and the same seed give the same split. Mirrored copies of a video, and those with other
sound (version 2), go where the original goes. The paper's own split is published: `scripts.download
music_avqa_video_split` fetches it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dataset import DATASETS
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import read_json, write_json

SHARES = {"train": 7, "val": 1, "test": 2}


def split_by_video(
    paths: Sequence[str | Path], out: str | Path, seed: int = 0, dataset: str = "music_avqa"
) -> dict[str, tuple[int, int]]:
    """Write `train.json`, `val.json` and `test.json` into `out`; return (videos, questions) of each.

    Rows are kept as they are, a recording's together. Raises `UserError` naming the first row that cannot be read,
    where there are fewer recordings than shares, and where `out` holds such files already.
    """
    require_none(out)
    rows_of, known = defaultdict(list), DATASETS[dataset]
    for path in sorted(map(str, paths)):
        for number, row in enumerate(read_json(path), start=1):
            try:
                rows_of[known.recording(known.read_row(row)["video_id"])].append(row)
            except (UserError, AttributeError) as error:
                raise UserError(f"{path}, row {number}: {error}") from error
    return write_splits(rows_of, out, seed)


def write_splits(rows_of: Mapping[str, list[dict]], out: str | Path, seed: int) -> dict[str, tuple[int, int]]:
    """Part the rows of each recording 7 : 1 : 2 and write them into `out`; return (recordings, rows) of each split."""
    if len(rows_of) < sum(SHARES.values()):
        raise UserError(f"{len(rows_of)} videos cannot be split {' : '.join(map(str, SHARES.values()))}")
    order = np.random.default_rng(seed).permutation(sorted(rows_of))
    bounds = np.cumsum(list(SHARES.values()))[:-1] * len(order) // sum(SHARES.values())
    counts = {}
    for split, recordings in zip(SHARES, np.split(order, bounds), strict=True):
        rows = [row for name in sorted(recordings) for row in rows_of[name]]
        write_json(Path(out) / f"{split}.json", rows)
        counts[split] = (len(recordings), len(rows))
    return counts


def require_none(out: str | Path) -> None:
    """Raise `UserError` where a folder holds annotations: they may be the only copy."""
    for split in SHARES:
        if (path := Path(out) / f"{split}.json").exists():
            raise UserError(f"{path}: is there already, and is not replaced; move it away, or give another --out")


@command
def main(args: list[str] | None = None) -> None:
    """Split and say what came of it."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--annotations", required=True, nargs="+", help="annotation files, all used")
    parser.add_argument("--out", required=True, help="folder of the new train.json, val.json and test.json")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another split")
    parser.add_argument("--dataset", choices=list(DATASETS), default="music_avqa", help="format of --annotations")
    options = parser.parse_args(args)
    counts = split_by_video(options.annotations, options.out, options.seed, options.dataset)
    for split, (videos, questions) in counts.items():
        print(f"{Path(options.out) / split}.json: {questions} questions about {videos} videos")


if __name__ == "__main__":
    main()
