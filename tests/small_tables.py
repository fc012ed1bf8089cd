"""scripts.reproduce as a user calls it, with a stand-in for training: runs that end at once."""

import functools
import json
from pathlib import Path

import pandas as pd
import pytest

import test
import train
from dataset import DATASETS
from dataset.annotations import read_annotations
from dataset.text_prompt import PromptTable
from scripts.reproduce import __main__ as command
from scripts.reproduce import queue
from utils.scoring.metrics import accuracy_row, judge
from utils.scoring.predictions import COLUMNS

STAND_IN = """
import json, pathlib, sys
folder, label, epochs = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if label.startswith("w/o TPM"): sys.exit("error: out of luck")
line = json.dumps({"epoch": 1, "train_seconds": 2.0}) + chr(10)
(folder / "metrics.jsonl").write_text(line * epochs)
(folder / "test").mkdir()
(folder / "test/predictions.csv").write_text(sys.argv[5])
(folder / "test/metrics.json").write_text(sys.argv[4])
"""


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end at once with 9 + seed of 18 questions right, two more for TSPM; those of w/o TPM fail."""

    def commands(self):
        right = 9 + 2 * self.label.startswith("TSPM, seed") + self.config.train.seed
        row, predictions = answered(self.config.data, right / 18)
        results = json.dumps({"questions": len(predictions), "accuracy": row})
        csv = predictions[list(COLUMNS)].to_csv(index=False)
        yield ["-c", STAND_IN, str(self.folder), self.label, str(self.config.train.epochs), results, csv]

    monkeypatch.setattr(queue.Run, "commands", property(commands))
    monkeypatch.setattr(queue, "TICK", 0.02)


def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are what they are, but in this process: each start of Python takes seconds."""

    def work(runs, workers):
        for run in runs:
            for script, *arguments in run.commands:
                {"train.py": train, "test.py": test}[script].main(arguments)
        return {}

    monkeypatch.setattr(command, "work", work)


def answered(data, share: float) -> tuple[dict[str, float], pd.DataFrame]:
    """A row and predictions of the test questions, of which a share is right, spread over types and videos."""
    asked = read_questions(data.test, data.dataset, data.prompts, data.sheet)
    wrong = [number * 7 % len(asked) >= round(share * len(asked)) for number in range(len(asked))]
    predictions = judge(asked, ["?" if missed else right for right, missed in zip(asked["answer"], wrong, strict=True)])
    return accuracy_row(predictions, DATASETS[data.dataset].columns), predictions


@functools.cache
def read_questions(path, dataset, prompts, sheet):
    return read_annotations(path, dataset, PromptTable.read(prompts, sheet)).questions


def reproduce_in(folder: Path, data: Path | str, *options: str, expect: int = 0) -> Path:
    """Run the command with its runs and results below `folder`; return the folder of the results."""
    where = ["--runs", str(folder / "runs"), "--results", str(folder / "results")]
    code = 0
    try:
        code = command.main([*options, "--config", str(data), *where])
    except SystemExit as end:
        code = end.code
    assert code == expect
    return folder / "results/tspm"
