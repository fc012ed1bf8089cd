import json

import numpy as np
import pandas as pd
import pytest

from utils.errors import UserError
from utils.scoring import metrics
from utils.scoring.metrics import Columns
from utils.scoring.paper import TABLE1_COLUMNS, TABLE1_ORDER


def predictions(rows, columns=("video_id", "modality", "type", "correct")):
    table = pd.DataFrame(rows, columns=list(columns))
    table["question_id"] = [str(i) for i in range(len(table))]
    return table.assign(answer="yes", prediction=np.where(table["correct"], "yes", "no"))


# --- accuracy ---


def test_table1_row_by_hand():
    correct = {("Audio", "Counting"): "110", ("Audio", "Comparative"): "0", ("Visual", "Location"): "10"}
    correct |= {("Audio-Visual", "Existential"): "1111", ("Audio-Visual", "Temporal"): "10000"}
    rows = [(f"v{i}", *kind, c == "1") for kind, flags in correct.items() for i, c in enumerate(flags)]
    row = metrics.accuracy_row(predictions(rows), TABLE1_COLUMNS)
    expected = {"A-Count": 200 / 3, "A-Comp": 0, "A": 50, "V-Loc": 50, "V": 50}
    expected |= {"Exist": 100, "Temp": 20, "AV": 500 / 9, "All": 800 / 15}
    assert row == pytest.approx(expected)
    assert list(row) == list(expected)  # the order of Table 1; empty columns are left out


def test_without_types_each_type_there_is_has_a_column():
    rows = [("a", "Both", "Where", True), ("b", "View", "Where", False), ("c", "Sound", "Happening", True)]
    row = metrics.accuracy_row(predictions(rows), Columns())
    assert row == pytest.approx({"Happening": 100, "Where": 50, "All": 200 / 3})
    assert list(row) == ["Happening", "Where", "All"]
    assert Columns().layout(row) == {"Question type": {"Happening": "Happening", "Where": "Where"}, "": {"All": "All"}}


def test_types_without_averages_come_in_their_own_order():
    columns = Columns(types={"Why": ("Both", "Why"), "How": ("Sound", "How"), "Who": ("View", "Who")})
    rows = [("a", "Sound", "How", True), ("b", "Both", "Why", False), ("c", "Both", "Why", True)]
    row = metrics.accuracy_row(predictions(rows), columns)
    assert list(row.items()) == [("Why", 50), ("How", 100), ("All", pytest.approx(200 / 3))]
    assert columns.layout(row) == {"Question type": {"Why": "Why", "How": "How"}, "": {"All": "All"}}
    with pytest.raises(
        UserError, match=r"question 0: Sound Why is no question type of this data set \(Why, How, Who\)"
    ):
        columns.masks(predictions([("a", "Sound", "Why", True)]))


def test_the_real_test_split_has_the_counts_of_the_paper(shared):
    rows = json.loads((shared / "music_avqa/test.json").read_text())
    kinds = [json.loads(row["type"]) for row in rows]
    masks = TABLE1_COLUMNS.masks(predictions([("v", *kind, True) for kind in kinds]))
    counts = {column: int(mask.sum()) for column, mask in masks.items()}
    assert tuple(counts) == TABLE1_ORDER
    assert list(counts.values()) == [1017, 594, 1611, 1197, 1225, 2422, 988, 1265, 920, 1101, 822, 5096, 9129]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no questions"),
        ([("v", "Audio", "Counting", True), ("v", "Audio", "Location", True)], "question 1: Audio Location"),
    ],
)
def test_what_cannot_be_scored(rows, said):
    with pytest.raises(UserError, match=said):
        metrics.accuracy_row(predictions(rows), TABLE1_COLUMNS)


# --- baselines ---


def asked(rows, **columns):
    table = pd.DataFrame(rows, columns=["type", "answer"]).assign(modality="Audio", **columns)
    return table.assign(question_id=[str(i) for i in range(len(table))], video_id="v")


def test_most_frequent_by_hand():
    train = asked([("Counting", "two"), ("Counting", "one"), ("Counting", "one"), ("Comparative", "yes")] * 2)
    train = pd.concat([train, asked([("Comparative", "no")])])
    test = asked([("Counting", "one"), ("Comparative", "yes"), ("Temporal", "one"), ("Counting", "two")])
    overall = metrics.most_frequent(train, test)
    assert overall["prediction"].tolist() == ["one"] * 4
    assert overall["correct"].tolist() == [True, False, True, False]
    by_type = metrics.most_frequent(train, test, by=["modality", "type"])
    assert by_type["prediction"].tolist() == ["one", "yes", "one", "one"]  # no Temporal in train: the overall one


def test_most_frequent_among_the_choices_offered():
    train = asked([("Where", a) for a in ("Sea", "sea", "field", "road", "road", "road")])
    choices = [["field", "SEA", "moon", "sun"], ["moon", "sun", "star", "sky"], ["field", "road", "sea", "sun"]]
    test = asked([("Where", "sea"), ("Where", "sun"), ("Where", "field")], choices=choices)
    for by in ((), ["type"]):
        judged = metrics.most_frequent(train, test, by)
        assert judged["prediction"].tolist() == ["SEA", "moon", "road"]
        assert judged["correct"].tolist() == [True, False, False]


def test_random_choice_counts_distinct_choices():
    choices = [["a", "b", "c", "d"], ["a", "A ", "b", "c"], ["a", "b", "c", "d"]]
    questions = asked([("Where", "a"), ("Where", "a"), ("Where", "x")], choices=choices)
    assert metrics.random_choice(questions) == pytest.approx(100 * (1 / 4 + 1 / 3 + 0) / 3)


def test_judge_needs_a_prediction_for_every_question():
    with pytest.raises(ValueError, match="zip"):
        metrics.judge(asked([("Where", "a")]), [])


def test_judge_forgives_case_and_white_space():
    judged = metrics.judge(asked([("Where", "Swimming pool"), ("Where", "field")]), ["swimming  POOL ", "fields"])
    assert judged["correct"].tolist() == [True, False]
