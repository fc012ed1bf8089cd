"""One kind of feature on disk: a folder with one `.npy` file per video.

Files are faulty when they are missing, cut off, pickled, of another shape or dtype than the folder's manifest says,
hold NaN or infinite values, or other data than extraction noted. All but the last two is seen from a file's first bytes
and its length, so that tens of thousands of files are checked in seconds; nothing is ever unpickled.
"""

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from utils.ahead import ask_all
from utils.errors import UserError
from utils.files import array_sha256, fits, header_bytes, npy_header, seal, told, unseal, video_file
from utils.status import STATUS, read_status

FLOATS = ("float16", "float32")
EXAMPLES = 3  # videos named of a fault
RECORD = ".verified.json"  # in the folder: the digests of what is whole, so that it is read once


def all_finite(array: np.ndarray) -> bool:
    """Say whether a float16 or float32 array is free of NaN and infinity.

    Both have every exponent bit set. Read as integers they are the largest positive numbers and, with the sign bit,
    the largest unsigned ones, so two maxima find them: for halves about 30 times faster than `np.isfinite`.
    """
    bits = 8 * array.itemsize
    infinity = int(np.array(np.inf, array.dtype).view(f"u{array.itemsize}"))
    signed, unsigned = array.view(f"i{array.itemsize}"), array.view(f"u{array.itemsize}")
    return bool(signed.max() < infinity and unsigned.max() < infinity + (1 << bits - 1))


def describe_faults(faults: dict[str, str]) -> str:
    """Say how many videos have which fault, most frequent first, with a few examples: a line per kind of reason.

    Reasons that differ in numbers alone are one kind, told by its first. A video with several faults counts for each.
    """
    groups = defaultdict(list)
    for video, reasons in faults.items():
        for reason in reasons.splitlines():
            groups[re.sub(r"\d+", "#", reason)].append((video, reason))
    lines = []
    for group in sorted(groups.values(), key=len, reverse=True):
        shown = ", ".join(video for video, _ in group[:EXAMPLES]) + (", ..." if len(group) > EXAMPLES else "")
        lines.append(f"{len(group):6d}  {group[0][1]}: {shown}")
    return "\n".join(lines)


