"""Whole epochs of `train.py`: reading, steps, validation, checkpoints and all that lies between.

`<work>/run-<videos>/` holds what a run needs: packed features of that many videos and, in MUSIC-AVQA's proportion and
format, questions about them. The answers are as random as the features, so there is nothing to learn from them.
"""

import json
import shutil
import statistics
import subprocess
import sys
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dataset.answers import MUSIC_AVQA_ANSWERS
from dataset.text_prompt import FilledPrompt, PromptTable
from scripts.benchmark.data import Features, Shapes, kinds, synthetic_manifest, video_bytes
from utils.errors import UserError
from utils.files import atomic_path, read_json, save_npy, write_json
from utils.machine import usable_cores
from utils.manifest import claim_manifest

SHEET = "dataset/TextPrompt.xlsx", "MUSIC-AVQA"
DRAWN = 64  # videos whose features are drawn; the others repeat them, as drawing takes longer than writing


def epochs(
    work: Path, videos: int, count: int, device: str, precision: str, workers: int, shapes: Shapes
) -> dict[str, Any]:
    """Train for `count` epochs by the command line: seconds of all, of a whole epoch, and of its training steps.

    Raises `UserError` where the disk is too small and where the training fails.
    """
    root = make_run(work, videos, shapes)
    split = {name: str(root / f"{name}.json") for name in ("train", "val")}
    options = {"data": split | {"features": str(root), "layout": "packed", "workers": workers}}
    options["data"]["segments"] = shapes.features.segments
    options["model"] = {"hidden": shapes.hidden, "tokens": shapes.features.tokens}
    options["model"]["top_k"] = min(10, shapes.features.segments)
    options["train"] = {"epochs": count, "batch_size": shapes.batch, "device": device, "precision": precision}
    out = root / "out"
    shutil.rmtree(out, ignore_errors=True)
    config = root / "config.yaml"
    write_json(config, options | {"out": str(out)})  # JSON is YAML
    began, ends, printed = time.perf_counter(), [], []
    with subprocess.Popen(
        [sys.executable, "-u", "train.py", "--config", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as run:  # fmt: skip
        for line in run.stdout:
            printed.append(line)
            if "  val " in line:  # which ends an epoch
                ends.append(time.perf_counter())
    seconds = time.perf_counter() - began
    if run.returncode:
        raise UserError(f"training for whole epochs failed\n{''.join(printed[-5:]).strip()}")
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    shutil.rmtree(out)
    whole, steps = np.diff([began, *ends]).tolist(), [epoch["train_seconds"] for epoch in logged]
    return {
        "epochs": count,
        "videos": videos,
        "questions": _questions(videos),
        "feature_bytes": videos * video_bytes(shapes.features),
        "place": next(line for line in printed if line.startswith("features in ")).split(":")[0],
        "precision": precision,
        "seconds": seconds,
        "first_epoch_seconds": whole[0],
        "epoch_seconds": statistics.median(whole[1:] or whole),
        "train_seconds": statistics.median(steps[1:] or steps),
        "peak_gb": logged[-1]["peak_gb"],
    }


def make_run(work: Path, videos: int, shapes: Shapes) -> Path:
    """Make the folder, or find it as made before. Raises `UserError` where the disk is too small."""
    features, asked = Features(work / f"run-{videos}", videos, shapes.features, sparse=False), _slotless()
    texts = [sentence for filled in asked for sentence in (filled.question, filled.prompt)]
    whole, made_for = features.root / "whole.json", {"sizes": shapes.features._asdict(), "sentences": texts}
    if whole.exists() and read_json(whole) == made_for:
        return features.root
    shutil.rmtree(features.root, ignore_errors=True)
    needed = videos * video_bytes(shapes.features)
    work.mkdir(parents=True, exist_ok=True)
    if needed > (free := shutil.disk_usage(work).free):
        raise UserError(
            f"features of {videos:,} videos, {needed / 1e9:.1f} GB, do not fit {work}, {free / 1e9:.1f} GB are free; "
            "take fewer --videos, or another disk by --work"
        )
    random = np.random.default_rng(0)
    for kind, (shape, dtype) in kinds(features.sizes).items():
        folder, manifest = features.folder(kind), synthetic_manifest(kind, shape, dtype)
        claim_manifest(folder, manifest)
        drawn = random.standard_normal((DRAWN, *shape), np.float32).astype(dtype)
        with atomic_path(folder / "packed" / "features.npy") as temporary:
            held = np.lib.format.open_memmap(temporary, "w+", dtype, (videos, *shape))

            def write(first: int) -> None:
                held[first : first + DRAWN] = drawn[: videos - first]  # noqa: B023

            with ThreadPool(usable_cores()) as pool:
                parts = range(0, videos, DRAWN)
                written = pool.imap_unordered(write, parts)
                for _ in tqdm(written, f"making {kind}", len(parts), delay=1, leave=False, unit_scale=DRAWN):
                    pass
        packed = dict.fromkeys(features.names, (0, 0))  # no file of its own that could change
        write_json(folder / "packed" / "index.json", {"manifest": manifest, "videos": packed})

    claim_manifest(features.folder("text"), synthetic_manifest("text", (features.sizes.text,), "float32"))
    rows = random.standard_normal((len(texts), features.sizes.text), np.float32)
    save_npy(features.folder("text") / "features.npy", rows)
    write_json(features.folder("text") / "sentences.json", texts)
    for split, count in zip(("train", "val"), _questions(videos), strict=True):
        rows = [
            {
                "question_id": n,
                "video_id": features.names[n % videos],
                "type": '["Audio-Visual", "Temporal"]',
                "question_content": asked[n % len(asked)].template,
                "anser": answer,
            }
            for n, answer in enumerate(random.choice(MUSIC_AVQA_ANSWERS, count))
        ]
        write_json(features.root / f"{split}.json", rows)
    write_json(whole, made_for)
    return features.root


def _questions(videos: int) -> tuple[int, int]:
    """Training and validation questions about so many videos, in MUSIC-AVQA's proportion."""
    return videos * 31_927 // 9_288, max(1, videos * 4_568 // 9_288)


def _slotless() -> list[FilledPrompt]:
    """The questions of the sheet that have no slots, with their prompts."""
    table = PromptTable.read(*SHEET)
    return [table.fill(template, []) for template in table.templates if "<" not in template]
