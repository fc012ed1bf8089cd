"""From a folder of videos to a folder of features: decoding in worker processes, encoding here, resumable.

A video is whole when each of its arrays has the shape and dtype that the folder's manifest says, and its status file
stands, which is written last. Whatever is not whole is done again; whatever is whole is left untouched.
"""

import contextlib
import csv
import io
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from feat_script.media import MediaError
from utils.errors import UserError
from utils.files import npy_header, save_npy, write_bytes, write_json
from utils.machine import usable_cores
from utils.manifest import claim_manifest
from utils.runtime import Runtime

SUFFIXES = {".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".flv", ".mpg", ".mpeg", ".ts", ".ogv", ".3gp", ".wmv"}
STATUS = "status"  # the folder of status files, within the first kind's folder
FAILURES = "failures.csv"
AHEAD = 2  # videos that a process reads ahead

Read = Callable[[Path], tuple[Tensor, dict[str, Any]]]  # in a worker: a video -> what to encode, its status
Item = tuple[str, Tensor | None, dict[str, Any]]  # an id, what was read or None, the status with any "error"
Encode = Callable[[Tensor], dict[str, np.ndarray]]  # here: what was read -> an array for each kind's folder


def find_videos(folder: str | Path) -> dict[str, Path]:
    """The videos in a folder and below, by id: the file's name without its ending; sorted.

    Raises `UserError` for a folder that is missing or holds no video, and for two videos of one id.
    """
    if not Path(folder).is_dir():
        raise UserError(f"--videos {folder}: no such folder")
    videos: dict[str, Path] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            if path.stem in videos:
                raise UserError(f"{videos[path.stem]} and {path}: both have the id {path.stem!r}; keep one of them")
            videos[path.stem] = path
    if not videos:
        raise UserError(f"--videos {folder}: holds no video ({', '.join(sorted(SUFFIXES))})")
    return dict(sorted(videos.items()))


def default_workers() -> int:
    """One decoder for each core that this process may use, shared among the processes of this machine."""
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


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
    if workers < 1:
        raise UserError(f"--workers {workers}: at least one process must decode")
    for kind, manifest in manifests.items():
        _sweep(Path(out) / kind)
        claim_manifest(Path(out) / kind, manifest)
    first = Path(out) / next(iter(manifests))

    share = dict(list(videos.items())[runtime.rank :: runtime.world])
    todo = {name: path for name, path in share.items() if not _whole(name, Path(out), manifests)}
    failures, notes = [], Counter()
    reading = _read_all(todo, read, min(workers, len(todo)))
    shown = {"total": len(todo), "desc": first.name, "unit": "video", "disable": not (runtime.is_main and todo)}
    for name, data, status in tqdm(reading, **shown):
        error = status.pop("error", None)
        if not error:
            arrays = encode(data)
            error = _fault(arrays, manifests)
        if error:
            failures.append((name, str(todo[name]), error))
            continue
        try:
            for kind, array in arrays.items():
                save_npy(Path(out) / kind / f"{name}.npy", array)
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be written ({error.strerror}); run again to go on") from error
        write_json(first / STATUS / f"{name}.json", status)
        notes.update(_notes(status))

    parts = runtime.gather((failures, notes, len(todo), len(share)))
    if runtime.is_main:
        _report(first, parts)
    runtime.wait()  # torchrun ends all processes as soon as one of them exits with a failure
    return sum(len(failures) for failures, *_ in parts)


def _sweep(folder: Path) -> None:
    """Make the folder, or remove what killed runs left half-written in it: no write takes an hour."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(".tmp-*"):
        with contextlib.suppress(FileNotFoundError):  # another process sweeps too
            if path.stat().st_mtime < time.time() - 3600:
                path.unlink()


def _read_all(videos: dict[str, Path], read: Read, workers: int) -> Iterator[Item]:
    """What `_read_one` makes of each video, in order, read ahead; of one that ends its process, an "error".

    After a death, the videos that were being read are read again, each in a process of its own: so it is known whose
    fault it was.
    """
    left, alone = list(videos.items()), 0  # videos to do, how many of them one by one
    while left:
        part = left[:1] if alone else left.copy()
        alone = max(0, alone - 1)
        try:
            for item in _read_ahead(part, read, workers):
                left.pop(0)
                yield item
        except BrokenProcessPool:
            if len(part) > 1:
                alone = AHEAD * workers
                tqdm.write(f"a process that decodes died; reading the next {alone} videos one by one", file=sys.stderr)
            else:
                yield left.pop(0)[0], None, {"error": "ends the process that decodes it: a crash, or short memory"}


def _read_ahead(videos: list[tuple[str, Path]], read: Read, workers: int) -> Iterator[Item]:
    """The videos in order, read in processes. Raises `BrokenProcessPool` when one of these dies."""
    with ProcessPoolExecutor(workers, initializer=_begin) as pool:
        pending: deque[Future[Item]] = deque()
        for video in videos:
            pending.append(pool.submit(_read_one, *video, read))
            if len(pending) == AHEAD * workers:
                yield _received(pending.popleft())
        while pending:
            yield _received(pending.popleft())


def _received(future: Future[Item]) -> Item:
    """What a process read. Whatever goes wrong in reading is in there; here it is the way from one process to another.

    Raises `UserError` where the shared memory is full, and `BrokenProcessPool` when the process died.
    """
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except RuntimeError as error:
        raise UserError(
            f"a video that was read does not fit the shared memory ({error}); give /dev/shm more room (of a "
            "container: --shm-size) or take fewer --workers, and run again to go on"
        ) from error


def _begin() -> None:
    """Set up a process that reads: one thread; Ctrl-C is the parent's business; without a parent it ends."""

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=follow, daemon=True).start()


