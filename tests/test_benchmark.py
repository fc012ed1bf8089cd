"""The benchmark: tasks take turns, operations are counted, and every part runs at small sizes."""

import json

import pytest
import torch

from nets.options import FeatureSizes
from nets.tspm.options import TSPMOptions
from scripts import benchmark
from tests.scoring_run import called
from tests.small_encoders import small_clip
from utils.errors import UserError
from utils.runtime import Runtime

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    sizes = FeatureSizes(12, {"audio": (12, 8), "frame": (12, 10), "token": (12, 4, 14)}, 10)
    for name, value in {"SIZES": sizes, "OPTIONS": TSPMOptions(hidden=16, tokens=4), "SQUARE": {"cpu": 64}}.items():
        monkeypatch.setattr(benchmark, name, value)


def test_tasks_take_turns_and_their_operations_are_counted():
    called, a = [], torch.ones(50, 40)
    tasks = {"first": lambda: called.append("first"), "peak": lambda: called.append("peak") or a @ a.T}
    found = benchmark.measured(tasks, CPU, rounds=2, count=3)
    assert called == ["first", "first", "peak", "peak", *["first", "peak"] * 2]
    assert found["first"]["gflop"] == 0
    assert found["peak"]["gflop"] == 2 * 50 * 40 * 50 / 1e9
    assert 0 < found["peak"]["seconds"] <= found["peak"]["median"] <= found["peak"]["worst"]
    assert found["first"]["per_second"] == 3 / found["first"]["seconds"]


def test_a_step_trains():
    step = benchmark.step(Runtime(CPU), "fp32")
    first, *_, last = (float(step()["answer"][0]) for _ in range(30))
    assert last < first


def test_every_part_prints_and_writes_its_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "extraction", lambda *_: {"decoding frames": {"times_real_time": 1.0}})
    figures = tmp_path / "speed.json"
    options = ("--device", "cpu", "--rounds", 1, "--videos", 16, "--epochs", 2, "--work", tmp_path, "--json", figures)
    printed, found = called(benchmark.main, *options), json.loads(figures.read_text())
    assert set(found) == {"machine", "computing", "train.py", "extraction"}
    assert all(f"\n{name}\n" in printed for name in found)
    parts = ["peak", "training step", *(f"evaluation, {asked} questions a video" for asked in (1, 1.43, 26))]
    assert list(found["computing"]) == parts
    assert found["computing"]["peak"]["share_of_peak"] == 1
    flops = [found["computing"][part]["gflop"] for part in parts[1:]]
    assert flops == sorted(flops, reverse=True)  # training most; the more questions about a video, the less
    trained = found["train.py"]["16 videos"]
    assert trained["epochs"] == 2
    assert trained["seconds"] > 2 * trained["steps_of_an_epoch"] > 0
    assert list(tmp_path.iterdir()) == [figures]  # what was made is gone


def test_training_that_fails_and_features_that_do_not_fit_are_said(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"GB are free; take fewer --videos, or another --work"):
        benchmark.make_features(tmp_path, 10**12)
    monkeypatch.setattr("sys.executable", "ls")
    with pytest.raises(UserError, match=r"train.py failed\nls: "):
        benchmark.epochs(tmp_path, 16, 1, "cpu", "fp32")
    assert "Directory does not exist: '" in called(benchmark.main, "--work", "no/folder", fails=True)


def test_extraction_is_measured():
    found = benchmark.extraction(Runtime(CPU), 1, benchmark.Path("assets/bandstand/sample.mp4"), small_clip().visual)
    assert all(found[f"decoding {what}"]["times_real_time"] > 1 for what in ("frames", "sound"))
    assert found["CLIP, merging"]["gflop"] > found["CLIP"]["gflop"] > 0
