"""Reading features from disk, alone and while a training step waits for them, and whole runs of `train.py`.

`<work>/features-<videos>/` holds what a run needs: packed features of that many videos and, in MUSIC-AVQA's proportion
and format, questions about them. Features and answers are random, so there is nothing to learn from them.
"""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dataset.config import DataConfig
from dataset.data import open_data
from dataset.kinds import KINDS, TEXT
from dataset.loader import Loader, epoch_order
from dataset.music_avqa import ANSWERS
from dataset.text_prompt import PromptTable
from scripts.benchmark.measure import Rows, now, timed
from scripts.benchmark.step import Shapes, Step
from utils.cuda_graph import WARM_UP
from utils.errors import UserError
from utils.files import read_json, save_npy, write_json
from utils.progress import tqdm
from utils.runtime import Runtime
from utils.scoring.evaluation import perceive

QUESTION = "Where is the performance?"
DRAWN = 64  # videos whose features are drawn; the others repeat them, as drawing takes longer than writing
WINDOW = 512  # videos asked about at a time: 1 GB at 14 tokens
FED = 27  # steps that are fed: the first of an epoch, when least is cached


def make_features(work: Path, videos: int, shapes: Shapes) -> DataConfig:
    """Make the folder unless an earlier part has. Raises `UserError` if it does not fit."""
    root, counts = work / f"features-{videos}", {"train": videos * 31_927 // 9_288, "val": videos * 4_568 // 9_288}
    config = DataConfig(features=str(root), layout="packed", segments=shapes.segments, tokens=shapes.tokens)
    config.train, config.val = (str(root / f"{split}.json") for split in counts)
    if root.exists():
        return config
    needed = videos * sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes.kinds.values())
    said, free = f"{needed / 1e9:.1f} GB of features in {root}", shutil.disk_usage(work).free
    if needed > free:
        raise UserError(f"{said} do not fit, {free / 1e9:.1f} GB are free; take fewer --videos, or another --work")
    print(f"making {said}", flush=True)
    names, random = [f"{n:08d}" for n in range(videos)], np.random.default_rng(0)

    def claim(kind: str, shape: tuple[int, ...], dtype: str) -> tuple[Path, dict]:
        folder = root / (KINDS | {"text": TEXT})[kind].folder.format(tokens=shapes.tokens)
        encoder = {"version": 1, "kind": kind, "encoder": "synthetic", "weights_sha256": "0" * 64}
        write_json(folder / "manifest.json", encoder | {"shape": list(shape), "dtype": dtype})
        return folder, read_json(folder / "manifest.json")

    for kind, (shape, dtype) in shapes.kinds.items():
        folder, manifest = claim(kind, shape, dtype)
        drawn = random.standard_normal((DRAWN, *shape), np.float32).astype(dtype)
        (folder / "packed").mkdir()
        pack = np.lib.format.open_memmap(folder / "packed/features.npy", "w+", dtype, (videos, *shape))
        for n in tqdm(range(videos), f"making {kind}", delay=1, leave=False):
            pack[n] = drawn[n % DRAWN]
        write_json(folder / "packed/index.json", {"manifest": manifest, "videos": dict.fromkeys(names, (0, 0))})
    text, folder = random.standard_normal((2, shapes.text), np.float32), claim("text", (shapes.text,), "float32")[0]
    filled = PromptTable.read(config.prompts, config.sheet).fill(QUESTION, [])
    save_npy(folder / "features.npy", text)
    write_json(folder / "sentences.json", [filled.question, filled.prompt])
    for split, count in counts.items():
        asked = {"type": '["Audio-Visual", "Location"]', "question_content": QUESTION}
        answers = enumerate(random.choice(ANSWERS, count).tolist())
        rows = [asked | {"question_id": n, "video_id": names[n % videos], "anser": answer} for n, answer in answers]
        write_json(root / f"{split}.json", rows)
    return config


def read_rates(config: DataConfig, shapes: Shapes, runtime: Runtime, rounds: int) -> Rows:
    """Questions a second of the loader by order, and bytes that come from the disk.

    The system's cache holds none of the files when a pass begins. In the loader's order a video is read once and found
    cached for its other questions; shuffled over more videos than memory holds, none is ever found.
    """
    rates, found = {}, {}
    for seed in tqdm(range(rounds), "reading", leave=False, delay=1):
        for name in ("packed, the loader's order", "packed, shuffled"):
            rate, read = _pass(config, shapes, runtime, name.endswith("shuffled"), seed)
            rates.setdefault(name, []).append(rate)
            found[name] = {"questions_per_second": max(rates[name]), "median": statistics.median(rates[name])}
            found[name] |= {"worst": min(rates[name]), "bytes_per_question": read}
    return found


