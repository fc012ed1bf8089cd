"""Measures of when and where a model looked: worked examples, chance by simulation, and what must not count."""

import numpy as np
import pandas as pd
import pytest

from utils.errors import UserError
from utils.files import write_json
from utils.scoring.geometry import patch_centres, seen_box
from utils.scoring.grounding import (
    by_column,
    chance_precision,
    heat_maps,
    pointing_scores,
    selection_scores,
    spread,
    true_segments,
    truth_of,
    write_grounding,
)
from utils.scoring.intervals import intervals_of
from utils.scoring.paper import TABLE1_COLUMNS

TOLD = {
    "frame": [160, 90],
    "performers": [{"box": [0, 0, 9.5, 9], "sounding_segments": [0]}, {"box": None, "sounding_segments": []}],
    "questions": {"0": {"segments": [1, 2]}, "1": {"segments": None}},
}


def asked(count: int) -> pd.DataFrame:
    rows = [(str(i), "v", "Audio-Visual", "Temporal") for i in range(count)]
    return pd.DataFrame(rows, columns=["question_id", "video_id", "modality", "type"])


def selection_table(count: int, *arguments) -> pd.DataFrame:
    return by_column(asked(count), TABLE1_COLUMNS, selection_scores(*arguments))


def pointing_table(count: int, *arguments) -> pd.DataFrame:
    return by_column(asked(count), TABLE1_COLUMNS, pointing_scores(["v"] * count, *arguments))


def test_average_precision_and_recall_of_a_worked_example():
    true = np.array([[1, 0, 1, 0, 0]], dtype=bool)
    weights = np.array([[0.3, 0.4, 0.2, 0.1, 0.0]])  # ranks of the true ones: 2 and 3
    table = selection_table(1, true, {"model": weights}, {"model": np.array([[0, 1]])})
    assert table.loc["All", "AP model"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    assert table.loc["All", "R@2 model"] == 50
    assert table.loc["All", "R@2 chance"] == pytest.approx(40)
    assert table.loc["All", "R@2 best"] == 100
    assert table.loc["Temp", "n"] == 1


def test_chance_is_what_random_rankings_reach():
    rng = np.random.default_rng(0)
    true = np.zeros((20000, 12), dtype=bool)
    true[:, :3] = True
    shuffled = rng.random(true.shape)
    weights, selected = {"random": shuffled, "flat": np.ones(true.shape)}, {"random": shuffled.argsort(axis=1)[:, :4]}
    row = selection_table(20000, true, weights, selected).loc["All"]
    assert row["AP chance"] == pytest.approx(100 * chance_precision(np.array([3]), 12)[0])
    for name in weights:  # equal weights rank as chance does, not by position
        assert row[f"AP {name}"] == pytest.approx(row["AP chance"], abs=0.6)
    assert row["R@4 random"] == pytest.approx(row["R@4 chance"], abs=0.6)


def test_questions_that_every_ranking_answers_are_left_out():
    true = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0]], dtype=bool)
    table = selection_table(3, true, {"model": np.array([[1.0, 0, 0]] * 3)}, {"model": np.zeros((3, 1), int)})
    assert table.loc["All", "n"] == 1
    assert table.loc["All", "AP model"] == 100


def test_truth_files_become_masks(tmp_path):
    write_json(tmp_path / "v.json", TOLD)
    truth = truth_of(tmp_path, asked(2))
    expected = [[False, True, True, False], [False] * 4]
    assert true_segments(asked(2), truth, 4).tolist() == expected
    remedy = f"python -m scripts.render_bandstand --out {tmp_path.parent}"
    with pytest.raises(UserError, match=rf"v\.json: lacks question 2; make .* {remedy}"):
        truth_of(tmp_path, asked(3))
    with pytest.raises(UserError, match=r"video v, question 0, names segment 2, but data\.segments is 2"):
        true_segments(asked(2), truth, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"frame": None},
        {"frame": [100, "90"]},
        {"frame": [100]},
        {"performers": None},
        {"performers": [{"box": None}]},
        {"performers": [{"box": [1, 2, 3], "sounding_segments": []}]},
        {"performers": [{"box": None, "sounding_segments": [0.5]}]},
        {"questions": ["0"]},
        {"questions": {"0": [1]}},
        {"questions": {"0": {"segments": [-1]}}},
    ],
)
def test_a_truth_file_that_is_not_whole_is_named(tmp_path, change):
    for held in (TOLD | change, []):
        write_json(tmp_path / "v.json", held)
        with pytest.raises(UserError, match=r"v\.json: is not as a truth file is written; make truth and annotations"):
            truth_of(tmp_path, asked(1))


def test_patches_lie_where_clip_saw_them():
    assert seen_box(160, 90, "crop") == (35, 0, 125, 90)
    assert seen_box(160, 90, "squash") == (0, 0, 160, 90)
    assert patch_centres(160, 90, "crop", 4).tolist() == [[57.5, 22.5], [102.5, 22.5], [57.5, 67.5], [102.5, 67.5]]
    assert patch_centres(90, 160, "crop", 1).tolist() == [[45, 80]]


