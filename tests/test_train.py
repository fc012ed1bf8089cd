"""Training as a user runs it: resumed, killed and distributed runs equal the plain one; bad input is named."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

import train
from configs import schema
from dataset import loader
from dataset.data import open_data
from dataset.kinds import KINDS
from tests.small_run import ROOT, data_config, interpreter, losses, make_data, run, weights
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.files import read_json, save_npy, write_json

EPOCHS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The YAML of a small data set: 63 training questions, so the last batch of 16 holds 15."""
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    run("train.py", "--config", data, "--out", folder, "--train.epochs", EPOCHS)
    return folder


def assert_same_run(folder: Path, reference: Path) -> None:
    """Equal losses, validation rows and weights, to the bit."""
    assert losses(folder) == losses(reference)
    for name in ("last.pt", "best.pt"):
        ours, theirs = weights(folder / name), weights(reference / name)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def assert_close_run(folder: Path, reference: Path) -> None:
    """Equal losses, validation rows and weights but for rounding."""
    for (_, ours, val_ours), (_, theirs, val_theirs) in zip(losses(folder), losses(reference), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
        assert val_ours == val_theirs
    ours, theirs = weights(folder / "last.pt"), weights(reference / "last.pt")
    for key in theirs:  # Adam divides by the gradient's size, so rounding shows as a share of the step: lr is 1e-3
        np.testing.assert_allclose(ours[key], theirs[key], atol=2e-4, err_msg=key)


def start(data: Path, folder: Path, *options: str, processes: int = 1, **popen) -> subprocess.Popen:
    command = [*interpreter(processes), "train.py", "--config", str(data), "--out", str(folder), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **popen
    )


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline


def test_deep_lr_slows_what_lies_between_projections_and_classifier(data, tmp_path):
    after = {}
    for factor in (1, 0.1):  # one step from the same weights with the same gradients; Adam's first is as long as lr
        options = ("--train.epochs", 1, "--train.batch_size", 63, "--train.lr", 1e-3, "--train.deep_lr", factor)
        run("train.py", "--config", data, "--out", tmp_path / str(factor), *options)
        after[factor] = weights(tmp_path / str(factor) / "last.pt")
    apart = {name: np.abs(after[1][name] - after[0.1][name]).max() for name in after[1]}
    edges = {name for name in apart if name.startswith(("audio", "frame", "question", "spatial.token", "fusion.class"))}
    frozen = {name for name in apart if name.startswith("temporal")}
    assert all(apart[name] == 0 for name in edges | frozen)
    moved = [apart[name] for name in apart.keys() - edges - frozen]
    assert moved == pytest.approx([0.9e-3] * len(moved), rel=1e-2)


def test_a_run_leaves_its_record(plain):
    assert {file.name for file in plain.iterdir()} > {"config.yaml", "metrics.jsonl", "last.pt", "best.pt"}
    assert list(plain.glob("events.out.tfevents.*"))
    lines = [json.loads(line) for line in (plain / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, EPOCHS + 1))
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert {"A-Count", "Temp", "All"} <= lines[0]["val"].keys()
    assert 0.05 < lines[0]["peak_gb"]["host"] <= lines[-1]["peak_gb"]["host"] < 20
    stored = load_checkpoint(plain / "last.pt")
    assert stored["config"] == yaml.safe_load((plain / "config.yaml").read_text())
    assert stored["at"]["best"] == max(line["val"]["All"] for line in lines)


def test_the_same_seed_gives_the_same_run_and_another_does_not(data, plain, tmp_path):
    run("train.py", "--config", data, "--out", tmp_path / "same", "--train.epochs", EPOCHS)
    assert_same_run(tmp_path / "same", plain)
    run("train.py", "--config", data, "--out", tmp_path / "other", "--train.epochs", 1, "--train.seed", 1)
    assert losses(tmp_path / "other")[0][1] != losses(plain)[0][1]


def test_going_on_after_fewer_epochs_equals_one_run(data, plain, tmp_path):
    run("train.py", "--config", data, "--out", tmp_path / "run", "--train.epochs", 2)
    run("train.py", "--config", data, "--out", tmp_path / "run", "--train.epochs", EPOCHS, "--resume")
    assert_same_run(tmp_path / "run", plain)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_killed_or_interrupted_goes_on_to_the_same_numbers(data, tmp_path, number):
    options = (
        "--train.batch_size",
        "4",
        "--train.epochs",
        "24",
    )  # 16 steps an epoch: signals land in the middle of one
    run("train.py", "--config", data, "--out", tmp_path / "whole", *options)
    folder = tmp_path / "run"
    for lines in (3, 9, 16):
        process = start(data, folder, *options, "--resume")
        metrics = folder / "metrics.jsonl"
        wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= lines, process)  # noqa: B023
        process.send_signal(number)
        printed = process.communicate()[0].decode()
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 130
            assert "--resume goes on" in printed
            assert load_checkpoint(folder / "last.pt")["at"]["step"] > 0
    run("train.py", "--config", data, "--out", folder, *options, "--resume")
    assert_same_run(folder, tmp_path / "whole")


