"""Packed features: the files of one kind in one array that is mapped into memory.

`<kind folder>/packed/` holds `features.npy`, (V, ...) with a row per video, and `index.json`: the manifest it was made
under; in the order of the rows, each video with the SHA-256 of its data; and [bytes, time of change] of the array. The
index is removed before the array is replaced and written after it, so a pack without its index is none.
The per-video files may be deleted afterwards; where they stay and hold other data, the pack is refused as stale. Where
the array's time has changed, as in a copy, its data are read once and decide.
"""

import contextlib
import mmap
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dataset.feature_folder import Folder, describe_faults
from utils.ahead import THREADS, ahead, ask_all
from utils.errors import UserError
from utils.files import array_sha256, atomic_path, header_bytes, npy_header, read_json, write_json, writing
from utils.manifest import compare_manifests
from utils.progress import tqdm


class Pack:
    """The packed array of one kind; read like a `Folder`."""

    def __init__(self, folder: Folder, manifest: dict[str, Any]):
        self.folder, self.path = folder, folder.path
        self.shape, self.dtype, self.nbytes = folder.shape, folder.dtype, folder.nbytes
        self.file, self.index = packed_files(folder)
        sizes = "".join(f" --{name} {n}" for name, n in zip(("segments", "tokens"), self.shape[:-1], strict=False))
        which = f"--features {folder.path.parent} --kinds {manifest['kind']}{sizes}"
        self.again = f"pack with: python -m scripts.pack_features {which}"
        try:
            self._open(manifest)
        except UserError as error:
            raise UserError(f"{error}; {self.again}") from error

    def _open(self, manifest: dict[str, Any]) -> None:
        self.held = read_index(self.index)
        compare_manifests(self.index, manifest, self.held["manifest"], "or pack anew")
        self.digests = self.held["sha256"]
        self.rows = {video: row for row, video in enumerate(self.digests)}
        (shape, dtype), wanted = npy_header(self.file), (len(self.rows), *self.shape)
        if (shape, dtype) != (wanted, self.dtype):
            raise UserError(f"{self.file}: is {dtype} {shape}, but its index and manifest say {self.dtype} {wanted}")
        with open(self.file, "rb") as file:
            self._mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._start = len(self._mapping) - len(self.rows) * self.nbytes  # of the data
        self._array = np.frombuffer(self._mapping, dtype, offset=self._start).reshape(wanted)

    def check(self, videos: Iterable[str]) -> dict[str, str]:
        """The reason for each video that is not in the pack."""
        return {video: "not in the pack" for video in videos if video not in self.rows}

    def examine(self, videos: Iterable[str], keep: bool = True) -> tuple[dict[str, str], dict[str, str]]:
        """The SHA-256 of each video's data as they were packed, and what is wrong with every other one.

        All was whole when it was packed. Where the array's file has changed since, its data are read, once if `keep`.
        """
        videos = list(videos)
        faults, there, stamp = self.check(videos), self.folder.stamps(), stamp_of(self.file)
        files = [video for video in videos if video in self.rows and video in there]
        now, _ = self.folder.examine(files, keep)
        for video in files:
            if now.get(video) != self.digests[video]:
                faults[video] = f"stale, its file holds other data than were packed; {self.again}"
        if self.held.get("array", stamp) != stamp:  # a pack of 0.1 does not say
            read = ask_all(self._digest, self.rows, f"{self.path.name}/packed")
            spoilt = [video for video, digest in read if digest != self.digests[video]]
            faults |= dict.fromkeys(spoilt, f"holds other data in the pack than were packed; {self.again}")
            if keep and not spoilt:
                with contextlib.suppress(UserError):  # a disk that cannot be written: read again the next time
                    write_json(self.index, self.held | {"array": stamp})
        return {video: self.digests[video] or self._digest(video) for video in videos if video not in faults}, faults

    def _digest(self, video: str) -> str:
        return array_sha256(self._array[self.rows[video]])

    def prefetch(self, videos: Iterable[str]) -> None:
        """Ask the disk for the videos that the pack has: whole, not page by page as they are touched."""
        for row in (self.rows[video] for video in videos if video in self.rows):
            offset = self._start + row * self.nbytes
            aligned = offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._mapping.madvise(mmap.MADV_WILLNEED, aligned, offset + self.nbytes - aligned)

    def read(self, videos: list[str], out: np.ndarray | None = None) -> np.ndarray:
        """Return the videos' arrays, stacked (into `out` if given); raises `UserError` for a video it lacks."""
        try:
            rows = [self.rows[video] for video in videos]
        except KeyError as error:
            raise UserError(f"{self.file}: video {error} is not in the pack") from None
        out = np.empty((len(rows), *self.shape), self.dtype) if out is None else out
        # the rows are known to exist, and mode "raise" would copy once more
        return np.take(self._array, rows, axis=0, out=out, mode="clip")

    def read_segments(self, videos: list[str], segments: np.ndarray, out: np.ndarray) -> None:
        """Read one segment of each of the videos (P,) into `out` (P, ...)."""
        by_segment = self._array.reshape(-1, *self.shape[1:])
        rows = np.array([self.rows[video] for video in videos]) * self.shape[0] + segments
        np.take(by_segment, rows, axis=0, out=out, mode="clip")


