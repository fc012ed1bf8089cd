"""Batches: indices into features that stay on the device, or features gathered ahead by threads.

On the device features are loaded once. From disk each batch's are read anew; while there is memory, out of the system's
cache, one for all processes of a machine.

B questions in a batch, V videos that they are about, P places (a segment of a video each), N sentences.
"""

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import starmap
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dataset.data import Data, Split
from dataset.features import FeatureStore
from dataset.kinds import KINDS, TRUTH, WORDS
from utils.ahead import ahead
from utils.errors import UserError
from utils.machine import available_memory
from utils.progress import tqdm
from utils.runtime import Runtime

CPU = torch.device("cpu")
SPARE = 0.7  # of the free memory that features may take; the rest is the model's, and the system's
AT_ONCE = 64  # videos loaded at a time


class Elsewhere:
    """Features of some videos that stay on disk: `x[rows, segments]` reads those, (P, ...), onto the device."""

    def __init__(self, store: FeatureStore, kind: str, videos: list[str], device: torch.device):
        self.store, self.kind, self.videos, self.device = store, kind, videos, device

    def __getitem__(self, where: tuple[Tensor, Tensor]) -> Tensor:
        rows, segments = (at.cpu().numpy() for at in where)
        read = self.store.read_segments(self.kind, [self.videos[row] for row in rows], segments)
        return torch.from_numpy(read).to(self.device)


class Batch(NamedTuple):
    """What the model reads, and what it should answer.

    In training each question has a video of its own, and features that were gathered have B rows, as many as it may
    need: a compiled step wants inputs of one size. Rows that `video` does not name are left as they are found in
    memory. Where videos are shared, each is named once.
    """

    inputs: dict[str, Any]  # as `nets.network.Network` takes them: tensors, or what is indexed as one
    answer: Tensor  # (B,) classes, -1 where no class is right
    choices: Tensor | None  # (B, 4) classes offered, or None for all
    rows: np.ndarray  # (B,) rows of the split


def epoch_order(
    video: np.ndarray, batch_size: int, seed: int, epoch: int, window: int, group: int = 1
) -> list[np.ndarray]:
    """The shuffled rows of each global batch of an epoch: a function of the arguments alone. The last may be short.

    `video` (Q,) is the video of each question. A `window` of 0 shuffles all questions. One of fewer videos than there
    are moves along the videos, in a line drawn anew in every epoch, and shuffles the questions about those in it: what
    is read for the first question about a video is still cached for the others, and the disk has as much to do in every
    batch. A `group` of questions about a video stays together: as many as that, or what a video has left.
    """
    random = np.random.default_rng([seed, epoch])
    if group > 1:
        mixed = random.permutation(len(video))
        by_video = mixed[np.argsort(video[mixed], kind="stable")]
        first = np.searchsorted(video[by_video], video[by_video])  # where the video begins
        number = (np.arange(len(video)) - first) // group  # of the group within its video
        _, of = np.unique(np.stack([video[by_video], number]), axis=1, return_inverse=True)
        order = by_video[np.argsort(random.permutation(of.max() + 1)[of], kind="stable")]
    elif 0 < window <= video.max():
        place = random.permutation(video.max() + 1)  # of each video in the line
        order = np.argsort(place[video] + window * random.random(len(video)))
    else:
        order = random.permutation(len(video))
    return in_batches(order, batch_size)


