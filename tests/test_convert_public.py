"""The command that converts published weights; that the model then answers alike is told in tests/test_model.py."""

import sys

import pytest
import torch

from configs import schema
from nets.network import build
from nets.options import FeatureSizes
from scripts.convert_public import convert, main
from tests.public_network import PublicNetwork, public_state_dict
from utils.checkpoint import load_run


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command and returns its exit status and what it printed."""

    def ask(*options):
        monkeypatch.setattr(sys, "argv", ["convert_public", *map(str, options)])
        try:
            main()
        except SystemExit as left:
            return left.code, "".join(capsys.readouterr())
        return 0, "".join(capsys.readouterr())

    return ask


def test_a_checkpoint_becomes_a_run_folder(tmp_path, command):
    public = public_state_dict(PublicNetwork(dim=8))
    torch.save(public, tmp_path / "public.pt")
    status, said = command(tmp_path / "public.pt", "--out", tmp_path / "run")
    assert (status, "unused, since they never reach the output (14)" in said) == (0, True)
    stored = load_run(tmp_path / "run/best.pt")
    config = schema.from_dict(stored["config"])
    assert (config.model.network, config.model.hidden, config.model.spm_frames) == ("tspm", 8, "first_k")
    model = build(config.model, FeatureSizes(**stored["sizes"]), len(stored["answers"]))
    model.load_state_dict(stored["model"])
    for name, weight in convert(public, "tspm")[0].items():
        assert torch.equal(model.state_dict()[name], weight)


def test_a_run_that_is_there_is_not_replaced(tmp_path, command):
    (tmp_path / "best.pt").write_text("weeks of training")
    told = f"error: {tmp_path}: already holds a run; choose another folder with --out\n"
    assert command("public.pt", "--out", tmp_path) == (2, told)
    assert (tmp_path / "best.pt").read_text() == "weeks of training"


def test_a_checkpoint_must_be_named(tmp_path, command):
    assert command("--out", tmp_path) == (2, "error: name the checkpoint that is to be converted\n")
