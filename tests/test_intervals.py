"""Intervals over videos and seeds, paired differences of runs, their p-values and Holm's correction."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_metrics import predictions
from utils.errors import UserError
from utils.scoring.intervals import compare, holm, intervals_of, student_limit, student_p
from utils.scoring.metrics import accuracy_row
from utils.scoring.paper import TABLE1_COLUMNS


def flat(video, correct):
    """Predictions of counting questions, given the video of each question and whether it is correct."""
    return predictions([(v, "Audio", "Counting", bool(c)) for v, c in zip(video, correct, strict=True)])


# --- intervals ---


def test_interval_agrees_with_the_analytic_cluster_error():
    """For many videos the interval is accuracy +- 1.96 standard errors of a ratio of video sums."""
    rng = np.random.default_rng(1)
    video = rng.integers(2000, size=6000)
    level = rng.beta(2, 1, size=2000)  # videos differ in difficulty
    correct = rng.random(6000) < level[video]
    low, high = intervals_of([flat(video, correct)], TABLE1_COLUMNS)["All"]

    accuracy = correct.mean()
    residual = np.bincount(video, correct - accuracy, minlength=2000)
    error = 100 * math.sqrt((residual**2).sum()) / len(video)
    assert (low, high) == pytest.approx((100 * accuracy - 1.96 * error, 100 * accuracy + 1.96 * error), abs=0.01)


def test_videos_are_resampled_not_questions():
    """Four copies of each question say no more than one: the interval must stay as wide when they share a video."""
    correct = np.random.default_rng(0).random(400) < 0.7
    once = intervals_of([flat(range(400), correct)], TABLE1_COLUMNS)["All"]
    copied = intervals_of([flat(np.repeat(range(400), 4), np.repeat(correct, 4))], TABLE1_COLUMNS)["All"]
    apart = intervals_of([flat(range(1600), np.repeat(correct, 4))], TABLE1_COLUMNS)["All"]
    assert copied == pytest.approx(once)
    assert np.diff(apart)[0] == pytest.approx(np.diff(once)[0] / 2, rel=0.06)


def test_an_interval_is_given_for_every_column():
    correct = np.random.default_rng(0).random((60, 2)) < 0.7
    kinds = enumerate(("Counting", "Location"))
    rows = [(f"v{i // 3}", "Visual", kind, correct[i, k]) for k, kind in kinds for i in range(60)]
    table = predictions(rows)
    intervals = intervals_of([table], TABLE1_COLUMNS)
    assert list(intervals) == list(accuracy_row(table, TABLE1_COLUMNS)) == ["V-Count", "V-Loc", "V", "All"]
    assert all(low < accuracy_row(table, TABLE1_COLUMNS)[column] < high for column, (low, high) in intervals.items())


def test_the_error_is_that_of_a_bootstrap_over_videos():
    """Of a difference, where videos have one to six questions."""
    rng = np.random.default_rng(5)
    video = np.repeat(np.arange(80), rng.integers(1, 7, size=80))
    a, b = (rng.random(len(video)) < rng.beta(2, 1, size=80)[video] for _ in range(2))
    row = compare([flat(video, a)], [flat(video, b)], TABLE1_COLUMNS).loc["All"]
    gained, asked = np.bincount(video, b * 1.0 - a), np.bincount(video)
    drawn = rng.integers(80, size=(20_000, 80))
    error = np.std(100 * gained[drawn].sum(axis=1) / asked[drawn].sum(axis=1))
    (limit,) = student_limit(np.array([79.0]))
    assert row["high"] - row["difference"] == pytest.approx(limit * error, rel=0.03)


def test_a_column_that_one_video_holds_has_an_interval_without_width():
    """Nothing is known of other videos there."""
    rows = [("only", "Audio", "Counting", True), *[(f"v{i}", "Visual", "Counting", i % 2 == 0) for i in range(20)]]
    intervals = intervals_of([predictions(rows)], TABLE1_COLUMNS)
    assert intervals["A-Count"] == (100.0, 100.0)
    assert np.diff(intervals["V-Count"])[0] > 20


# --- comparison ---


def test_compare_by_hand_in_any_order():
    a = predictions([("v", "Audio", "Counting", c) for c in (True, False, False, True)])
    b = a.assign(correct=[True, True, True, True])
    b = pd.concat([b, a.assign(question_id=["9", "8", "7", "6"], type="Comparative")])
    a = pd.concat([a, a.assign(question_id=["9", "8", "7", "6"], type="Comparative")])
    table = compare([a], [b.sample(frac=1, random_state=0)], TABLE1_COLUMNS)
    assert list(table.index) == ["A-Count", "A-Comp", "A", "All"]
    assert table["n"].tolist() == [4, 4, 8, 8]
    assert table["a"].tolist() == [50, 50, 50, 50]
    assert table["b"].tolist() == [100, 50, 75, 75]
    assert table["difference"].tolist() == [50, 0, 25, 25]
    assert table["low"].tolist() == table["high"].tolist() == [50, 0, 25, 25]
    assert table["p"].isna().all()


def test_compare_covers_a_known_difference():
    """b is 5 points better than a; a 95 % interval must hold 5 in about 95 of 100 fresh samples."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        video = rng.integers(150, size=450)
        base = rng.uniform(0.4, 0.8, size=150)[video]
        shared = rng.random(450)  # the two models are right and wrong on much the same questions
        a, b = (flat(video, shared < base + gain) for gain in (0.0, 0.05))
        row = compare([a], [b], TABLE1_COLUMNS).loc["All"]
        held += row["low"] <= 5 <= row["high"]
    assert 0.90 <= held / 100 <= 0.99


