"""test.py where there is truth: what the model looked at is measured, and the truth is checked before any answer."""

from pathlib import Path

import pandas as pd
import pytest

from tests.scoring_run import OF_A_MODEL
from tests.small_run import make_data
from utils.files import read_json, write_json


def write_truth(root: Path, *splits: str) -> None:
    """Truth of each test video (or of those of `splits`): one performer, and prompts true in segments 1 and 2."""
    performers = [{"box": [0, 0, 80, 90], "sounding_segments": [0, 1, 2, 3]}]
    rows = [row for split in splits or ["test"] for row in read_json(root / f"{split}.json")]
    questions = {str(row["question_id"]): {"segments": [1, 2]} for row in rows}
    for video in {row["video_id"] for row in rows}:
        told = {"frame": [160, 90], "performers": performers, "questions": questions}
        write_json(root / f"truth/{video}.json", told)


SEALS = {"digest", "predictions_sha256", "weights_sha256"}  # of what else the file holds, of answers, of the model


@pytest.mark.parametrize(
    ("layout", "measures"), [("files", {"segment selection", "pointing game"}), ("public", {"segment selection"})]
)
def test_where_there_is_truth_it_is_measured_what_the_model_looked_at(learn, score, tmp_path, layout, measures):
    """In the public layout when alone: it does not tell which patches are in a token."""
    data = make_data(tmp_path, tokens=5, layout=layout)
    write_truth(tmp_path)
    truth = ("--data.truth", tmp_path / "truth")
    learn("--config", data, "--out", tmp_path / "run", "--train.epochs", 1, *truth)
    printed = score("--run", tmp_path / "run")
    assert ("no pointing game" in printed) == (layout == "public")
    metrics = read_json(tmp_path / "run/test/metrics.json")
    assert metrics.keys() - {"questions", "accuracy", "interval95", "measures_interval95", *SEALS} == measures
    assert metrics["measures_interval95"].keys() == measures
    for measure in measures:
        of_all = metrics[measure]["All"]
        assert of_all.pop("n") > 0
        limits = metrics["measures_interval95"][measure]
        assert limits.keys() == of_all.keys()
        assert all(
            low - 1e-4 <= of_all[name] <= high + 1e-4 for name, (low, high) in ((n, limits[n]["All"]) for n in limits)
        )
    assert printed.count("95 % interval over videos, All: ") == len(measures)
    table = pd.read_csv(tmp_path / "run/test/grounding.csv")
    own = {"AP": ("segment selection", "AP model"), "R@3": ("segment selection", "R@3 model")}
    own |= {"pointing": ("pointing game", "model")} if "pointing game" in measures else {}
    assert set(table) == {"question_id", "video_id", "modality", "type", *own}
    for name, (measure, score_of) in own.items():
        assert 100 * table[name].mean() == pytest.approx(metrics[measure]["All"][score_of], abs=1e-3)
    score("--run", tmp_path / "run", "--train.precision", "bf16")  # of which NumPy knows nothing
    assert read_json(tmp_path / "run/test/metrics.json").keys() == metrics.keys()


def test_an_oracle_is_told_the_truth_in_training_and_in_tests(learn, score, tmp_path):
    data = make_data(tmp_path, widths={"frame": 16, "text": 16})
    options = ("--config", data, "--model.temporal", "oracle", "--train.epochs", 1)
    assert "data.truth" in learn(*options, "--out", tmp_path / "untold", fails=True)
    write_truth(tmp_path, "train", "val", "test")
    learn(*options, "--out", tmp_path / "run", "--data.truth", tmp_path / "truth")
    score("--run", tmp_path / "run")
    found = read_json(tmp_path / "run/test/metrics.json")["segment selection"]["All"]
    assert found["R@3 model"] == found["R@3 best"] == 100


def test_truth_that_is_broken_is_named_before_any_answer(learn, score, tmp_path):
    data = make_data(tmp_path, tokens=5)
    learn("--config", data, "--out", tmp_path / "run", "--train.epochs", 1)
    write_truth(tmp_path)
    write_json(tmp_path / "last.json", read_json(tmp_path / "test.json")[-1:])
    last = tmp_path / f"truth/{read_json(tmp_path / 'last.json')[0]['video_id']}.json"
    files = f"{{first: {tmp_path / 'first.json'}, last: {tmp_path / 'last.json'}}}"
    write_json(tmp_path / "first.json", read_json(tmp_path / "test.json")[:1])
    told = ("--run", tmp_path / "run", "--data.truth", tmp_path / "truth", "--data.test", files)
    questions = read_json(last)["questions"]
    for change, said in (
        ({"performers": None}, "last.json"),
        ({"questions": {}}, "lacks question"),
        ({"questions": {i: {"segments": [6]} for i in questions}}, "names segment 6, but data.segments is 6"),
    ):
        whole = read_json(last)
        write_json(last, whole | change)
        assert said.replace("last.json", f"{last}: is not as a truth file") in score(*told, fails=True)
        assert not (tmp_path / "run/test").exists()
        write_json(last, whole)
    score(*told)
    assert {file.name for file in (tmp_path / "run/test/last").iterdir()} == OF_A_MODEL | {"grounding.csv"}