def _read_one(name: str, path: Path, read: Read) -> Item:
    try:
        data, status = read(path)
    except MediaError as error:
        return name, None, {"error": str(error)}
    except Exception as error:  # one strange file must not end a run of days; it is listed with this reason
        return name, None, {"error": f"{type(error).__name__}: {error}"}
    return name, data, {"file": path.name, **status}


def _whole(name: str, out: Path, manifests: dict[str, dict[str, Any]]) -> bool:
    try:
        whole = all(
            npy_header(out / kind / f"{name}.npy") == (tuple(manifest["shape"]), np.dtype(manifest["dtype"]))
            for kind, manifest in manifests.items()
        )
    except UserError:
        return False
    return whole and (out / next(iter(manifests)) / STATUS / f"{name}.json").exists()


def _fault(arrays: dict[str, np.ndarray], manifests: dict[str, dict[str, Any]]) -> str | None:
    """What is wrong with a video's arrays. That they are not what the manifest says would be a mistake of ours."""
    for kind, array in arrays.items():
        assert [list(array.shape), array.dtype.name] == [manifests[kind]["shape"], manifests[kind]["dtype"]], kind
    bad = [kind for kind, array in arrays.items() if not np.isfinite(array).all()]
    return f"numbers that are not finite in {', '.join(bad)}" if bad else None


def _notes(status: dict[str, Any]) -> list[str]:
    """What is worth counting of a video's status."""
    notes = []
    if status["padded_segments"]:
        notes.append("shorter than the segments: the last second repeats")
    if status["problem"]:
        notes.append("damaged: as far as they decode")
    if status.get("audio") == "absent":
        notes.append("without an audio stream: silence")
    if status.get("audio") == "silent":
        notes.append("with a silent audio stream")
    return notes


def _report(folder: Path, parts: list) -> None:
    """Write `failures.csv`, or remove an old one, and say what was done."""
    failures = sorted(failure for failures, *_ in parts for failure in failures)
    notes = sum((notes for _, notes, _, _ in parts), Counter())
    todo, videos = (sum(part[column] for part in parts) for column in (2, 3))
    print(f"{folder}: {videos} videos, {videos - todo} were whole, {todo - len(failures)} extracted", file=sys.stderr)
    for note, count in sorted(notes.items()):
        print(f"  {count} {note}", file=sys.stderr)
    path = folder / FAILURES
    if not failures:
        path.unlink(missing_ok=True)
        return
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("video_id", "file", "reason"), *failures])
    write_bytes(path, table.getvalue().encode())
    print(f"  {len(failures)} failed, listed in {path}:", file=sys.stderr)
    for name, _, reason in failures:
        print(f"    {name}: {reason}", file=sys.stderr)
