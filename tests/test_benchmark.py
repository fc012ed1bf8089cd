"""The benchmark: what it compares computes the same, what it counts is right, and every part runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dataset.data import open_data
from dataset.kinds import KINDS
from dataset.loader import Loader
from scripts.benchmark import __main__ as benchmark
from scripts.benchmark import data as benchmark_data
from scripts.benchmark import measure, threads
from scripts.benchmark.data import fed_step, make_features, read_rates, run_training
from scripts.benchmark.extraction import extraction_rates
from scripts.benchmark.measure import Counter, interleaved, profile
from scripts.benchmark.plain import PlainReader
from scripts.benchmark.train import PLAIN, Shapes, Step, parity
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


def test_ours_and_both_plain_networks_see_and_learn_the_same():
    """Without dropout; the gradients of the token projection reach it through everything that is compared."""
    ours, *plain = (Step(SMALL, CPU, name) for name in ("ours", *PLAIN))
    gradients = []
    for step in (ours, *plain):
        assert parity(ours, step) == {"logit_difference": pytest.approx(0, abs=1e-4), "same_selections": True}
        logits = step.model.eval()(**step.inputs).logits
        assert logits.std(dim=0).min() > 0.01
        F.cross_entropy(logits, step.answer).backward()
        parameters = dict(step.model.named_parameters())
        gradients.append(parameters["spatial.token.weight" if step is ours else "input_v_patch.weight"].grad)
    assert gradients[0].abs().max() > 1e-5
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], atol=1e-6, rtol=1e-4)


def test_parity_tells_another_network():
    ours, other = (Step(SMALL, CPU) for _ in range(2))
    with torch.no_grad():
        other.model.fusion.classifier.bias += 0.5
    assert parity(ours, other) == {"logit_difference": pytest.approx(0.5, abs=1e-5), "same_selections": True}
    other.inputs["frame"] = other.inputs["frame"].flip(1)
    assert not parity(ours, other)["same_selections"]


def test_a_step_trains_and_its_operations_are_those_that_torch_counts():
    step = Step(SMALL, CPU)
    with FlopCounterMode(display=False) as expected:
        first = step.learn(step.answer, **step.inputs)["answer"]
    with Counter() as counted:
        step()
    assert counted.flops == expected.get_total_flops() > 0
    for _ in range(30):
        last = step.learn(step.answer, **step.inputs)["answer"]
    assert last < first


def test_bytes_are_those_of_operands_and_results():
    with Counter() as counted:
        torch.ones(3, 4) @ torch.ones(4, 5).T.T
    assert counted.bytes == 4 * (12 + 20 + 12 + 20 + 15)  # made, then read


def test_tasks_take_turns(monkeypatch):
    clock, called = iter(range(100)), []
    monkeypatch.setattr(measure, "now", lambda device: float(next(clock)))
    tasks = {name: lambda name=name: called.append(name) for name in ("first", "second")}
    found = interleaved(tasks, CPU, rounds=2)
    assert called == ["first", "second"] * 3
    assert found["second"] == {"seconds": 1.0, "median": 1.0, "worst": 1.0, "gflop": 0.0, "gb": 0.0}


def test_kernels_are_counted_by_class():
    """The CPU's operators stand in for kernels."""
    a = torch.ones(50, 50)
    found = profile(lambda: (a.fill_(1.0), a.fill_(2.0)), CPU)
    assert found["copies and gathers"]["kernels"] == found["all"]["kernels"] == 2
    assert found["all"]["milliseconds"] > 0


def test_both_layouts_hold_the_same_features(tmp_path, capsys):
    config = make_features(tmp_path, 70, SMALL, public=True)
    assert "GB of features" in capsys.readouterr().out
    data = open_data(config, tuple(KINDS), ("train",))
    split, names = data.splits["train"], data.splits["train"].questions["video_id"].tolist()
    assert len(split) == 240  # of 70 videos, as 31,927 of 9,288
    reader, rows = PlainReader(tmp_path / "features-70/public", names, 4), np.array([69, 0, 139])
    for kind in KINDS:
        plain = np.stack([reader[row][kind] for row in rows])
        assert plain.dtype == np.float32
        assert np.array_equal(plain, data.store.read(kind, [names[row] for row in rows]))
        assert plain.std() > 0.5
    assert np.array_equal(data.text[split.question[rows]], [reader[row]["question"][0] for row in rows])
    make_features(tmp_path, 70, SMALL, public=True)
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match=r"GB are free; take fewer --videos, or another --work"):
        make_features(tmp_path, 10**8, SMALL._replace(segments=1000))


