"""What cannot work is said in a line or two before, or instead of, training; what was computed stays."""

import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train
from configs import schema
from tests.processes import ended
from tests.small_run import losses, make_data, trained
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.files import read_json, save_npy, write_json

EPOCHS = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The YAML of a small data set: 63 training questions, so the last batch of 16 holds 15."""
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory) -> Path:
    """The folder of a run that nothing disturbed."""
    return trained("--config", data, "--out", tmp_path_factory.mktemp("plain") / "run", "--train.epochs", EPOCHS)


def fails(capsys, *arguments: str | Path | float) -> str:
    """Run train.py's main in this process; returns its error, which must be short and no traceback."""
    with pytest.raises(SystemExit) as stop:
        train.main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    return error


def train_on_a_full_disk(arguments: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    train.main(arguments)


def test_a_full_disk_keeps_the_checkpoint_before(data, tmp_path):
    folder = tmp_path / "run"
    trained("--config", data, "--out", folder, "--train.epochs", 1)
    before = (folder / "last.pt").read_bytes()
    more = ("--config", data, "--out", folder, "--train.epochs", 2, "--resume")
    printed = ended(train_on_a_full_disk, *more, logs=tmp_path / "logs", expect=2)
    assert "last.pt: cannot be written" in printed or "best.pt: cannot be written" in printed
    assert "Traceback" not in printed
    assert (folder / "last.pt").read_bytes() == before


@pytest.mark.parametrize("interrupted", [False, True])
def test_weights_that_are_not_finite_stop_with_the_questions_and_are_not_saved(
    data, plain, tmp_path, capsys, monkeypatch, interrupted
):
    folder = shutil.copytree(plain, tmp_path / "run")
    stored = load_checkpoint(folder / "last.pt")
    stored["model"]["fusion.classifier.bias"][0] = torch.inf
    save_checkpoint(folder / "last.pt", stored)
    before = (folder / "last.pt").read_bytes()
    if interrupted:
        monkeypatch.setattr(train, "Interrupt", lambda: SimpleNamespace(asked=True))
    said = fails(capsys, "--config", data, "--out", folder, "--train.epochs", EPOCHS + 1, "--resume")
    assert "the loss (answer) is not finite; the batch held the questions" in said
    assert (folder / "last.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.topk", "3"], "no option model.topk; did you mean model.top_k?"),
        (["--model.top_k", "0"], "model.top_k must be at least 1, is 0"),
        (["--model.top_k", "7"], "model.top_k 7 is more than the 6 segments of a video"),
        (["--model.top_k", "many"], "model.top_k"),
        (["--model.tokens", "5"], "clip_token_5: no such folder (there is clip_token_4)"),
        (["--model.tokens", "5", "--data.tokens", "4"], "model.tokens 5 is more than the 4 stored"),
        (["--data.segments", "5"], "field 'shape' is [6, 128], but must be [5, any]"),
        (["--data.train", "nowhere.json"], "nowhere.json: no such file"),
        (["--data.features", "nowhere"], "no such folder; make it with: python -m feat_script.extract_audio"),
        (["--data.sheet", "AVQB"], "no sheet 'AVQB'"),
        (["--train.lr", "0"], "train.lr must be more than 0"),
        (["--train.device", "cuda"], "PyTorch finds no GPU"),
        (["--train.compile", "reduce-overhead"], "records CUDA graphs, and train.device is cpu; take default"),
        (["--train.compile", "off"], "train.compile"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_options_are_named_in_a_line(data, tmp_path, capsys, options, message):
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert message in fails(capsys, "--config", data, "--out", tmp_path / "run", *options)


def test_compiling_needs_a_compiler(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    error = fails(capsys, "--config", data, "--out", tmp_path / "run", "--train.compile", "default")
    assert "train.compile needs no-such-compiler, which is not here" in error


def test_unknown_keys_of_a_file_are_named(data, tmp_path, capsys):
    (tmp_path / "typo.yaml").write_text("model: {topk: 3}\n")
    assert "no option model.topk; did you mean model.top_k" in fails(
        capsys, "--config", data, "--config", tmp_path / "typo.yaml"
    )


def test_an_existing_run_is_neither_overwritten_nor_resumed_with_other_options(data, plain, capsys):
    before = [(plain / name).read_bytes() for name in ("last.pt", "config.yaml")]
    assert "--resume" in fails(capsys, "--config", data, "--out", plain, "--train.epochs", EPOCHS + 1)
    error = fails(capsys, "--config", data, "--out", plain, "--resume", "--model.hidden", "32")
    assert "model.hidden is 16 there, but 32 now" in error
    trained("--config", data, "--out", plain, "--train.epochs", EPOCHS - 1)  # finished: says it again
    assert f"best: epoch {load_checkpoint(plain / 'last.pt')['at']['best_epoch']}" in capsys.readouterr().out
    assert [(plain / name).read_bytes() for name in ("last.pt", "config.yaml")] == before


def test_processes_that_find_different_checkpoints_do_not_start(data, plain):
    config = schema.from_dict({}, ["--config", str(data), "--out", str(plain), "--train.epochs", str(EPOCHS + 1)])
    without_the_file = SimpleNamespace(gather=lambda at: [at, None])
    with pytest.raises(UserError, match=r"not every process finds the same last\.pt"):
        train.train(config, True, without_the_file)


@pytest.fixture
def copy(data, tmp_path) -> Path:
    """A copy of the data set that a test may damage; the YAML's path."""
    shutil.copytree(data.parent, tmp_path / "copy")
    text = data.read_text().replace(str(data.parent), str(tmp_path / "copy"))
    (tmp_path / "copy/small.yaml").write_text(text)
    return tmp_path / "copy/small.yaml"


def test_damaged_features_are_listed_before_training(copy, capsys):
    features = copy.parent / "features"
    whole = (features / "vggish/00000001.npy").read_bytes()
    (features / "vggish/00000001.npy").write_bytes(whole[:-8])
    save_npy(features / "clip_frame/00000002.npy", np.full((6, 16), np.nan, np.float16))
    (features / "clip_token_4/00000003.npy").unlink()
    error = fails(capsys, "--config", copy, "--out", copy.parent / "run")
    assert "3 of 8 videos lack whole features" in error
    for word in ("truncated", "00000001", "NaN", "00000002", "no such file", "00000003", "--data.missing skip"):
        assert word in error
    folder = trained("--config", copy, "--out", copy.parent / "run", "--data.missing", "skip")
    assert "train: 27 questions left out" in capsys.readouterr().out
    assert len(losses(folder)) == 3


def test_dirty_rows_are_reported_and_left_out(copy, capsys):
    rows = read_json(copy.parent / "train.json")
    rows[0]["anser"] = "theremin"
    rows[1]["type"] = "Audio"
    del rows[2]["video_id"]
    rows[3]["templ_values"] = "flute"
    rows[4]["question_id"] = rows[5]["question_id"]
    write_json(copy.parent / "train.json", rows)
    trained("--config", copy, "--out", copy.parent / "run", "--train.epochs", 1)
    printed = capsys.readouterr().out
    assert "train: 1 questions left out, their answers are outside the vocabulary (question 1: 'theremin')" in printed
    assert "rows left out" in printed
    assert "row 2: field 'type'" in printed


def test_an_empty_split_is_refused(copy, capsys):
    write_json(copy.parent / "val.json", [])
    assert "val.json: holds no usable question" in fails(capsys, "--config", copy, "--out", copy.parent / "r")


def test_a_template_without_a_row_is_refused_with_its_count(copy, capsys):
    rows = read_json(copy.parent / "train.json")
    rows[0]["question_content"] = rows[9]["question_content"] = "Is it nice?"
    write_json(copy.parent / "train.json", rows)
    error = fails(capsys, "--config", copy, "--out", copy.parent / "run")
    assert "no row for 1 templates" in error
    assert "'Is it nice?' (2 questions)" in error


def test_weights_of_another_shape_are_refused(data, plain, tmp_path, capsys):
    folder = shutil.copytree(plain, tmp_path / "run")
    stored = load_checkpoint(folder / "last.pt")
    stored["config"]["model"]["hidden"] = 32
    save_checkpoint(folder / "last.pt", stored)
    assert "has shape" in fails(capsys, "--config", data, "--out", folder, "--model.hidden", 32, "--resume")


def test_a_damaged_checkpoint_is_refused(plain, tmp_path):
    (tmp_path / "broken.pt").write_bytes((plain / "last.pt").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"broken\.pt: not a readable checkpoint"):
        load_checkpoint(tmp_path / "broken.pt")


def test_a_run_of_release_0_1_is_named(data, plain, tmp_path, capsys):
    stored = load_checkpoint(plain / "last.pt")
    del stored["version"]
    save_checkpoint(tmp_path / "last.pt", stored)
    error = fails(capsys, "--config", data, "--out", tmp_path, "--resume")
    assert "last.pt: was written by release 0.1" in error


@pytest.mark.parametrize(("file", "named"), [("train.json", "data.train"), ("val.json", "data.val")])
def test_a_run_is_not_resumed_with_other_annotations(copy, tmp_path, capsys, file, named):
    arguments = ("--config", copy, "--out", tmp_path / "run")
    trained(*arguments, "--train.epochs", 1)
    write_json(copy.parent / file, read_json(copy.parent / file)[:-1])
    error = fails(capsys, *arguments, "--train.epochs", 2, "--resume")
    assert f"{copy.parent / file} ({named}): holds something else than when the run began" in error


def test_a_run_is_not_resumed_with_features_of_fewer_videos(copy, tmp_path, capsys):
    arguments = ("--config", copy, "--out", tmp_path / "run", "--data.missing", "skip")
    trained(*arguments, "--train.epochs", 1)
    (copy.parent / "features/vggish/00000001.npy").unlink()
    error = fails(capsys, *arguments, "--train.epochs", 2, "--resume")
    assert "gives features to 54 train questions, but gave them to 63 when the run began" in error


def test_a_group_of_rates_that_the_network_has_not_is_named(data, tmp_path, capsys):
    error = fails(capsys, "--config", data, "--out", tmp_path / "run", "--train.rates.dep", 0.1)
    assert "train.rates.dep: the groups here are deep; --train.rates {} scales none" in error


def test_an_option_of_another_network_is_left_out_of_a_file_and_refused_on_the_command_line(data, tmp_path, capsys):
    trained("--config", data, "--out", tmp_path / "run", "--model.network", "means", "--train.epochs", 1)
    said = capsys.readouterr().out
    assert f"--config={data}: model.top_k is an option of the network tspm, not of means: left out" in said
    wrong = ("--model.network", "means", "--model.top_k", 3)
    error = fails(capsys, "--config", data, "--out", tmp_path / "other", *wrong)
    assert "no option model.top_k; it is one of the network tspm, and the network is means" in error
