"""Rows over seeds: the mean and its interval, as text, as numbers and as a picture."""

import math
import statistics

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from scripts.reproduce import seed_table
from scripts.reproduce.seed_table import MOST_SEEDS, Line, draw_bars, write_csv, write_markdown
from utils.scoring.plots import save_png

LINES = [
    Line("ours", "this project", [{"A": 50.0, "All": 60.0}, {"A": 52.0, "All": 61.0}, {"A": 54.0, "All": 62.0}]),
    Line("ours", "TSPM paper", [{"All": 76.79}]),
    Line("always yes", "this project", [{"A": 40.0, "All": 30.0}]),
]


def test_the_interval_is_student_s():
    mean, half = LINES[0].mean("All")
    assert mean == 61.0
    assert half == pytest.approx(4.303 * statistics.stdev([60, 61, 62]) / math.sqrt(3))
    assert LINES[1].mean("All") == (76.79, None)
    assert LINES[1].mean("A") is None


@pytest.mark.parametrize("seeds", [2, 3, 5, MOST_SEEDS])
def test_the_interval_holds_the_truth_in_95_of_100_cases(seeds):
    draws = np.random.default_rng(seeds).standard_normal((4000, seeds))
    found = (Line("", "", [{"All": value} for value in draw]).mean("All") for draw in draws)
    covered = np.mean([abs(mean) < half for mean, half in found])
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.05 * 0.95 / 4000))


def test_markdown(tmp_path):
    write_markdown(tmp_path / "t.md", "# Head", ["A", "All"], {"Ours": LINES[:2], "More": LINES[2:]}, ["a note"])
    assert (tmp_path / "t.md").read_text() == (
        "# Head\n\n"
        "**Ours**\n\n"
        "|  | source | seeds | A | All |\n"
        "| --- | --- | --- | ---: | ---: |\n"
        "| ours | this project | 3 | 52.00 ± 4.97 | 61.00 ± 2.48 |\n"
        "| ours | TSPM paper |  | - | 76.79 |\n\n"
        "**More**\n\n"
        "|  | source | seeds | A | All |\n"
        "| --- | --- | --- | ---: | ---: |\n"
        "| always yes | this project |  | 40.00 | 30.00 |\n\n"
        "- a note\n"
    )


def test_csv(tmp_path):
    write_csv(tmp_path / "t.csv", "python x.py", ["A", "All"], LINES)
    assert (tmp_path / "t.csv").read_text().startswith("# python x.py\nrow,source,seeds,A,A ±,All,All ±\n")
    table = pd.read_csv(tmp_path / "t.csv", comment="#")
    assert list(table["All"]) == [61.0, 76.79, 30.0]
    assert table["All ±"].round(2).tolist()[0] == 2.48
    assert table["A"].isna().tolist() == [False, True, False]
    assert table["seeds"].fillna(0).tolist() == [3, 0, 0]


def test_the_picture_marks_ours_the_paper_s_and_differences_by_seed(tmp_path, monkeypatch):
    figures = []

    def save(figure, path):
        figures.append(figure)
        save_png(figure, path)

    monkeypatch.setattr(seed_table, "save_png", save)
    ours = {"w/o it": {0: {"All": 50.0}, 1: {"All": 56.0}}, "all": {0: {"All": 60.0}, 1: {"All": 66.0}}}
    draw_bars(tmp_path / "t.png", "title", ours, {"w/o it": {"All": 70.0}, "all": {"All": 76.0}}, "all")
    assert imread(tmp_path / "t.png").shape[2] == 4
    left, right = figures[0].axes
    assert [bar.get_width() for bar in left.patches] == [53.0, 63.0]
    assert [bar.get_width() for bar in right.patches] == [-10.0, 0.0]
    marks = [next(line for line in axes.lines if line.get_marker() == "D") for axes in (left, right)]
    assert [list(mark.get_xdata()) for mark in marks] == [[70.0, 76.0], [-6.0, 0.0]]
    whisker = right.collections[0].get_segments()[0][:, 0]
    assert whisker.tolist() == [-10.0, -10.0]  # the difference is the same for both seeds
    assert np.ptp(left.collections[0].get_segments()[0][:, 0]) == pytest.approx(2 * 12.706 * 3.0, rel=1e-3)