def test_readers_are_counted_by_what_they_read(tmp_path, monkeypatch):
    config, seen = make_features(tmp_path, 16, SMALL, public=True), []
    forget = benchmark_data.forget

    def look(files):  # the system keeps the pages that a process has mapped, whoever asks to drop them
        mapped, files = Path("/proc/self/maps").read_text(), list(files)
        seen.append([file for file in files if str(file) in mapped])
        forget(files)

    monkeypatch.setattr(benchmark_data, "forget", look)
    found = read_rates(config, SMALL, Runtime(CPU), rounds=1)
    assert seen == [[]] * 4
    ways = [f"{reader}, {order}" for reader in ("packed", "plain") for order in ("the loader's order", "shuffled")]
    assert list(found) == ways
    assert all(row["questions_per_second"] >= row["median"] >= row["worst"] > 0 for row in found.values())
    # In the loader's order, 48 of the 54 questions (whole batches) are about 16 videos; shuffled, each about its own.
    video, text = 2 * (120 + 672), 2 * (4 * 10 + 128)  # float16 numbers of frames and tokens; files with headers
    packed, plain = 4 * 96 + video, 4 * 96 + 2 * video + 3 * 128
    expected = [packed * 16 / 48, packed, plain * 16 / 48 + text, plain + text]
    assert [row["bytes_per_question"] for row in found.values()] == pytest.approx(expected)


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
        run_training(make_features(tmp_path, 16, SMALL), SMALL, 1, "cpu", "fp32", "auto")


def test_every_part_prints_and_writes_its_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "MEMORY_VIDEOS", 16)
    monkeypatch.setattr(benchmark, "extraction_rates", lambda device, rounds: {"decoding": {"times_real_time": 1.0}})
    trainings = []

    def train(config, shapes, epochs, *given):  # starting it takes seconds: once is enough
        trainings.append((epochs, *given))
        return run_training(config, shapes, epochs, *given) if epochs == 2 else {"host_gb": 1.0}

    monkeypatch.setattr(benchmark, "run_training", train)
    monkeypatch.setattr(threads, "SHAPES", [SMALL])
    monkeypatch.setattr(threads, "SECONDS", 0.01)
    figures, picture = tmp_path / "speed.json", tmp_path / "roofline.png"
    given = ["--device", "cpu", "--rounds", "1", "--videos", "32", "--epochs", "2", "--work", str(tmp_path)]
    benchmark.main([*given, "--json", str(figures), "--png", str(picture)], SMALL)
    printed, found = capsys.readouterr().out, json.loads(figures.read_text())
    parts = ["machine", "peak", "train", "evaluation", "reading", "evaluation reads", "step fed from"]
    steps = "steps a second on the CPU by threads"
    assert set(found) == {*parts, "train.py, 16 videos on", "train.py", "extraction", steps}
    assert {"work", "1 alone", "1 beside a neighbour"} <= found[steps]["hidden 16, batch 8, 12 segments"].keys()
    assert all(f"\n{name}  " in printed for name in found)
    assert set(found["train"]) == {"ours, fp32", *PLAIN}
    for name, row in found["train"].items():
        assert row["share_of_peak"] > 0
        assert row["times_ours"] == pytest.approx(row["seconds"] / found["train"]["ours, fp32"]["seconds"])
        assert (name in PLAIN) == ("logit_difference" in row)
    assert set(found["peak"]) == {"copy", "fp32"}
    for name, row in found["evaluation"].items():
        assert row["logit_difference"] < 1e-5
        assert row["same_answers"]
        assert (row["times_faster"] == 1) == name.endswith(", 1 a video")
    whole, looked = found["evaluation reads"].values()
    nbytes = {kind: np.prod(shape) * np.dtype(dtype).itemsize for kind, (shape, dtype) in SMALL.kinds.items()}
    assert whole["bytes_per_question"] == pytest.approx(sum(nbytes.values()), rel=0.31)  # a video once in a batch
    assert whole["bytes_per_question"] > looked["bytes_per_question"] > nbytes["audio"] / 1.43
    assert trainings == [(epochs, "cpu", "fp32", place) for epochs, place in ((1, "disk"), (1, "device"), (2, "auto"))]
    trained = found["train.py"]["32 videos"]
    assert trained["epochs"] == 2
    assert trained["seconds"] > 2 * trained["steps_of_an_epoch"] > 0
    assert trained["host_gb"] > 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_extraction_is_measured():
    found = extraction_rates(CPU, 1, small_clip().visual, seconds=2)
    assert all(value > 0 for row in found.values() for value in row.values())
    assert found["encoder, merging"]["gflop_per_frame"] > found["encoder, unmerged"]["gflop_per_frame"]


def test_options_that_cannot_be_met_are_refused(capsys):
    for arguments, message in (
        (["--videos", "127"], "--videos must be at least 128"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--only", "data", "--png", "x.png"], "add train to --only"),
        (["--work", "no/folder"], "--work no/folder: no such folder"),
    ):
        with pytest.raises(SystemExit):
            benchmark.main(arguments)
        assert message in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_training_part_runs_on_a_gpu(monkeypatch):
    monkeypatch.setitem(measure.SQUARES, "cuda", (256,))
    with benchmark.start("cuda", "fp32") as runtime:
        found = benchmark.compute(SMALL, runtime, 1, {"train"}, compiling=False)
    assert set(found["peak"]) == {"fp32", "tf32", "bf16", "copy"}
    ours = {f"ours, {each}{how}" for each in ("fp32", "tf32", "bf16") for how in ("", ", launched")}
    assert set(found["train"]) == {*ours, *PLAIN}
    assert all(found[f"kernels of {name}"]["all"]["kernels"] > 0 for name in ours)
