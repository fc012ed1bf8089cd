"""The benchmark: what it compares computes the same, what it counts is right, and what lacks is said to."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dataset.features import open_features
from nets.config import FeatureSizes
from nets.layers import SingleHeadAttention
from scripts.benchmark import __main__ as benchmark
from scripts.benchmark import measure as benchmark_measure
from scripts.benchmark import reading as benchmark_reading
from scripts.benchmark import train as benchmark_train
from scripts.benchmark.data import FULL, Features, Shapes, kinds, make_features, open_data, video_bytes
from scripts.benchmark.epochs import epochs, make_run
from scripts.benchmark.measure import Counter, Timing, alone, interleaved, on_device, own_products, run_seconds
from scripts.benchmark.memory import peak_memories
from scripts.benchmark.plain import FusedAttention, PlainReader, copy_segments, gather_segments
from scripts.benchmark.reading import fed, fed_steps, forget, read_rates, scattered, windowed
from scripts.benchmark.report import NONE, scale
from scripts.benchmark.train import compiled_step, make_inputs, our_step, plain_steps
from scripts.convert_public import convert
from utils.errors import UserError
from utils.runtime import Runtime

SMALL = Shapes(FeatureSizes(segments=12, audio=8, frame=10, tokens=4, token=14, text=10), hidden=16, batch=8)
CPU = torch.device("cpu")


@pytest.fixture
def ours_and_plain():
    """Our step and the two plain ones, with the same weights, every bias other than zero, on the same batch."""
    ours, plain = our_step(CPU, "fp32", SMALL), plain_steps(CPU, SMALL)
    first, second = (step.model for step in plain.values())
    for name, parameter in first.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    second.load_state_dict(first.state_dict())
    ours.model.load_state_dict(convert(first.state_dict())[0])
    return ours, *plain.values()


def test_ours_and_both_plain_networks_give_the_same_logits_and_selections(ours_and_plain):
    seen = [step.model.eval()(**step.inputs) for step in ours_and_plain]
    assert seen[0].logits.std(dim=0).min() > 0.01
    for plain in seen[1:]:
        torch.testing.assert_close(plain.logits, seen[0].logits, atol=1e-4, rtol=0)
        assert torch.equal(plain.selected, seen[0].selected)


def test_ours_and_both_plain_networks_learn_the_same(ours_and_plain):
    """Without dropout, the gradients of the token projection, which reach it through everything that is compared."""
    gradients = []
    for step in ours_and_plain:
        step.model.eval()
        step.forward().backward()
        parameters = dict(step.model.named_parameters())
        gradients.append(
            parameters["spatial.token.weight" if step is ours_and_plain[0] else "input_v_patch.weight"].grad
        )
    assert gradients[0].abs().max() > 1e-5
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], atol=1e-6, rtol=1e-4)


def test_fused_attention_is_the_same_function():
    ours, fused = (kind(16, 0.1).eval() for kind in (SingleHeadAttention, FusedAttention))
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    fused.load_state_dict(ours.state_dict())
    x, y = torch.randn(2, 3, 5, 16)
    made = [attention(x, y) for attention in (ours, fused)]
    torch.testing.assert_close(made[1], made[0], atol=1e-4, rtol=1e-4)
    for attended in made:
        attended.square().sum().backward()
    for name, parameter in fused.named_parameters():
        torch.testing.assert_close(parameter.grad, ours.get_parameter(name).grad, atol=1e-2, rtol=1e-3)


def test_segments_are_copied_and_gathered_alike():
    x, index = torch.randn(3, 5, 2, 4), torch.tensor([[0, 4], [1, 2], [2, 3]])
    picked = torch.stack([x[row, index[row]] for row in range(3)])
    assert torch.equal(copy_segments(x, index), picked)
    assert torch.equal(gather_segments(x, index), picked)


def test_flops_are_those_that_torch_counts_and_stages_add_up_to_the_step():
    step = our_step(CPU, "fp32", SMALL)
    with FlopCounterMode(display=False) as expected:
        step(lambda part: None)
    with Counter() as counted:
        step(lambda part: None)
    assert counted.flops == expected.get_total_flops() > 0
    by_stage = 0
    for task in alone(dict(step.model.named_children()), step.forward).values():
        with Counter() as counted:
            task(lambda part: None)
        by_stage += counted.flops
    assert by_stage == expected.get_total_flops()


def test_bytes_are_those_of_operands_and_results():
    a, b, table, rows = torch.ones(3, 4), torch.ones(4, 5), torch.ones(100, 6), torch.tensor([7, 9])
    for run, numbers in (
        (lambda: a @ b, 12 + 20 + 15),
        (lambda: a.T, 0),
        (lambda: a[:1].expand(50, 4) + 1, 12 + 200),  # an expanded operand's storage is there once
        (lambda: table[rows], 2 * 12),  # reads what it writes, not the table
    ):
        with Counter() as counted:
            run()
        assert counted.bytes == 4 * numbers


def test_the_products_of_a_run_are_repeated_in_their_layouts():
    a, b, bias = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)
    made = own_products(lambda mark: (a @ b.T, a @ b.T, F.linear(a[:2], b, bias)), CPU, "fp32")
    assert list(made) == ["fp32, 3 x 4 @ 4 x 5, product 1 of the step", "fp32, 2 x 4 @ 4 x 5, product 2 of the step"]
    first, second = made.values()
    assert [(x.shape, x.stride()) for x in first.operands] == [((3, 4), (4, 1)), ((4, 5), (1, 4))]
    assert [x.shape for x in second.operands] == [(5,), (2, 4), (4, 5)]
    for product, flops in ((first, 2 * 3 * 4 * 5), (second, 2 * 2 * 4 * 5)):
        with Counter() as counted:
            product(lambda part: None)
        assert counted.flops == flops


def test_every_module_is_run_alone_as_often_as_it_is_called():
    calls = []

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(self.layer(x))

    model = Twice()
    tasks = alone({"layer": model.layer}, lambda: model(torch.ones(1, 2)))
    model.layer.register_forward_hook(lambda *_: calls.append(1))
    tasks["layer"](lambda part: None)
    assert len(calls) == 2
    assert model.layer.weight.grad is None


def test_tasks_take_turns_and_their_parts_are_told(monkeypatch):
    monkeypatch.setattr(benchmark_measure, "SAMPLE_SECONDS", 0)
    clock, called = iter(range(100)), []
    monkeypatch.setattr(benchmark_measure, "_now", lambda device: float(next(clock)))

    def first(mark):
        called.append("first")
        mark("half")
        mark("rest")

    timings = interleaved({"first": first, "second": lambda mark: called.append("second")}, CPU, rounds=2)
    assert called == ["first", "second"] * 3
    assert timings["first"].seconds == [3.0, 3.0]
    assert timings["first"].parts == {"half": [1.0, 1.0], "rest": [1.0, 1.0]}
    assert timings["second"].summary()["worst"] == 1.0


def test_kernels_are_counted_by_run():
    x = torch.empty(300, 300)
    found = on_device(lambda mark: x.fill_(1.0), CPU)  # the CPU's operators stand in for kernels
    assert found["kernels"] == 1
    assert found["busy_seconds"] > 0


@pytest.mark.parametrize("sparse", [False, True])
def test_all_layouts_hold_the_same_features(tmp_path, sparse):
    features = make_features(tmp_path, 9, sparse, SMALL.features)
    batch = windowed(features, 8, seed=0)[0]
    video_of = [features.names[video] for video in features.video]
    names = [video_of[row] for row in batch]
    store, packed = (
        open_features(features.root, layout, kinds(features.sizes), 12, 4) for layout in ("files", "packed")
    )
    assert store.video_bytes == video_bytes(features.sizes)
    assert not store.check(features.names, deep=True)
    reader = PlainReader(features.root / "public", video_of, 4)
    for kind in kinds(features.sizes):
        expected = store.read(kind, names)
        assert bool(expected.any()) != sparse
        assert np.array_equal(packed.read(kind, names), expected)
        plain = np.stack([reader[row][kind] for row in batch])
        assert plain.dtype == np.float32
        assert np.array_equal(plain, expected)
    data = open_data(features, "packed")
    assert np.array_equal(
        data.text[data.splits["train"].question[batch]], [reader[row]["question"][0] for row in batch]
    )


def test_sparse_features_take_no_room(tmp_path):
    made = make_features(tmp_path, 8, True, SMALL.features._replace(token=8192))
    assert made.bytes_on_disk < made.bytes_apparent / 10
    assert made.bytes_apparent > 8 * 2 * video_bytes(made.sizes)  # the files and the pack, and the plain ones


def test_features_are_made_once_and_anew_for_other_sizes(tmp_path):
    made = make_features(tmp_path, 8, False, SMALL.features)
    file = made.folder("token") / f"{made.names[0]}.npy"
    stamp = file.stat().st_mtime_ns
    forget([file])
    make_features(tmp_path, 8, False, SMALL.features)
    assert file.stat().st_mtime_ns == stamp
    make_features(tmp_path, 8, False, SMALL.features._replace(token=16))
    assert np.load(file).shape == (12, 4, 16)


def test_features_that_do_not_fit_the_disk_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"GB are free; take fewer --videos, --sparse, or another disk by --work"):
        make_features(tmp_path, 10**9, False, SMALL.features)
    assert list(tmp_path.iterdir()) == []


def test_the_size_of_the_features_is_said_before_they_are_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("scripts.benchmark.data._write", lambda features: features.root.mkdir())
    make_features(tmp_path, 9_288, True, FULL.features)
    said = capsys.readouterr().out
    assert "9,288 videos and 31,927 questions" in said
    assert "17.1 GB as files, as much packed, 34.0 GB in the published layout, all holes" in said
    make_features(tmp_path, 9_288, True, FULL.features)
    assert capsys.readouterr().out == ""


def test_a_pass_holds_whole_batches():
    features = Features(Path("nowhere"), 70, SMALL.features, True)
    for order, questions in ((scattered, 64), (windowed, 240)):  # 70 videos, 240.6 questions
        batches = order(features, 8, seed=1)
        rows = np.concatenate(batches)
        assert {len(batch) for batch in batches} == {8}
        assert len(set(rows)) == questions
        assert not np.array_equal(rows, np.concatenate(order(features, 8, seed=2)))
    assert len(set(features.video[np.concatenate(scattered(features, 8, seed=1))])) == 64


def test_every_way_of_reading_is_measured(tmp_path):
    features = make_features(tmp_path, 16, False, SMALL.features)
    rates = read_rates(features, 8, CPU, workers=1, rounds=1)
    places = ("from disk, in a window", "from disk, shuffled", "cached")
    assert set(rates) == {f"{way}, {place}" for way in ("plain", "files", "packed") for place in places}
    assert all(found["questions_per_second"] > 0 for found in rates.values())
    # Audio (12, 8) twice, frames (12, 10), tokens (12, 4, 14) and two sentences of 10 numbers, and six headers.
    assert rates["plain, cached"]["bytes_per_question"] == 4 * (2 * 96 + 120 + 672 + 20) + 6 * 128
    assert rates["packed, cached"]["bytes_per_question"] == 4 * 96 + 2 * (120 + 672)
    # In a window, 48 of the 54 questions (whole batches) about 16 videos.
    touched = {name: found["videos_per_question"] for name, found in rates.items()}
    assert touched == {name: pytest.approx(16 / 48 if "window" in name else 1) for name in rates}
    in_windows = rates["packed, from disk, in a window"]
    assert in_windows["bytes_per_question"] == pytest.approx((4 * 96 + 2 * (120 + 672)) * 16 / 48)
    assert (in_windows["order"], rates["plain, cached"]["order"]) == ("in a window of 512 videos", "shuffled")


def test_nothing_is_mapped_that_is_to_come_from_the_disk(tmp_path, monkeypatch):
    """The system keeps the pages that a process has mapped, whoever asks to drop them."""
    features, forgotten = make_features(tmp_path, 16, False, SMALL.features), []

    def look(files):
        mapped = Path("/proc/self/maps").read_text()
        forgotten.append([file for file in files if str(file) in mapped])

    monkeypatch.setattr(benchmark_reading, "forget", look)
    read_rates(features, 8, CPU, workers=1, rounds=2)
    fed_steps(features, our_step(CPU, "fp32", SMALL), Runtime(CPU), workers=1, rounds=2)
    assert forgotten == [[]] * (2 * 3 * 2 + 2 * 2)


def test_a_fed_step_tells_what_it_waits_for(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(benchmark_measure, "_now", lambda device: clock[0])

    class Slow:  # the first batch takes 7 s, each other one 3 s
        data = SimpleNamespace(splits={"train": None})

        def batches(self, split, orders):
            for n, _ in enumerate(orders):
                clock[0] += 3 if n else 7
                yield SimpleNamespace(inputs={}, answer=n)

    class Step:
        device, recorded = CPU, None

        def __call__(self, mark):
            clock[0] += 10

    total, parts = run_seconds(fed(Step(), Slow(), [None] * 3), CPU)
    assert total == 43
    assert parts == {"first batch": 7, "step": 30, "waiting": 6}


def test_steps_are_fed_in_the_order_of_training(tmp_path, monkeypatch):
    monkeypatch.setattr("dataset.loader.WINDOW", 4)
    monkeypatch.setattr(benchmark_reading, "FED", 16)  # questions, of 13 or 14 about the four videos of a window
    features, step = make_features(tmp_path, 16, False, SMALL.features), our_step(CPU, "fp32", SMALL)
    found = fed_steps(features, step, Runtime(CPU), workers=2, rounds=2)
    assert [found[place]["order"] for place in ("disk", "memory")] == ["in a window of 4 videos", "shuffled"]
    assert found["disk"]["videos_per_question"] <= 8 / 16 < found["memory"]["videos_per_question"]
    for told in found.values():
        assert 0 < told["seconds"] <= told["median"] <= told["worst"]
        assert 0 < told["waiting_share"] <= told["worst_waiting_share"] < 1
        assert 0 < told["waiting_seconds"] < told["worst"]


def test_features_that_do_not_fit_the_memory_are_said_to(tmp_path, monkeypatch):
    monkeypatch.setattr("dataset.loader.available_memory", lambda: 10)
    features, step = make_features(tmp_path, 16, False, SMALL.features), our_step(CPU, "fp32", SMALL)
    found = fed_steps(features, step, Runtime(CPU), workers=1, rounds=1)
    assert found["disk"]["seconds"] > 0
    assert "disk would do" in found["memory"]["does_not_fit"]
    assert list(found["memory"]) == ["does_not_fit"]


def test_features_in_memory_count_and_those_on_disk_do_not(tmp_path):
    found = peak_memories(tmp_path, CPU, 1, SMALL._replace(features=SMALL.features._replace(token=2**12)))
    assert found["feature_bytes"] > 10**8
    held = {place: peaks["host"] for place, peaks in found["peak_gb"].items()}
    assert set(held) == {"disk", "memory"}
    assert held["memory"] - held["disk"] > 0.5 * found["feature_bytes"] / 1e9


STEP = {"seconds": 2.0}
GB = 10**9
MACHINE = {"type": "cpu", "cores": 4, "available_memory": 40 * GB, "available_device_memory": 40 * GB}
RATES = {
    "encoder_with_merging_frames_per_second": 10.0,
    "vggish_examples_per_second": 40.0,
    "decode_frames_x_real_time_per_core": 5.0,
    "decode_audio_x_real_time_per_core": 100.0,
    "front_end_x_real_time_per_core": 100.0,
}


def test_scale_takes_hours_from_the_figures_of_the_run():
    evaluated = {"questions_per_second": 64.0, "seconds": 4.0}
    results = {"batch": 64, "machine": MACHINE, "extraction": RATES}
    others = {"plain": {"seconds": 0.1}, "ours, fp32, compiled": {"seconds": 0.1}}
    results |= {"train": {"ours, fp32": STEP, "ours, fp32, AVQA": {"seconds": 1.0}, **others}}
    results |= {
        "evaluation": {"ours, fp32": evaluated, "ours, fp32, AVQA": evaluated | {"questions_per_second": 128.0}}
    }
    results |= {
        "data": {
            "sparse": False,
            "rates": {
                "packed, from disk, in a window": {
                    "questions_per_second": 16.0,
                    "bytes_per_question": video_bytes(FULL.features) / 4,
                }
            },
        }
    }
    music, avqa, million = scale(results)
    assert music["train_hours"] == pytest.approx(30 * (31_927 / 32 + 4_568 / 64) / 3600)
    assert (music["train_bound"], music["residency"]) == ("the step", "memory")
    assert avqa["train_hours"] == pytest.approx(30 * (40_425 / 64 + 16_909 / 128) / 3600)
    assert million["residency"] == "disk"
    assert million["train_bound"] == "the disk"  # 4 videos a second, each with 3.4374 questions, are read once an epoch
    assert million["train_hours"] == pytest.approx(30 * (1_000_000 / 4 + 491_800 / 4) / 3600)
    # A second of video takes the networks 0.1 + 0.025 s and four cores 0.22 / 4 s: on a CPU one after the other.
    assert music["extract_hours"] == pytest.approx(9_288 * 60 * (0.125 + 0.055) / 3600)
    assert music["extract_bound"] == "the networks"
    on_gpu = scale(results | {"machine": MACHINE | {"type": "cuda", "cores": 1}})[0]
    assert on_gpu["extract_hours"] == pytest.approx(9_288 * 60 * 0.22 / 3600)
    assert on_gpu["extract_bound"] == "decoding"


def test_scale_says_what_was_not_measured():
    for row in scale({"batch": 64, "machine": MACHINE}):
        assert row["extract_hours"] == row["train_hours"] == row["extract_bound"] == row["train_bound"] == NONE
        assert row["feature_bytes"] > 10**10
    # Without a disk's figure there is no time for what only a disk holds.
    results = {"batch": 64, "machine": MACHINE, "train": {"ours, fp32": STEP, "ours, fp32, AVQA": STEP}}
    results["evaluation"] = {name: STEP | {"questions_per_second": 64.0} for name in results["train"]}
    music, _, million = scale(results)
    assert music["train_hours"] > 0
    assert million["train_hours"] == NONE


def test_features_stay_where_the_loader_would_keep_them():
    """By what is free, of which it leaves some: 17.1 GB are 0.7 of 24.5 GB."""
    places = []
    for on_gpu, device, host in ((False, 24, 24), (False, 25, 25), (True, 25, 0), (True, 24, 25), (True, 24, 24)):
        available = {"available_memory": host * GB, "available_device_memory": device * GB}
        music = scale({"batch": 64, "machine": MACHINE | available | {"type": "cuda" if on_gpu else "cpu"}})[0]
        places.append(music["residency"])
    assert places == ["disk", "memory", "device", "memory", "disk"]


def test_compiling_is_timed_with_the_first_step(monkeypatch):
    clock, modes = [0.0], []

    def pretend(network, mode, device, resident):
        modes.append(mode)
        network.register_forward_hook(lambda *_: clock.append(clock[-1] + 7))
        return network

    monkeypatch.setattr(benchmark_train, "compiled", pretend)
    monkeypatch.setattr(benchmark_train, "perf_counter", lambda: clock[-1])
    step, seconds = compiled_step(CPU, "fp32", SMALL)
    assert (modes, seconds) == (["default"], 7)
    assert step.forward().isfinite()


@pytest.mark.parametrize("first", ["stage frame", "plain, one gather", "fp32, 64 x 64 @ 64 x 64", "product 1 of"])
def test_the_peak_is_the_best_rate_of_all(first, monkeypatch):
    monkeypatch.setitem(benchmark_measure.PEAK_SIZES, "cpu", (64,))
    monkeypatch.setitem(benchmark_measure.COPY_BYTES, "cpu", 2**16)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(
        benchmark, "interleaved",
        lambda tasks, *_: {name: Timing([2.0], flops=100 if first in name else 50, bytes=1) for name in tasks},
    )  # fmt: skip
    found = benchmark.compute(Runtime(CPU), rounds=1, train=True, shapes=SMALL)
    assert found["peak"]["fp32"] == 50
    assert first in found["fastest"]["fp32"]
    shares = {name: made["share_of_peak"] for part in ("train", "stages") for name, made in found[part].items()}
    assert shares == {name: 1 if name == first else 0.5 for name in shares}


def test_whole_epochs_are_trained_and_timed(tmp_path):
    found = epochs(tmp_path, 70, 2, "cpu", "fp32", 1, SMALL)
    assert found["questions"] == (240, 34)
    assert found["epochs"] == 2
    assert found["seconds"] > found["first_epoch_seconds"] > found["epoch_seconds"] > found["train_seconds"] > 0
    assert found["place"] == "features in device"
    made = make_run(tmp_path, 70, SMALL)
    packs = [made / folder / "packed" / "features.npy" for folder in ("vggish", "clip_frame", "clip_token_4")]
    assert [np.load(pack).shape for pack in packs] == [(70, 12, 8), (70, 12, 10), (70, 12, 4, 14)]
    assert all(np.isfinite(pack).all() and pack.std() > 0.9 for pack in map(np.load, packs))
    assert not (made / "out").exists()
    stamp = packs[0].stat().st_mtime_ns
    make_run(tmp_path, 70, SMALL)
    assert packs[0].stat().st_mtime_ns == stamp
    make_run(tmp_path, 70, SMALL._replace(features=SMALL.features._replace(audio=16)))
    assert np.load(packs[0]).shape == (70, 12, 16)


def test_epochs_that_cannot_be_trained_are_said_to(tmp_path):
    with pytest.raises(UserError, match=r"GB are free; take fewer --videos, or another disk by --work"):
        epochs(tmp_path, 10**9, 1, "cpu", "fp32", 1, SMALL)
    with pytest.raises(UserError, match=r"training for whole epochs failed\n.*needs a GPU"):
        epochs(tmp_path, 64, 1, "cpu", "tf32", 1, SMALL)


def test_a_step_trains():
    step = our_step(CPU, "fp32", SMALL)
    before = F.cross_entropy(step.model.eval()(**make_inputs(SMALL)).logits, step.answer)
    step.model.train()
    for _ in range(30):
        step(lambda part: None)
    assert F.cross_entropy(step.model.eval()(**make_inputs(SMALL)).logits, step.answer) < before


def test_the_whole_prints_and_writes_its_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(benchmark_measure.PEAK_SIZES, "cpu", (64,))
    monkeypatch.setitem(benchmark_measure.COPY_BYTES, "cpu", 2**16)
    monkeypatch.setattr(benchmark_measure, "SAMPLE_SECONDS", 0)
    monkeypatch.setenv("CXX", "no-such-compiler")  # compiling takes a minute
    figures, picture = tmp_path / "speed.json", tmp_path / "roofline.png"
    arguments = [
        "--device",
        "cpu",
        "--only",
        "peak",
        "train",
        "evaluation",
        "data",
        "memory",
        "--rounds",
        "1",
        "--videos",
        "64",
        "--epochs",
        "1",
    ]
    benchmark.main([*arguments, "--work", str(tmp_path), "--json", str(figures), "--png", str(picture)], SMALL)
    printed, found = capsys.readouterr().out, json.loads(figures.read_text())
    assert set(found) >= {"machine", "peak", "train", "stages", "evaluation", "data", "scale"}
    assert set(found["data"]["fed"]) == {"disk", "memory"}
    assert "extraction" not in found
    shares = [made["share_of_peak"] for part in ("train", "stages") for made in found[part].values()]
    assert 0 < max(shares) <= 1
    assert "needs no-such-compiler" in found["compile"]["not_measured"]
    assert len(found["attention"]) == 2
    for line in (
        f"compiled: {NONE}",
        "times as fast as plain, one gather",
        "packed, from disk, in a window, is ",
        "of features kept in\ndisk  ",
        "in a window of 512 videos",
        "train.py: 219 training and 31 validation questions about 64 videos",
    ):
        assert line in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos", "63"], "--videos must be at least 64"),
        (["--rounds", "0"], "--rounds and --workers must be at least 1"),
        (["--epochs", "-1"], "--epochs must be at least 0"),
        (["--only", "data", "--png", "x.png"], "add train to --only"),
    ],
)
def test_options_that_cannot_be_met_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_training_part_runs_on_a_gpu(monkeypatch):
    monkeypatch.setitem(benchmark_measure.PEAK_SIZES, "cuda", (256,))
    with benchmark.start("cuda", "fp32") as runtime:
        found = benchmark.compute(runtime, rounds=1, train=True, shapes=SMALL)
    assert set(found["peak"]) == {"fp32", "tf32", "bf16", "copy"}
    assert {f"ours, {each}" for each in ("fp32", "tf32", "bf16")} <= set(found["train"])
    for name, step in found["train"].items():
        recorded = name.startswith("ours") and not name.endswith("launched")
        assert step["seconds"] > 0
        assert bool(step["parts"]) != recorded
        assert step["kernels"] > 0
