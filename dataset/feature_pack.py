"""Packed features: the files of one kind in one array that is mapped into memory.

`<kind folder>/packed/` holds `features.npy`, (V, ...) with a row per video, and `index.json`: the manifest it was made
under and, in the order of the rows, each video with the [bytes, time of change] of the file it came from; the SHA-256
of each video's data; and [bytes, time of change] of the array itself. The index is removed before the array is replaced
and written after it, so a pack without its index is none.
The per-video files may be deleted afterwards; where they stay and change, the pack is refused as stale. Where only
their times have changed, as in a copy, their data are read once and decide. So it is with the array.
"""

import contextlib
import mmap
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dataset.feature_folder import THREADS, Folder, describe_faults, find_faults
from utils.ahead import ahead
from utils.errors import UserError
from utils.files import array_sha256, atomic_path, header_bytes, npy_header, read_json, write_json, writing
from utils.manifest import compare_manifests
from utils.progress import tqdm


class Pack:
    """The packed array of one kind; read like a `Folder`."""

    def __init__(self, folder: Folder, manifest: dict[str, Any]):
        self.folder, self.shape, self.dtype, self.nbytes = folder, folder.shape, folder.dtype, folder.nbytes
        self.path = folder.path / "packed" / "features.npy"
        sizes = "".join(f" --{name} {n}" for name, n in zip(("segments", "tokens"), self.shape[:-1], strict=False))
        which = f"--features {folder.path.parent} --kinds {manifest['kind']}{sizes}"
        self.again = f"pack with: python -m scripts.pack_features {which}"
        try:
            self._open(manifest, self.path.with_name("index.json"))
        except UserError as error:
            raise UserError(f"{error}; {self.again}") from error

    def _open(self, manifest: dict[str, Any], index: Path) -> None:
        held = read_json(index)
        if not (isinstance(held, dict) and all(isinstance(held.get(field), dict) for field in ("manifest", "videos"))):
            raise UserError(f"{index}: is no index of a pack")
        compare_manifests(index, manifest, held["manifest"], "or pack anew")
        packed, digests = held["videos"], held.get("sha256", {})
        (shape, dtype), wanted = npy_header(self.path), (len(packed), *self.shape)
        if (shape, dtype) != (wanted, self.dtype):
            raise UserError(f"{self.path}: is {dtype} {shape}, but its index and manifest say {self.dtype} {wanted}")
        stamps = self.folder.stamps()
        moved = {video: digests.get(video) for video in packed.keys() & stamps if packed[video] != stamps[video]}
        if changed := self.folder.changed(moved):
            example = self.folder.path / f"{min(changed)}.npy"
            raise UserError(f"{self.path}: stale, {len(changed)} of its videos were extracted anew, e.g. {example}")
        if moved:  # a copy
            packed |= {video: stamps[video] for video in moved}
            with contextlib.suppress(UserError):  # a disk that cannot be written: read again the next time
                write_json(index, held)
        self.held, self.packed, self.rows = held, packed, {video: row for row, video in enumerate(packed)}
        with open(self.path, "rb") as file:
            self._mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._start = len(self._mapping) - len(packed) * self.nbytes  # of the data
        self._array = np.frombuffer(self._mapping, dtype, offset=self._start).reshape(wanted)

    def stamps(self) -> dict[str, list[int]]:
        """Map every video of the pack to its file's [bytes, time of change in ns] as it was packed."""
        return self.packed

    def check(self, videos: Iterable[str]) -> dict[str, str]:
        """The reason for each video that is not in the pack."""
        return {video: "not in the pack" for video in videos if video not in self.rows}

    def verify(self, videos: Iterable[str]) -> dict[str, str]:
        """Look for each video in the index: what is in the pack passed the deep check when it was packed.

        Where the array's file has changed since, its data are compared with what was packed, once.
        """
        faults, found = self.check(videos), self.path.stat()
        stamp, digests = [found.st_size, found.st_mtime_ns], self.held.get("sha256", {})
        if self.held.get("array", stamp) == stamp:  # an older pack does not say
            return faults

        def reason(video: str) -> str | None:
            same = array_sha256(self._array[self.rows[video]]) == digests.get(video)
            return None if same else f"holds other data in the pack than were packed; {self.again}"

        spoilt = find_faults(reason, self.rows, f"{self.folder.path.name}/packed")
        if not spoilt:
            with contextlib.suppress(UserError):  # a disk that cannot be written: read again the next time
                write_json(self.path.with_name("index.json"), self.held | {"array": stamp})
        return faults | spoilt

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
            raise UserError(f"{self.path}: video {error} is not in the pack") from None
        out = np.empty((len(rows), *self.shape), self.dtype) if out is None else out
        # the rows are known to exist, and mode "raise" would copy once more
        return np.take(self._array, rows, axis=0, out=out, mode="clip")

    def read_segments(self, videos: list[str], segments: np.ndarray, out: np.ndarray) -> None:
        """Read one segment of each of the videos (P,) into `out` (P, ...)."""
        by_segment = self._array.reshape(-1, *self.shape[1:])
        rows = np.array([self.rows[video] for video in videos]) * self.shape[0] + segments
        np.take(by_segment, rows, axis=0, out=out, mode="clip")


