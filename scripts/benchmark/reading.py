"""The ways in which the benchmark reads features: alone, and while a training step waits for them."""

import os
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset.loader import WINDOW, Loader, epoch_order
from scripts.benchmark.data import Features, kinds, open_data, video_bytes
from scripts.benchmark.measure import Mark, Task, Timing, run_seconds, synchronize
from scripts.benchmark.plain import PlainReader
from scripts.benchmark.train import Step
from utils.cuda_graph import WARM_UP
from utils.errors import UserError
from utils.runtime import Runtime

LAYOUTS = {"plain": "public", "files": "files", "packed": "packed"}  # of each way of reading
PLACES = {"cpu": ("disk", "memory"), "cuda": ("disk", "memory", "device")}  # residencies; on the CPU two are one
FED = WINDOW * 31_927 // 9_288  # questions of the steps that are fed: the first of an epoch, when least is cached


def windowed(features: Features, batch: int, seed: int) -> list[np.ndarray]:
    """Rows of the whole batches of an epoch in the order that training from disk takes."""
    order = epoch_order(features.video, batch, seed, 0, WINDOW)
    return order[: features.questions // batch]


def scattered(features: Features, batch: int, seed: int) -> list[np.ndarray]:
    """Rows of whole batches, each about another video: what a shuffle asks of more videos than memory holds."""
    return epoch_order(np.arange(features.videos), batch, seed, 0)[: features.videos // batch]


def read_rates(
    features: Features, batch: int, device: torch.device, workers: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Questions a second of each way of reading, "<way>, <place and order>".

    From disk means that the system's cache held nothing of the files when the pass began. In a window, as training
    from disk asks, a video is read once and found cached for its other questions; shuffled over more videos than memory
    holds, none is ever found. Cached are the videos that the shuffled pass has read last.
    """
    timings: dict[str, Timing] = {}
    asked: dict[str, np.ndarray] = {}
    for seed in tqdm(range(rounds), "reading", leave=False, delay=1):
        shuffled = scattered(features, batch, seed)
        passes = {"from disk, in a window": windowed(features, batch, seed), "from disk, shuffled": shuffled}
        passes["cached"] = shuffled[-(WINDOW // batch) :]
        for way in LAYOUTS:
            for place, batches in passes.items():
                if place != "cached":
                    forget(files_of(features, LAYOUTS[way]))
                name = f"{way}, {place}"
                asked[name] = np.concatenate(batches)
                seconds = _pass_seconds(features, way, device, workers, batches)
                timings.setdefault(name, Timing()).seconds.append(seconds)

    first = [features.public_folder(kind) / f"{features.names[0]}.npy" for kind in ("audio", "audio", "frame", "token")]
    first += [features.public_folder(kind) / "0.npy" for kind in ("question", "prompt")]
    of_video = dict.fromkeys(LAYOUTS, video_bytes(features.sizes))
    of_video["plain"] = sum(file.stat().st_size for file in first)
    rates = {}
    for name, timing in timings.items():
        found = {"order": _order(WINDOW if name.endswith("in a window") else None)}
        found |= _touched(features, asked[name], of_video[name.split(",")[0]])
        seconds = timing.spread()
        for key, prefix in (("seconds", ""), ("median", "median_"), ("worst", "worst_")):
            found[f"{prefix}questions_per_second"] = len(asked[name]) / seconds[key]
        rates[name] = found
    return rates


def _order(window: int | None) -> str:
    return f"in a window of {window} videos" if window else "shuffled"


def _touched(features: Features, rows: np.ndarray, of_video: int) -> dict[str, float]:
    """How many videos a question touches, and their bytes, if each is read once."""
    each = len(np.unique(features.video[rows])) / len(rows)
    return {"videos_per_question": each, "bytes_per_question": of_video * each}


def _pass_seconds(features: Features, way: str, device: torch.device, workers: int, batches: list[np.ndarray]) -> float:
    """Seconds of a pass. What it maps into memory ends with it: pages that are mapped cannot be forgotten."""
    if way == "plain":
        task = plain(features, device, workers, batches)
    else:
        task = ours(Loader(open_data(features, LAYOUTS[way]), Runtime(device), "disk", workers), batches)
    return run_seconds(task, device)[0]


def ours(loader: Loader, batches: list[np.ndarray]) -> Task:
    """A pass of the project's loader."""

    def run(mark: Mark) -> None:
        for _ in loader.batches(loader.data.splits["train"], batches):
            pass

    return run


def plain(features: Features, device: torch.device, workers: int, batches: list[np.ndarray]) -> Task:
    """A pass of six `np.load`s a question, stacked by torch's DataLoader."""
    video_of = [features.names[video] for video in features.video]
    reader = PlainReader(features.root / "public", video_of, features.sizes.tokens)

    def run(mark: Mark) -> None:
        for batch in DataLoader(reader, batch_sampler=batches, num_workers=workers):
            for held in batch.values():
                held.to(device)

    return run


def fed_steps(features: Features, step: Step, runtime: Runtime, workers: int, rounds: int) -> dict[str, dict[str, Any]]:
    """The training step fed from each of `PLACES`, in the order in which training reads from there.

    Where the features do not fit, "does_not_fit" says so.
    """
    made: dict[str, dict[str, Any]] = {"disk": {}}
    kept = {}
    for place in PLACES[runtime.device.type][1:]:
        made[place] = {}
        try:  # from files: a pack, once mapped and read, could not be forgotten for the disk's turn
            kept[place] = Loader(open_data(features, "files"), runtime, place, workers)
        except UserError as error:  # which is one of the results
            made[place]["does_not_fit"] = str(error)
    step(lambda part: None)  # warms up
    batch = len(step.answer)
    steps = min(FED, features.questions) // batch
    parts: dict[str, list[dict[str, float]]] = {"disk": [], **{place: [] for place in kept}}
    for seed in tqdm(range(rounds), "feeding", leave=False, delay=1):
        for place in parts:
            forget(files_of(features, "packed"))
            loader = kept.get(place) or Loader(open_data(features, "packed"), runtime, "disk", workers)
            batches = epoch_order(features.video, batch, seed, 0, loader.window)[:steps]
            parts[place].append(run_seconds(fed(step, loader, batches), runtime.device)[1])
            made[place]["order"] = _order(loader.window)
            made[place] |= _touched(features, np.concatenate(batches), video_bytes(features.sizes))
            del loader  # and with it what it has mapped
    for place, rounds_of in parts.items():
        made[place] |= _waits(rounds_of, steps)
    return made


def _waits(rounds_of: list[dict[str, float]], steps: int) -> dict[str, float]:
    """Seconds of a step with its wait for the batch, and of the wait alone, from `fed`'s parts in each round.

    The wait for the first batch is apart: nothing has read ahead of it, and it comes once an epoch.
    """
    waits = [found["waiting"] / (steps - 1) for found in rounds_of]
    seconds = [found["step"] / steps + wait for found, wait in zip(rounds_of, waits, strict=True)]
    shares = [wait / second for wait, second in zip(waits, seconds, strict=True)]
    return Timing(seconds).spread() | {
        "waiting_seconds": statistics.median(waits),
        "waiting_share": statistics.median(shares),
        "worst_waiting_share": max(shares),
        "first_batch_seconds": statistics.median(found["first batch"] for found in rounds_of),
    }


def fed(step: Step, loader: Loader, batches: list[np.ndarray]) -> Task:
    """Training steps on batches as they come from a loader; its parts are the waits for these, and the steps.

    On a GPU the transfer of a batch counts as waiting for it.
    """

    def run(mark: Mark) -> None:
        waited = "first batch"
        for batch in loader.batches(loader.data.splits["train"], batches):
            mark(waited)
            step.inputs, step.answer = batch.inputs, batch.answer
            if step.recorded and waited == "first batch":  # of these shapes, which another place's are not
                for _ in range(WARM_UP + 1):
                    step(lambda part: None)
                synchronize(step.device)
                mark("recording")
            step(lambda part: None)
            synchronize(step.device)  # else a GPU still has work while the loop waits, and the wait would cost nothing
            mark("step")
            waited = "waiting"

    return run


def forget(files: Iterable[Path]) -> None:
    """Drop files from the system's cache, so that they come from the disk the next time."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # only what the disk has can be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def files_of(features: Features, layout: str) -> Iterator[Path]:
    """The files that a layout reads."""
    if layout == "public":
        return (features.root / "public").rglob("*.npy")
    pattern = "packed/*.npy" if layout == "packed" else "*.npy"
    return (file for kind in kinds(features.sizes) for file in features.folder(kind).glob(pattern))