def test_a_model_does_not_differ_from_itself_and_order_flips_the_sign():
    rng = np.random.default_rng(0)
    a, b = (flat(np.arange(90) // 3, rng.random(90) < p) for p in (0.5, 0.7))
    same = compare([a], [a], TABLE1_COLUMNS)
    assert (same[["difference", "low", "high"]] == 0).all(axis=None)
    assert (same["p"] == 1).all()
    there, back = compare([a], [b], TABLE1_COLUMNS), compare([b], [a], TABLE1_COLUMNS)
    pd.testing.assert_series_equal(there["difference"], -back["difference"])
    pd.testing.assert_series_equal(there["low"], -back["high"], check_names=False)
    pd.testing.assert_series_equal(there["p"], back["p"])


def test_compare_refuses_other_questions():
    a = flat(range(10), [1] * 10)
    with pytest.raises(UserError, match=r"4 are in one of them alone, e.g. question 0"):
        compare([a], [pd.concat([a[3:], a[:1].assign(question_id="99")])], TABLE1_COLUMNS)


# --- seeds ---


def runs(rng, video, chances, luck=(0, 0, 0)):
    """Predictions of several seeds: each question has a chance to be answered, each seed its own luck."""
    return [flat(video, rng.random(len(video)) < chances + more) for more in luck]


def test_the_error_is_that_over_videos_and_that_over_seeds():
    """By the analytic cluster error of the seeds' mean, the variance of the seeds, and Satterthwaite's freedom."""
    rng = np.random.default_rng(2)
    video = rng.integers(1500, size=4500)
    tables = runs(rng, video, rng.beta(2, 1, size=1500)[video], (-0.03, 0, 0.03))
    shuffled = [table.sample(frac=1, random_state=i) for i, table in enumerate(tables)]
    low, high = intervals_of(shuffled, TABLE1_COLUMNS)["All"]

    score = np.mean([table["correct"] for table in tables], axis=0)
    residual = np.bincount(video, score - score.mean(), minlength=1500)
    of_videos = (residual**2).sum() / len(video) ** 2
    of_seeds = np.var([table["correct"].mean() for table in tables], ddof=1) / 3
    assert of_seeds > of_videos
    df = (of_videos + of_seeds) ** 2 / (of_videos**2 / (len(set(video)) - 1) + of_seeds**2 / 2)
    (limit,) = student_limit(np.array([df]))
    reach = 100 * limit * math.sqrt(of_videos + of_seeds)
    assert (low, high) == pytest.approx((100 * score.mean() - reach, 100 * score.mean() + reach), abs=0.2)
    assert compare(tables, shuffled, TABLE1_COLUMNS)["difference"].tolist() == [0] * 3


def test_a_difference_is_judged_by_the_seeds_of_both_sides():
    """Seeds that are right everywhere or nowhere: nothing varies over videos, and all of it over seeds."""
    nothing, everything = flat("vwxy", [0] * 4), flat("vwxy", [1] * 4)
    a, b = [nothing, everything], [nothing, nothing, nothing, everything]
    row = compare(a, b, TABLE1_COLUMNS).loc["All"]
    of_a, of_b = 5000 / 2, 2500 / 4  # unbiased variances / number of seeds
    df = (of_a + of_b) ** 2 / (of_a**2 / 1 + of_b**2 / 3)
    (limit,) = student_limit(np.array([df]))
    assert [row["df"], row["difference"]] == pytest.approx([df, -25])
    assert row["high"] - row["difference"] == pytest.approx(limit * math.sqrt(of_a + of_b))


def test_of_one_seed_the_interval_is_over_videos_alone():
    rng = np.random.default_rng(3)
    a, b = (flat(np.arange(90) // 3, rng.random(90) < share) for share in (0.5, 0.7))
    row = compare([a], [b], TABLE1_COLUMNS).loc["All"]
    assert row["df"] == pytest.approx(29)
    assert compare([a, a], [b, b], TABLE1_COLUMNS).loc["All", "low"] == pytest.approx(row["low"])  # seeds that agree


def test_the_difference_of_two_sides_of_seeds_by_hand():
    a = [flat("vwxy", flags) for flags in ([1, 0, 0, 0], [1, 1, 0, 0])]
    b = [flat("vwxy", flags) for flags in ([1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1])]
    row = compare(a, b, TABLE1_COLUMNS).loc["All"]
    assert [row["n"], row["a"], row["b"]] == pytest.approx([4, 100 * 3 / 8, 100 * 11 / 12])
    assert row["difference"] == pytest.approx(row["b"] - row["a"])
    assert row["low"] < row["difference"] < row["high"]


def test_pairing_narrows_the_interval_of_a_difference():
    rng = np.random.default_rng(3)
    base = rng.random(600)
    a, b = (flat(range(600), base < level) for level in (0.5, 0.55))  # right and wrong on the same questions
    paired = compare([a], [b], TABLE1_COLUMNS).loc["All"]
    apart = compare([a], [flat(range(600), rng.random(600) < 0.55)], TABLE1_COLUMNS).loc["All"]
    assert paired["high"] - paired["low"] < 0.6 * (apart["high"] - apart["low"])


@pytest.mark.slow
def test_p_is_rarely_small_where_nothing_differs_and_agrees_with_the_interval():
    """At 5 %: at most about one in twenty of models that are equally good."""
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(100):
        video = rng.integers(100, size=300)
        chances = rng.uniform(0.4, 0.8, size=100)[video]
        sides = [runs(rng, video, chances, rng.normal(0, 0.05, size=4)) for _ in range(2)]
        row = compare(*sides, TABLE1_COLUMNS).loc["All"]
        small += row["p"] < 0.05
        assert (row["p"] < 0.05) == (not row["low"] <= 0 <= row["high"])
    assert 0 < small / 100 <= 0.1


def test_a_clear_difference_has_a_small_p():
    rng = np.random.default_rng(0)
    a, b = (flat(np.arange(300) // 3, rng.random(300) < level) for level in (0.4, 0.8))
    assert compare([a], [b], TABLE1_COLUMNS).loc["All", "p"] < 1e-12


def test_p_is_two_sided():
    """Two of three videos are won and one is lost: 1/3 on average, a variance of 8/9 / 3, 2 degrees of freedom."""
    a, b = flat("uvw", [0, 0, 1]), flat("uvw", [1, 1, 0])
    t = (1 / 3) / math.sqrt(8 / 27)
    expected = 1 - t / math.sqrt(2 + t * t)  # Student's t of two degrees of freedom has a closed form
    assert compare([a], [b], TABLE1_COLUMNS).loc["All", "p"] == pytest.approx(expected, abs=0.01)
    assert compare([a], [b], TABLE1_COLUMNS).loc["All", "df"] == pytest.approx(2)
    a, b = flat("uv", [0, 1]), flat("uv", [1, 0])
    assert compare([a], [b], TABLE1_COLUMNS).loc["All", "p"] == 1
    a, b = flat("uv", [0, 0]), flat("uv", [1, 1])  # nothing varies
    assert math.isnan(compare([a], [b], TABLE1_COLUMNS).loc["All", "p"])


# --- Student's t ---


@pytest.mark.parametrize(
    ("df", "limit"),
    [(1, 12.7062047), (2, 4.3026527), (5, 2.5705818), (10, 2.2281389), (30, 2.0422725), (1e6, 1.9599664)],
)
def test_student_s_limits_are_those_of_printed_tables(df, limit):
    assert student_limit(np.array([df])) == pytest.approx(limit, abs=1e-6)
    assert student_p(-limit, df) == pytest.approx(0.05, abs=1e-7)


@pytest.mark.parametrize("t", [0, 0.1, 1.0, 5.0, 50.0])
def test_student_s_tails_are_those_of_closed_forms(t):
    assert student_p(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-9)
    assert student_p(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9)
    angle = math.atan(t / math.sqrt(3))
    assert student_p(t, 3) == pytest.approx(1 - 2 / math.pi * (angle + math.sin(angle) * math.cos(angle)), rel=1e-9)


def test_student_s_tail_between_whole_degrees_of_freedom():
    density = np.cos(np.linspace(0, np.pi / 2, 2_000_001)) ** (56.7 - 1)
    beyond = round(math.atan(2.0 / math.sqrt(56.7)) / (np.pi / 2) * 2_000_000)
    assert student_p(2.0, 56.7) == pytest.approx(density[beyond:].sum() / density.sum(), abs=1e-6)


# --- other scores than accuracy ---


def grounded(*scores):
    table = flat("uvwx", [1] * 4)
    return [table.assign(AP=list(values)).drop(columns=["answer", "correct"]) for values in scores]


def test_any_score_of_a_question_has_an_interval_and_what_does_not_count_is_left_out():
    nan = math.nan
    tables = grounded([0.5, 0.7, nan, nan], [0.6, nan, nan, 0.5])
    low, high = intervals_of(tables, TABLE1_COLUMNS, "AP")["All"]
    assert 0 < low < high < 100
    assert (low + high) / 2 == pytest.approx(100 * 2.3 / 4)
    assert intervals_of(grounded([nan] * 4), TABLE1_COLUMNS, "AP") == {}


# --- several comparisons ---


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02, math.nan, 0.01]) == pytest.approx([0.02, math.nan, 0.02], nan_ok=True)
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_no_correction_and_bonferronis_and_keeps_the_order(p):
    corrected = holm(p)
    assert all(one <= both <= min(1, one * len(p)) + 1e-12 for one, both in zip(p, corrected, strict=True))
    ranked = [corrected[i] for i in np.argsort(p)]
    assert ranked == sorted(ranked)
