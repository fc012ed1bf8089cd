"""AVQA from annotations to Table 7: a choice among four, trained and tested as a user does it."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dataset.answers import AnswerVocabulary
from nets.network import Perception
from tests.small_run import avqa_rows, losses, make_data
from utils.checkpoint import load_checkpoint
from utils.files import read_json, write_json
from utils.scoring.evaluation import answer, choose

CLASSES = 9
LOGITS = arrays(np.float32, (3, CLASSES), elements=st.floats(-50, 50, width=32), unique=True)
CHOICES = arrays(np.int64, (3, 4), elements=st.integers(-1, CLASSES - 1))


@given(LOGITS, CHOICES)
def test_the_best_of_the_choices_offered_is_chosen(logits, choices):
    chosen = choose(torch.from_numpy(logits), torch.from_numpy(choices)).tolist()
    for scores, offered, found in zip(logits, choices.tolist(), chosen, strict=True):
        known = [choice for choice in offered if choice >= 0]
        assert found == (max(known, key=lambda choice: scores[choice]) if known else -1)


@given(LOGITS)
def test_without_choices_the_best_of_all_is_chosen(logits):
    assert choose(torch.from_numpy(logits), None).tolist() == [
        max(range(CLASSES), key=row.__getitem__) for row in logits
    ]


class Fixed(torch.nn.Module):
    """Answers with the logits that it is given."""

    def forward(self, logits):
        return Perception(logits, selected=torch.tensor([[0, 2]] * len(logits)), segment_weights=logits)


def test_the_probability_of_an_answer_is_that_among_the_choices_offered():
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0], [5.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 9.0]])
    choices = torch.tensor([[0, 2, 3, -1], [1, 2, 3, -1], [-1, -1, -1, -1]])
    for offered, wanted in ((None, logits.softmax(-1).amax(-1)), (choices, [0.66524, 1 / 3, np.nan])):
        batches = [
            SimpleNamespace(
                inputs={"logits": logits[rows]}, choices=None if offered is None else offered[rows], rows=rows
            )
            for rows in (np.array([0, 1]), np.array([2]))
        ]
        answers = answer(Fixed(), batches, "fp32", torch.device("cpu"), looks=False)
        np.testing.assert_allclose(answers.probability, wanted, atol=1e-5)
        assert answers.looked.keys() == {"selected"}  # small, and kept whatever is asked
        assert answers.looked["selected"].shape == (3, 2)
    assert answers.classes == [2, 1, -1]


def test_an_unknown_choice_does_not_win_where_every_score_is_tiny():
    logits = torch.full((1, 3), -3e38)
    assert choose(logits, torch.tensor([[-1, -1, 2, -1]])).tolist() == [2]


def test_a_small_avqa_is_trained_and_tested(learn, score, tmp_path):
    """The test split offers one choice that training never saw; it is never chosen, and where it is right all fail."""
    data, folder = make_data(tmp_path, videos=12, dataset="avqa"), tmp_path / "run"
    rows = read_json(tmp_path / "test.json")
    for row in rows:
        row["multi_choice"] = ["the moon", *row["multi_choice"][1:]]
        row["answer"] = 0 if row is rows[1] else 1
    rows.append(rows[0] | {"id": 999, "answer": "mars"})  # dirty
    write_json(tmp_path / "test.json", rows)

    printed = learn("--config", data, "--out", folder, "--train.epochs", 12, "--train.batch_size", 8)
    assert "train: 9 of 36 questions took the prompt of row *" in printed
    course = losses(folder)
    assert course[-1][1] < 0.9 * course[0][1]
    assert set(course[0][2]) == {"Come From", "Happening", "Where", "Why", "All"}
    offered = {choice for row in avqa_rows(["v"]) for choice in row["multi_choice"]}
    classes = list(AnswerVocabulary(sorted(offered)).answers)
    assert load_checkpoint(folder / "best.pt")["answers"] == classes

    rows_when_begun, rows_of_val = (read_json(tmp_path / "val.json") for _ in range(2))
    rows_of_val[0]["multi_choice"][3] = "a new choice"
    rows_of_val[0]["answer"] = 0
    write_json(tmp_path / "val.json", rows_of_val)
    go_on = ("--config", folder / "config.yaml", "--train.epochs", 13, "--resume")
    assert "val.json (data.val): holds something else than when the run began" in learn(*go_on, fails=True)
    write_json(tmp_path / "val.json", rows_when_begun)
    learn(*go_on)
    assert load_checkpoint(folder / "last.pt")["at"]["epoch"] == 13
    assert load_checkpoint(folder / "last.pt")["answers"] == classes

    printed = score("--run", folder)
    assert "test: 1 rows left out:" in printed
    assert "'mars', which is not among the choices" in printed
    assert "test: 1 questions have an answer outside the vocabulary, such as 'the moon': wrong" in printed
    predictions = pd.read_csv(folder / "test/predictions.csv", dtype=str)
    assert len(predictions) == 8
    for predicted, row in zip(predictions["prediction"], rows[:8], strict=True):
        assert predicted in row["multi_choice"][1:]
    metrics = read_json(folder / "test/metrics.json")
    right = predictions["prediction"] == predictions["answer"]
    assert metrics["accuracy"]["All"] == pytest.approx(100 * right.mean())
    assert not right[1]
    assert_baselines(printed, tmp_path, rows[:8])
    assert "TSPM paper, Table 7" in printed


def assert_baselines(printed: str, root, tested: list[dict]) -> None:
    """Chance and the most frequent training answer, counted here once more by hand."""
    train = [answer_of(row) for row in read_json(root / "train.json")]
    guesses = [max(row["multi_choice"], key=train.count) for row in tested]  # ties: the first offered
    right = sum(guess == answer_of(row) for guess, row in zip(guesses, tested, strict=True))
    assert "random choice among those offered: 25.00 %" in printed
    assert f"most frequent answer: {100 * right / len(tested):.2f} %" in printed


def answer_of(row: dict) -> str:
    return row["multi_choice"][row["answer"]] if isinstance(row["answer"], int) else row["answer"]


@pytest.mark.filterwarnings("error::UserWarning")
def test_the_published_layout_is_trained_and_tested(learn, score, tmp_path):
    data, folder = make_data(tmp_path, layout="public"), tmp_path / "run"
    learn("--config", data, "--out", folder, "--train.epochs", 2, "--model.spm_frames", "first_k")
    assert load_checkpoint(folder / "best.pt")["manifests"] == {}
    assert len(losses(folder)) == 2
    printed = score("--run", folder, "--data.residency", "disk")
    assert "18 questions" in printed
