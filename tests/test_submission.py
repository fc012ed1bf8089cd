"""Predictions made elsewhere, matched with the questions: what is read, counted and refused."""

import json
import logging

import pandas as pd
import pytest

from dataset.music_avqa import ANSWERS as PUBLIC
from tests.test_predictions import questions
from utils.errors import UserError
from utils.scoring.metrics import accuracy_row, judge
from utils.scoring.paper import TABLE1_COLUMNS
from utils.scoring.predictions import COLUMNS, write_predictions
from utils.scoring.submission import Submission, read_submission


def read(path, asked, left_out=0) -> Submission:
    """As answers to `asked`; a text is its own answer, "?" is none."""
    return read_submission(path, asked, lambda: PUBLIC, lambda text, question: None if "?" in text else text, left_out)


def public_line(question, target, predicted, blank=" "):
    indices = f"{PUBLIC.index(target)}{blank}\t{blank}{PUBLIC.index(predicted)}"
    return f"{question}{blank}\t{blank}{target == predicted}{blank}\t{blank}{indices}"


@pytest.mark.parametrize("blank", ["", " ", "  "])
def test_public_format(tmp_path, blank, caplog):
    """Told by content; the order and the columns are those of the questions."""
    asked = questions(q12="one", q7="yes", q30="violin")
    lines = [("7.0", "yes", "no"), ("30", "violin", "violin"), ("12", "one", "one")]
    path = tmp_path / "anything.csv"
    path.write_text("\n".join(public_line(*line, blank=blank) for line in lines) + "\n\n")
    table = read(path, asked).predictions
    pd.testing.assert_frame_equal(table, judge(asked, ["one", "no", "violin"]))
    assert accuracy_row(table, TABLE1_COLUMNS)["All"] == pytest.approx(200 / 3)
    assert not caplog.records


def test_the_annotation_decides_where_targets_differ(tmp_path, caplog):
    asked = questions(q1="one", q2="two", q3="yes")
    lines = [("1", "one", "one"), ("2", "three", "two"), ("3", "no", "no")]  # corrected answers of 2 and 3
    (tmp_path / "p.txt").write_text("\n".join(public_line(*line) for line in lines))
    with caplog.at_level(logging.WARNING):
        table = read(tmp_path / "p.txt", asked).predictions
    assert table["correct"].tolist() == [True, True, False]
    assert "2 of 3 questions" in caplog.text
    assert "question 2: 'three', annotated 'two'" in caplog.text
    assert "66.67 % are correct" in caplog.text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2\tTrue\t0", "line 2: 3 fields between tabs where 4 are needed"),
        ("2 True 0 0", "line 2: 1 fields"),
        ("2\tyes\t0\t0", "line 2: says 'yes', but the target is 0 and the prediction 0"),
        ("2\tFalse\t0\t42", "line 2: the predicted index must be 0 to 41, not '42'"),
        ("2\tFalse\t-1\t4", "line 2: the target index must be 0 to 41, not '-1'"),
        ("2\tFalse\ttwo\t4", "line 2: the target index must be 0 to 41, not 'two'"),
        ("2\tTrue\t0\t4", "line 2: says 'True', but the target is 0 and the prediction 4"),
        ("1\tTrue\t0\t0", "question 1 is answered twice"),
        (
            "3\tTrue\t0\t0",
            "answers 1 questions that the annotation of 2 does not have, e.g. 3",
        ),
    ],
)
def test_malformed_public_file(tmp_path, line, said):
    (tmp_path / "p.txt").write_text(f"1 \t True \t 0 \t 0\n{line}\n")
    with pytest.raises(UserError, match=f"p.txt.*{said}"):
        read(tmp_path / "p.txt", questions(q1="two", q2="two"))


JSON = '{"question_id": 12, "answer": "one"}\n\n{"answer": 2, "question_id": "7.0", "why": "seen"}\n'


