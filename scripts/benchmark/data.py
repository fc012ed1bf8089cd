"""The benchmark's data: synthetic features at the real shapes, made once.

`<work>/features-<videos>[-sparse]/` holds the project's layout, packed too, and `public/` the published one in float32.
Sparse files are holes: they take no room and no time to write, and reading them costs all but the disk.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from dataset.answers import MUSIC_AVQA_ANSWERS, AnswerVocabulary
from dataset.data import Data, Split
from dataset.feature_pack import write_pack
from dataset.features import FOLDERS, PUBLIC_FOLDERS, open_features
from nets.config import FeatureSizes
from utils.errors import UserError
from utils.files import header_bytes, read_json, save_npy, write_json
from utils.manifest import claim_manifest

SENTENCES = 256
BLOCK = 4096  # bytes that the smallest file takes


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
    def questions(self) -> int:
        """As many for a video as MUSIC-AVQA's training questions: 31,927 for 9,288."""
        return self.videos * 31_927 // 9_288

    @property
    def video(self) -> np.ndarray:
        """The video of each question."""
        return np.arange(self.questions) % self.videos

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
    """Make the folders, saying first how large they will be, or find them as made before.

    Raises `UserError` where the disk is too small.
    """
    features = Features(work / f"features-{videos}{'-sparse' if sparse else ''}", videos, sizes, sparse)
    whole = features.root / "whole.json"
    made_for = {"sizes": sizes._asdict(), "videos": videos}
    if whole.exists() and read_json(whole) == made_for:
        return features
    shutil.rmtree(features.root, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    stored = videos * video_bytes(sizes)
    published = videos * sum(4 * int(np.prod(shape)) for shape, _ in kinds(sizes).values())
    text = 2 * features.questions * BLOCK  # a small file for each question and for its prompt
    said = (
        f"features of {videos:,} videos and {features.questions:,} questions in {work}: "
        f"{stored / 1e9:.1f} GB as files, as much packed, {published / 1e9:.1f} GB in the published layout"
    )
    needed, free = text + (0 if sparse else 2 * stored + published), shutil.disk_usage(work).free
    if needed > free:
        raise UserError(
            f"{said}: {needed / 1e9:.1f} GB do not fit, {free / 1e9:.1f} GB are free; "
            "take fewer --videos, --sparse, or another disk by --work"
        )
    print(f"making {said}{', all holes' if sparse else ''}", flush=True)
    _write(features)
    write_json(whole, made_for)
    return features


def _write(features: Features) -> None:
    random = np.random.default_rng(0)
    sizes = features.sizes
    for kind, (shape, dtype) in kinds(sizes).items():
        folder, plain = features.folder(kind), features.public_folder(kind)
        claim_manifest(folder, synthetic_manifest(kind, shape, dtype))
        for name in tqdm(features.names, f"making {kind}", delay=1, leave=False):
            if features.sparse:
                _hole(folder / f"{name}.npy", shape, dtype)
                _hole(plain / f"{name}.npy", shape, "float32")
            else:
                array = random.standard_normal(shape, np.float32).astype(dtype)
                save_npy(folder / f"{name}.npy", array)
                save_npy(plain / f"{name}.npy", array.astype(np.float32))
    text = features.folder("text")
    claim_manifest(text, synthetic_manifest("text", (sizes.text,), "float32"))
    rows = random.standard_normal((SENTENCES, 1, sizes.text), np.float32)
    save_npy(text / "features.npy", rows[:, 0])
    write_json(text / "sentences.json", [f"sentence {n}" for n in range(SENTENCES)])
    for kind in ("question", "prompt"):
        for row in range(features.questions):
            save_npy(features.public_folder(kind) / f"{row}.npy", rows[row % SENTENCES])
    _pack(features)


def synthetic_manifest(kind: str, shape: tuple[int, ...], dtype: str) -> dict:
    """The manifest of a kind of synthetic features; all come from one encoder."""
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
    rows = np.arange(features.questions)
    sentence = rows % SENTENCES
    text = store.read_text(rows, *([[f"sentence {n}" for n in range(SENTENCES)]] * 2)).bank
    vocabulary = AnswerVocabulary(MUSIC_AVQA_ANSWERS)
    split = Split(pd.DataFrame(index=rows), features.video, sentence, sentence, rows % len(vocabulary), None)
    return Data({"train": split}, vocabulary, store, features.names, text, [])
