"""The benchmark: what it compares computes the same, what it counts is right, and what lacks is said to."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dataset.features import open_features
from nets.config import FeatureSizes
from scripts import benchmark, benchmark_measure
from scripts.benchmark_data import (
    FULL,
    Features,
    Shapes,
    forget,
    kinds,
    make_features,
    open_data,
    read_rates,
    scattered,
    video_bytes,
    windows,
)
from scripts.benchmark_measure import Counter, alone, interleaved, on_device
from scripts.benchmark_plain import PlainReader, copy_segments, gather_segments
from scripts.benchmark_report import NONE, scale
from scripts.benchmark_train import make_inputs, our_step, plain_steps
from scripts.convert_public import convert
from utils.errors import UserError

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
    batch = windows(features, 8, seed=0)[0]
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
    with pytest.raises(UserError, match=r"GB are free; --sparse"):
        make_features(tmp_path, 10**9, False, SMALL.features)


def test_a_pass_holds_whole_batches():
    features = Features(Path("nowhere"), 70, SMALL.features, True)
    for order, questions in ((scattered, 64), (windows, 240)):  # 70 videos, 240.6 questions
        batches = order(features, 8, seed=1)
        rows = np.concatenate(batches)
        assert {len(batch) for batch in batches} == {8}
        assert len(set(rows)) == questions
        assert not np.array_equal(rows, np.concatenate(order(features, 8, seed=2)))
    assert len(set(features.video[np.concatenate(scattered(features, 8, seed=1))])) == 64


def test_every_way_of_reading_is_measured(tmp_path):
    features = make_features(tmp_path, 16, False, SMALL.features)
    rates = read_rates(features, 8, CPU, workers=1, rounds=1)
    assert set(rates) == {
        f"{way}, {place}" for way in ("plain", "files", "packed") for place in ("from disk", "cached")
    }
    assert all(found["questions_per_second"] > 0 for found in rates.values())
    # Audio (12, 8) twice, frames (12, 10), tokens (12, 4, 14) and two sentences of 10 numbers, and six headers.
    assert rates["plain, cached"]["bytes_per_question"] == 4 * (2 * 96 + 120 + 672 + 20) + 6 * 128
    assert rates["packed, cached"]["bytes_per_question"] == 4 * 96 + 2 * (120 + 672)
    # 48 of the 54 questions (whole batches) about 16 videos.
    assert rates["packed, from disk"]["bytes_per_question"] == pytest.approx((4 * 96 + 2 * (120 + 672)) * 16 / 48)


STEP = {"seconds": 2.0}
MACHINE = {"type": "cpu", "cores": 4, "memory": 40 * 10**9, "device_memory": 40 * 10**9}
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
    results |= {"train": {"ours, fp32": STEP, "ours, fp32, AVQA": {"seconds": 1.0}, "plain": {"seconds": 0.1}}}
    results |= {
        "evaluation": {"ours, fp32": evaluated, "ours, fp32, AVQA": evaluated | {"questions_per_second": 128.0}}
    }
    results |= {
        "data": {
            "sparse": False,
            "rates": {
                "packed, from disk": {
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
    figures, picture = tmp_path / "speed.json", tmp_path / "roofline.png"
    arguments = ["--device", "cpu", "--only", "peak", "train", "evaluation", "data", "--rounds", "1", "--videos", "64"]
    benchmark.main([*arguments, "--work", str(tmp_path), "--json", str(figures), "--png", str(picture)], SMALL)
    printed, found = capsys.readouterr().out, json.loads(figures.read_text())
    assert set(found) >= {"machine", "peak", "train", "stages", "evaluation", "data", "scale"}
    assert set(found["data"]["fed_step_seconds"]) == {"disk", "memory"}
    assert "extraction" not in found
    assert NONE in printed
    assert "times as fast as plain, one gather" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos", "63"], "--videos must be at least 64"),
        (["--rounds", "0"], "--rounds and --workers must be at least 1"),
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
    assert {"ours, fp32", "ours, tf32", "ours, bf16"} <= set(found["train"])
    assert all(
        step["seconds"] > 0 and step["parts"]["backward"] > 0 and step["kernels"] > 0
        for step in found["train"].values()
    )