def _pass(config: DataConfig, shapes: Shapes, runtime: Runtime, shuffled: bool, seed: int) -> tuple[float, float]:
    """Questions a second of a pass, and bytes a question. What it maps ends with it: mapped pages are not forgotten."""
    forget(Path(config.features).rglob("*.npy"))
    data = open_data(config, tuple(KINDS), ("train",))
    split = data.splits["train"]
    video, window = (np.arange(len(data.videos)), 0) if shuffled else (split.video, WINDOW)  # each about another video
    batches = epoch_order(video, shapes.batch, seed, 0, window)[: len(video) // shapes.batch]
    rows = np.concatenate(batches)
    read = len(np.unique(split.video[rows])) * data.store.video_bytes
    made = Loader(data, runtime, "disk", config.workers).batches(split, batches)
    seconds = timed(lambda: deque(made, maxlen=0), runtime.device)
    return len(rows) / seconds, read / len(rows)


def forget(files: Iterable[Path]) -> None:
    """Drop files from the system's cache, so that they come from the disk the next time."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # only what the disk has can be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def fed_step(config: DataConfig, step: Step, runtime: Runtime, rounds: int) -> Rows:
    """Seconds of a training step fed from disk, and its share of waiting for the batch.

    The first steps are left out: nothing has read ahead of them, and in them a GPU records.
    """
    seconds, shares = [], []
    for seed in range(rounds):
        forget(Path(config.features).rglob("packed/*.npy"))
        loader = Loader(open_data(config, tuple(KINDS), ("train",)), runtime, "disk", config.workers)
        split, size = loader.data.splits["train"], len(step.answer)
        batches = epoch_order(split.video, size, seed, 0, WINDOW)[: min(FED, len(split) // size)]
        times = [now(runtime.device)]
        for batch in loader.batches(split, batches):
            times.append(now(runtime.device))  # on a GPU the batch's transfer is waited for
            step.inputs, step.answer = batch.inputs, batch.answer
            step()
            times.append(now(runtime.device))
        waiting, computing = np.diff(times).reshape(-1, 2)[WARM_UP + 1 :].mean(axis=0).tolist()
        seconds.append(waiting + computing)
        shares.append(waiting / seconds[-1])
        del loader, batch  # and what is mapped
    row = {"seconds": min(seconds), "median": statistics.median(seconds)}
    return {"disk": row | {"waiting_share": statistics.median(shares), "worst_waiting_share": max(shares)}}


def evaluation_reads(config: DataConfig, step: Step, runtime: Runtime) -> Rows:
    """Bytes that evaluation reads of a question, of 1.43 about a video as in MUSIC-AVQA's test file."""
    data = open_data(config, tuple(KINDS), ("train",))
    split, loader, size = data.splits["train"], Loader(data, runtime, "disk", config.workers), len(step.answer)
    videos = min(len(data.videos), 10 * size)
    rows = np.r_[:videos, len(data.videos) : len(data.videos) + round(0.43 * videos)]  # the second lap of the videos
    store, whole, some, taken = data.store, data.store.read, data.store.read_segments, [0]

    def counted(array: np.ndarray) -> np.ndarray:
        taken[0] += array.nbytes
        return array

    store.read = lambda *wanted: counted(whole(*wanted))
    store.read_segments = lambda *wanted: counted(some(*wanted))
    found, orders = {}, np.split(rows, range(size, len(rows), size))
    for name, batches in (
        ("tokens of all segments", loader.batches(split, orders)),
        ("tokens that are looked at", loader.by_video(split, rows, size)),
    ):
        taken[0] = 0
        deque(perceive(step.model, batches, step.precision, runtime.device), maxlen=0)
        found[name] = {"bytes_per_question": taken[0] / len(rows)}
    return found


def run_training(config: DataConfig, shapes: Shapes, epochs: int, device: str, precision: str) -> dict:
    """Have `train.py` train: seconds of all, and of an epoch's steps. Raises `UserError` if it fails."""
    root, out = Path(config.features), Path(config.features) / "out"
    options = {"out": str(out), "data": asdict(config) | {"window": WINDOW}}
    options["model"] = {name: getattr(shapes, name) for name in ("hidden", "tokens", "top_k")}
    options["train"] = {"epochs": epochs, "batch_size": shapes.batch, "device": device, "precision": precision}
    write_json(root / "config.yaml", options)  # JSON is YAML
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    command = [sys.executable, "train.py", "--config", str(root / "config.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise UserError(f"train.py failed\n{done.stdout}{done.stderr}")
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = statistics.median(epoch["train_seconds"] for epoch in logged)
    return {"epochs": epochs, "seconds": seconds, "steps_of_an_epoch": steps}
