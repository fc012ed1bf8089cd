"""The benchmark: what it compares computes the same, what it counts is right, and every part runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.data import open_data
from dataset.kinds import KINDS
from dataset.loader import Loader
from scripts.benchmark import __main__ as benchmark
from scripts.benchmark import data as benchmark_data
from scripts.benchmark import measure, threads
from scripts.benchmark.data import fed_step, make_features, read_rates, run_training
from scripts.benchmark.extraction import extraction_rates
from scripts.benchmark.measure import interleaved
from scripts.benchmark.step import Shapes, Step
from tests.small_encoders import small_clip
from utils.errors import UserError
from utils.runtime import Runtime

SMALL = Shapes(segments=12, audio=8, frame=10, tokens=4, token=14, text=10, hidden=16, batch=8)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setitem(measure.SQUARES, "cpu", (64,))
    monkeypatch.setitem(measure.COPY_BYTES, "cpu", 2**16)
    monkeypatch.setattr(measure, "SAMPLE_SECONDS", 0)


def test_a_step_trains():
    step = Step(SMALL, CPU)
    first = step.learn(step.answer, **step.inputs)["answer"]
    for _ in range(30):
        last = step.learn(step.answer, **step.inputs)["answer"]
    assert last < first


def test_tasks_take_turns(monkeypatch):
    clock, called = iter(range(100)), []
    monkeypatch.setattr(measure, "now", lambda device: float(next(clock)))
    tasks = {name: lambda name=name: called.append(name) for name in ("first", "second")}
    found = interleaved(tasks, CPU, rounds=2)
    assert called == ["first", "second"] * 3
    assert found["second"] == {"seconds": 1.0, "median": 1.0, "worst": 1.0, "gflop": 0.0}


def test_operations_are_counted():
    a = torch.ones(50, 40)
    assert interleaved({"product": lambda: a @ a.T}, CPU, rounds=1)["product"]["gflop"] == 2 * 50 * 40 * 50 / 1e9


def test_features_are_made_once_and_of_their_videos(tmp_path, capsys):
    config = make_features(tmp_path, 70, SMALL)
    assert "GB of features" in capsys.readouterr().out
    data = open_data(config, tuple(KINDS), ("train",))
    assert len(data.splits["train"]) == 240  # of 70 videos, as 31,927 of 9,288
    for kind, (shape, dtype) in SMALL.kinds.items():
        features = data.store.read(kind, data.videos)
        assert (features.shape, features.dtype) == ((70, *shape), dtype)
        assert features.std() > 0.5
    make_features(tmp_path, 70, SMALL)
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match=r"GB are free; take fewer --videos, or another --work"):
        make_features(tmp_path, 10**8, SMALL._replace(segments=1000))


def test_reading_is_counted_by_what_comes_from_the_disk(tmp_path, monkeypatch):
    config, seen = make_features(tmp_path, 16, SMALL), []
    forget = benchmark_data.forget

    def look(files):  # the system keeps the pages that a process has mapped, whoever asks to drop them
        mapped, files = Path("/proc/self/maps").read_text(), list(files)
        seen.append([file for file in files if str(file) in mapped])
        forget(files)

    monkeypatch.setattr(benchmark_data, "forget", look)
    found = read_rates(config, SMALL, Runtime(CPU), rounds=1)
    assert seen == [[]] * 2
    assert list(found) == ["packed, the loader's order", "packed, shuffled"]
    assert all(row["questions_per_second"] >= row["median"] >= row["worst"] > 0 for row in found.values())
    # In the loader's order, 48 of the 54 questions (whole batches) are about 16 videos; shuffled, each about its own.
    video = 4 * 96 + 2 * (120 + 672)  # of sound, frames and tokens
    assert [row["bytes_per_question"] for row in found.values()] == pytest.approx([video * 16 / 48, video])


def test_a_fed_step_tells_what_it_waits_for(tmp_path, monkeypatch):
    config, clock = make_features(tmp_path, 32, SMALL), [0.0]
    monkeypatch.setattr(benchmark_data, "now", lambda device: clock[0])
    whole = Loader.batches

    def slow(self, split, orders):  # the first batch takes 7 s, each other one 2 s
        for n, batch in enumerate(whole(self, split, orders)):
            clock[0] += 2 if n else 7
            yield batch

    step = Step(SMALL, CPU)
    step.learn = lambda **batch: clock.append(clock.pop() + 6)
    monkeypatch.setattr(Loader, "batches", slow)
    found = fed_step(config, step, Runtime(CPU), rounds=2)
    assert found == {"disk": {"seconds": 8, "median": 8, "waiting_share": 0.25, "worst_waiting_share": 0.25}}


def test_training_that_fails_is_said_to(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "ls")
    with pytest.raises(UserError, match=r"train.py failed\nls: "):
        run_training(make_features(tmp_path, 16, SMALL), SMALL, 1, "cpu", "fp32")


def test_every_part_prints_and_writes_its_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "extraction_rates", lambda device, rounds: {"decoding": {"times_real_time": 1.0}})
    monkeypatch.setattr(threads, "SHAPES", [SMALL])
    figures = tmp_path / "speed.json"
    given = ["--device", "cpu", "--rounds", "1", "--videos", "32", "--epochs", "2", "--work", str(tmp_path)]
    benchmark.main([*given, "--json", str(figures)], SMALL)
    printed, found = capsys.readouterr().out, json.loads(figures.read_text())
    parts = ["machine", "peak", "train", "evaluation", "reading", "evaluation reads", "step fed from"]
    steps = "steps a second on the CPU by threads"
    assert set(found) == {*parts, "train.py", "extraction", steps}
    assert {"work", "1 alone", "1 beside a neighbour"} <= found[steps]["hidden 16, batch 8, 12 segments"].keys()
    assert all(f"\n{name}  " in printed for name in found)
    assert found["train"]["ours, fp32"]["share_of_peak"] > 0
    assert set(found["peak"]) == {"copy", "fp32"}
    for name, row in found["evaluation"].items():
        assert row["logit_difference"] < 1e-5
        assert row["same_answers"]
        assert (row["times_faster"] == 1) == name.endswith(", 1 a video")
    whole, looked = found["evaluation reads"].values()
    nbytes = {kind: np.prod(shape) * np.dtype(dtype).itemsize for kind, (shape, dtype) in SMALL.kinds.items()}
    assert whole["bytes_per_question"] == pytest.approx(sum(nbytes.values()), rel=0.31)  # a video once in a batch
    assert whole["bytes_per_question"] > looked["bytes_per_question"] > nbytes["audio"] / 1.43
    trained = found["train.py"]["32 videos"]
    assert trained["epochs"] == 2
    assert trained["seconds"] > 2 * trained["steps_of_an_epoch"] > 0


def test_extraction_is_measured():
    found = extraction_rates(CPU, 1, small_clip().visual, seconds=2)
    assert all(value > 0 for row in found.values() for value in row.values())
    assert found["encoder, merging"]["gflop_per_frame"] > found["encoder, unmerged"]["gflop_per_frame"]


def test_options_that_cannot_be_met_are_refused(capsys):
    for arguments, message in (
        (["--videos", "127"], "--videos must be at least 128"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--work", "no/folder"], "--work no/folder: no such folder"),
    ):
        with pytest.raises(SystemExit):
            benchmark.main(arguments)
        assert message in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_training_part_runs_on_a_gpu(monkeypatch):
    monkeypatch.setitem(measure.SQUARES, "cuda", (256,))
    with benchmark.start("cuda", "fp32") as runtime:
        found = benchmark.compute(SMALL, runtime, 1, {"train"})
    assert set(found["peak"]) == {"fp32", "tf32", "bf16", "copy"}
    assert set(found["train"]) == {
        f"ours, {each}{how}" for each in ("fp32", "tf32", "bf16") for how in ("", ", launched")
    }
