"""What is noted of each video beside its features: the file they were made from, their digests, what was odd.

`<first kind's folder>/status/<video_id>.json` holds

    file       the video's name
    source     its size, mtime_ns and sha256 when it was read
    features   SHA-256 of the data of each kind that was made from it, by the kind's folder
    problem, padded_segments, audio      what was odd about it
    digest     of the rest, by which damage is found
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import array_sha256, seal, sha256, unseal, video_file

STATUS = "status"  # the folder of status files, within the first kind's folder


def read_status(first: Path, video: str) -> dict[str, Any]:
    """A video's status; an empty one where there is none, or one that is damaged."""
    with contextlib.suppress(UserError):
        status = unseal(video_file(first / STATUS, video, ".json"))
        if isinstance(status, dict) and {"source", "features"} <= status.keys():
            return status
    return {}


def write_status(first: Path, video: str, status: dict[str, Any]) -> None:
    """Write a video's status; kinds that other runs made from the same source stay noted in it."""
    before = read_status(first, video)
    if before and before["source"]["sha256"] == status["source"]["sha256"]:
        status = status | {"features": before["features"] | status["features"]}
    seal(first / STATUS / f"{video}.json", status)


def stamp(path: Path) -> dict[str, int]:
    """Size and time of change of a file. Raises `OSError`."""
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def is_current(first: Path, video: str, status: dict[str, Any], path: Path) -> bool:
    """Whether the file at `path` is the one that a status was made from: by size and time, else by its contents."""
    try:
        source = status["source"] | stamp(path)
        if source == status["source"]:
            return True
        if source["size"] != status["source"]["size"] or sha256(path) != source["sha256"]:
            return False
    except (OSError, UserError):
        return False
    with contextlib.suppress(UserError):  # the same, copied; where that cannot be noted, it is read again next time
        seal(first / STATUS / f"{video}.json", status | {"source": source})
    return True


def as_noted(first: Path, video: str, kinds: Iterable[str], status: dict[str, Any]) -> bool:
    """Whether a video's features of some kinds are those that its status notes.

    The status is written last. So only files that are newer are read: they were changed since, or copied.
    """
    note = video_file(first / STATUS, video, ".json")
    files = {kind: first.with_name(kind) / f"{video}.npy" for kind in kinds}
    written = note.stat().st_mtime_ns
    newer = {kind: path for kind, path in files.items() if path.stat().st_mtime_ns > written}
    if any(array_sha256(np.load(path, allow_pickle=False)) != status["features"][kind] for kind, path in newer.items()):
        return False
    if newer:
        with contextlib.suppress(OSError):  # a disk that is only read: they are read again next time
            os.utime(note)
    return True