def packed_files(folder: Folder) -> tuple[Path, Path]:
    """The array and the index of a folder's pack."""
    return folder.path / "packed" / "features.npy", folder.path / "packed" / "index.json"


def read_index(path: Path) -> dict[str, Any]:
    """The index of a pack. Raises `UserError` where it is none."""
    held = read_json(path)
    if isinstance(held, dict) and isinstance(held.get("videos"), dict):  # of 0.1, which noted no digests
        held.setdefault("sha256", dict.fromkeys(held["videos"]))
    if not (isinstance(held, dict) and all(isinstance(held.get(field), dict) for field in ("manifest", "sha256"))):
        raise UserError(f"{path}: is no index of a pack")
    return held


def stamp_of(path: Path) -> list[int]:
    """[bytes, time of change in ns] of a file."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def write_pack(folder: Folder, manifest: dict[str, Any], skip_faulty: bool = False) -> dict[str, str]:
    """Pack every whole video of a folder; returns the faulty videos that were left out.

    Raises `UserError` for faulty videos unless `skip_faulty`, where the disk is too small, and where an older pack
    holds videos whose files are gone. One run per folder at a time.
    """
    path, index = packed_files(folder)
    for leftover in path.parent.glob(".tmp-*"):  # of a run that was killed: as large as the pack itself
        with writing(leftover):
            leftover.unlink()
    found = folder.stamps().keys()
    try:
        gone = (read_index(index)["sha256"].keys() if index.exists() else set()) - found
    except UserError as error:
        raise UserError(f"{error}; delete it if the videos have files of their own") from error
    if gone:
        raise UserError(
            f"{index}: {len(gone)} of its videos have no file of their own any more, e.g. {min(gone)}, and would be "
            f"lost; remove {path.parent} first if that is meant"
        )
    digests, faults = folder.examine(sorted(found | folder.noted()))
    if faults and not skip_faulty:
        raise UserError(
            f"{folder.path}: {len(faults)} videos are faulty; extract them again, or leave them out with "
            f"--skip-faulty\n{describe_faults(faults)}"
        )
    if not digests:
        raise UserError(f"{folder.path}: holds no whole file to pack")
    needed, free = len(digests) * folder.nbytes, shutil.disk_usage(folder.path).free
    if needed > free:
        raise UserError(f"{path}: needs {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free on its disk")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(header_bytes((len(digests), *folder.shape), folder.dtype))
        read = ahead(lambda video: folder.read([video]), digests, THREADS, lambda video: folder.prefetch([video]))
        for array in tqdm(read, f"packing {folder.path.name}", len(digests), unit="video"):
            file.write(array.data)
        file.flush()
        index.unlink(missing_ok=True)
    write_json(index, {"manifest": manifest, "sha256": digests, "array": stamp_of(path)})
    return faults
