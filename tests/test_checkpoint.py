"""Checkpoints survive what happens to machines: a broken one falls back to the one before."""

import os

import pytest

from tests.small_run import assert_same_run, make_learnable_data, trained
from utils.checkpoint import before, load_checkpoint, load_latest, save_checkpoint
from utils.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_learnable_data(tmp_path_factory.mktemp("data"))


def test_the_one_before_is_kept_and_taken_where_the_last_is_broken(tmp_path, capsys):
    path = tmp_path / "last.pt"
    run = {"version": 2, "config": {}}
    assert load_latest(path) is None
    for number in range(3):
        save_checkpoint(path, run | {"number": number}, keep=True)
    assert load_latest(path)["number"] == 2
    path.write_bytes(b"")  # as a loss of power leaves it
    assert load_latest(path)["number"] == 1
    assert f"{path}: not a readable checkpoint" in (said := capsys.readouterr().out)
    assert f"going on from {before(path)}" in said
    path.unlink()  # killed between two renames
    assert load_latest(path)["number"] == 1
    before(path).write_bytes(b"")
    with pytest.raises(UserError, match=r"last\.before\.pt: not a readable checkpoint"):
        load_latest(path)


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(os, "fsync", lambda descriptor, fsync=os.fsync: events.append("fsync") or fsync(descriptor))
    monkeypatch.setattr(os, "replace", lambda a, b, replace=os.replace: events.append("replace") or replace(a, b))
    save_checkpoint(tmp_path / "best.pt", {})
    assert events == ["fsync", "replace"]


@pytest.mark.parametrize("damage", ["empty", "cut", "gone"])
def test_a_run_whose_last_checkpoint_is_broken_goes_on_to_the_same_numbers(data, tmp_path, damage):
    arguments = ("--config", data, "--out", tmp_path / "run")
    reference = trained("--config", data, "--out", tmp_path / "whole", "--train.epochs", 4)
    trained(*arguments, "--train.epochs", 3)
    last = tmp_path / "run/last.pt"
    if damage == "gone":
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[: 0 if damage == "empty" else 5000])
    trained(*arguments, "--train.epochs", 4, "--resume")
    assert_same_run(tmp_path / "run", reference)
    assert load_checkpoint(last)["at"]["epoch"] == 4
