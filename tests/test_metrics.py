import json
import math

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


def flat(video, correct, kind=("Audio", "Counting")):
    """Predictions of one question type, given the video of each question and whether it is correct."""
    return predictions([(v, *kind, bool(c)) for v, c in zip(video, correct, strict=True)])


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


# --- intervals ---


def test_interval_agrees_with_the_analytic_cluster_error():
    """For many videos the percentile interval is accuracy +- 1.96 standard errors of a ratio of video sums."""
    rng = np.random.default_rng(1)
    video = rng.integers(2000, size=6000)
    level = rng.beta(2, 1, size=2000)  # videos differ in difficulty
    correct = rng.random(6000) < level[video]
    low, high = metrics.bootstrap_interval(flat(video, correct), TABLE1_COLUMNS)["All"]

    accuracy = correct.mean()
    residual = np.bincount(video, correct - accuracy, minlength=2000)
    error = 100 * math.sqrt((residual**2).sum()) / len(video)
    assert (low, high) == pytest.approx((100 * accuracy - 1.96 * error, 100 * accuracy + 1.96 * error), abs=0.06)


def test_videos_are_resampled_not_questions():
    """Four copies of each question say no more than one: the interval must stay as wide when they share a video."""
    correct = np.random.default_rng(0).random(400) < 0.7
    once = metrics.bootstrap_interval(flat(range(400), correct), TABLE1_COLUMNS)["All"]
    copied = metrics.bootstrap_interval(flat(np.repeat(range(400), 4), np.repeat(correct, 4)), TABLE1_COLUMNS)["All"]
    apart = metrics.bootstrap_interval(flat(range(1600), np.repeat(correct, 4)), TABLE1_COLUMNS)["All"]
    assert copied == pytest.approx(once)
    assert np.diff(apart)[0] == pytest.approx(np.diff(once)[0] / 2, rel=0.06)


def test_interval_is_given_for_every_column_and_repeats_with_the_seed():
    correct = np.random.default_rng(0).random((60, 2)) < 0.7
    kinds = enumerate(("Counting", "Location"))
    rows = [(f"v{i // 3}", "Visual", kind, correct[i, k]) for k, kind in kinds for i in range(60)]
    table = predictions(rows)
    intervals = metrics.bootstrap_interval(table, TABLE1_COLUMNS, seed=3)
    assert list(intervals) == list(metrics.accuracy_row(table, TABLE1_COLUMNS)) == ["V-Count", "V-Loc", "V", "All"]
    assert (
        intervals
        == metrics.bootstrap_interval(table, TABLE1_COLUMNS, seed=3)
        != metrics.bootstrap_interval(table, TABLE1_COLUMNS, seed=4)
    )
    assert all(
        low <= metrics.accuracy_row(table, TABLE1_COLUMNS)[column] <= high for column, (low, high) in intervals.items()
    )


def test_a_column_that_one_video_holds_has_an_interval_without_width():
    """Resamples without that video say nothing of the column, and are left out of it."""
    rows = [("only", "Audio", "Counting", True), *[(f"v{i}", "Visual", "Counting", i % 2 == 0) for i in range(20)]]
    intervals = metrics.bootstrap_interval(predictions(rows), TABLE1_COLUMNS, resamples=500)
    assert intervals["A-Count"] == (100.0, 100.0)
    assert np.diff(intervals["V-Count"])[0] > 20


# --- comparison ---


def test_compare_by_hand_in_any_order():
    a = predictions([("v", "Audio", "Counting", c) for c in (True, False, False, True)])
    b = a.assign(correct=[True, True, True, True])
    b = pd.concat([b, a.assign(question_id=["9", "8", "7", "6"], type="Comparative")])
    a = pd.concat([a, a.assign(question_id=["9", "8", "7", "6"], type="Comparative")])
    table = metrics.compare(a, b.sample(frac=1, random_state=0), TABLE1_COLUMNS, resamples=200)
    assert list(table.index) == ["A-Count", "A-Comp", "A", "All"]
    assert table["n"].tolist() == [4, 4, 8, 8]
    assert table["a"].tolist() == [50, 50, 50, 50]
    assert table["b"].tolist() == [100, 50, 75, 75]
    assert table["difference"].tolist() == [50, 0, 25, 25]
    assert table["low"].tolist() == table["high"].tolist() == [50, 0, 25, 25]  # one video: nothing to resample


def test_compare_covers_a_known_difference():
    """b is 5 points better than a; a 95 % interval must hold 5 in about 95 of 100 fresh samples."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        video = rng.integers(150, size=450)
        base = rng.uniform(0.4, 0.8, size=150)[video]
        shared = rng.random(450)  # the two models are right and wrong on much the same questions
        a, b = (flat(video, shared < base + gain) for gain in (0.0, 0.05))
        row = metrics.compare(a, b, TABLE1_COLUMNS, resamples=400).loc["All"]
        held += row["low"] <= 5 <= row["high"]
    assert 0.90 <= held / 200 <= 0.985


def test_a_model_does_not_differ_from_itself_and_order_flips_the_sign():
    rng = np.random.default_rng(0)
    a, b = (flat(np.arange(90) // 3, rng.random(90) < p) for p in (0.5, 0.7))
    assert (metrics.compare(a, a, TABLE1_COLUMNS)[["difference", "low", "high"]] == 0).all(axis=None)
    there, back = metrics.compare(a, b, TABLE1_COLUMNS), metrics.compare(b, a, TABLE1_COLUMNS)
    pd.testing.assert_series_equal(there["difference"], -back["difference"])
    pd.testing.assert_series_equal(there["low"], -back["high"], check_names=False)


def test_compare_refuses_other_questions_and_other_answers():
    a = flat(range(10), [1] * 10)
    with pytest.raises(UserError, match=r"3 are only in the first and 1 only in the second, e.g. question 0"):
        metrics.compare(a, pd.concat([a[3:], a[:1].assign(question_id="99")]), TABLE1_COLUMNS)
    with pytest.raises(UserError, match=r"answers of 1 questions differ.*question 4: 'yes' and 'two'"):
        metrics.compare(a, a.assign(answer=["two" if i == 4 else "yes" for i in range(10)]), TABLE1_COLUMNS)


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
