"""test.py with a stored model: a run, another split, a checkpoint alone, several test files."""

import shutil
from collections import Counter, defaultdict

import pandas as pd
import pytest
from matplotlib.image import imread

from tests.scoring_run import OF_A_MODEL, answers_of, by_hand
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.files import read_json, write_json
from utils.scoring.metrics import judge
from utils.scoring.report import errors_by_template


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
    assert {file.name for file in (folder / "test").iterdir()} == OF_A_MODEL


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


def test_each_answer_tells_its_probability_and_the_segments_it_looked_at(tested):
    table = pd.read_csv(tested[0] / "test/predictions.csv", dtype={"selected": str})
    assert table["probability"].between(1 / 42, 1).all()  # the best of 42 classes
    assert (table["probability"] == table["probability"].round(4)).all()
    for selected in table["selected"]:
        segments = [int(number) for number in selected.split()]
        assert len(segments) == 3
        assert segments == sorted(set(segments))
        assert set(segments) <= set(range(6))


def test_errors_of_a_run_are_counted_by_template(tested):
    folder, _ = tested
    predicted = pd.read_csv(folder / "test/predictions.csv", dtype=str)
    templates = {str(row["question_id"]): row["question_content"] for row in read_json(folder.parent / "test.json")}
    table = pd.read_csv(folder / "test/errors_by_template.csv", keep_default_na=False, dtype={"videos": str})
    assert list(table) == ["template", "n", "wrong", "accuracy", "wrong_answer", "videos"]
    assert table["n"].tolist() == [2] * 9
    assert table["wrong"].is_monotonic_decreasing
    assert table["wrong"].sum() == (predicted["correct"] == "False").sum() > 0
    for row in table.to_dict("records"):
        asked = predicted[[templates[i].replace("？", "?") == row["template"] for i in predicted["question_id"]]]
        wrong = asked[asked["correct"] == "False"]
        assert row["wrong"] == len(wrong)
        assert row["accuracy"] == 50 * (2 - len(wrong))
        assert row["wrong_answer"] in ([""] if wrong.empty else list(wrong["prediction"]))
        assert set(row["videos"].split()) == set(wrong["video_id"])


def test_the_worst_template_comes_first_with_its_most_frequent_wrong_answer_and_its_videos():
    told = [("Where?", "vw", "aa", "ab"), ("Who?", "uvwxyzu", "aaaaaaa", "cbbbdbb"), ("Why?", "v", "a", "a")]
    rows = [(t, *each) for t, *columns in told for each in zip(*columns, strict=True)]
    table = pd.DataFrame(rows, columns=["template", "video_id", "answer", "prediction"])
    errors = errors_by_template(judge(table, table["prediction"]))
    assert errors.to_dict("split")["data"] == [
        ["Who?", 7, 7, 0, "b", "v w x z u"],
        ["Where?", 2, 1, 50, "b", "w"],
        ["Why?", 1, 0, 100, "", ""],
    ]


def test_the_picture_is_not_blank(tested):
    picture = imread(tested[0] / "test/confusion.png")
    assert min(picture.shape[:2]) > 300
    assert picture[..., :3].std() > 0.02
    assert 0.01 < (picture[..., 0] < picture[..., 2] - 0.2).mean() < 0.9  # blue cells


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
    assert "most frequent answer: not known, gone/train.json: no such file" in printed
    assert answers_of(tmp_path / "test/predictions.csv") == answers_of(folder / "test/predictions.csv")
    assert read_json(tmp_path / "test/metrics.json") == read_json(folder / "test/metrics.json")
    assert "gone/features" in score("--checkpoint", tmp_path / "alone.pt", *where[2:], fails=True)
    assert "gone/test.json: no such file" in score("--checkpoint", tmp_path / "alone.pt", *where[:2], fails=True)


def test_several_test_files_get_a_folder_each(tested, score, tmp_path):
    folder, _ = tested
    root = folder.parent
    files = f"{{all: {root / 'test.json'}, few: {tmp_path / 'few.json'}}}"
    write_json(tmp_path / "few.json", read_json(root / "test.json")[::-1][:5])
    printed = score("--run", folder, "--data.test", files, "--out", tmp_path / "out")
    assert {path.name: {file.name for file in path.iterdir()} for path in (tmp_path / "out").iterdir()} == {
        "all": OF_A_MODEL,
        "few": OF_A_MODEL,
    }
    alone = answers_of(folder / "test/predictions.csv")
    assert answers_of(tmp_path / "out/all/predictions.csv") == alone
    few = answers_of(tmp_path / "out/few/predictions.csv")
    assert list(few.items()) == list(alone.items())[::-1][:5]
    assert read_json(tmp_path / "out/all/metrics.json") == read_json(folder / "test/metrics.json")
    assert read_json(tmp_path / "out/few/metrics.json")["questions"] == 5
    assert printed.index("these are 18.") < printed.index("these are 5.")


def test_a_baseline_that_cannot_be_had_is_said_and_the_answers_are_there(tested, score, tmp_path):
    (tmp_path / "train.json").write_text('[{"question_content": "Who?"')
    printed = score("--run", tested[0], "--data.train", tmp_path / "train.json", "--out", tmp_path / "out")
    assert f"most frequent answer: not known, {tmp_path}/train.json: cannot be read as JSON" in printed
    assert answers_of(tmp_path / "out/predictions.csv") == answers_of(tested[0] / "test/predictions.csv")
