"""test.py as a user runs it: a run, a checkpoint alone, predictions made elsewhere, two of them compared."""

import contextlib
import importlib.util
import json
import random
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread

import train
from configs import stored
from dataset.music_avqa import ANSWERS as MUSIC_AVQA_ANSWERS
from tests.small_run import ROOT, make_data, run
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.files import read_json, write_json
from utils.runtime import Runtime
from utils.scoring.metrics import TABLE1_TYPES

WRITTEN = {"predictions.csv", "metrics.json", "confusion.png", "accuracy.png"}


@pytest.fixture(scope="module")
def score():
    """test.py as a module; by the name `test` Python's own package would be found."""
    spec = importlib.util.spec_from_file_location("score", ROOT / "test.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def main(score, monkeypatch, capsys):
    """Runs test.py's main; returns what it printed, or, of a command that must fail, its error."""

    def main(*arguments, fails: bool = False) -> str:
        monkeypatch.setattr(sys, "argv", ["test.py", *map(str, arguments)])
        if not fails:
            score.main()
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as stop:
            score.main()
        assert stop.value.code == 2
        return capsys.readouterr().err

    return main


@pytest.fixture(scope="module")
def tested(tmp_path_factory) -> tuple[Path, str]:
    """A run that was trained and tested by the command line: its folder, and what testing printed.

    The answer to a question is learned from its template, but for every third video.
    """
    root = tmp_path_factory.mktemp("data")
    data = make_data(root, videos=16)
    for split in ("train", "val", "test"):
        rows = read_json(root / f"{split}.json")
        for number, row in enumerate(rows):
            row["anser"] = MUSIC_AVQA_ANSWERS[number % 9 + 9 * (int(row["video_id"]) % 3 == 2)]
        write_json(root / f"{split}.json", rows)
    run("train.py", "--config", data, "--out", root / "run", "--train.epochs", 15, "--train.lr", 0.01)
    return root / "run", run("test.py", "--run", root / "run")


def answers_of(path: Path) -> dict[str, str]:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return dict(zip(table["question_id"], table["prediction"], strict=True))


def by_hand(rows: list[dict], predicted: dict[str, str]) -> dict[str, float]:
    """Table 1's row from MUSIC-AVQA's own annotation rows: every column is correct / asked, the averages too."""
    right, asked = Counter(), Counter()
    column_of = {kind: column for column, kind in TABLE1_TYPES.items()}
    average = {"Audio": "A", "Visual": "V", "Audio-Visual": "AV"}
    for row in rows:
        modality, kind = json.loads(row["type"])
        for column in (column_of[modality, kind], average[modality], "All"):
            asked[column] += 1
            right[column] += predicted[str(row["question_id"])] == row["anser"]
    return {column: 100 * right[column] / n for column, n in asked.items()}


# --- a stored model ---


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
    assert "The paper's rows are for 9129 questions; these are 18." in printed
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


def test_the_validation_split_is_tested_on_demand(tested, main, tmp_path):
    folder, _ = tested
    printed = main("--run", folder, "--split", "val", "--out", tmp_path)
    stored = load_checkpoint(folder / "best.pt")
    assert read_json(tmp_path / "metrics.json")["accuracy"]["All"] == pytest.approx(stored["at"]["best"])
    assert "9 questions" in printed


def test_a_checkpoint_alone_is_tested_where_everything_lies_elsewhere(tested, main, tmp_path):
    folder, _ = tested
    stored = load_checkpoint(folder / "best.pt")
    for split in ("train", "val", "test"):
        stored["config"]["data"][split] = f"gone/{split}.json"
    stored["config"]["data"]["features"] = "gone/features"
    save_checkpoint(tmp_path / "alone.pt", stored)
    shutil.copytree(folder.parent / "features", tmp_path / "features")
    where = ("--data.features", tmp_path / "features", "--data.test", folder.parent / "test.json")
    printed = main("--checkpoint", tmp_path / "alone.pt", *where)
    assert "most frequent answer: not known, gone/train.json is not at hand" in printed
    assert answers_of(tmp_path / "test/predictions.csv") == answers_of(folder / "test/predictions.csv")
    assert read_json(tmp_path / "test/metrics.json") == read_json(folder / "test/metrics.json")
    assert "gone/features" in main("--checkpoint", tmp_path / "alone.pt", *where[2:], fails=True)
    assert "gone/test.json: no such file" in main("--checkpoint", tmp_path / "alone.pt", *where[:2], fails=True)


@pytest.fixture
def features(tested, tmp_path) -> Path:
    """A copy of the features that a test may change."""
    return shutil.copytree(tested[0].parent / "features", tmp_path / "features")


def change_manifests(features: Path, kinds: list[str], **fields) -> None:
    for kind in kinds:
        path = features / kind / "manifest.json"
        write_json(path, read_json(path) | fields)


def test_features_of_another_encoder_are_refused(tested, main, features):
    clip = ["clip_frame", "clip_token_4", "text"]
    for kinds, encoder in ((["vggish"], "another VGGish"), (clip, "another CLIP")):
        change_manifests(features, kinds, weights_sha256=f"sha of {encoder}")
        error = main("--run", tested[0], "--data.features", features, fails=True)
        assert error.count("\n") == 1
        assert f"{features} (" in error
        assert f"field 'weights_sha256' is 'sha of {encoder}'" in error
        change_manifests(features, kinds, weights_sha256="sha of vggish")


def test_a_run_is_not_resumed_with_features_of_another_encoder(tested, features, capsys, monkeypatch):
    """Of the same widths, so that nothing else would tell."""
    change_manifests(features, ["clip_frame", "clip_token_4", "text"], weights_sha256="sha of another CLIP")
    resume = ["--config", tested[0] / "config.yaml", "--data.features", features, "--resume", "--train.epochs", 99]
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, resume)])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 2
    assert "(frame): field 'weights_sha256' is 'sha of another CLIP'" in capsys.readouterr().err


