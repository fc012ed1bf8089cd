"""A network is a file and a line; so is a data set: nothing else knows their names."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from dataset.text_prompt import PromptTable
from tests.clips import write_clip
from tests.small_run import ROOT, TOKENS, make_data
from tests.synthetic import write_features
from utils.files import read_json, write_json

ROOMS = ("configs", "dataset", "feat_script", "nets", "scripts", "utils")

NETWORK = '''
"""The question reads the frames: a network of one file."""

from dataclasses import dataclass

import torch
from torch import nn

from nets.network import Network, Perception
from nets.options import ModelOptions


@dataclass
class ToyOptions(ModelOptions):
    """A toy."""

    network: str = "toy"
    wide: int = 8
    """Hidden width."""

    kinds = ("frame",)

    def build(self, sizes, answers):
        return Toy(sizes.width("frame"), sizes.text, self.wide, answers)


class Toy(Network):
    def __init__(self, frame, text, wide, answers):
        super().__init__()
        self.frame, self.text, self.answer = nn.Linear(frame, wide), nn.Linear(text, wide), nn.Linear(wide, answers)

    def forward(self, frame, text, video, asked, question, prompt):
        v, q = self.frame(frame[video].float())[asked], self.text(text[question])
        weights = torch.einsum("btd,bd->bt", v, q).softmax(dim=1)
        selected = weights.topk(2).indices.sort(dim=1).values
        return Perception(self.answer(torch.einsum("bt,btd->bd", weights, v) * q), weights, selected)

    def rate_groups(self):
        return {"words": list(self.text.parameters())}
'''

DATASET = '''
"""Free answers to free questions."""

from dataset.answers import most_frequent_answers
from dataset.spec import Dataset
from utils.errors import UserError


def read_row(row):
    for field in ("video", "answer", "kind"):
        if not isinstance(row.get(field), str):
            raise UserError(f"field {field!r} must be a string, is {row.get(field)!r}")
    return {
        "question_id": row.get("id"), "video_id": row["video"], "modality": "any", "type": row["kind"],
        "answer": row["answer"],
    }


FREE = Dataset(title="Free", read_row=read_row, vocabulary=most_frequent_answers(300))
'''


def copy_with(tmp_path: Path, register: str, line: str, file: str, source: str) -> Path:
    """A copy of the project with one file more and one line more in a register."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / "project" / room, ignore=shutil.ignore_patterns("__pycache__"))
    for entry in ("train.py", "test.py"):
        shutil.copy(ROOT / entry, tmp_path / "project")
    (tmp_path / "project" / file).write_text(source)
    path = tmp_path / "project" / register
    before, bracket, after = path.read_text().partition("    },\n)")
    path.write_text(f"{before}        {line},\n{bracket}{after}")
    return tmp_path / "project"


IN_TURN = """
import importlib, json, sys

from scripts.reproduce import __main__ as reproduce


def call(name, *arguments):
    return importlib.import_module(name).main([*arguments])


def work(runs, workers):
    for run in runs:
        for script, *arguments in run.commands:
            call(script.removesuffix(".py"), *arguments)
    return {}


reproduce.work = work
for command in json.loads(sys.argv[1]):
    print("=====", flush=True)
    assert not call(*command), command
"""


