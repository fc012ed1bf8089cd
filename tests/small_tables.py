"""scripts.reproduce as a user calls it, with a stand-in for training: runs that end at once."""

from pathlib import Path

import pytest

from scripts.reproduce import queue
from scripts.reproduce.__main__ import main

STAND_IN = """
import json, pathlib, sys
folder, label, epochs, accuracy = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
if label.startswith("w/o TPM"): sys.exit("error: out of luck")
line = json.dumps({"epoch": 1, "train_seconds": 2.0}) + chr(10)
(folder / "metrics.jsonl").write_text(line * epochs)
(folder / "test").mkdir()
found = {"questions": 18, "accuracy": dict.fromkeys(["A", "V", "AV", "All"], accuracy), "interval95": {"All": [40, 70]}}
(folder / "test/metrics.json").write_text(json.dumps(found))
"""


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end at once with an accuracy of 50 + seed, 60 + seed for TSPM; those of w/o TPM fail."""

    def commands(self):
        accuracy = 50 + 10 * self.label.startswith("TSPM, seed") + self.config.train.seed
        yield ["-c", STAND_IN, str(self.folder), self.label, str(self.config.train.epochs), str(accuracy)]

    monkeypatch.setattr(queue.Run, "commands", property(commands))
    monkeypatch.setattr(queue, "TICK", 0.02)


def reproduce_in(folder: Path, data: Path | str, *options: str, expect: int = 0) -> Path:
    """Run the command with its runs and results below `folder`; return the folder of the results."""
    where = ["--runs", str(folder / "runs"), "--results", str(folder / "results")]
    code = 0
    try:
        code = main([*options, "--config", str(data), *where])
    except SystemExit as end:
        code = end.code
    assert code == expect
    return folder / "results/tspm"