def write_pack(folder: Folder, manifest: dict[str, Any], skip_faulty: bool = False) -> dict[str, str]:
    """Pack every video of a folder, reading each file once; returns the faulty videos that were left out.

    Raises `UserError` for faulty videos unless `skip_faulty`, where the disk is too small, and where an older pack
    holds videos whose files are gone. One run per folder at a time.
    """
    path, index = folder.path / "packed" / "features.npy", folder.path / "packed" / "index.json"
    for leftover in path.parent.glob(".tmp-*"):  # of a run that was killed: as large as the pack itself
        with writing(leftover):
            leftover.unlink()
    stamps = folder.stamps()  # taken before reading: a file that changes meanwhile makes the pack stale
    if gone := _packed(index) - stamps.keys():
        raise UserError(
            f"{index}: {len(gone)} of its videos have no file of their own any more, e.g. {min(gone)}, and would be "
            f"lost; remove {path.parent} first if that is meant"
        )
    faults = folder.check(stamps.keys() | folder.noted())
    _refuse(folder, faults, skip_faulty)
    videos = [video for video in stamps if video not in faults]
    needed, free = len(videos) * folder.nbytes, shutil.disk_usage(folder.path).free
    if needed > free:
        raise UserError(f"{path}: needs {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free on its disk")

    def load(video: str) -> tuple[np.ndarray, str, str | None]:
        array = np.empty(folder.shape, folder.dtype)
        fault = folder.fault(video, array)
        return array, array_sha256(array), fault

    packed, digests = {}, {}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(header_bytes((len(videos), *folder.shape), folder.dtype))
        loaded = ahead(load, videos, THREADS, lambda video: folder.prefetch([video]))
        bar = tqdm(loaded, f"packing {folder.path.name}", len(videos), unit="video")
        for video, (array, digest, fault) in zip(videos, bar, strict=True):
            if fault:
                faults[video] = fault
            else:
                file.write(array.data)
                packed[video], digests[video] = stamps[video], digest
        _refuse(folder, faults, skip_faulty)
        if not packed:
            raise UserError(f"{folder.path}: holds no whole file to pack")
        file.seek(0)  # numpy leaves room in the header, so that fewer rows do not move the data
        file.write(header_bytes((len(packed), *folder.shape), folder.dtype))
        file.flush()
        index.unlink(missing_ok=True)
    made = path.stat()
    stamp = [made.st_size, made.st_mtime_ns]
    write_json(index, {"manifest": manifest, "videos": packed, "sha256": digests, "array": stamp})
    return faults


def _packed(index: Path) -> set[str]:
    """The videos of an older pack."""
    try:
        return set(read_json(index)["videos"]) if index.exists() else set()
    except (UserError, KeyError, TypeError):
        raise UserError(f"{index}: is damaged; delete it if the videos have files of their own") from None


def _refuse(folder: Folder, faults: dict[str, str], skip_faulty: bool) -> None:
    if faults and not skip_faulty:
        raise UserError(
            f"{folder.path}: {len(faults)} videos are faulty; extract them again, or leave them out with "
            f"--skip-faulty\n{describe_faults(faults)}"
        )