def test_frames_fitted_otherwise_are_refused(tested, main, features):
    change_manifests(features, ["clip_frame"], fit="squash")
    error = main("--run", tested[0], "--data.features", features, fails=True)
    assert "(frame): field 'fit' is 'squash', but this run wants 'crop'" in error


def test_features_of_other_sizes_are_refused(tested, main, tmp_path):
    for name, sizes in (("frame", {"frame": 20}), ("token", {"token": 12})):
        root = tmp_path / name
        make_data(root, videos=16, widths=sizes)
        error = main("--run", tested[0], "--data.features", root / "features", fails=True)
        assert error.count("\n") == 1
        assert f"{name} is {sizes[name]}, but the run was trained with" in error
    make_data(tmp_path / "short", videos=16, segments=5)
    error = main("--run", tested[0], "--data.features", tmp_path / "short/features", fails=True)
    assert "field 'shape' is [5, 128]" in error


@pytest.mark.parametrize(
    ("layout", "measures"), [("files", {"segment selection", "pointing game"}), ("public", {"segment selection"})]
)
def test_where_there_is_truth_it_is_measured_what_the_model_looked_at(main, tmp_path, layout, measures):
    """In the public layout when alone: it does not tell which patches are in a token."""
    data = make_data(tmp_path, tokens=5, layout=layout)
    performers = [{"box": [0, 0, 80, 90], "sounding_segments": [0, 1, 2, 3]}]
    rows = read_json(tmp_path / "test.json")
    questions = {str(row["question_id"]): {"segments": [1, 2]} for row in rows}
    for video in {row["video_id"] for row in rows}:
        told = {"frame": [160, 90], "performers": performers, "questions": questions}
        write_json(tmp_path / f"truth/{video}.json", told)
    truth = ("--data.truth", tmp_path / "truth")
    run("train.py", "--config", data, "--out", tmp_path / "run", "--train.epochs", 1, *truth)
    printed = main("--run", tmp_path / "run")
    assert ("no pointing game" in printed) == (layout == "public")
    metrics = read_json(tmp_path / "run/test/metrics.json")
    assert metrics.keys() - {"questions", "accuracy", "interval95"} == measures
    assert all(metrics[measure]["All"]["n"] > 0 for measure in measures)
    main("--run", tmp_path / "run", "--train.precision", "bf16")  # of which NumPy knows nothing
    assert read_json(tmp_path / "run/test/metrics.json").keys() == metrics.keys()


