"""Annotations of your own videos from a table: train, validation and test questions, split by video.

    python -m scripts.make_annotations questions.csv --videos videos --out data/own/annotations

The CSV has the columns id, video, question, answer and, if you like, type, by which results are reported. `video` is a
file's name with or without its ending. Every row is checked first, and all faults are named by row and column.
dataset/own_videos.md tells what comes next.
"""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dataset.own import CLASSES
from feat_script.pipeline import SUFFIXES, find_videos
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import video_file, write_json
from utils.scoring.predictions import read_text
from utils.text import normalised

COLUMNS = ("id", "video", "question", "answer")
SHARES = {"train": 7, "val": 1, "test": 2}  # of the videos
SHOWN = 10  # faults


def read_rows(path: str, videos: Mapping[str, Path] | None) -> list[dict[str, str]]:
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
    rows, faults = [], []
    row_of: dict[str, int] = {}
    try:
        for record in reader:
            where = f"row {reader.line_num}"
            if None in record or None in record.values():
                faults.append(f"{where}: has not as many fields as the header, {len(header)}")
                continue
            row = {name: record[name].strip() for name in (*COLUMNS, "type") if name in record}
            if Path(row["video"]).suffix.lower() in SUFFIXES:
                row["video"] = Path(row["video"]).stem
            faults += [f"{where}, column {name}: is empty" for name, value in row.items() if not value]
            if row["video"] and (fault := video_fault(row["video"], videos)):
                faults.append(f"{where}, column video: {fault}")
            if row["id"] and (first := row_of.setdefault(row["id"], reader.line_num)) != reader.line_num:
                faults.append(f"{where}, column id: {row['id']!r} already stands in row {first}")
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"{path}, row {reader.reader.line_num}: {error}") from error
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise UserError("\n  ".join([f"{path}:", *faults[:SHOWN], *more]))
    return rows


def video_fault(video: str, videos: Mapping[str, Path] | None) -> str | None:
    """What is wrong with a video's id, if anything is."""
    try:
        video_file("", video, "")
    except UserError:
        return f"{video!r} must be a file's name, without its folder"
    return None if videos is None or video in videos else f"there is no video {video!r}"


def split(rows: list[dict[str, str]], seed: int) -> dict[str, list[dict[str, str]]]:
    """The rows of each split: the videos are parted 7 : 1 : 2. Raises `UserError` where there are fewer than shares."""
    rows_of = defaultdict(list)
    for row in rows:
        rows_of[row["video"]].append(row)
    if len(rows_of) < sum(SHARES.values()):
        raise UserError(f"{len(rows_of)} videos cannot be split {' : '.join(map(str, SHARES.values()))}")
    order = np.random.default_rng(seed).permutation(sorted(rows_of))
    bounds = np.cumsum(list(SHARES.values()))[:-1] * len(order) // sum(SHARES.values())
    parts = zip(SHARES, np.split(order, bounds), strict=True)
    return {name: [row for video in sorted(videos) for row in rows_of[video]] for name, videos in parts}


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
    files = {name: options.out / f"{name}.json" for name in SHARES}
    for path in files.values():
        if path.exists():  # it may be the only copy
            raise UserError(f"{path}: is there already, and is not replaced; move it away, or give another --out")
    rows = read_rows(options.csv, find_videos(options.videos) if options.videos else None)
    splits = split(rows, options.seed)
    for name, path in files.items():
        write_json(path, splits[name])
        print(f"{path}: {len(splits[name])} questions about {len({row['video'] for row in splits[name]})} videos")
    train, test = ([normalised(row["answer"]) for row in splits[name]] for name in ("train", "test"))
    known = {answer for answer, _ in Counter(train).most_common(CLASSES)}
    if unseen := [answer for answer in test if answer not in known]:
        print(
            f"{len(unseen)} test questions have an answer that training has not, such as {unseen[0]!r}: "
            "no model can be right there"
        )


if __name__ == "__main__":
    main()
