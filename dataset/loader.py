"""Batches: indices into features that stay on the device, or features gathered ahead by threads.

B questions in a batch, V videos that it draws from, N sentences.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import starmap
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset.data import Data, Split
from dataset.features import FeatureStore
from utils.errors import UserError
from utils.machine import available_memory
from utils.runtime import Runtime

CPU = torch.device("cpu")
SPARE = 0.7  # of the free memory that features may take; the rest is the model's, and the system's
AT_ONCE = 64  # videos read at a time
WINDOW = 512  # videos that are asked about at a time where features come from disk: 1 GB at 14 tokens


class Batch(NamedTuple):
    """What the model reads, and what it should answer.

    Features that were gathered for the batch have B rows, as many as it may need: a compiled step wants inputs of one
    size. Rows that `video` does not name are left as they are found in memory.
    """

    inputs: dict[str, Tensor | None]  # audio, frame, token (V, T, ...); text (N, Dq); video, question, prompt (B,)
    answer: Tensor  # (B,) classes, -1 where no class is right
    choices: Tensor | None  # (B, 4) classes offered, or None for all
    rows: np.ndarray  # (B,) rows of the split


def epoch_order(
    video: np.ndarray, batch_size: int, seed: int, epoch: int, window: int | None = None
) -> list[np.ndarray]:
    """The shuffled rows of each global batch of an epoch: a function of the arguments alone. The last may be short.

    `video` (Q,) is the video of each question. With a `window` of fewer videos than there are, those about a video come
    close together: videos stand in a line, drawn anew in every epoch, and a window moves along it whose questions are
    shuffled. What is read for the first question about a video is still cached for the others, and the disk has as
    much to do in every batch.
    """
    random = np.random.default_rng([seed, epoch])
    if window and window <= video.max():
        place = random.permutation(video.max() + 1)  # of each video in the line
        order = np.argsort(place[video] + window * random.random(len(video)))
    else:
        order = random.permutation(len(video))
    return np.split(order, range(batch_size, len(video), batch_size))


class Loader:
    """Makes a process's batches of a run's data; `residency` as in `DataConfig`.

    Of W processes each holds all features, or where these do not fit, every W-th video's: `shards` is 1 or W. Raises
    `UserError` where the features do not fit the memory that `residency` names.
    """

    def __init__(self, data: Data, runtime: Runtime, residency: str, workers: int):
        self.data = data
        self.runtime = runtime
        self.device = runtime.device
        self.workers = workers
        self.residency, self.shards = _settle(residency, len(data.videos) * data.store.video_bytes, runtime)
        self.window = WINDOW if self.residency == "disk" else None
        # One stream for all epochs: memory that was used on a stream is kept for that stream.
        self.crossing = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self.text = torch.from_numpy(data.text).to(self.device)
        self.features = {}
        if self.residency != "disk":
            device = self.device if self.residency == "device" else torch.device("cpu")
            videos = data.videos[runtime.rank % self.shards :: self.shards]
            for kind in data.store.shapes:
                self.features[kind] = _load(data.store, kind, videos, device, workers)

    @property
    def place(self) -> str:
        """Where the features are, to be read."""
        return self.residency + (f", a share in each of {self.shards} processes" if self.shards > 1 else "")

    @property
    def resident(self) -> list[Tensor]:
        """What is in every batch, the same tensors: the text, and features that stay on the device."""
        return [self.text, *(self.features.values() if self.residency == "device" else ())]

    def share(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """Those of the rows that this process answers: the ones about the videos that it holds.

        Where each holds all, it is one of W equal parts, by video: most videos are then read by one machine alone.
        """
        if self.shards > 1:
            return rows[split.video[rows] % self.shards == self.runtime.rank]
        by_video = np.argsort(split.video[rows], kind="stable")
        return rows[np.sort(np.array_split(by_video, self.runtime.world)[self.runtime.rank])]

    def batches(self, split: Split, orders: Iterable[np.ndarray]) -> Iterator[Batch]:
        """A batch for each array of rows of `split`, in order; all of them in this process's share."""
        if self.residency == "device":
            return (self._batch(split, rows, self.features, split.video[rows] // self.shards) for rows in orders)

        def prefetch(rows: np.ndarray) -> None:
            videos = [self.data.videos[i] for i in np.unique(split.video[rows])]
            for kind in self.data.store.shapes:
                self.data.store.prefetch(kind, videos)

        gathered = _ahead(
            lambda rows: self._gather(split, rows), orders, self.workers, None if self.features else prefetch
        )
        make = partial(self._batch, split)
        return _overlapped(make, gathered, self.crossing) if self.crossing else starmap(make, gathered)

    def _gather(self, split: Split, rows: np.ndarray) -> tuple[np.ndarray, dict[str, Tensor], np.ndarray]:
        """The features of the batch's videos, each once, and the row of each question's video among them."""
        videos, video = np.unique(split.video[rows], return_inverse=True)
        gathered = {}
        for kind in self.data.store.shapes:
            gathered[kind] = _empty(self.data.store, kind, len(rows), pinned=self.device.type == "cuda")
            held = gathered[kind][: len(videos)]
            if self.features:
                torch.index_select(self.features[kind], 0, torch.from_numpy(videos // self.shards), out=held)
            else:
                self.data.store.read(kind, [self.data.videos[i] for i in videos], held.numpy())
        return rows, gathered, video

    def _batch(self, split: Split, rows: np.ndarray, features: dict[str, Tensor], video: np.ndarray) -> Batch:
        numbers = np.stack([video, split.question[rows], split.prompt[rows], split.answer[rows]])
        if split.choices is not None:
            numbers = np.concatenate([numbers, split.choices[rows].T])
        video, question, prompt, answer, *choices = self._here(torch.from_numpy(numbers))  # one transfer for all
        inputs = dict.fromkeys(("audio", "frame", "token")) | {
            kind: self._here(held) for kind, held in features.items()
        }
        inputs |= {"text": self.text, "video": video, "question": question, "prompt": prompt}
        return Batch(inputs, answer, torch.stack(choices, dim=1) if choices else None, rows)

    def _here(self, x: Tensor) -> Tensor:
        """`x` on the device, without waiting for the transfer."""
        if self.device.type == "cuda" and x.device.type == "cpu":
            x = x.pin_memory()  # nothing is done where it is pinned already
        return x.to(self.device, non_blocking=True)


def _load(store: FeatureStore, kind: str, videos: list[str], device: torch.device, workers: int) -> Tensor:
    """The videos' features of a kind, (V, T, ...), on a device; the host holds a few videos at a time beside them."""
    held = _empty(store, kind, len(videos), device)

    def load(part: slice) -> None:
        held[part] = torch.from_numpy(store.read(kind, videos[part]))

    parts = [slice(start, start + AT_ONCE) for start in range(0, len(videos), AT_ONCE)]
    loaded = _ahead(load, parts, workers, lambda part: store.prefetch(kind, videos[part]))
    for _ in tqdm(loaded, f"loading {kind}", len(parts), delay=1, leave=False, unit_scale=AT_ONCE, unit="video"):
        pass
    return held


def _empty(store: FeatureStore, kind: str, videos: int, device: torch.device = CPU, pinned: bool = False) -> Tensor:
    """Room for a kind of the features of some videos, (videos, T, ...), in the stored dtype."""
    shape, dtype = (videos, *store.shapes[kind]), store.dtypes[kind]
    if device.type == "cpu" and not pinned:
        return torch.from_numpy(np.empty(shape, dtype))  # in huge pages; to fill what torch makes takes thrice as long
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, device=device, pin_memory=pinned)


def _ahead(read: Callable, items: Iterable, workers: int, prefetch: Callable | None = None) -> Iterator:
    """`map(read, items)` in threads, at most two items a thread ahead of the consumer.

    `prefetch(item)` comes as early, in a thread of its own: to ask a busy disk is to wait. What it raises, `read` will.
    """
    with ThreadPoolExecutor(workers) as pool, ThreadPoolExecutor(1) as asker:
        pending: deque[Future] = deque()
        try:
            for item in items:
                if prefetch:
                    asker.submit(prefetch, item)
                pending.append(pool.submit(read, item))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # whoever stops early waits for nothing that has not begun
            for executor in (pool, asker):
                executor.shutdown(wait=False, cancel_futures=True)


def _overlapped(make: Callable[..., Batch], gathered: Iterable[tuple], crossing: torch.cuda.Stream) -> Iterator[Batch]:
    """`starmap(make, gathered)`, each batch brought to the GPU on a stream while it computes with the one before.

    The host stays at most two batches ahead, as each holds memory of the GPU until it has been used.
    """
    used = deque()
    for parts in gathered:
        if len(used) == 2:
            used.popleft().synchronize()
        computing = torch.cuda.current_stream()
        with torch.cuda.stream(crossing):
            batch = make(*parts)
        computing.wait_stream(crossing)
        for x in (*batch.inputs.values(), batch.answer, batch.choices):
            if x is not None:
                x.record_stream(computing)  # its memory was made for the other stream
        yield batch
        used.append(computing.record_event())


def _settle(residency: str, needed: int, runtime: Runtime) -> tuple[str, int]:
    """Choose for "auto", and in how many shards, the same in all processes; on the CPU, "memory" is "device".

    Raises `UserError` where a named choice does not fit.
    """
    device, world = runtime.device, runtime.world
    host = SPARE * available_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's, on this machine
    room = {"device": host} if device.type == "cpu" else {"device": SPARE * torch.cuda.mem_get_info(device)[0]}
    room["memory"] = host
    room = {place: min(each[place] for each in runtime.gather(room)) for place in room}
    choices = [(place, shards) for place in room for shards in dict.fromkeys((1, world))]
    fitting = [(place, shards) for place, shards in choices if needed / shards <= room[place]] + [("disk", 1)]
    chosen = next((choice for choice in fitting if residency in ("auto", choice[0])), None)
    if chosen is None:
        shared_out = f", {needed / world / 1e9:.1f} GB in each of {world} processes" if world > 1 else ""
        raise UserError(
            f"data.residency {residency}: the features take {needed / 1e9:.1f} GB{shared_out}, "
            f"{room[residency] / 1e9:.1f} GB of it are free; {fitting[0][0]} would do"
        )
    place, shards = chosen
    return "device" if place == "memory" and device.type == "cpu" else place, shards