class Loader:
    """Makes a process's batches of a run's data. `residency` says where the features are, "device" or "disk".

    Raises `UserError` where "device" is asked for and they do not fit.
    """

    def __init__(self, data: Data, runtime: Runtime, residency: Literal["auto", "device", "disk"], workers: int):
        self.data, self.runtime, self.device, self.workers = data, runtime, runtime.device, workers
        self.residency = _settle(residency, len(data.videos) * data.store.video_bytes, runtime)
        # One stream for all epochs: memory that was used on a stream is kept for that stream.
        self.crossing = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        sentences = {"text": data.text} | ({} if data.words is None else {WORDS: data.words})
        self.sentences = {kind: torch.from_numpy(rows).to(self.device) for kind, rows in sentences.items()}
        self.kinds = [kind for kind in data.store.shapes if kind != WORDS]  # those of videos
        kinds = self.kinds if self.residency == "device" else ()
        self.features = {kind: _load(data.store, kind, data.videos, self.device, workers) for kind in kinds}

    @property
    def resident(self) -> list[Tensor]:
        """What is in every batch, the same tensors: the text and words, and features that stay on the device."""
        return [*self.sentences.values(), *self.features.values()]

    def share(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """Those of the rows that this process answers: one of W equal parts, by video, so that most are read once."""
        by_video = np.argsort(split.video[rows], kind="stable")
        return rows[np.sort(np.array_split(by_video, self.runtime.world)[self.runtime.rank])]

    def batches(
        self, split: Split, orders: Iterable[np.ndarray], once: bool = False, elsewhere: bool = False
    ) -> Iterator[Batch]:
        """A batch for each array of rows of `split`, in order; each question with its own video, or a video `once`.

        From disk, kinds that are large may stay `elsewhere`, and are read where the network looks.
        """
        wanted = ((rows, *np.unique(split.video[rows], return_inverse=True)) for rows in orders)
        make = partial(self._batch, split, once)
        if self.residency == "device":
            return (make(*indices, self.features) for indices in wanted)
        kinds = [kind for kind in self.kinds if not (elsewhere and KINDS[kind].by_segment)]
        gathered = ahead(partial(self._gather, kinds), wanted, self.workers, partial(self._prefetch, kinds))
        return _overlapped(make, gathered, self.crossing) if self.crossing else starmap(make, gathered)

    def by_video(self, split: Split, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Batches of these rows for evaluation: questions about a video come together, and what depends on it once."""
        orders = in_batches(rows[np.argsort(split.video[rows], kind="stable")], batch_size)
        return self.batches(split, orders, once=True, elsewhere=True)

    def _prefetch(self, kinds: Collection[str], wanted: tuple[np.ndarray, ...]) -> None:
        _, videos, _ = wanted
        for kind in kinds:
            self.data.store.prefetch(kind, [self.data.videos[i] for i in videos])

    def _gather(
        self, kinds: Collection[str], wanted: tuple[np.ndarray, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Tensor | Elsewhere]]:
        """Read the features of a batch's videos, each once; those of other `kinds` are left where they are.

        Returns what `_batch` takes: the rows of the split, those of the features gathered, and whose each is.
        """
        rows, videos, of = wanted
        names = [self.data.videos[i] for i in videos]
        gathered: dict[str, Tensor | Elsewhere] = {}
        for kind in self.kinds:
            if kind in kinds:
                gathered[kind] = held = _empty(self.data.store, kind, len(rows), pinned=self.device.type == "cuda")
                self.data.store.read(kind, names, held[: len(names)].numpy())
            else:
                gathered[kind] = Elsewhere(self.data.store, kind, names, self.device)
        return rows, np.arange(len(videos)), of, gathered

    def _batch(
        self,
        split: Split,
        once: bool,
        rows: np.ndarray,
        videos: np.ndarray,
        of: np.ndarray,
        features: Mapping[str, Tensor | Elsewhere],
    ) -> Batch:
        """A batch of features and indices: `videos` (V,) rows of the features, `of` (B,) whose each question is."""
        video, asked = (videos, of) if once else (videos[of], np.arange(len(of)))
        numbers = np.stack([asked, split.question[rows], split.prompt[rows], split.answer[rows]])
        if split.choices is not None:
            numbers = np.concatenate([numbers, split.choices[rows].T])
        indices, answer, choices = self._here(torch.from_numpy(numbers)).split([3, 1, len(numbers) - 4])  # one transfer
        inputs = {kind: self._here(held) if isinstance(held, Tensor) else held for kind, held in features.items()}
        inputs |= {**self.sentences, "video": self._here(torch.from_numpy(video))}
        inputs |= zip(("asked", "question", "prompt"), indices, strict=True)
        if split.true is not None:
            inputs[TRUTH] = self._here(torch.from_numpy(split.true[rows]))
        return Batch(inputs, answer[0], choices.T if len(choices) else None, rows)

    def _here(self, x: Tensor) -> Tensor:
        """`x` on the device, without waiting for the transfer."""
        if self.device.type == "cuda" and x.device.type == "cpu":
            x = x.pin_memory()  # nothing is done where it is pinned already
        return x.to(self.device, non_blocking=True)


def in_batches(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """The rows of a split, in batches; the last may be short."""
    return np.split(rows, range(batch_size, len(rows), batch_size))


def _load(store: FeatureStore, kind: str, videos: list[str], device: torch.device, workers: int) -> Tensor:
    """The videos' features of a kind, (V, T, ...), on a device; the host holds a few videos at a time beside them."""
    held = _empty(store, kind, len(videos), device)

    def load(part: slice) -> None:
        held[part] = torch.from_numpy(store.read(kind, videos[part]))

    parts = [slice(start, start + AT_ONCE) for start in range(0, len(videos), AT_ONCE)]
    loaded = ahead(load, parts, workers, lambda part: store.prefetch(kind, videos[part]))
    for _ in tqdm(loaded, f"loading {kind}", len(parts), delay=1, leave=False, unit_scale=AT_ONCE, unit="video"):
        pass
    return held


def _empty(store: FeatureStore, kind: str, videos: int, device: torch.device = CPU, pinned: bool = False) -> Tensor:
    """Room for a kind of the features of some videos, (videos, T, ...), in the stored dtype."""
    shape, dtype = (videos, *store.shapes[kind]), store.dtypes[kind]
    if device.type == "cpu" and not pinned:
        return torch.from_numpy(np.empty(shape, dtype))  # in huge pages; to fill what torch makes takes thrice as long
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, device=device, pin_memory=pinned)


def _overlapped(make: Callable[..., Batch], gathered: Iterable[tuple], crossing: torch.cuda.Stream) -> Iterator[Batch]:
    """`starmap(make, gathered)`, each batch brought to the GPU on a stream while it computes with the one before.

    The host stays at most two batches ahead, as each holds memory of the GPU until it has been used.
    """
    used: deque[torch.cuda.Event] = deque()
    for parts in gathered:
        if len(used) == 2:
            used.popleft().synchronize()
        computing = torch.cuda.current_stream()
        with torch.cuda.stream(crossing):
            batch = make(*parts)
        computing.wait_stream(crossing)
        for x in (*batch.inputs.values(), batch.answer, batch.choices):
            if isinstance(x, Tensor):
                x.record_stream(computing)  # its memory was made for the other stream
        yield batch
        used.append(computing.record_event())


def _settle(residency: str, needed: int, runtime: Runtime) -> str:
    """Where features of so many bytes are to be, "device" or "disk", the same in all processes.

    Raises `UserError` where "device" is asked for and a process has not the room.
    """
    if residency == "disk":
        return "disk"
    if runtime.device.type == "cuda":
        free = torch.cuda.mem_get_info(runtime.device)[0]
    else:
        free = available_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's, on this machine
    room = SPARE * min(runtime.gather(free))
    if needed <= room:
        return "device"
    if residency == "device":
        raise UserError(
            f"data.residency device: the features take {needed / 1e9:.1f} GB, {room / 1e9:.1f} GB are free for them; "
            "take disk, best with packed files (python -m scripts.pack_features)"
        )
    return "disk"
