"""train.py and test.py called in process, and a run that was trained and tested, which several files of tests share."""

import contextlib
import importlib.util
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import train
from dataset.music_avqa import ANSWERS as MUSIC_AVQA_ANSWERS
from tests.small_run import ROOT, make_data
from utils.files import read_json, write_json
from utils.scoring.paper import TABLE1_COLUMNS

WRITTEN = {"predictions.csv", "metrics.json", "confusion.png"}
OF_A_MODEL = WRITTEN | {"errors_by_template.csv"}


def called(main: Callable[[list[str]], None], *arguments, fails: bool = False) -> str:
    """What a command prints, or, of one that must fail, its error."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        if not fails:
            main([*map(str, arguments)])
            return out.getvalue()
        with pytest.raises(SystemExit) as stop:
            main([*map(str, arguments)])
    assert stop.value.code == 2
    return errors.getvalue()


@pytest.fixture(scope="session")
def learn() -> Callable[..., str]:
    """Runs train.py; returns what it printed, or, with `fails`, its error."""
    return lambda *arguments, **how: called(train.main, *arguments, **how)


@pytest.fixture(scope="session")
def score() -> Callable[..., str]:
    """Runs test.py like `learn`; by the name `test` Python's own package would be found."""
    spec = importlib.util.spec_from_file_location("score", ROOT / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments, **how: called(module.main, *arguments, **how)


@pytest.fixture(scope="session")
def tested(learn, score, tmp_path_factory) -> tuple[Path, str]:
    """A run that was trained and tested: its folder, and what testing printed.

    The answer to a question is learned from its template, but for every third video.
    """
    root = tmp_path_factory.mktemp("data")
    data = make_data(root, videos=16)
    for split in ("train", "val", "test"):
        rows = read_json(root / f"{split}.json")
        for number, row in enumerate(rows):
            row["anser"] = MUSIC_AVQA_ANSWERS[number % 9 + 9 * (int(row["video_id"]) % 3 == 2)]
        write_json(root / f"{split}.json", rows)
    learn("--config", data, "--out", root / "run", "--train.epochs", 15, "--train.lr", 0.01)
    return root / "run", score("--run", root / "run")


def answers_of(path: Path) -> dict[str, str]:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return dict(zip(table["question_id"], table["prediction"], strict=True))


def by_hand(rows: list[dict], predicted: dict[str, str]) -> dict[str, float]:
    """Table 1's row from MUSIC-AVQA's own annotation rows: every column is correct / asked, the averages too."""
    right, asked = Counter(), Counter()
    column_of = {kind: column for column, kind in TABLE1_COLUMNS.types.items()}
    average = {"Audio": "A", "Visual": "V", "Audio-Visual": "AV"}
    for row in rows:
        modality, kind = json.loads(row["type"])
        for column in (column_of[modality, kind], average[modality], "All"):
            asked[column] += 1
            right[column] += predicted[str(row["question_id"])] == row["anser"]
    return {column: 100 * right[column] / n for column, n in asked.items()}
