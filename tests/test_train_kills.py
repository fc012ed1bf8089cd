"""Runs that are killed or interrupted, as processes of their own, end with the numbers of an undisturbed one."""

import os
import signal
import time
from pathlib import Path

import pytest

import train
from tests.processes import Begun, begin
from tests.small_run import assert_same_run, losses, make_learnable_data, trained
from utils.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
STEPS = ("--train.batch_size", "4", "--train.epochs", "8")  # 30 steps an epoch: signals land in the middle of one


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_learnable_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """The folder of a run that nothing disturbed."""
    return trained("--config", data, "--out", tmp_path_factory.mktemp("whole") / "run", *STEPS)


def start(data: Path, folder: Path, *options: str) -> Begun:
    return begin(train.main, "--config", data, "--out", folder, *options, logs=folder.with_suffix(".logs"))


def wait_for(condition, begun: Begun) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert begun.ranks[0].is_alive(), begun.end()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_run_that_is_killed_and_interrupted_goes_on_to_the_same_numbers(data, whole, tmp_path):
    folder = tmp_path / "run"
    metrics = folder / "metrics.jsonl"
    for lines, number in ((1, signal.SIGKILL), (3, signal.SIGINT), (5, signal.SIGTERM)):
        begun = start(data, folder, *STEPS, "--resume")
        wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= lines, begun)  # noqa: B023
        os.kill(begun.ranks[0].pid, number)
        printed = begun.end()
        if number == signal.SIGKILL:
            assert begun.statuses == [-signal.SIGKILL]
        else:
            assert begun.statuses == [130]
            assert "--resume goes on" in printed
            assert load_checkpoint(folder / "last.pt")["at"]["step"] > 0
    trained("--config", data, "--out", folder, *STEPS, "--resume")
    assert_same_run(folder, whole)


def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_to_the_same_numbers(data, tmp_path):
    options = ("--model.hidden", "256", "--train.epochs", "3")  # checkpoints of 35 MB take a while to write
    trained("--config", data, "--out", tmp_path / "whole", *options)
    folder = tmp_path / "run"
    begun = start(data, folder, *options)
    wait_for(lambda: (folder / "last.pt").exists() and list(folder.glob(".tmp-*.pt")), begun)
    begun.ranks[0].kill()
    begun.end()
    assert list(folder.glob(".tmp-*.pt")), "the kill came too late to be a test"
    trained("--config", data, "--out", folder, *options, "--resume")
    assert_same_run(folder, tmp_path / "whole")
    assert not list(folder.glob(".tmp-*"))


def test_a_compiled_step_gives_the_same_run(data, tmp_path, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # it starts processes for more
    options = ("--model.dropout", 0.0, "--train.epochs", 3, "--train.batch_size", 117)  # one shape: compiled once
    trained("--config", data, "--out", tmp_path / "plain", *options)
    trained("--config", data, "--out", tmp_path / "compiled", *options, "--train.compile", "default")
    for ours, theirs in zip(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), strict=True):
        assert ours[1] == pytest.approx(theirs[1], rel=1e-5)
        assert ours[2] == theirs[2]
