"""How many threads share the CPU's operators, and how they wait for each other."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import train
from tests.small_run import ROOT, assert_same_run, make_learnable_data, trained
from utils import machine, runtime
from utils.checkpoint import load_checkpoint
from utils.runtime import set_threads

COMMANDS = ["train", "test"] + [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for room in ("scripts", "feat_script")
    for path in sorted((ROOT / room).rglob("*.py"))
    if '__name__ == "__main__"' in path.read_text()
]
AT_TORCH = """
import importlib, os, sys
import av, jsonargparse, matplotlib, numpy, openpyxl, pandas, yaml  # each child has them, and they are no PyTorch

class Finder:
    def find_spec(name, path, target=None):
        if name == "torch":
            tell(os.environ.get("OMP_WAIT_POLICY"))

def tell(policy):
    print(command, policy, flush=True)
    os._exit(0)

for command in sys.argv[1:]:
    if os.fork():  # a process each, since what is imported stays
        os.wait()
    else:
        sys.meta_path.insert(0, Finder)
        importlib.import_module(command)
        tell("passive")  # needs no torch
"""


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    """The user said nothing, and what a test sets ends with it."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_every_command_says_how_threads_wait_before_torch_is_loaded(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    command = [sys.executable, "-c", AT_TORCH, *COMMANDS]
    said = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.splitlines() == [f"{name} passive" for name in COMMANDS], said.stderr


def test_little_work_has_one_thread_and_much_all_cores(monkeypatch):
    model = nn.Linear(99, 10)  # 1,000 parameters
    monkeypatch.setattr(runtime, "SMALL", 320_000)
    assert (set_threads(model, 319), torch.get_num_threads()) == (1, 1)
    assert (set_threads(model, 320), torch.get_num_threads()) == (3, 3)
    assert (set_threads(model, 320, wanted=2), torch.get_num_threads()) == (2, 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")  # each process has its share of the cores
    assert set_threads(model, 320) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # as torch has read it at its start
    torch.set_num_threads(2)
    assert set_threads(model, 319, wanted=3) == 2


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(threads, capsys):
    with pytest.raises(SystemExit):
        train.main(["--train.threads", str(threads)])
    assert f"train.threads must be more than 0, is {threads}" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_threads(tmp_path, monkeypatch, capsys):
    data = make_learnable_data(tmp_path)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trained("--config", data, "--out", whole, "--train.epochs", 2, "--train.threads", 2)
    trained("--config", data, "--out", parts, "--train.epochs", 1, "--train.threads", 2)
    trained("--config", data, "--out", parts, "--train.epochs", 2, "--resume")  # by its size: one
    assert torch.get_num_threads() == 2
    assert load_checkpoint(parts / "last.pt")["config"]["train"]["threads"] == 2
    assert_same_run(whole, parts)

    again = ["--config", str(data), "--out", str(parts), "--train.epochs", "3", "--resume"]
    with pytest.raises(SystemExit):
        train.main([*again, "--train.threads", "1"])
    assert "train.threads is 2 there, but 1 now" in capsys.readouterr().err
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    with pytest.raises(SystemExit):
        train.main(again)
    assert "OMP_NUM_THREADS is 1, but the run began with 2 threads" in capsys.readouterr().err
