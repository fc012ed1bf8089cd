"""The benchmark's data: synthetic features at the real shapes, made once, and the ways in which they are read.

`<work>/features-<videos>[-sparse]/` holds the project's layout, packed too, and `public/` the published one in float32.
Sparse files are holes: they take no room and no time to write, and reading them costs all but the disk.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset.answers import MUSIC_AVQA_ANSWERS, AnswerVocabulary
from dataset.data import Data, Split
from dataset.feature_folder import header_bytes
from dataset.feature_pack import write_pack
from dataset.features import FOLDERS, PUBLIC_FOLDERS, open_features
from dataset.loader import WINDOW, Loader, epoch_order
from nets.config import FeatureSizes
from scripts.benchmark_measure import Mark, Task, Timing, run_seconds
from scripts.benchmark_plain import PlainReader
from utils.errors import UserError
from utils.files import read_json, save_npy, write_json
from utils.manifest import claim_manifest
from utils.runtime import Runtime

SENTENCES = 256


class Shapes(NamedTuple):
    """What is measured: the sizes of the features, the hidden width and the questions of a batch."""

    features: FeatureSizes
    hidden: int = 512
    batch: int = 64


FULL = Shapes(FeatureSizes(segments=60, audio=128, frame=768, tokens=14, token=1024, text=768))
"""MUSIC-AVQA with ViT-L/14, the paper's width and batch."""


class Features(NamedTuple):
    """A folder of synthetic features and what it takes."""

    root: Path
    videos: int
    sizes: FeatureSizes
    sparse: bool

    @property
    def names(self) -> list[str]:
        """The video ids."""
        return [f"{n:08d}" for n in range(self.videos)]

    @property
    def video(self) -> np.ndarray:
        """The video of each question, as many for a video as MUSIC-AVQA's training questions: 31,927 for 9,288."""
        return np.arange(self.videos * 31_927 // 9_288) % self.videos

    def folder(self, kind: str) -> Path:
        """Where the project's layout has a kind."""
        return self.root / FOLDERS[kind].format(tokens=self.sizes.tokens)

    def public_folder(self, kind: str) -> Path:
        """Where the published layout has it."""
        return self.root / "public" / PUBLIC_FOLDERS[kind].format(tokens=self.sizes.tokens)

    @property
    def bytes_on_disk(self) -> int:
        """Bytes that the files take; of sparse ones, next to nothing."""
        return sum(file.stat().st_blocks * 512 for file in self.root.rglob("*.npy"))

    @property
    def bytes_apparent(self) -> int:
        """Bytes that the files hold."""
        return sum(file.stat().st_size for file in self.root.rglob("*.npy"))


def kinds(sizes: FeatureSizes) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of one video's array of each kind, as extraction writes it."""
    return {
        "audio": ((sizes.segments, sizes.audio), "float32"),
        "frame": ((sizes.segments, sizes.frame), "float16"),
        "token": ((sizes.segments, sizes.tokens, sizes.token), "float16"),
    }


def video_bytes(sizes: FeatureSizes) -> int:
    """Bytes of one video's features, all kinds together."""
    return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in kinds(sizes).values())


def make_features(work: Path, videos: int, sparse: bool, sizes: FeatureSizes) -> Features:
    """Make the folders, or find them as made before. Raises `UserError` where the disk is too small."""
    features = Features(work / f"features-{videos}{'-sparse' if sparse else ''}", videos, sizes, sparse)
    whole = features.root / "whole.json"
    made_for = {"sizes": sizes._asdict(), "videos": videos}
    if whole.exists() and read_json(whole) == made_for:
        return features
    shutil.rmtree(features.root, ignore_errors=True)
    a_video = sum(int(np.prod(shape)) * (2 * np.dtype(dtype).itemsize + 4) for shape, dtype in kinds(sizes).values())
    work.mkdir(parents=True, exist_ok=True)
    needed, free = 0 if sparse else videos * a_video, shutil.disk_usage(work).free
    if needed > free:
        raise UserError(f"{work}: {needed / 1e9:.1f} GB of features do not fit, {free / 1e9:.1f} GB are free; --sparse")
    _write(features)
    write_json(whole, made_for)
    return features


def _write(features: Features) -> None:
    random = np.random.default_rng(0)
    sizes = features.sizes
    for kind, (shape, dtype) in kinds(sizes).items():
        folder, plain = features.folder(kind), features.public_folder(kind)
        claim_manifest(folder, _manifest(kind, shape, dtype))
        for name in tqdm(features.names, f"making {kind}", delay=1, leave=False):
            if features.sparse:
                _hole(folder / f"{name}.npy", shape, dtype)
                _hole(plain / f"{name}.npy", shape, "float32")
            else:
                array = random.standard_normal(shape, np.float32).astype(dtype)
                save_npy(folder / f"{name}.npy", array)
                save_npy(plain / f"{name}.npy", array.astype(np.float32))
    text = features.folder("text")
    claim_manifest(text, _manifest("text", (sizes.text,), "float32"))
    rows = random.standard_normal((SENTENCES, 1, sizes.text), np.float32)
    save_npy(text / "features.npy", rows[:, 0])
    write_json(text / "sentences.json", [f"sentence {n}" for n in range(SENTENCES)])
    for kind in ("question", "prompt"):
        for row in range(len(features.video)):
            save_npy(features.public_folder(kind) / f"{row}.npy", rows[row % SENTENCES])
    _pack(features)