class Folder:
    """The files `<path>/<video_id>.npy`, each one array of the same shape and dtype."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype, first: Path | None = None):
        self.path, self.shape, self.dtype = path, shape, dtype
        self.first = first  # the folder with the status files of extraction, if it made these
        self.header = header_bytes(shape, dtype)
        self.nbytes = int(np.prod(shape)) * dtype.itemsize  # of one video

    def stamps(self) -> dict[str, list[int]]:
        """Map every video found to its file's [bytes, time of change in ns], which together tell a changed file."""
        with os.scandir(self.path) as entries:
            files = [file for file in entries if file.name.endswith(".npy") and file.name[0] != "." and file.is_file()]
            found = {file.name.removesuffix(".npy"): file.stat() for file in files}
        return {video: [found[video].st_size, found[video].st_mtime_ns] for video in sorted(found)}

    def fault(self, video: str, out: np.ndarray | None = None) -> str | None:
        """Say what is wrong with a video's file, or None; its data go into `out`, if given, and must be finite."""
        try:
            self._fill(video, out)
        except UserError as error:
            return " ".join(str(error).removeprefix(f"{self.path / video}.npy: ").split())  # numpy's may have lines
        return "holds NaN or infinite values" if out is not None and not all_finite(out) else None

    def _noted(self, video: str) -> str | None:
        """The SHA-256 that extraction noted of a video's data; None where there is none."""
        return read_status(self.first, video).get("features", {}).get(self.path.name) if self.first else None

    def noted(self) -> set[str]:
        """The videos of which extraction noted that they have features of this kind, whether the files are there."""
        notes = (self.first / STATUS).glob("[!.]*.json") if self.first else ()
        return {note.stem for note in notes if self._noted(note.stem)}

    def check(self, videos: Iterable[str]) -> dict[str, str]:
        """Map each faulty video to the reason, as far as headers and lengths tell."""
        return {video: fault for video, fault in ask_all(self.fault, videos, self.path.name) if fault}

    def examine(self, videos: Iterable[str], keep: bool = True) -> tuple[dict[str, str], dict[str, str]]:
        """The SHA-256 of each whole video's data, and the fault of every other one.

        What was whole before is read again where its file's size or time of change is another. Where `keep`, what is
        whole is noted in `RECORD`. A record that is broken counts as none; where none can be written, all is simply
        read again the next time.
        """
        made_for = {"shape": list(self.shape), "dtype": self.dtype.name}
        known: dict[str, list] = {}  # by video: bytes and time of change of its file, SHA-256 of its data
        with contextlib.suppress(UserError, TypeError, KeyError):
            held = unseal(self.path / RECORD)
            known = dict(held["whole"]) if held["made_for"] == made_for else {}
        stamps = self.stamps()  # taken before reading: a file that changes meanwhile is read again next time
        videos = list(videos)
        changed = [video for video in videos if known.get(video, [])[:2] != stamps.get(video)]

        def read(video: str) -> tuple[str, str | None]:
            array = np.empty(self.shape, self.dtype)
            fault, digest = self.fault(video, array), array_sha256(array)
            if not fault and self._noted(video) not in (None, digest):
                fault = "holds other data than were extracted; delete it and extract it again"
            return digest, fault

        news, faults = {}, {}
        for video, (digest, fault) in ask_all(read, changed, self.path.name):
            if fault:
                faults[video] = fault
            else:
                news[video] = [*stamps.get(video, (0, 0)), digest]
        known |= news
        if news and keep:
            with contextlib.suppress(UserError):
                seal(self.path / RECORD, {"made_for": made_for, "whole": known})
        return {video: known[video][2] for video in videos if video not in faults}, faults

    def prefetch(self, videos: Iterable[str]) -> None:
        """Ask the disk for the videos' files; returns before they are there. Raises `OSError` for one that is not."""
        for video in videos:
            with open(video_file(self.path, video, ".npy"), "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def read(self, videos: list[str], out: np.ndarray | None = None) -> np.ndarray:
        """Return the videos' arrays, stacked (into `out` if given); raises `UserError` for a file that is not whole."""
        out = np.empty((len(videos), *self.shape), self.dtype) if out is None else out
        for video, array in zip(videos, out, strict=True):
            self._fill(video, array)
        return out

    def read_segments(self, videos: list[str], segments: np.ndarray, out: np.ndarray) -> None:
        """Read one segment of each of the videos (P,) into `out` (P, ...); raises `UserError` as `read`."""
        size = self.nbytes // self.shape[0]  # of a segment
        for video, segment, array in zip(videos, segments.tolist(), out, strict=True):
            self._fill(video, array, segment * size)

    def _fill(self, video: str, out: np.ndarray | None, begin: int = 0) -> None:
        """Compare a file's header and length with the folder's, then read its data from byte `begin` on into `out`."""
        path = video_file(self.path, video, ".npy")
        try:
            with open(path, "rb", buffering=0) as file:
                head, size = file.read(len(self.header)), os.fstat(file.fileno()).st_size
                if head != self.header or size != len(self.header) + self.nbytes:
                    shape, dtype = npy_header(path)  # faulty, or whole and padded otherwise by another program
                    if (shape, dtype) != (self.shape, self.dtype):
                        raise UserError(f"{path}: is {dtype} {shape}, not {self.dtype} {self.shape}")
                if out is not None:
                    file.seek(begin - self.nbytes, os.SEEK_END)
                    if file.readinto(out.data) != out.nbytes:
                        raise UserError(f"{path}: became shorter while it was read")
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def plain_folder(path: Path, sizes: Sequence[int | None]) -> Folder:
    """Open a folder without a manifest: shape and dtype are those of the first file that fits `sizes` (None: any).

    Raises `UserError` where there is none.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; put the .npy files there, or a link to their folder")
    seen = "it is empty"
    for file in sorted(path.glob("[!.]*.npy")):
        try:
            shape, dtype = npy_header(file)
        except UserError:
            continue  # `check` lists it
        if fits(shape, sizes) and dtype.name in FLOATS:
            return Folder(path, shape, dtype)
        seen = f"{file.name} is {dtype} {shape}"
    raise UserError(f"{path}: no file is {' or '.join(FLOATS)} ({told(sizes)}); {seen}")