@pytest.mark.slow
def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_to_the_same_numbers(data, tmp_path):
    options = ("--model.hidden", "256", "--train.epochs", "3")  # checkpoints of 35 MB take a while to write
    run("train.py", "--config", data, "--out", tmp_path / "whole", *options)
    folder = tmp_path / "run"
    process = start(data, folder, *options)
    wait_for(lambda: (folder / "last.pt").exists() and list(folder.glob(".tmp-*.pt")), process)
    process.kill()
    process.communicate()
    assert list(folder.glob(".tmp-*.pt")), "the kill came too late to be a test"
    run("train.py", "--config", data, "--out", folder, *options, "--resume")
    assert_same_run(folder, tmp_path / "whole")
    assert not list(folder.glob(".tmp-*"))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [16, 31])
def test_two_processes_equal_one(data, tmp_path, batch_size):
    """Dropout off. 63 questions in batches of 31 end with one question: the second process has none of it."""
    options = ("--model.dropout", 0.0, "--train.batch_size", batch_size)
    run("train.py", "--config", data, "--out", tmp_path / "one", *options)
    run("train.py", "--config", data, "--out", tmp_path / "two", *options, processes=2)
    assert_close_run(tmp_path / "two", tmp_path / "one")


SHORT_OF_MEMORY = """
import sys
import train
from configs import schema
from dataset import loader
room = int(sys.argv.pop(1))
loader.available_memory = lambda: room
train.main()
"""


@pytest.mark.slow
def test_two_processes_that_share_out_the_features_equal_one(data, tmp_path):
    """Dropout off. Each process has room for 60 % of the features."""
    opened = open_data(data_config(data), KINDS, ["train", "val"])
    room = int(2 * 0.6 * len(opened.videos) * opened.store.video_bytes / loader.SPARE)
    short = ("--no-python", sys.executable, "-c", SHORT_OF_MEMORY, room, "--config", data)
    options = ("--model.dropout", 0.0)
    run("train.py", "--config", data, "--out", tmp_path / "one", *options)
    printed = run(*short, "--out", tmp_path / "two", *options, processes=2)
    assert "features in device, a share in each of 2 processes" in printed
    assert_close_run(tmp_path / "two", tmp_path / "one")
    printed = run(*short, "--out", tmp_path / "compiled", "--train.compile", "default", processes=2, expect=1)
    assert "error: train.compile wants batches of one size" in printed


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_with_a_message_and_the_run_goes_on(data, tmp_path, killed):
    options = ("--train.batch_size", "4", "--train.epochs", "24")
    run("train.py", "--config", data, "--out", tmp_path / "whole", *options, processes=2)
    folder = tmp_path / "run"
    launcher = start(data, folder, *options, processes=2)
    metrics = folder / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 4, launcher)
    workers = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True, check=True).stdout
    os.kill(sorted(map(int, workers.split()))[killed], signal.SIGKILL)
    printed = launcher.communicate(timeout=60)[0].decode()
    assert launcher.returncode != 0
    assert f"error: process {1 - killed} ends because another one of the 2 has; the same command goes on" in printed
    run("train.py", "--config", data, "--out", folder, *options, "--resume", processes=2)
    assert_same_run(folder, tmp_path / "whole")