def run_in(project: Path, *commands: tuple[str | Path | float, ...]) -> list[str]:
    """What each of the commands prints, (module, arguments ...); all in one process, since a start takes seconds, runs
    of scripts.reproduce too."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, words], check=False, cwd=project, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split("=====\n")[1:]


@pytest.mark.slow
def test_a_network_is_a_file_and_a_line(tmp_path):
    project = copy_with(tmp_path, "nets/__init__.py", '"toy": "nets.toy.ToyOptions"', "nets/toy.py", NETWORK)
    data = make_data(tmp_path / "data")
    (tmp_path / "videos").mkdir()
    for video in read_json(data.parent / "test.json")[:9:9]:
        write_clip(tmp_path / "videos" / f"{video['video_id']}.mp4", np.arange(30) / 5)
    first = read_json(data.parent / "test.json")[0]["question_id"]
    run = tmp_path / "run"
    toy = ("--config", data, "--model.network", "toy", "--train.rates.words", 0.5)
    drawn = ("--run", run, "--videos", tmp_path / "videos", "--questions", first, "--out", tmp_path / "toy.png")
    where = ("--runs", tmp_path / "runs", "--results", tmp_path / "results", "--seeds", 0, "--train.epochs", 1)
    said, *_ = run_in(
        project,
        ("train", *toy, "--out", run, "--train.epochs", 1),
        ("test", "--run", run),
        ("scripts.visualize", *drawn),
        ("scripts.reproduce.__main__", "prior", "--config", data, *where, "--row", "toy", "--model.network toy"),
    )
    assert "model.hidden is an option of the network" in said  # of the file, which is TSPM's
    assert "network: toy" in said
    scored = json.loads((run / "test/metrics.json").read_text())
    assert scored["questions"] == 18
    assert (tmp_path / "toy.png").stat().st_size > 10_000
    assert "| toy | this project |" in next((tmp_path / "results").rglob("prior.md")).read_text()
    command = [sys.executable, "train.py", "--model.network", "toy", "--help"]
    assert "--model.wide" in subprocess.run(command, check=True, cwd=project, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_a_data_set_of_free_answers_is_a_file_and_a_line(tmp_path):
    project = copy_with(tmp_path, "dataset/__init__.py", '"free": "dataset.free.FREE"', "dataset/free.py", DATASET)
    draw, root = random.Random(0), tmp_path / "data"
    videos = [f"v{number}" for number in range(12)]
    asked = [f"What is number {number}?" for number in range(40)]
    split_of = {"train": videos[:8], "val": videos[8:10], "test": videos[10:]}
    for split, some in split_of.items():
        rows = []
        for video in some:
            for number, question in enumerate(asked):
                answer = f"answer {draw.randrange(400)}" if split != "train" else f"answer {len(rows)}"
                kind = ("what", "which")[number % 2]
                rows.append(
                    {"id": f"{video}-{number}", "video": video, "question": question, "answer": answer, "kind": kind}
                )
        write_json(root / f"{split}.json", rows)
    prompts = PromptTable.read(ROOT / "dataset/TextPrompt.xlsx", "AVQA")
    filled = [prompts.fill(question, []) for question in asked]
    write_features(root / "features", videos, [text for each in filled for text in (each.question, each.prompt)])
    options = {
        "data": {split: str(root / f"{split}.json") for split in split_of}
        | {"dataset": "free", "sheet": "AVQA", "features": str(root / "features"), "segments": 6},
        "model": {"hidden": 16, "top_k": 3, "tokens": TOKENS},
        "train": {"epochs": 1, "batch_size": 16, "device": "cpu"},
    }
    (root / "free.yaml").write_text(yaml.safe_dump(options))
    where = ("--runs", tmp_path / "runs", "--results", tmp_path / "results", "--seeds", 0)
    trained, tested, _ = run_in(
        project,
        ("train", "--config", root / "free.yaml", "--out", tmp_path / "run"),
        ("test", "--run", tmp_path / "run"),
        ("scripts.reproduce.__main__", "prior", "--config", root / "free.yaml", *where),
    )
    assert "train: 20 questions left out, their answers are outside the vocabulary" in trained  # 320 of 300 classes
    assert "questions have an answer outside the vocabulary" in tested
    scored = json.loads((tmp_path / "run/test/metrics.json").read_text())
    assert list(scored["accuracy"]) == ["what", "which", "All"]
    table = next((tmp_path / "results").rglob("prior.md")).read_text()
    assert table.startswith("# What the questions give away, on Free (")
    assert "| question only | this project |" in table
    assert "TSPM paper" not in table  # whose rows are of other questions
