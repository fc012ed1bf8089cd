"""Small seeded feature folders for tests, in the project's layout and in the published implementation's."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dataset.features import FeatureStore, open_features
from dataset.kinds import KINDS
from utils.files import read_json, save_npy, write_json
from utils.manifest import claim_manifest
from utils.text_rows import word_rows

WIDTHS = {"audio": 128, "frame": 16, "token": 24, "text": 16}
DTYPES = {"audio": "float32", "frame": "float16", "token": "float16", "text": "float32"}
VIDEOS = [f"{number:08d}" for number in range(7)]
SENTENCES = ["How many?", "Where is it?", "The cello sounds."]
IMAGE = {"image_size": 112, "fit": "crop"}


def write_features(
    root: Path,
    videos: Sequence[str],
    sentences: Sequence[str],
    segments: int = 6,
    tokens: int = 4,
    widths: dict[str, int] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Write audio, frames, tokens and text with their manifests; return {kind: {video or sentence: array}}.

    `widths` overrides those of `WIDTHS`. Arrays are standard normal, in the dtypes of extraction.
    """
    widths, random = WIDTHS | (widths or {}), np.random.default_rng(0)
    made = {}
    for kind, folder, sizes, extra in (
        ("audio", "vggish", [segments], {"hop_seconds": 1.0}),
        ("frame", "clip_frame", [segments], IMAGE),
        ("token", f"clip_token_{tokens}", [segments, tokens], IMAGE | {"merge_schedule": [0]}),
        ("text", "text", [], {}),
    ):
        shape = [*sizes, widths[kind]]
        encoder = "vggish" if kind == "audio" else "synthetic CLIP"
        manifest = {"version": 1, "kind": kind, "encoder": encoder, "weights_sha256": f"sha of {encoder}"}
        claim_manifest(root / folder, manifest | {"shape": shape, "dtype": DTYPES[kind]} | extra)
        names = dict.fromkeys(sentences if kind == "text" else videos)
        made[kind] = {name: random.standard_normal(shape, np.float32).astype(DTYPES[kind]) for name in names}
        if kind == "text":
            save_npy(root / folder / "features.npy", np.array([*made[kind].values()], "float32").reshape(-1, *shape))
            write_json(root / folder / "sentences.json", list(names))
        else:
            for video, array in made[kind].items():
                save_npy(root / folder / f"{video}.npy", array)
    return made


def write_words(root: Path) -> dict[str, np.ndarray]:
    """Write the words of all sentences that have text below `root`; return {sentence: array (77, 24)}."""
    random, files = np.random.default_rng(1), word_rows(root / "text")
    sentences = read_json(root / "text/sentences.json")
    words = random.standard_normal((len(sentences), 77, 24), np.float32).astype("float16")
    save_npy(files.features, words)
    write_json(files.sentences, sentences)
    return dict(zip(sentences, words, strict=True))


def write_public(
    root: Path,
    videos: Sequence[str],
    questions: dict[int, tuple[str, str]],
    segments: int = 6,
    tokens: int = 4,
    widths: dict[str, int] | None = None,
) -> dict[str, dict]:
    """Write the published layout, all float32; `questions` maps question ids to (question, prompt) sentences.

    Returns {"audio" | "frame" | "token": {video: array}, "text": {sentence: row}}; equal sentences get equal rows.
    """
    widths, random = WIDTHS | (widths or {}), np.random.default_rng(0)
    clip = root / "clip_feats"
    made = {}
    for kind, folder, shape in (
        ("audio", root / "vggish", [segments]),
        ("frame", clip / "frame_1fps_ViT-L14@336px", [segments]),
        ("token", root / f"ToMe_feat/tome{tokens}", [segments, tokens]),
    ):
        made[kind] = {video: random.standard_normal([*shape, widths[kind]], np.float32) for video in videos}
        for video, array in made[kind].items():
            save_npy(folder / f"{video}.npy", array)
    sentences = dict.fromkeys(sentence for pair in questions.values() for sentence in pair)
    made["text"] = {sentence: random.standard_normal(widths["text"], np.float32) for sentence in sentences}
    for number, (question, prompt) in questions.items():
        save_npy(clip / f"qst_ViT-L14@336px/{number}.npy", made["text"][question][None])
        save_npy(clip / f"qaPrompt_ViT-L14@336px/{number}.npy", made["text"][prompt][None])
    return made


def opened(root: Path, layout: str = "files", kinds: Iterable[str] = KINDS, **options) -> FeatureStore:
    """Open what `write_features` or `write_public` wrote with their default sizes; `options` overrides."""
    return open_features(root, layout, kinds, **{"segments": 6, "tokens": 4} | options)


def edit_json(path: Path, **fields) -> None:
    """Change fields of a JSON object on disk."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
