"""Files that are whole or absent: atomic writes, checked reads."""

import contextlib
import hashlib
import json
import os
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` if the block succeeds, remove it if not.

    A process killed at any moment leaves the old file or the new one, never half of either. The temporary name
    starts with a dot, keeps the ending of `path` and carries the process id, so several processes may write at once.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` atomically; a full disk is a `UserError` that names the file."""
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); what stood there before is untouched"
        ) from error


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or malformed one is a `UserError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error


def save_npy(path: str | Path, array: np.ndarray) -> None:
    """Write `array` as `.npy`, atomically, without pickling. Raises the plain `OSError` of a full disk."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


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


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