@pytest.mark.slow
def test_a_scheduler_s_signals_leave_a_whole_checkpoint(data, tmp_path):
    """SLURM sends SIGTERM to every process, and torchrun, which gets it too, to its own once more."""
    options = ("--train.batch_size", "4", "--train.epochs", "24", "--model.hidden", "256")  # saving takes a while
    folder = tmp_path / "run"
    launcher = start(data, folder, *options, processes=2, start_new_session=True)
    wait_for((folder / "last.pt").exists, launcher)
    for _ in range(3):
        os.killpg(launcher.pid, signal.SIGTERM)
        time.sleep(0.05)
    printed = launcher.communicate(timeout=60)[0].decode()
    at = load_checkpoint(folder / "last.pt")["at"]
    assert f"interrupted: epoch {at['epoch'] + 1}, step {at['step']} saved" in printed
    assert at["step"] > 0
    assert not list(folder.glob(".tmp-*"))


@pytest.mark.slow
def test_a_compiled_step_gives_the_same_run(data, tmp_path):
    options = ("--model.dropout", 0.0, "--train.epochs", 3, "--train.batch_size", 63)  # one shape: compiled once
    run("train.py", "--config", data, "--out", tmp_path / "plain", *options)
    run("train.py", "--config", data, "--out", tmp_path / "compiled", *options, "--train.compile", "default")
    for ours, theirs in zip(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), strict=True):
        assert ours[1] == pytest.approx(theirs[1], rel=1e-5)
        assert ours[2] == theirs[2]


def test_residencies_and_precision_give_the_same_run(data, plain, tmp_path):
    run("train.py", "--config", data, "--out", tmp_path / "disk", "--train.epochs", EPOCHS, "--data.residency", "disk")
    assert_same_run(tmp_path / "disk", plain)
    run("train.py", "--config", data, "--out", tmp_path / "bf16", "--train.epochs", EPOCHS, "--train.precision", "bf16")
    rough, exact = ([loss for _, loss, _ in losses(folder)] for folder in (tmp_path / "bf16", plain))
    np.testing.assert_allclose(rough, exact, rtol=0.02)


def test_a_run_keeps_the_order_that_it_began_with_wherever_the_features_are(data, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "WINDOW", 2)

    def two_epochs(folder: str, residency: str, *options: str) -> None:
        arguments = ("--out", tmp_path / folder, "--data.residency", residency, "--train.epochs", 2, *options)
        monkeypatch.setattr(sys, "argv", ["train.py", "--config", *map(str, (data, *arguments))])
        train.main()

    two_epochs("whole", "disk")
    assert losses(tmp_path / "whole")[0] != losses(plain)[0]
    with monkeypatch.context() as patch:
        patch.setattr(train, "Interrupt", lambda: SimpleNamespace(asked=True))  # after the first step
        with pytest.raises(SystemExit) as stop:
            two_epochs("run", "disk")
        assert stop.value.code == 130
    two_epochs("run", "device", "--resume")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_full_disk_keeps_the_checkpoint_before(data, tmp_path):
    folder = tmp_path / "run"
    run("train.py", "--config", data, "--out", folder, "--train.epochs", 1)
    before = (folder / "last.pt").read_bytes()
    full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731
    printed = run(
        "train.py", "--config", data, "--out", folder, "--train.epochs", 2, "--resume", expect=2, preexec_fn=full
    )
    assert "last.pt: cannot be written" in printed or "best.pt: cannot be written" in printed
    assert "Traceback" not in printed
    assert (folder / "last.pt").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_with_the_questions(data, tmp_path):
    folder = tmp_path / "run"
    run("train.py", "--config", data, "--out", folder, "--train.epochs", 1)
    stored = load_checkpoint(folder / "last.pt")
    stored["model"]["fusion.classifier.bias"][0] = torch.inf
    save_checkpoint(folder / "last.pt", stored)
    printed = run("train.py", "--config", data, "--out", folder, "--train.epochs", 2, "--resume", expect=2)
    assert "the loss is not finite; the batch held the questions" in printed


