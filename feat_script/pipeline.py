"""From a folder of videos to a folder of features: decoding in worker processes, encoding here, resumable.

A video is whole when each of its arrays has the shape and dtype that the folder's manifest says, and its status file,
which is written last, says that they were made from the video that lies there now and hold what they did then. Whatever
is not whole is done again; whatever is whole is left untouched.
"""

import contextlib
import csv
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse.typing import PositiveInt

from feat_script.reading import Read, read_all
from utils.ahead import ask_all
from utils.cli import Parser
from utils.errors import UserError
from utils.files import array_sha256, atomic_path, holds_npy, save_npy, writing
from utils.machine import own_cores
from utils.manifest import claim_manifest
from utils.progress import tqdm
from utils.runtime import Runtime
from utils.status import as_noted, is_current, read_status, write_status

SUFFIXES = {".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".flv", ".mpg", ".mpeg", ".ts", ".ogv", ".3gp", ".wmv"}
FAILURES = "failures.csv"

Encode = Callable[[np.ndarray], dict[str, np.ndarray]]  # here: what was read -> an array for each kind's folder


def common_options(description: str) -> Parser:
    """A parser of the options that the extraction of sound and that of pictures share."""
    parser = Parser(description=description)
    parser.add_argument("--videos", required=True, help="folder of videos; what lies below it counts too")
    parser.add_argument("--out", default="data/features", help="folder of features")
    parser.add_argument(
        "--segments", type=PositiveInt, default=60, help="seconds of a video: 60 for MUSIC-AVQA, 10 for AVQA"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where the encoder runs")
    parser.add_argument("--workers", type=PositiveInt, default=own_cores(), help="processes that decode")
    return parser


def find_videos(folder: str | Path) -> dict[str, Path]:
    """The videos in a folder and below, by id: the file's name without its ending; sorted. Links are followed.

    Folders that cannot be entered are named on stderr. Raises `UserError` for a folder that is missing or holds no
    video, and for two videos of one id.
    """
    if not os.path.isdir(folder):
        raise UserError(f"--videos {folder}: no such folder")
    videos: dict[str, Path] = {}
    missed: list[OSError] = []
    seen = set()  # real folders: links may lead round in circles
    for here, folders, files in os.walk(folder, followlinks=True, onerror=missed.append):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for path in (Path(here, name) for name in sorted(files)):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                if path.stem in videos:
                    raise UserError(f"{videos[path.stem]} and {path}: both have the id {path.stem!r}; keep one of them")
                videos[path.stem] = path
    if missed and os.environ.get("RANK", "0") == "0":
        lines = [f"{error.filename} ({error.strerror})" for error in missed]
        print("\n  ".join([f"{len(missed)} folders could not be entered:", *lines]), file=sys.stderr)
    if not videos:
        raise UserError(f"--videos {folder}: holds no video ({', '.join(sorted(SUFFIXES))})")
    return dict(sorted(videos.items()))


def extract(
    runtime: Runtime,
    videos: dict[str, Path],
    out: str | Path,
    manifests: dict[str, dict[str, Any]],
    read: Read,
    encode: Encode,
    workers: int,
) -> int:
    """Write an array of each kind for each video, and return how many videos failed, over all processes.

    `manifests` maps each kind's folder within `out` to its manifest; status files and `failures.csv` go to the first.
    Each process of `runtime` takes its share of the videos. Raises `UserError` where a folder's manifest contradicts
    this run, and for a full disk.
    """
    out = Path(out)
    for kind, manifest in manifests.items():
        claim_manifest(out / kind, manifest)
        _sweep(out / kind)
    first = out / next(iter(manifests))

    share = dict(list(videos.items())[runtime.rank :: runtime.world])
    todo: dict[str, Path] = {}
    failures: list[tuple[str, str, str]] = []
    notes: Counter[str] = Counter()
    for name, status in _held(share, out, manifests, quiet=not runtime.is_main):
        if status:
            notes.update(_notes(status))
        else:
            todo[name] = share[name]
    reading = read_all(todo, read, min(workers, len(todo)))
    shown = {"total": len(todo), "desc": first.name, "unit": "video", "disable": not (runtime.is_main and todo)}
    for name, data, status in tqdm(reading, **shown):
        error = status.pop("error", None)
        if not error:
            arrays = encode(data)
            error = _fault(arrays, manifests)
        if error:
            failures.append((name, str(todo[name]), error))
            continue
        for kind, array in arrays.items():
            save_npy(out / kind / f"{name}.npy", array)
        digests = {kind: array_sha256(array) for kind, array in arrays.items()}
        write_status(first, name, status | {"features": digests})
        notes.update(_notes(status))

    parts = runtime.gather((failures, notes, len(todo)))
    if runtime.is_main:
        _report(first, len(videos), parts)
    runtime.wait()  # torchrun ends all processes as soon as one of them exits with a failure
    return sum(len(failures) for failures, *_ in parts)


def _sweep(folder: Path) -> None:
    """Remove what killed runs left half-written in a folder: no write takes an hour."""
    for path in folder.glob(".tmp-*"):
        with contextlib.suppress(OSError):  # another process sweeps too; or a disk that is only read
            if path.stat().st_mtime < time.time() - 3600:
                path.unlink()


def _held(
    videos: dict[str, Path], out: Path, manifests: dict[str, dict[str, Any]], quiet: bool
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Each video, and its status if it is whole: asked for several at once, since the disk may be slow to answer."""
    first = out / next(iter(manifests))

    def status_if_whole(name: str) -> dict[str, Any] | None:
        status = read_status(first, name)
        whole = manifests.keys() <= status.get("features", {}).keys() and all(
            holds_npy(out / kind / f"{name}.npy", tuple(manifest["shape"]), np.dtype(manifest["dtype"]))
            for kind, manifest in manifests.items()
        )
        whole = whole and is_current(first, name, status, videos[name]) and as_noted(first, name, manifests, status)
        return status if whole else None

    return ask_all(status_if_whole, videos, first.name, quiet)


def _fault(arrays: dict[str, np.ndarray], manifests: dict[str, dict[str, Any]]) -> str | None:
    """What is wrong with a video's arrays. That they are not what the manifest says would be a mistake of ours."""
    for kind, array in arrays.items():
        assert [list(array.shape), array.dtype.name] == [manifests[kind]["shape"], manifests[kind]["dtype"]], kind
    bad = [kind for kind, array in arrays.items() if not np.isfinite(array).all()]
    return f"numbers that are not finite in {', '.join(bad)}" if bad else None


def _notes(status: dict[str, Any]) -> list[str]:
    """What is worth counting of a video's status."""
    notes = {
        "shorter than the segments: the last second repeats": status.get("padded_segments"),
        "damaged: as far as they decode": status.get("problem"),
        "without an audio stream: silence": status.get("audio") == "absent",
        "with a silent audio stream": status.get("audio") == "silent",
    }
    return [note for note, holds in notes.items() if holds]


def _report(folder: Path, videos: int, parts: list) -> None:
    """Write `failures.csv`, or remove an old one, and say what was done."""
    failures = sorted(failure for failures, *_ in parts for failure in failures)
    notes: Counter[str] = sum((notes for _, notes, _ in parts), Counter())
    todo = sum(todo for *_, todo in parts)
    print(f"{folder}: {videos} videos, {videos - todo} were whole, {todo - len(failures)} extracted", file=sys.stderr)
    for note, count in sorted(notes.items()):
        print(f"  {count} {note}", file=sys.stderr)
    path = folder / FAILURES
    if failures:
        print(f"  {len(failures)} failed, listed in {path}:", file=sys.stderr)
        for name, _, reason in failures:
            print(f"    {name}: {reason}", file=sys.stderr)
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
            csv.writer(file, lineterminator="\n").writerows([("video_id", "file", "reason"), *failures])
    elif path.exists():
        with writing(path):
            path.unlink(missing_ok=True)