def test_weights_are_spread_over_patches_and_the_class_token_is_on_none():
    source = np.array([[0, 1, 1, 2, 2], [0, 1, 2, 2, 2]])  # the class token, then four patches
    heat = spread(np.array([[0.5, 0.4, 0.1], [0.1, 0.3, 0.6]]), source)
    np.testing.assert_allclose(heat, [[0.2, 0.2, 0.05, 0.05], [0.3, 0.2, 0.2, 0.2]])


def test_heat_follows_merging_in_extraction_and_then_in_spm():
    stored = [np.array([[0, 1, 2, 3], [0, 3, 1, 2]])]  # T = 2: three patches, four stored tokens
    merged = np.array([[[0, 1, 1, 2]]])  # SPM joined stored tokens 1 and 2
    looked = {"token_weights": np.array([[[0.0, 0.6, 0.4]]]), "token_source": merged, "token_segments": np.array([[1]])}
    (heat,) = heat_maps(looked, stored)
    np.testing.assert_allclose(heat, [[0.4, 0.3, 0.3]])


def scene() -> dict:
    left = {"box": [0, 0, 50, 100], "sounding_segments": [0, 1]}
    right = {"box": [50, 0, 100, 100], "sounding_segments": [1]}
    unseen = {"box": None, "sounding_segments": [0, 1, 2]}
    return {"v": {"frame": [100, 100], "performers": [left, right, unseen]}}


def test_pointing_counts_the_peak_in_a_sounding_performer_s_box():
    on_left, on_right = np.array([0.9, 0.1, 0.0, 0.0]), np.array([0.1, 0.9, 0.0, 0.0])

    def score(selected, maps):
        table = pointing_table(1, scene(), np.array([selected]), {"model": [np.array(maps)]}, "crop")
        return tuple(table.loc["All", ["model", "area"]])

    assert score([0], [on_left]) == (100, 50)
    assert score([0], [on_right]) == (0, 50)
    assert score([1], [on_right]) == (100, 100)
    assert score([0, 1], [on_right, on_right]) == (50, 75)
    assert score([0, 2], [on_left, on_right]) == (100, 50)  # nobody in the picture sounds in segment 2
    assert score([0], [[0.5, 0.5, 0.5, 0.0]]) == (pytest.approx(200 / 3), 50)  # a merged token of three patches


def test_equal_weights_point_at_small_tokens():
    """Merging leaves performers as small tokens: weights that say nothing peak there, so they are the chance."""
    source = np.array([[0, 1, 2, 2, 2]])  # the class token, a patch of its own on the left, and a large token
    heat = spread(np.ones((1, 3)), source)
    row = pointing_table(1, scene(), np.array([[0]]), {"chance": [heat]}, "crop").loc["All"]
    assert row["chance"] == 100
    assert row["area"] == 50


def test_what_no_question_allows_to_measure_is_empty():
    true = np.array([[0, 0, 0], [1, 1, 1]], dtype=bool)
    assert selection_table(2, true, {"model": np.ones((2, 3))}, {"model": np.zeros((2, 1), int)}).empty
    silent = {"v": {"frame": [100, 100], "performers": []}}
    assert pointing_table(1, silent, np.array([[0]]), {"model": [np.ones((1, 4))]}, "crop").empty


def test_more_true_segments_than_are_selected_have_a_ceiling():
    true = np.array([[1, 1, 1, 1, 0]], dtype=bool)
    table = selection_table(1, true, {"model": true.astype(float)}, {"model": np.array([[0, 1]])})
    assert table.loc["All", "R@2 best"] == table.loc["All", "R@2 model"] == 50


def test_scores_of_each_question_are_written(tmp_path):
    true = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 1]], dtype=bool)
    weights, selected = {"model": np.array([[3.0, 2, 1]] * 3)}, {"model": np.array([[0, 1]] * 3)}
    heat = [np.array([[0.9, 0.1, 0.0, 0.0]])] * 2
    measures = {
        "segment selection": selection_scores(true, weights, selected),
        "pointing game": pointing_scores(["v"] * 2, scene(), np.array([[0], [2]]), {"model": heat}, "crop"),
    }
    measures["pointing game"] = {name: np.append(s, 0.5) for name, s in measures["pointing game"].items()}
    write_grounding(tmp_path / "g.csv", asked(3), measures)
    table = pd.read_csv(tmp_path / "g.csv", dtype={"question_id": str, "video_id": str})
    assert list(table) == ["question_id", "video_id", "modality", "type", "AP", "R@2", "pointing"]
    np.testing.assert_allclose(table["AP"], [1, np.nan, (1 / 2 + 2 / 3) / 2], atol=1e-6)
    np.testing.assert_allclose(table["R@2"], [1, np.nan, 0.5])
    np.testing.assert_allclose(table["pointing"], [1, np.nan, 0.5])
    assert table["question_id"].tolist() == ["0", "1", "2"]
    row = by_column(asked(3), TABLE1_COLUMNS, measures["segment selection"]).loc["All"]
    low, high = intervals_of([table, table], TABLE1_COLUMNS, "AP")["All"]
    assert low == pytest.approx(row["AP model"]) == high  # of one video
