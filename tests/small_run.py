"""A whole data set of a few videos with random features, and train.py and test.py run on it as a user runs them."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import yaml

from dataset.answers import MUSIC_AVQA_ANSWERS
from dataset.text_prompt import PromptTable, question_text
from tests.synthetic import WIDTHS, write_features
from utils.files import write_json

ROOT = Path(__file__).parents[1]
TEMPLATES = [  # one of each of MUSIC-AVQA's nine types
    (["Audio", "Counting"], "Is there a <Object> sound?", ["flute"]),
    (["Audio", "Comparative"], "Is the <Object> louder than the <Object>?", ["cello", "piano"]),
    (["Visual", "Counting"], "How many <Object> are in the entire video?", ["violin"]),
    (["Visual", "Location"], "Where is the performance?", []),
    (["Audio-Visual", "Existential"], "Is there a voiceover?", []),
    (["Audio-Visual", "Counting"], "How many sounding <Object> in the video？", ["erhu"]),
    (["Audio-Visual", "Location"], "Where is the <LL> instrument?", ["loudest"]),
    (
        ["Audio-Visual", "Comparative"],
        "Is the instrument on the <LR> louder than the instrument on the <LR>?",
        ["left", "right"],
    ),
    (["Audio-Visual", "Temporal"], "Which <Object> makes the sound <FL>?", ["drum", "last"]),
]


def music_rows(videos: list[str], first_id: int = 1) -> list[dict]:
    """Annotation rows in MUSIC-AVQA's format: a question of each type about each video, answers in turn."""
    answers = itertools.cycle(MUSIC_AVQA_ANSWERS)
    asked = itertools.product(videos, TEMPLATES)
    return [
        {
            "video_id": video,
            "question_id": number,
            "type": json.dumps(kind),
            "question_content": template,
            "templ_values": json.dumps(values),
            "question_deleted": 0,
            "anser": next(answers),
        }
        for number, (video, (kind, template, values)) in enumerate(asked, start=first_id)
    ]


def make_data(
    root: Path, videos: int = 10, segments: int = 6, tokens: int = 4, widths: dict[str, int] | None = None
) -> Path:
    """Write annotations, features and `small.yaml` below `root`; returns the YAML's path.

    90 questions of 10 videos: 64 or so train, and the last three videos are validation and test.
    """
    names = [f"{number:08d}" for number in range(videos)]
    rows = music_rows(names)
    splits = {"train": names[:-3], "val": names[-3:-2], "test": names[-2:]}
    for split, chosen in splits.items():
        write_json(root / f"{split}.json", [row for row in rows if row["video_id"] in chosen])
    table = PromptTable.read(ROOT / "dataset/TextPrompt.xlsx", "MUSIC-AVQA")
    filled = [table.fill(*question_text(row)) for row in rows]
    write_features(
        root / "features", names, [s for f in filled for s in (f.question, f.prompt)], segments, tokens, widths
    )
    options = {
        "data": {split: str(root / f"{split}.json") for split in splits}
        | {"features": str(root / "features"), "segments": segments},
        "model": {"hidden": 16, "top_k": 3, "tokens": tokens},
        "train": {"epochs": 3, "batch_size": 16, "lr": 1e-3, "device": "cpu"},
    }
    path = root / "small.yaml"
    path.write_text(yaml.safe_dump(options))
    return path


def run(*command: str | Path, processes: int = 1, expect: int = 0, **popen) -> str:
    """Run a script of the project with one thread a process; returns what it printed, both streams together."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, *map(str, command)], check=False, cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, **popen,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout
    return done.stdout


def losses(folder: Path) -> list[tuple[int, float, dict]]:
    """(epoch, train loss, validation row) of each line of a run's metrics.jsonl."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(line["epoch"], line["train_loss"], line["val"]) for line in lines]


def weights(path: Path) -> dict[str, np.ndarray]:
    """The model's weights in a checkpoint."""
    return {k: v.numpy() for k, v in torch.load(path, weights_only=True)["model"].items()}


__all__ = ["ROOT", "WIDTHS", "losses", "make_data", "music_rows", "run", "weights"]