def test_free_text_in_json_lines(tmp_path):
    asked = questions(q12="one", q7="two", q30="yes", q31="no")
    (tmp_path / "p.txt").write_text(JSON + '{"question_id": 31, "answer": "no?"}')
    predictions, missing, unmapped, _ = read(tmp_path / "p.txt", asked)
    pd.testing.assert_frame_equal(predictions, judge(asked, ["one", "2", "", ""]))
    assert (missing, unmapped) == (["30"], {"31": "no?"})


def test_what_is_missing_is_wrong_and_named_whatever_the_format(tmp_path):
    asked = questions(q1="one", q2="two", q3="yes")
    write_predictions(tmp_path / "ours", judge(asked[:1], ["one"]).assign(probability=0.5))
    (tmp_path / "public").write_text(public_line("1", "one", "one"))
    (tmp_path / "text").write_text('{"question_id": 1, "answer": "one"}')
    for name in ("ours", "public", "text"):
        predictions, missing, unmapped, _ = read(tmp_path / name, asked)
        assert predictions["correct"].tolist() == [True, False, False]
        assert (missing, unmapped) == (["2", "3"], {})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", 'line 4: is no JSON object with "question_id" and "answer" '),
        ("[1]", "line 4: is no JSON object with"),
        ('{"question_id": 1}', "line 4: is no JSON object with .*'answer'"),
        ('{"question_id": null, "answer": "a"}', "answers 1 questions that the annotation .* does not have, e.g. None"),
        ('{"question_id": 30, "answer": ["a"]}', "line 4: field 'answer' must be text or a number, is \\['a'\\]"),
        ('{"question_id": true, "answer": "a"}', "line 4: field 'question_id' must be text or a number, is True"),
        ('{"question_id": 7, "answer": "a"}', "question 7 is answered twice"),
        ('{"question_id": 99, "answer": "a"}', "answers 1 questions that the annotation of 3 does not have, e.g. 99"),
    ],
)
def test_malformed_json_lines(tmp_path, line, said):
    (tmp_path / "p.txt").write_text(JSON + line)
    with pytest.raises(UserError, match=f"p.txt.*{said}"):
        read(tmp_path / "p.txt", questions(q12="one", q7="two", q30="yes"))


def test_answers_to_rows_that_cannot_be_used_are_told_and_no_error(tmp_path):
    (tmp_path / "p.txt").write_text(JSON)
    found = read(tmp_path / "p.txt", questions(q7="2"), left_out=1)
    assert (found.predictions["correct"].tolist(), found.surplus) == ([True], ["12"])
    with pytest.raises(UserError, match="answers 2 questions that the annotation of 1 does not have"):
        read(tmp_path / "p.txt", questions(q1="2"), left_out=1)


@pytest.mark.parametrize("text", ["", "question 1: two\n", "[\n", "id;answer\n"])
def test_other_formats_are_refused(tmp_path, text):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(UserError, match=r"p\.txt: its first line is neither the header question_id,.*JSON object"):
        read(tmp_path / "p.txt", questions(q12="one"))


def test_a_public_file_for_the_real_test_split(tmp_path, shared):
    """Every question of the type (Audio, Counting) right and all others wrong: a row known beforehand."""
    rows = json.loads((shared / "music_avqa/test.json").read_text())
    table = pd.DataFrame(
        [(str(r["question_id"]), r["video_id"], *json.loads(r["type"]), r["anser"]) for r in rows], columns=COLUMNS[:5]
    )
    right = (table["modality"] == "Audio") & (table["type"] == "Counting")
    guesses = [a if ok else ("no" if a == "yes" else "yes") for a, ok in zip(table["answer"], right, strict=True)]
    lines = zip(table["question_id"], table["answer"], guesses, strict=True)
    (tmp_path / "p.txt").write_text("\n".join(public_line(*line) for line in lines))
    row = accuracy_row(read(tmp_path / "p.txt", table).predictions, TABLE1_COLUMNS)
    assert row["A"] == pytest.approx(100 * 1017 / 1611)
    assert row["All"] == pytest.approx(100 * 1017 / 9129)
    assert row["A-Count"] == 100
    assert row["V"] == row["AV"] == 0
