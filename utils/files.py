"""Files that are whole or absent: atomic writes, checked reads."""

import contextlib
import hashlib
import io
import json
import os
import platform
import re
import secrets
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError

HOST = re.sub(r"\W", "", platform.node())[:16]  # of a shared disk's temporary files: whose they are


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn the `OSError` of a block that writes `path` into a `UserError` of path and reason."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); what stood there before is untouched") from error


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` if the block succeeds, remove it if not.

    A process killed at any moment leaves the old file or the new one, never half of either. The temporary name
    starts with a dot, keeps the ending of `path` and is short and random, so several processes, of several machines or
    containers, may write at once. Raises `UserError` for what the disk refuses, in the block too.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{HOST}-{secrets.token_hex(8)}{path.suffix[-8:]}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` atomically; a full or read-only disk is a `UserError` that names the file."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def create(path: str | Path, data: bytes) -> bool:
    """Write `data` to a file that is not there yet, and return whether this process was the one to make it.

    Exclusive creation is what every file system has, those without hard links too.
    """
    with writing(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)  # it is never written again: a loss of power must not leave it empty
        except OSError:
            os.unlink(path)
            raise
    return True


def json_bytes(value: Any) -> bytes:
    """`value` as indented JSON; what is no text, such as half a character in a file's name, as an escape."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes(path, json_bytes(value))


def read_json(path: str | Path) -> Any:
    """Read a JSON file, with or without a byte-order mark; a missing or malformed one is a `UserError` naming it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error


def seal(path: str | Path, value: dict[str, Any]) -> None:
    """Write `value` as JSON, with a digest of itself by which `unseal` finds damage."""
    write_json(path, value | {"digest": _digest(value)})


def unseal(path: str | Path) -> Any:
    """Read what `seal` wrote; without a digest it is of an older release. Raises `UserError` where it is damaged."""
    value = read_json(path)
    if isinstance(value, dict) and value.pop("digest", None) not in (None, _digest(value)):
        raise UserError(f"{path}: holds something else than was written")
    return value


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def save_npy(path: str | Path, array: np.ndarray) -> None:
    """Write `array` as `.npy`, atomically, without pickling. Raises `UserError` for a full or read-only disk."""
    buffer = io.BytesIO()  # numpy's own writing to a file does not say why it failed
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getbuffer())


def header_bytes(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """What `np.save` writes before the data of an array of this shape and dtype."""
    buffer = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def holds_npy(path: str | Path, shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether a file is a whole `.npy` of this shape and dtype."""
    try:
        return npy_header(path) == (shape, dtype)
    except UserError:
        return False


def npy_header(path: str | Path) -> tuple[tuple[int, ...], np.dtype]:
    """Return (shape, dtype) of an `.npy` file after comparing its length with them; reads the header only.

    Raises `UserError` for a file that is missing, empty, truncated, padded, pickled or no `.npy` at all.
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            held = os.fstat(file.fileno()).st_size - file.tell()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, SyntaxError, tokenize.TokenError) as error:  # a spoilt header may be any of these
        raise UserError(f"{path}: not a whole .npy file ({error})") from error
    if dtype.hasobject:
        raise UserError(f"{path}: holds pickled objects, which are never loaded; save a plain array")
    if fortran:
        raise UserError(f"{path}: is stored in column order; save np.ascontiguousarray(array)")
    wanted = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if held != wanted:
        raise UserError(f"{path}: truncated or overlong, {held} bytes of data where shape {shape} needs {wanted}")
    return shape, dtype


def fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    """Whether a shape has the wanted sizes; None fits any."""
    return len(shape) == len(wanted) and all(size in (None, n) for n, size in zip(shape, wanted, strict=True))


def told(sizes: Sequence[int | None]) -> str:
    """Sizes as errors tell them, such as "60, any"."""
    return ", ".join("any" if size is None else str(size) for size in sizes)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal digits. Raises `UserError` where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 of an array's data, row by row, whatever header its file has."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def video_file(folder: str | Path, video: str, ending: str) -> Path:
    """The file of a video in `folder`. Raises `UserError` for an id that is no file name: `../x` would leave it."""
    path = Path(folder) / f"{video}{ending}"
    try:
        os.fsencode(video)
    except UnicodeEncodeError:  # half a character, which JSON can say
        video = ""
    if not video or "/" in video or "\0" in video:
        raise UserError(f"{path}: a video's id must be a file name, without the folder and the ending")
    return path
