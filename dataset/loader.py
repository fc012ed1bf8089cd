"""Batches: indices into features that stay on the device, or features gathered ahead by threads.

B questions in a batch, V videos that it draws from, N sentences.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dataset.data import Data, Split
from utils.errors import UserError

SPARE = 0.7  # of the free memory that features may take; the rest is the model's, and the system's


class Batch(NamedTuple):
    """What the model reads, and what it should answer."""

    inputs: dict[str, Tensor | None]  # audio, frame, token (V, T, ...); text (N, Dq); video, question, prompt (B,)
    answer: Tensor  # (B,) classes, -1 where no class is right
    choices: Tensor | None  # (B, 4) classes offered, or None for all
    rows: np.ndarray  # (B,) rows of the split


def epoch_order(questions: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The shuffled rows of each global batch of an epoch: a function of seed and epoch alone. The last may be short."""
    order = np.random.default_rng([seed, epoch]).permutation(questions)
    return np.split(order, range(batch_size, questions, batch_size))


class Loader:
    """Makes batches of a run's data for one device; `residency` as in `DataConfig`.

    Raises `UserError` where the features do not fit the memory that `residency` names.
    """

    def __init__(self, data: Data, device: torch.device, residency: str, workers: int):
        self.data = data
        self.device = device
        self.workers = workers
        self.residency = _settle(residency, len(data.videos) * data.store.video_bytes, device)
        self.text = torch.from_numpy(data.text).to(device)
        self.features = {}
        if self.residency != "disk":
            for kind in data.store.shapes:
                held = torch.from_numpy(data.store.read(kind, data.videos))
                self.features[kind] = held.to(device) if self.residency == "device" else held

    def batches(self, split: Split, orders: Iterable[np.ndarray]) -> Iterator[Batch]:
        """A batch for each array of rows of `split`, in order."""
        if self.residency == "device":
            return (self._batch(split, rows, self.features, split.video[rows]) for rows in orders)
        return (
            self._batch(split, rows, features, video)
            for rows, features, video in _ahead(lambda rows: self._gather(split, rows), orders, self.workers)
        )

    def _gather(self, split: Split, rows: np.ndarray) -> tuple[np.ndarray, dict[str, Tensor], np.ndarray]:
        """The features of the batch's videos, each once, and the row of each question's video among them."""
        videos, video = np.unique(split.video[rows], return_inverse=True)
        gathered = {}
        for kind in self.data.store.shapes:
            if self.features:
                held = self.features[kind][torch.from_numpy(videos)]
            else:
                held = torch.from_numpy(self.data.store.read(kind, [self.data.videos[i] for i in videos]))
            gathered[kind] = held.pin_memory() if self.device.type == "cuda" else held
        return rows, gathered, video

    def _batch(self, split: Split, rows: np.ndarray, features: dict[str, Tensor], video: np.ndarray) -> Batch:
        def here(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(self.device)

        inputs = dict.fromkeys(("audio", "frame", "token"))
        inputs |= {kind: held.to(self.device, non_blocking=True) for kind, held in features.items()}
        inputs |= {"text": self.text, "video": here(video)}
        inputs |= {"question": here(split.question[rows]), "prompt": here(split.prompt[rows])}
        choices = None if split.choices is None else here(split.choices[rows])
        return Batch(inputs, here(split.answer[rows]), choices, rows)


def _ahead(read: Callable, items: Iterable, workers: int) -> Iterator:
    """`map(read, items)` in threads, at most two items a thread ahead of the consumer."""
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future] = deque()
        for item in items:
            pending.append(pool.submit(read, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _settle(residency: str, needed: int, device: torch.device) -> str:
    """Choose for "auto"; on the CPU, "memory" is "device". Raises `UserError` where a named choice does not fit."""
    host = SPARE * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if device.type == "cpu":
        free = {"device": host, "memory": host, "disk": np.inf}
    else:
        free = {"device": SPARE * torch.cuda.mem_get_info(device)[0], "memory": host, "disk": np.inf}
    fitting = [place for place, room in free.items() if needed <= room]
    if residency not in ("auto", *fitting):
        raise UserError(
            f"data.residency {residency}: the features take {needed / 1e9:.1f} GB, "
            f"{free[residency] / 1e9:.1f} GB of it are free; {fitting[0]} would do"
        )
    chosen = fitting[0] if residency == "auto" else residency
    return "device" if chosen == "memory" and device.type == "cpu" else chosen
