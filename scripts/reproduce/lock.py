"""A folder that one queue at a time works in, together with the processes that it starts there.

Where the disk has `flock`, that is it: the system frees it when all who hold it have ended. Network drives may have
none; then a file says who holds the folder.
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import time
from pathlib import Path

from utils.errors import UserError

WITHOUT_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
PATIENCE = 60.0  # seconds in which whoever made a file will have written it


class Lock:
    """A folder that is held, by a descriptor that children inherit or by a file that names them."""

    def __init__(self, descriptor: int | None = None, path: Path | None = None):
        self._descriptor, self._path = descriptor, path

    @property
    def descriptors(self) -> list[int]:
        """What a child must inherit, so that the folder is held as long as it lives."""
        return [] if self._descriptor is None else [self._descriptor]

    def share(self, process: int) -> None:
        """Say that a child holds the folder too."""
        if self._path:
            _write(self._path, os.getpid(), process)

    def release(self) -> None:
        """Let go of it; children hold it as long as they live."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        else:
            self._path.unlink(missing_ok=True)


def lock(folder: Path) -> Lock | None:
    """Hold a folder, which is made where there is none; None where others hold it.

    Raises `UserError` where it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in WITHOUT_FLOCK:
                return _by_file(folder)
            raise
    except BlockingIOError:
        return None
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
    return Lock(descriptor)


def _by_file(folder: Path) -> Lock | None:
    """Hold a folder by the file `.lock-<n>`: after a dead owner, whoever makes the next number is the one.

    Files of the dead stay, so that a number is never taken twice by those who look at the same time.
    """
    number = max((int(path.name.partition("-")[2]) for path in folder.glob(".lock-*")), default=0)
    if number and _held(folder / f".lock-{number}"):
        return None
    path = folder / f".lock-{number + 1}"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return None
    _write(path, os.getpid())
    return Lock(path=path)


def _write(path: Path, *processes: int) -> None:
    path.write_text(json.dumps({"host": platform.node(), "processes": [[each, _began(each)] for each in processes]}))


def _held(path: Path) -> bool:
    """Whether an owner that a file names still lives; one on another machine counts as living."""
    try:
        owner = json.loads(path.read_text())
    except FileNotFoundError:
        return False
    except ValueError:  # not written yet
        return time.time() - path.stat().st_mtime < PATIENCE
    if owner["host"] != platform.node():
        return True
    return any(_lives(process) and _began(process) == began for process, began in owner["processes"])


def _lives(process: int) -> bool:
    try:
        with contextlib.suppress(PermissionError):  # it is somebody else's
            os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _began(process: int) -> str | None:
    """When a process began, by the system's own count, as another may have its number later; None if not known."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    return None