def test_an_interrupt_does_not_save_weights_that_are_not_finite(data, plain, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(plain, tmp_path / "run")
    stored = load_checkpoint(folder / "last.pt")
    stored["model"]["fusion.classifier.bias"][0] = torch.inf
    save_checkpoint(folder / "last.pt", stored)
    before = (folder / "last.pt").read_bytes()
    monkeypatch.setattr(train, "Interrupt", lambda: SimpleNamespace(asked=True))
    arguments = ("--config", data, "--out", folder, "--train.epochs", EPOCHS + 1, "--resume")
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    with pytest.raises(SystemExit):
        train.main()
    assert "the loss is not finite; the batch held the questions" in capsys.readouterr().err
    assert (folder / "last.pt").read_bytes() == before


def fails(capsys, monkeypatch, *arguments: str | Path) -> str:
    """Run train.py's main in this process; returns its error, which must be short and no traceback."""
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    return error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.topk", "3"], "--model.topk"),
        (["--model.top_k", "0"], "model.top_k must be at least 1, is 0"),
        (["--model.top_k", "7"], "model.top_k 7 is more than the 6 data.segments"),
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
def test_bad_options_are_named_in_a_line(data, tmp_path, capsys, monkeypatch, options, message):
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert message in fails(capsys, monkeypatch, "--config", data, "--out", tmp_path / "run", *options)


def test_compiling_needs_a_compiler(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    error = fails(capsys, monkeypatch, "--config", data, "--out", tmp_path / "run", "--train.compile", "default")
    assert "train.compile needs no-such-compiler, which is not here" in error


def test_unknown_keys_of_a_file_are_named(data, tmp_path, capsys, monkeypatch):
    (tmp_path / "typo.yaml").write_text("model: {topk: 3}\n")
    assert "'topk'" in fails(capsys, monkeypatch, "--config", data, "--config", tmp_path / "typo.yaml")


def test_an_existing_run_is_neither_overwritten_nor_resumed_with_other_options(data, plain, capsys, monkeypatch):
    before = [(plain / name).read_bytes() for name in ("last.pt", "config.yaml")]
    assert "--resume" in fails(capsys, monkeypatch, "--config", data, "--out", plain, "--train.epochs", EPOCHS + 1)
    error = fails(capsys, monkeypatch, "--config", data, "--out", plain, "--resume", "--model.hidden", "32")
    assert "model.hidden is 16 there, but 32 now" in error
    printed = run("train.py", "--config", data, "--out", plain, "--train.epochs", EPOCHS - 1)  # finished: says it again
    assert f"best: epoch {load_checkpoint(plain / 'last.pt')['at']['best_epoch']}" in printed
    assert [(plain / name).read_bytes() for name in ("last.pt", "config.yaml")] == before


def test_processes_that_find_different_checkpoints_do_not_start(data, plain):
    config = schema.from_dict({}, ["--config", str(data), "--out", str(plain), "--train.epochs", str(EPOCHS + 1)])
    without_the_file = SimpleNamespace(gather=lambda at: [at, None])
    with pytest.raises(UserError, match=r"not every process finds the same last\.pt"):
        train.train(config, True, without_the_file)


def test_features_are_standardised_by_those_of_the_training_videos(data, tmp_path):
    options = ("--model.standardize", "true", "--train.epochs", 1)
    run("train.py", "--config", data, "--out", tmp_path / "run", *options)
    stored = weights(tmp_path / "run/last.pt")
    videos = {row["video_id"] for row in read_json(data.parent / "train.json")}
    for layer, folder in (("audio", "vggish"), ("frame", "clip_frame"), ("spatial.token", "clip_token_4")):
        rows = np.concatenate([np.load(data.parent / "features" / folder / f"{video}.npy") for video in videos])
        rows = rows.reshape(-1, rows.shape[-1]).astype(float)
        np.testing.assert_allclose(stored[f"{layer}.mean"], rows.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(stored[f"{layer}.deviation"], rows.std(axis=0), rtol=1e-5)
    run("test.py", "--run", tmp_path / "run")


def test_a_run_is_not_resumed_with_another_number_of_questions(data, plain, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(plain, tmp_path / "run")
    stored = load_checkpoint(folder / "last.pt")
    arguments = ("--config", data, "--out", folder, "--train.epochs", EPOCHS, "--resume")
    save_checkpoint(folder / "last.pt", stored | {"at": stored["at"] | {"questions": 62}})
    error = fails(capsys, monkeypatch, *arguments)
    assert f"{data.parent / 'train.json'}: gives 63 training questions, but gave 62 when {folder}/last.pt" in error
    del stored["at"]["questions"]  # as older checkpoints are
    save_checkpoint(folder / "last.pt", stored)
    assert "best: epoch" in run("train.py", *arguments)


@pytest.fixture
def copy(data, tmp_path) -> Path:
    """A copy of the data set that a test may damage; the YAML's path."""
    shutil.copytree(data.parent, tmp_path / "copy")
    text = data.read_text().replace(str(data.parent), str(tmp_path / "copy"))
    (tmp_path / "copy/small.yaml").write_text(text)
    return tmp_path / "copy/small.yaml"


def test_damaged_features_are_listed_before_training(copy, capsys, monkeypatch):
    features = copy.parent / "features"
    whole = (features / "vggish/00000001.npy").read_bytes()
    (features / "vggish/00000001.npy").write_bytes(whole[:-8])
    save_npy(features / "clip_frame/00000002.npy", np.full((6, 16), np.nan, np.float16))
    (features / "clip_token_4/00000003.npy").unlink()
    error = fails(capsys, monkeypatch, "--config", copy, "--out", copy.parent / "run")
    assert "3 of 8 videos lack whole features" in error
    for word in ("truncated", "00000001", "NaN", "00000002", "no such file", "00000003", "--data.missing skip"):
        assert word in error
    printed = run("train.py", "--config", copy, "--out", copy.parent / "run", "--data.missing", "skip")
    assert "train: 27 questions left out" in printed
    assert len(losses(copy.parent / "run")) == 3


def test_dirty_rows_are_reported_and_left_out(copy):
    rows = read_json(copy.parent / "train.json")
    rows[0]["anser"] = "theremin"
    rows[1]["type"] = "Audio"
    del rows[2]["video_id"]
    rows[3]["templ_values"] = "flute"
    rows[4]["question_id"] = rows[5]["question_id"]
    write_json(copy.parent / "train.json", rows)
    printed = run("train.py", "--config", copy, "--out", copy.parent / "run", "--train.epochs", 1)
    assert "train: 1 questions left out, their answers are outside the vocabulary (question 1: 'theremin')" in printed
    assert "rows left out" in printed
    assert "row 2: field 'type'" in printed
    assert "Traceback" not in printed


def test_an_empty_split_is_refused(copy, capsys, monkeypatch):
    write_json(copy.parent / "val.json", [])
    assert "val.json: holds no usable question" in fails(
        capsys, monkeypatch, "--config", copy, "--out", copy.parent / "r"
    )


def test_a_template_without_a_row_is_refused_with_its_count(copy, capsys, monkeypatch):
    rows = read_json(copy.parent / "train.json")
    rows[0]["question_content"] = rows[9]["question_content"] = "Is it nice?"
    write_json(copy.parent / "train.json", rows)
    error = fails(capsys, monkeypatch, "--config", copy, "--out", copy.parent / "run")
    assert "no row for 1 templates" in error
    assert "'Is it nice?' (2 questions)" in error


def test_weights_of_another_shape_are_refused(data, plain, tmp_path):
    stored = load_checkpoint(plain / "last.pt")
    stored["config"]["model"]["hidden"] = 32
    save_checkpoint(tmp_path / "last.pt", stored)
    printed = run("train.py", "--config", data, "--out", tmp_path, "--model.hidden", 32, "--resume", expect=2)
    assert "has shape" in printed
    assert "Traceback" not in printed


def test_a_damaged_checkpoint_is_refused(plain, tmp_path):
    (tmp_path / "broken.pt").write_bytes((plain / "last.pt").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"broken\.pt: not a readable checkpoint"):
        load_checkpoint(tmp_path / "broken.pt")
