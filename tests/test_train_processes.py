"""Several processes: their numbers are those of one, raw gradients among them; losing one loses no work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from dataset.data import open_data
from dataset.loader import Loader
from tests.processes import ended
from tests.small_run import ROOT, assert_same_run, losses, make_learnable_data, trained, weights
from tests.test_train import config_of, gradients
from utils.checkpoint import load_checkpoint
from utils.runtime import start

pytestmark = pytest.mark.slow
STEPS = ("--train.batch_size", "4", "--train.epochs", "8")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_learnable_data(tmp_path_factory.mktemp("data"))


def two(data: Path, folder: Path, *options: str | float) -> None:
    """Train in two processes."""
    ended(train.main, "--config", data, "--out", folder, *options, logs=folder.with_suffix(".logs"), processes=2)


def launched(data: Path, folder: Path, *options: str) -> subprocess.Popen:
    """Train in two processes that torchrun starts."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*torchrun, "train.py", "--config", data, "--out", folder, *options], cwd=ROOT, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for(condition, launcher: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert launcher.poll() is None, launcher.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def assert_close_run(folder: Path, reference: Path) -> None:
    """Equal losses, validation rows and weights but for rounding."""
    for (_, ours, val_ours), (_, theirs, val_theirs) in zip(losses(folder), losses(reference), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
        assert val_ours == val_theirs
    ours, theirs = weights(folder / "last.pt"), weights(reference / "last.pt")
    for key in theirs:  # Adam divides by the gradient's size, so rounding shows as a share of the step: lr is 1e-3
        np.testing.assert_allclose(ours[key], theirs[key], atol=2e-4, err_msg=key)


@pytest.mark.parametrize("batch_size", [16, 29])
def test_two_processes_equal_one(data, tmp_path, batch_size):
    """Dropout off. 117 questions in batches of 29 end with one question: the second process has none of it."""
    options = ("--model.dropout", 0.0, "--train.batch_size", batch_size, "--train.epochs", 2)
    trained("--config", data, "--out", tmp_path / "one", *options)
    two(data, tmp_path / "two", *options)
    assert_close_run(tmp_path / "two", tmp_path / "one")


def save_gradients(arguments: list[str]) -> None:
    """What `gradients` are of this process among others: saved by the first."""
    data, out, count = arguments
    with start("cpu", "fp32") as runtime:
        found = gradients_of(Path(data), int(count), runtime)  # in a function, as train.py: what holds the group of
        if runtime.is_main:  # processes ends before the group does
            torch.save(found, out)
        runtime.wait()


def gradients_of(data: Path, count: int, runtime) -> dict[str, torch.Tensor]:
    config = config_of(data, "--model.dropout", 0)
    opened = open_data(config.data, config.model.kinds, ("train", "val"))
    loader = Loader(opened, runtime, "device", 1)
    state = train.set_up(config, opened, runtime, None)
    state.optimizer.step = lambda: None
    learn = train.make_step(config, state, loader, runtime)
    asked, rows = opened.splits["train"], np.arange(count)
    (batch,) = loader.batches(asked, [loader.share(asked, rows)])
    learn(len(rows), answer=batch.answer, **batch.inputs)
    return {name: p.grad for name, p in state.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("count", [16, 5, 1])
def test_the_gradients_of_two_processes_are_those_of_one(data, tmp_path, count):
    """Adam hides a wrong scale; batches of 5 and 1 leave the processes with unequal parts, one of them empty."""
    ended(save_gradients, data, tmp_path / "g.pt", count, logs=tmp_path / "logs", processes=2)
    found, expected = torch.load(tmp_path / "g.pt"), gradients(data, np.arange(count), count)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_every_process_draws_dropout_of_its_own(data, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("train.seed", lambda *numbers: drawn.append(numbers))
    trained("--config", data, "--out", tmp_path / "run", "--train.epochs", 2, "--train.seed", 7)
    steps = [numbers for numbers in drawn if len(numbers) == 3]
    assert steps == [(7, step, 0) for step in range(16)]  # (seed, step, rank)


def test_a_killed_process_ends_the_other_with_a_message_and_the_run_goes_on(data, tmp_path):
    two(data, tmp_path / "whole", *STEPS)
    folder = tmp_path / "run"
    launcher = launched(data, folder, *STEPS)
    metrics = folder / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 2, launcher)
    workers = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True, check=True).stdout
    os.kill(sorted(map(int, workers.split()))[0], signal.SIGKILL)
    printed = launcher.communicate(timeout=60)[0].decode()
    assert launcher.returncode != 0
    assert "error: process 1 ends because another one of the 2 has; the same command goes on" in printed
    two(data, folder, *STEPS, "--resume")
    assert_same_run(folder, tmp_path / "whole")


def test_a_scheduler_s_signals_leave_a_whole_checkpoint(data, tmp_path):
    """SLURM sends SIGTERM to every process, and torchrun, which gets it too, to its own once more."""
    options = (*STEPS, "--model.hidden", "256")  # saving takes a while
    folder = tmp_path / "run"
    launcher = launched(data, folder, *options)
    wait_for((folder / "last.pt").exists, launcher)
    for _ in range(3):
        os.killpg(launcher.pid, signal.SIGTERM)
        time.sleep(0.05)
    printed = launcher.communicate(timeout=60)[0].decode()
    at = load_checkpoint(folder / "last.pt")["at"]
    assert f"interrupted: epoch {at['epoch'] + 1}, step {at['step']} saved" in printed
    assert at["step"] > 0
    assert not list(folder.glob(".tmp-*"))
