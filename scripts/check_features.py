"""Check feature files before training does: which are missing, cut off, misshapen or not finite.

    python -m scripts.check_features --features data/music_avqa/features --segments 60 --tokens 14 \
        --annotations data/music_avqa/annotations/*.json

Headers and lengths are checked in seconds; `--deep` reads every number; `--videos` finds features of videos that have
changed since. Exit status: 0 all whole, 1 faults, 2 a folder or manifest that contradicts the options.
"""

import contextlib
import sys
import time
from pathlib import Path

from dataset import DATASETS
from dataset.feature_folder import find_faults
from dataset.features import describe_faults, open_features
from dataset.kinds import KINDS
from feat_script.pipeline import find_videos
from feat_script.status import stale
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import read_json


def parse(args: list[str] | None = None):
    """Read the options."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", required=True, help="folder of the feature kinds")
    parser.add_argument("--layout", choices=["files", "packed", "public"], default="files", help="how they are stored")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="kinds to check")
    parser.add_argument("--segments", type=int, default=60, help="segments T of a video")
    parser.add_argument("--tokens", type=int, default=14, help="tokens M per frame as stored")
    parser.add_argument("--annotations", nargs="+", help="check the videos of these files (default: all on disk)")
    parser.add_argument("--dataset", choices=list(DATASETS), default="music_avqa", help="format of --annotations")
    parser.add_argument("--videos", help="folder of videos: tell which have changed since they were extracted")
    parser.add_argument("--deep", action="store_true", help="read everything and find NaN and infinite values too")
    return parser.parse_args(args)


def annotated_videos(paths: list[str], dataset: str) -> list[str]:
    """Return the distinct videos of annotation files, sorted; rows that training leaves out are left out here too."""
    videos = set()
    for path in paths:
        rows = read_json(path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{path}: must hold a JSON list of questions")
        for row in rows:
            with contextlib.suppress(UserError):
                videos.add(DATASETS[dataset].read_row(row)["video_id"])
    return sorted(videos)


@command
def main(args: list[str] | None = None) -> int:
    """Check, print a paragraph per kind and return the exit status."""
    options = parse(args)
    store = open_features(options.features, options.layout, options.kinds, options.segments, options.tokens, text=False)
    found = {kind: folder.stamps() for kind, folder in store.folders.items()}
    if options.annotations:
        videos = annotated_videos(options.annotations, options.dataset)
    else:
        videos = sorted(set().union(*found.values()))
    if not videos:
        raise UserError(f"{options.features}: no video to check")
    if options.videos and options.layout == "public":
        raise UserError("--videos: the public layout does not tell from which videos it was made")
    sources = find_videos(options.videos) if options.videos else {}
    faulty = False
    for kind, folder in store.folders.items():
        start = time.perf_counter()
        faults = folder.check(videos, options.deep)
        name, first = KINDS[kind].folder.format(tokens=options.tokens), Path(options.features) / KINDS[kind].status_in
        held = [video for video in videos if video in sources and video not in faults]
        faults |= find_faults(lambda video: stale(first, name, video, sources[video]), held, "sources")  # noqa: B023
        size = sum(found[kind][video][0] for video in videos if video in found[kind])
        print(
            f"{kind}: {len(videos) - len(faults)} of {len(videos)} videos whole, {len(faults)} faulty; "
            f"{size / 1e9:.2f} GB, {store.folders[kind].dtype} {store.shapes[kind]}, "
            f"{time.perf_counter() - start:.1f} s"
        )
        if faults:
            print(describe_faults(faults))
        faulty |= bool(faults)
    return int(faulty)


if __name__ == "__main__":
    sys.exit(main())