def _manifest(kind: str, shape: tuple[int, ...], dtype: str) -> dict:
    constants = {"version": 1, "kind": kind, "encoder": "synthetic", "weights_sha256": "0" * 64}
    return constants | {"shape": list(shape), "dtype": dtype}


def _hole(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """An `.npy` file of zeros that take no room on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = header_bytes(shape, np.dtype(dtype))
    with open(path, "wb") as file:
        file.write(header)
        file.truncate(len(header) + int(np.prod(shape)) * np.dtype(dtype).itemsize)


def _pack(features: Features) -> None:
    store = open_features(features.root, "files", kinds(features.sizes), *_segments_tokens(features), text=False)
    for kind, folder in store.folders.items():
        if features.sparse:  # what `write_pack` makes, without writing the zeros
            packed = folder.path / "packed"
            _hole(packed / "features.npy", (features.videos, *folder.shape), folder.dtype.name)
            write_json(packed / "index.json", {"manifest": store.manifests[kind], "videos": folder.stamps()})
        else:
            write_pack(folder, store.manifests[kind])


def _segments_tokens(features: Features) -> tuple[int, int]:
    return features.sizes.segments, features.sizes.tokens


def open_data(features: Features, layout: str) -> Data:
    """The data as training opens them; nothing is read but the index."""
    store = open_features(features.root, layout, kinds(features.sizes), *_segments_tokens(features))
    rows = np.arange(len(features.video))
    sentence = rows % SENTENCES
    text = store.read_text(rows, *([[f"sentence {n}" for n in range(SENTENCES)]] * 2)).bank
    vocabulary = AnswerVocabulary(MUSIC_AVQA_ANSWERS)
    split = Split(pd.DataFrame(index=rows), features.video, sentence, sentence, rows % len(vocabulary), None)
    return Data({"train": split}, vocabulary, store, features.names, text, [])


def windows(features: Features, batch: int, seed: int) -> list[np.ndarray]:
    """Rows of the whole batches of an epoch in the order that training from disk takes."""
    order = epoch_order(features.video, batch, seed, 0, WINDOW)
    return order[: len(features.video) // batch]


def scattered(features: Features, batch: int, seed: int) -> list[np.ndarray]:
    """Rows of whole batches, each about another video: what a shuffle asks of more videos than memory holds."""
    return epoch_order(np.arange(features.videos), batch, seed, 0)[: features.videos // batch]


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


def read_rates(
    features: Features, batch: int, device: torch.device, workers: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Questions a second of each way of reading, "<way>, from disk" and "<way>, cached".

    From disk means that the system's cache held nothing of the files; cached, that a pass has just read them. A shuffle
    over all of MUSIC-AVQA finds no video in the cache, so "plain" and "files" read each video once, and "packed" takes
    the order of training from disk. Cached, the orders are the same.
    """
    layouts = {"plain": "public", "files": "files", "packed": "packed"}
    timings = {f"{way}, {place}": Timing() for way in layouts for place in ("from disk", "cached")}
    passes = {}
    for seed in tqdm(range(rounds), "reading", leave=False, delay=1):
        for way, layout in layouts.items():
            once, all_asked = scattered(features, batch, seed), windows(features, batch, seed)
            passes |= {f"{way}, from disk": all_asked if way == "packed" else once, f"{way}, cached": once}
            forget(files_of(features, layout))
            for place in ("from disk", "cached"):
                batches = passes[f"{way}, {place}"]
                if way == "plain":
                    task = plain(features, device, workers, batches)
                else:
                    task = ours(Loader(open_data(features, layout), Runtime(device), "disk", workers), batches)
                timings[f"{way}, {place}"].seconds.append(run_seconds(task, device)[0])

    first = [features.public_folder(kind) / f"{features.names[0]}.npy" for kind in ("audio", "audio", "frame", "token")]
    first += [features.public_folder(kind) / "0.npy" for kind in ("question", "prompt")]
    of_video = {way: video_bytes(features.sizes) for way in layouts}
    of_video["plain"] = sum(file.stat().st_size for file in first)
    rates = {}
    for name, timing in timings.items():
        questions = sum(map(len, passes[name]))
        videos = len(np.unique(features.video[np.concatenate(passes[name])]))
        rates[name] = {"questions_per_second": questions / timing.best}
        rates[name] |= {f"{key}_questions_per_second": questions / timing.summary()[key] for key in ("median", "worst")}
        rates[name]["bytes_per_question"] = of_video[name.split(",")[0]] * videos / questions
    return rates


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
