"""Runs that are killed or interrupted, as processes of their own, end with the numbers of an undisturbed one."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.small_run import (
    ROOT,
    assert_same_run,
    interpreter,
    losses,
    make_learnable_data,
    trained,
)
from utils.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
STEPS = ("--train.batch_size", "4", "--train.epochs", "12")  # 30 steps an epoch: signals land in the middle of one


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_learnable_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """The folder of a run that nothing disturbed."""
    return trained("--config", data, "--out", tmp_path_factory.mktemp("whole") / "run", *STEPS)


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


def test_a_run_that_is_killed_and_interrupted_goes_on_to_the_same_numbers(data, whole, tmp_path):
    folder = tmp_path / "run"
    for lines, number in ((2, signal.SIGKILL), (5, signal.SIGINT), (8, signal.SIGTERM)):
        process = start(data, folder, *STEPS, "--resume")
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
    trained("--config", data, "--out", folder, *STEPS, "--resume")
    assert_same_run(folder, whole)


def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_to_the_same_numbers(data, tmp_path):
    options = ("--model.hidden", "256", "--train.epochs", "3")  # checkpoints of 35 MB take a while to write
    trained("--config", data, "--out", tmp_path / "whole", *options)
    folder = tmp_path / "run"
    process = start(data, folder, *options)
    wait_for(lambda: (folder / "last.pt").exists() and list(folder.glob(".tmp-*.pt")), process)
    process.kill()
    process.communicate()
    assert list(folder.glob(".tmp-*.pt")), "the kill came too late to be a test"
    trained("--config", data, "--out", folder, *options, "--resume")
    assert_same_run(folder, tmp_path / "whole")
    assert not list(folder.glob(".tmp-*"))


def test_a_compiled_step_gives_the_same_run(data, tmp_path):
    options = ("--model.dropout", 0.0, "--train.epochs", 3, "--train.batch_size", 117)  # one shape: compiled once
    trained("--config", data, "--out", tmp_path / "plain", *options)
    trained("--config", data, "--out", tmp_path / "compiled", *options, "--train.compile", "default")
    for ours, theirs in zip(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), strict=True):
        assert ours[1] == pytest.approx(theirs[1], rel=1e-5)
        assert ours[2] == theirs[2]
