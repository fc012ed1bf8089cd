"""Annotations of your own videos from a table: train, validation and test questions, split by video.

    python -m scripts.make_annotations questions.csv --videos videos --out data/own/annotations

The CSV has the columns id, video, question, answer and, if you like, type, by which results are reported. `video` is a
file's name with or without its ending. Every row is checked first, and all faults are named by row and column.
dataset/own_videos.md tells what comes next.
"""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from dataset.own import CLASSES
from feat_script.pipeline import SUFFIXES, find_videos
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import read_json, video_file, write_json
from utils.scoring.predictions import read_text
from utils.text import normalised

COLUMNS = ("id", "video", "question", "answer")
SHARES = {"train": 7, "val": 1, "test": 2}  # of the videos
SHOWN = 10  # faults


def read_rows(path: str | Path, videos: Mapping[str, Path] | None) -> list[dict[str, str]]:
    """The rows of a CSV as annotation rows; `video` becomes the id, which is the file's name without its ending.

    Raises `UserError` naming row and column of the first faults: what is empty, an id that comes twice, a video that
    is no file's name or not among `videos`, and a row that has not as many fields as the header.
    """
    reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    header = [name.strip().lower() for name in reader.fieldnames or []]
    if missing := [name for name in COLUMNS if name not in header]:
        raise UserError(
            f"{path}: the first line must name the columns {','.join(COLUMNS)} and may name type; it lacks "
            f"{', '.join(missing)}"
        )
    reader.fieldnames = header
    names = [*COLUMNS, *(["type"] if "type" in header else [])]
    rows: list[dict[str, str]] = []
    faults: list[str] = []
    line_of: dict[str, int] = {}
    try:
        for record in reader:
            if None in record or None in record.values():
                faults.append(f"row {reader.line_num}: has not as many fields as the header, {len(header)}")
                continue
            row = {name: record[name].strip() for name in names}
            if Path(row["video"]).suffix.lower() in SUFFIXES:
                row["video"] = Path(row["video"]).stem
            found = [*_faults(row, videos)]
            if row["id"] and line_of.setdefault(row["id"], reader.line_num) != reader.line_num:
                found.append(("id", f"{row['id']!r} already stands in row {line_of[row['id']]}"))
            faults += [f"row {reader.line_num}, column {column}: {fault}" for column, fault in found]
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"{path}, row {reader.reader.line_num}: {error}") from error
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise UserError("\n  ".join([f"{path}:", *faults[:SHOWN], *more]))
    return rows


def _faults(row: Mapping[str, str], videos: Mapping[str, Path] | None) -> Iterator[tuple[str, str]]:
    """(column, fault) of what is wrong with a row by itself."""
    yield from ((name, "is empty") for name, value in row.items() if not value)
    try:
        video_file("", row["video"] or "-", "")
    except UserError:
        yield "video", f"{row['video']!r} must be a file's name, without its folder"
        return
    if row["video"] and videos is not None and row["video"] not in videos:
        yield "video", f"there is no video {row['video']!r}"


def require_none(out: Path) -> None:
    """Raise `UserError` where a folder holds annotations: they may be the only copy."""
    for split in SHARES:
        if (path := out / f"{split}.json").exists():
            raise UserError(f"{path}: is there already, and is not replaced; move it away, or give another --out")


def write_splits(rows_of: Mapping[str, list[dict[str, str]]], out: Path, seed: int) -> dict[str, tuple[int, int]]:
    """Part the videos 7 : 1 : 2 and write the rows about them into `out`; return (videos, rows) of each split.

    Raises `UserError` where there are fewer videos than shares.
    """
    if len(rows_of) < sum(SHARES.values()):
        raise UserError(f"{len(rows_of)} videos cannot be split {' : '.join(map(str, SHARES.values()))}")
    order = np.random.default_rng(seed).permutation(sorted(rows_of))
    bounds = np.cumsum(list(SHARES.values()))[:-1] * len(order) // sum(SHARES.values())
    counts = {}
    for split, videos in zip(SHARES, np.split(order, bounds), strict=True):
        rows = [row for video in sorted(videos) for row in rows_of[video]]
        write_json(out / f"{split}.json", rows)
        counts[split] = (len(videos), len(rows))
    return counts


def unseen_answers(out: Path) -> Counter[str]:
    """The test answers that training does not have among its most frequent ones: none of them can be given."""
    train, test = (
        [normalised(row["answer"]) for row in read_json(out / f"{split}.json")] for split in ("train", "test")
    )
    known = {answer for answer, _ in Counter(train).most_common(CLASSES)}
    return Counter(answer for answer in test if answer not in known)


@command
def main(args: list[str] | None = None) -> None:
    """Check all rows, split them, and say what came of it."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("csv", help="table of questions: id, video, question, answer and perhaps type")
    parser.add_argument("--videos", help="folder of the videos: every row's must be there")
    parser.add_argument(
        "--out", type=Path, default="data/own/annotations", help="folder of train.json, val.json and test.json"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another split")
    options = parser.parse_args(args)
    require_none(options.out)
    rows_of = defaultdict(list)
    for row in read_rows(options.csv, find_videos(options.videos) if options.videos else None):
        rows_of[row["video"]].append(row)
    for split, (videos, questions) in write_splits(rows_of, options.out, options.seed).items():
        print(f"{options.out / split}.json: {questions} questions about {videos} videos")
    if unseen := unseen_answers(options.out):
        print(
            f"{unseen.total()} test questions have an answer that training has not, such as "
            f"{next(iter(unseen))!r}: no model can be right there"
        )


if __name__ == "__main__":
    main()
