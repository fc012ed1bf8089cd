"""Rows over seeds: means, intervals and differences to one row, as text and as numbers."""

import numpy as np
import pandas as pd
import pytest

from dataset.music_avqa import MUSIC_AVQA
from scripts.reproduce.tables import differences, write_csv, write_markdown
from utils.errors import UserError
from utils.scoring.intervals import compare

COLUMNS = MUSIC_AVQA.columns
LINES = [
    {"row": "ours", "source": "this project", "seeds": 3, "A": 52.0, "All": 61.0}
    | {"A low": 50.0, "A high": 55.0, "All low": 58.0, "All high": 63.5},
    {"row": "ours", "source": "TSPM paper", "All": 76.79},
    {"row": "less", "source": "this project", "seeds": 1, "A": 40.0, "All": 30.0, "All low": 25.0, "All high": 35.0}
    | {"difference": -31.0, "difference low": -35, "difference high": -28, "df": 40.0, "p": 2e-10},
]


def predictions(seed, share, questions=120):
    """Random answers to counting questions about some videos."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "question_id": [str(number) for number in range(questions)],
            "video_id": [f"v{number % 20}" for number in range(questions)],
            "modality": "Audio",
            "type": "Counting",
            "answer": "one",
            "correct": random.random(questions) < share,
        }
    )


def test_differences_are_paired_and_corrected_for_their_number():
    tables = {
        name: [predictions(10 * number + seed, share) for seed in range(2)]
        for number, (name, share) in enumerate({"all": 0.7, "less": 0.6, "least": 0.3}.items())
    }
    found = differences(tables, "all", COLUMNS)
    assert list(found) == ["less", "least"]
    alone = {name: compare(tables["all"], tables[name], COLUMNS).loc["All"] for name in found}
    for name, row in found.items():
        told = [row[column] for column in ("difference", "difference low", "difference high", "df")]
        assert told == alone[name][["difference", "low", "high", "df"]].tolist()
    assert found["least"]["p"] == 2 * alone["least"]["p"]
    assert found["less"]["p"] == max(alone["less"]["p"], found["least"]["p"])
    with pytest.raises(UserError, match="different questions"):
        differences(tables | {"less": [predictions(0, 0.5, questions=90)]}, "all", COLUMNS)


def test_markdown(tmp_path):
    write_markdown(
        tmp_path / "t.md", "# Head", ["A", "All"], {"Ours": LINES[:2], "More": LINES[2:]}, ["a note"], "ours"
    )
    assert (tmp_path / "t.md").read_text() == (
        "# Head\n\n"
        "**Ours**\n\n"
        "|  | source | seeds | A | All | All, 95 % | to ours | 95 % | p |\n"
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| ours | this project | 3 | 52.00 | 61.00 | 58.00 to 63.50 |  |  |  |\n"
        "| ours | TSPM paper |  | - | 76.79 |  |  |  |  |\n\n"
        "**More**\n\n"
        "|  | source | seeds | A | All | All, 95 % | to ours | 95 % | p |\n"
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| less | this project | 1 | 40.00 | 30.00 | 25.00 to 35.00 | -31.00 | -35.00 to -28.00 | < 0.001 |\n\n"
        "- a note\n"
    )
    write_markdown(tmp_path / "t.md", "# Head", ["All"], {"Ours": LINES[:1]}, [], None)
    assert "| ours | this project | 3 | 61.00 | 58.00 to 63.50 |\n" in (tmp_path / "t.md").read_text()
    without = {name: value for name, value in LINES[0].items() if "low" not in name}
    write_markdown(tmp_path / "t.md", "# Head", ["All"], {"Ours": [without]}, [], None)
    assert "| ours | this project | 3 | 61.00 |\n" in (tmp_path / "t.md").read_text()


def test_csv(tmp_path):
    write_csv(tmp_path / "t.csv", "python x.py", ["A", "All"], LINES)
    assert (tmp_path / "t.csv").read_text().startswith("# python x.py\nrow,source,seeds,A,A low,A high,All,All low,")
    table = pd.read_csv(tmp_path / "t.csv", comment="#")
    assert list(table["All"]) == [61.0, 76.79, 30.0]
    assert table["All low"].fillna(0).tolist() == [58.0, 0.0, 25.0]
    assert table["A"].isna().tolist() == [False, True, False]
    assert table["seeds"].fillna(0).tolist() == [3, 0, 1]
    assert table["difference high"].fillna(0).tolist() == [0, 0, -28.0]
    assert table.loc[2, ["df", "p"]].tolist() == [40.0, 2e-10]