def test_testing_in_several_processes_is_refused(tested, main, monkeypatch):
    @contextlib.contextmanager
    def two_processes(*_):
        yield Runtime(torch.device("cpu"), rank=0, world=2)

    monkeypatch.setattr(stored, "start", two_processes)
    assert "start this without torchrun" in main("--run", tested[0], fails=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--run", "nowhere"], "nowhere/best.pt: no such file"),
        (["--checkpoint", "{data}/test.json"], "test.json: not a readable checkpoint"),
        (["--checkpoint", "{data}"], "not a readable checkpoint"),
        (["--checkpoint", "{tmp}/empty.pt"], "empty.pt: not a readable checkpoint"),
        (["--checkpoint", "{tmp}/weights.pt"], "weights.pt: is no checkpoint of train.py"),
        (["--checkpoint", "{tmp}/list.pt"], "list.pt: is no checkpoint of train.py"),
        (["--run", "{data}/run", "--data.feature", "x"], "--data.feature"),
        (["--run", "{data}/run", "--model.hidden", "32"], "has shape"),
        (["--run", "{data}/run", "--data.missing", "never"], "data.missing"),
        (["--run", "{data}/run", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--run", "{data}/run", "stray"], "stray"),
        (["--run", "{data}/run", "--compare", "p.csv"], "--compare"),
        (["--run", "{data}/run", "--annotations", "test.json"], "--annotations"),
        (["--predictions", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--predictions", "{data}/test.json"], "its first line is neither the header"),
        (["--predictions", "{data}/run/test/predictions.csv", "--model.top_k", "3"], "--model.top_k"),
        (["--predictions", "{data}/run/test/predictions.csv", "--compare", "gone.csv"], "gone.csv: no such file"),
        (["--predictions", "{tmp}/public.txt"], "the annotation file that it answers is needed"),
        (["--predictions", "{tmp}/public.txt", "--annotations", "gone.json"], "gone.json: no such file"),
        (["--predictions", "{tmp}/public.txt", "--annotations", "{data}/test.json"], "lacks 17"),
    ],
)
def test_what_cannot_be_scored_is_named_in_a_line(tested, main, tmp_path, arguments, said):
    data = tested[0].parent
    (tmp_path / "empty.pt").touch()
    torch.save({"module.input_a.weight": torch.zeros(2)}, tmp_path / "weights.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    first = read_json(data / "test.json")[0]["question_id"]
    (tmp_path / "public.txt").write_text(f"{first} \t True \t 0 \t 0\n")
    error = main(*(argument.format(data=data, tmp=tmp_path) for argument in arguments), fails=True)
    assert said in error.splitlines()[-1]
    assert "Traceback" not in error


# --- predictions made elsewhere ---


def test_our_predictions_are_scored_again_to_the_same_row(tested, main, tmp_path):
    folder, printed = tested
    again = main("--predictions", folder / "test/predictions.csv", "--out", tmp_path)
    assert read_json(tmp_path / "metrics.json") == read_json(folder / "test/metrics.json")
    assert (tmp_path / "predictions.csv").read_bytes() == (folder / "test/predictions.csv").read_bytes()
    row = [line for line in printed.splitlines() if line.startswith("run ")]
    assert len(row) == 1
    numbers = row[0].split("|", 1)[1]
    assert numbers in again
    assert {file.name for file in tmp_path.iterdir()} == WRITTEN


def public_lines(rows: list[dict], predicted: dict[str, str]) -> str:
    """The public format: question id, right or wrong, target index, predicted index."""
    index = {answer: i for i, answer in enumerate(MUSIC_AVQA_ANSWERS)}
    lines = []
    for row in rows:
        target, guess = row["anser"], predicted[str(row["question_id"])]
        lines.append(f"{row['question_id']} \t {target == guess} \t {index[target]} \t {index[guess]}\n")
    return "".join(lines)


def guesses(rows: list[dict], share: float, seed: int) -> dict[str, str]:
    """Of `rows` the given share right, the others anything."""
    draw = random.Random(seed)
    wrong = {str(row["question_id"]): draw.choice(MUSIC_AVQA_ANSWERS) for row in rows}
    return {i: row["anser"] if draw.random() < share else wrong[i] for i, row in zip(wrong, rows, strict=True)}


def test_public_predictions_are_scored_with_the_annotation(tested, main, tmp_path):
    path = tested[0].parent / "test.json"
    rows = read_json(path)
    predicted = guesses(rows, 0.6, seed=1)
    (tmp_path / "public.txt").write_text(public_lines(random.Random(0).sample(rows, len(rows)), predicted))
    main("--predictions", tmp_path / "public.txt", "--annotations", path)
    out = tmp_path / "public_scored"
    assert read_json(out / "metrics.json")["accuracy"] == pytest.approx(by_hand(rows, predicted))
    assert answers_of(out / "predictions.csv") == predicted
    assert {file.name for file in out.iterdir()} == WRITTEN


def test_public_predictions_of_rephrased_questions_are_scored(tested, main, tmp_path):
    """MUSIC-AVQA-R's questions are no templates; scoring needs no prompt for them."""
    rows = read_json(tested[0].parent / "test.json")
    for number, row in enumerate(rows):
        row["question_content"] = f"In how many ways, say {number}, can this be asked?"
        del row["templ_values"]
    write_json(tmp_path / "rephrased.json", rows)
    predicted = guesses(rows, 0.6, seed=1)
    (tmp_path / "public.txt").write_text(public_lines(rows, predicted))
    main("--predictions", tmp_path / "public.txt", "--annotations", tmp_path / "rephrased.json")
    assert read_json(tmp_path / "public_scored/metrics.json")["accuracy"] == pytest.approx(by_hand(rows, predicted))


def test_two_predictions_are_compared(tested, main, tmp_path):
    path = tested[0].parent / "test.json"
    rows = read_json(path)
    files, accuracy = [tmp_path / "a.txt", tmp_path / "b.txt"], []
    for seed, file in enumerate(files):
        predicted = guesses(rows, 0.3 + 0.5 * seed, seed)
        file.write_text(public_lines(rows, predicted))
        accuracy.append(by_hand(rows, predicted)["All"])
    printed = main("--predictions", files[0], "--compare", files[1], "--annotations", path)
    n, a, b, difference, low, high = map(float, printed.splitlines()[-1].split()[1:])
    assert [n, a, b] == [18, *np.round(accuracy, 2)]
    assert difference == pytest.approx(accuracy[1] - accuracy[0], abs=0.01)
    assert low <= difference <= high
    ours = tested[0] / "test/predictions.csv"  # one of ours against one of the public format
    printed = main("--predictions", ours, "--compare", files[1], "--annotations", path)
    assert float(printed.splitlines()[-1].split()[3]) == np.round(accuracy[1], 2)
    printed = main("--predictions", ours, "--compare", ours)
    assert [float(number) for number in printed.splitlines()[-1].split()[4:]] == [0, 0, 0]


def test_the_real_test_split_is_scored_without_features_and_weights(main, shared, tmp_path):
    """The counts of Table 1's columns are those of the paper's test file, so are the weights of its averages."""
    path = shared / "music_avqa/test.json"
    rows = read_json(path)
    predicted = guesses(rows, 0.75, seed=0)
    (tmp_path / "public.txt").write_text(public_lines(rows, predicted))
    printed = main("--predictions", tmp_path / "public.txt", "--annotations", path)
    expected = by_hand(rows, predicted)
    metrics = read_json(tmp_path / "public_scored/metrics.json")
    assert metrics["questions"] == 9129
    assert metrics["accuracy"] == pytest.approx(expected)
    counts = {"A-Count": 1017, "A-Comp": 594, "V-Count": 1197, "V-Loc": 1225, "Exist": 988}
    counts |= {"AV-Count": 1265, "AV-Loc": 920, "AV-Comp": 1101, "Temp": 822}
    weighed = sum(n * metrics["accuracy"][column] for column, n in counts.items()) / 9129
    assert metrics["accuracy"]["All"] == pytest.approx(weighed)
    shown = next(line for line in printed.splitlines() if line.startswith("public "))
    numbers = [float(number) for number in shown.removeprefix("public").replace("|", " ").split()]
    assert numbers[-1] == round(expected["All"], 2)
    assert len(numbers) == 13
    assert "these are" not in printed
