"""test.py with a stored model: a run, another split, a checkpoint alone, several test files."""

import shutil
from collections import Counter, defaultdict

import pytest
from matplotlib.image import imread

from tests.scoring_run import WRITTEN, answers_of, by_hand
from tests.small_run import make_data
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.files import read_json, write_json


def test_a_run_is_tested_on_its_test_split(tested):
    folder, printed = tested
    rows = read_json(folder.parent / "test.json")
    predicted = answers_of(folder / "test/predictions.csv")
    assert list(predicted) == [str(row["question_id"]) for row in rows]
    metrics = read_json(folder / "test/metrics.json")
    assert metrics["questions"] == 18
    assert 20 < metrics["accuracy"]["All"] < 80  # else what follows compares nothing
    assert metrics["accuracy"] == pytest.approx(by_hand(rows, predicted))
    assert "TSPM paper, Table 1" in printed
    assert f"18 questions, {metrics['accuracy']['All']:.2f} % correct" in printed
    assert "The published rows are for 9129 questions; these are 18." in printed
    assert {file.name for file in (folder / "test").iterdir()} == WRITTEN


def test_the_baselines_of_the_questions_alone_are_printed(tested):
    folder, printed = tested
    train, test = (read_json(folder.parent / f"{split}.json") for split in ("train", "test"))
    frequent = Counter(row["anser"] for row in train).most_common(1)[0][0]
    by_template = defaultdict(Counter)
    for row in train:
        by_template[row["question_content"]][row["anser"]] += 1
    right = sum(row["anser"] == frequent for row in test)
    assert f"most frequent answer: {100 * right / 18:.2f} %" in printed
    right = sum(row["anser"] == by_template[row["question_content"]].most_common(1)[0][0] for row in test)
    assert f"most frequent answer of each template: {100 * right / 18:.2f} %" in printed


def test_pictures_are_not_blank(tested):
    for name in ("confusion.png", "accuracy.png"):
        picture = imread(tested[0] / "test" / name)
        assert min(picture.shape[:2]) > 300
        assert picture[..., :3].std() > 0.02
        assert 0.01 < (picture[..., 0] < picture[..., 2] - 0.2).mean() < 0.9  # blue cells, blue bars


def test_the_validation_split_is_tested_on_demand(tested, score, tmp_path):
    folder, _ = tested
    printed = score("--run", folder, "--split", "val", "--out", tmp_path)
    stored = load_checkpoint(folder / "best.pt")
    assert read_json(tmp_path / "metrics.json")["accuracy"]["All"] == pytest.approx(stored["at"]["best"])
    assert "9 questions" in printed


def test_a_checkpoint_alone_is_tested_where_everything_lies_elsewhere(tested, score, tmp_path):
    folder, _ = tested
    stored = load_checkpoint(folder / "best.pt")
    for split in ("train", "val", "test"):
        stored["config"]["data"][split] = f"gone/{split}.json"
    stored["config"]["data"]["features"] = "gone/features"
    save_checkpoint(tmp_path / "alone.pt", stored)
    shutil.copytree(folder.parent / "features", tmp_path / "features")
    where = ("--data.features", tmp_path / "features", "--data.test", folder.parent / "test.json")
    printed = score("--checkpoint", tmp_path / "alone.pt", *where)
    assert "most frequent answer: not known, gone/train.json is not at hand" in printed
    assert answers_of(tmp_path / "test/predictions.csv") == answers_of(folder / "test/predictions.csv")
    assert read_json(tmp_path / "test/metrics.json") == read_json(folder / "test/metrics.json")
    assert "gone/features" in score("--checkpoint", tmp_path / "alone.pt", *where[2:], fails=True)
    assert "gone/test.json: no such file" in score("--checkpoint", tmp_path / "alone.pt", *where[:2], fails=True)


@pytest.mark.parametrize(
    ("layout", "measures"), [("files", {"segment selection", "pointing game"}), ("public", {"segment selection"})]
)
def test_where_there_is_truth_it_is_measured_what_the_model_looked_at(learn, score, tmp_path, layout, measures):
    """In the public layout when alone: it does not tell which patches are in a token."""
    data = make_data(tmp_path, tokens=5, layout=layout)
    performers = [{"box": [0, 0, 80, 90], "sounding_segments": [0, 1, 2, 3]}]
    rows = read_json(tmp_path / "test.json")
    questions = {str(row["question_id"]): {"segments": [1, 2]} for row in rows}
    for video in {row["video_id"] for row in rows}:
        told = {"frame": [160, 90], "performers": performers, "questions": questions}
        write_json(tmp_path / f"truth/{video}.json", told)
    truth = ("--data.truth", tmp_path / "truth")
    learn("--config", data, "--out", tmp_path / "run", "--train.epochs", 1, *truth)
    printed = score("--run", tmp_path / "run")
    assert ("no pointing game" in printed) == (layout == "public")
    metrics = read_json(tmp_path / "run/test/metrics.json")
    assert metrics.keys() - {"questions", "accuracy", "interval95"} == measures
    assert all(metrics[measure]["All"]["n"] > 0 for measure in measures)
    score("--run", tmp_path / "run", "--train.precision", "bf16")  # of which NumPy knows nothing
    assert read_json(tmp_path / "run/test/metrics.json").keys() == metrics.keys()


def test_several_test_files_get_a_folder_each(tested, score, tmp_path):
    folder, _ = tested
    root = folder.parent
    files = f"{{all: {root / 'test.json'}, few: {tmp_path / 'few.json'}}}"
    write_json(tmp_path / "few.json", read_json(root / "test.json")[::-1][:5])
    printed = score("--run", folder, "--data.test", files, "--out", tmp_path / "out")
    assert {path.name: {file.name for file in path.iterdir()} for path in (tmp_path / "out").iterdir()} == {
        "all": WRITTEN,
        "few": WRITTEN,
    }
    alone = answers_of(folder / "test/predictions.csv")
    assert answers_of(tmp_path / "out/all/predictions.csv") == alone
    few = answers_of(tmp_path / "out/few/predictions.csv")
    assert list(few.items()) == list(alone.items())[::-1][:5]
    assert read_json(tmp_path / "out/all/metrics.json") == read_json(folder / "test/metrics.json")
    assert read_json(tmp_path / "out/few/metrics.json")["questions"] == 5
    assert printed.index("these are 18.") < printed.index("these are 5.")
