"""Videos read ahead in processes of their own, which may die of a strange file without ending the run."""

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch

from feat_script.media import MediaError
from utils.files import sha256
from utils.progress import tqdm
from utils.status import stamp

AHEAD = 2  # videos that a process reads ahead
LONGEST = 250  # bytes of a name: of 255 that disks allow, ".json" is taken

Read = Callable[[Path], tuple[np.ndarray, dict[str, Any]]]  # in a worker: a video -> what to encode, its status
Item = tuple[str, np.ndarray | None, dict[str, Any]]  # an id, what was read or None, the status with any "error"


def read_all(videos: dict[str, Path], read: Read, workers: int) -> Iterator[Item]:
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
    with ProcessPoolExecutor(workers, initializer=begin_worker) as pool:
        pending: deque = deque()
        for video in videos:
            pending.append(pool.submit(_read_one, *video, read))
            if len(pending) == AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def begin_worker() -> None:
    """Set up a process that works for another: one thread; Ctrl-C is the parent's business; without it, this ends."""
    parent = multiprocessing.parent_process()
    assert parent, "not in the main process"

    def follow() -> None:
        parent.join()
        os._exit(1)

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=follow, daemon=True).start()


def _read_one(name: str, path: Path, read: Read) -> Item:
    try:
        _check_name(name)
        before = stamp(path)
        data, status = read(path)
        digest = sha256(path)
        if stamp(path) != before:
            raise MediaError("changed while it was read; run again")
    except MediaError as error:
        return name, None, {"error": str(error)}
    except Exception as error:  # one strange file must not end a run of days; it is listed with this reason
        return name, None, {"error": f"{type(error).__name__}: {error}"}
    return name, data, {"file": path.name, "source": before | {"sha256": digest}, **status}


def _check_name(name: str) -> None:
    """Raise `MediaError` for the name of a video that no file of features can have."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise MediaError("its name is not UTF-8; rename the file") from None
    if size > LONGEST:
        raise MediaError(f"its name has {size} bytes, but features' can have {LONGEST}; rename the file")
