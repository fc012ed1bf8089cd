"""What is noted of each video beside its features: the file they were made from, their digests, what was odd.

`<first kind's folder>/status/<video_id>.json` holds

    file       the video's name
    source     its size, mtime_ns and sha256 when it was read
    features   SHA-256 of the data of each kind that was made from it, by the kind's folder
    problem, padded_segments, audio      what was odd about it
"""

import contextlib
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import read_json, sha256, video_file, write_json

STATUS = "status"  # the folder of status files, within the first kind's folder


def read_status(first: Path, video: str) -> dict[str, Any]:
    """A video's status; an empty one where there is none, or one that a loss of power cut off."""
    with contextlib.suppress(UserError):
        status = read_json(video_file(first / STATUS, video, ".json"))
        if isinstance(status, dict) and {"source", "features"} <= status.keys():
            return status
    return {}


def write_status(first: Path, video: str, status: dict[str, Any]) -> None:
    """Write a video's status; kinds that other runs made from the same source stay noted in it."""
    before = read_status(first, video)
    if before and before["source"]["sha256"] == status["source"]["sha256"]:
        status = status | {"features": before["features"] | status["features"]}
    write_json(first / STATUS / f"{video}.json", status)


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
        write_json(first / STATUS / f"{video}.json", status | {"source": source})
    return True


def stale(first: Path, kind: str, video: str, path: Path) -> str | None:
    """Why the features in folder `kind` are not those of the video at `path`, or None where they are."""
    status = read_status(first, video)
    if not status:
        return f"no whole status file in {first.name}/{STATUS} tells which video it was made from; extract it again"
    if kind not in status["features"] or not is_current(first, video, status, path):
        return "stale: its video has changed since; extract it again"
    return None
