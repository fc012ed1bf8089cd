"""A recorded step does what the step does: each call once, with its own batch and the numbers of the moment."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from nets import NETWORKS
from nets.network import build, zero_inputs
from nets.options import FeatureSizes
from tests.small_run import losses, make_data, run, weights
from tests.synthetic import write_words
from utils.cuda_graph import WARM_UP, Recorded, recordable
from utils.errors import UserError
from utils.runtime import Runtime

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
ON_GPU = {"tspm": (), "pstp_net": ("--model.spans", 3), "st_avqa": ("--model.seconds", 3)}
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


class Pretended(Recorded):
    """Records as a GPU would: replaying reads the tensors where they lay, and the host's numbers as they were."""

    def _record(self, constants, tensors):
        self.held, rate = tensors, self.reads()

        def replay():
            self.result = {"loss": self.held["x"].sum() * rate * constants[0]}
            replayed.append(rate)

        replayed = self.replayed = []
        self.graph = SimpleNamespace(replay=replay)


def test_every_call_works_on_its_own_batch_with_the_numbers_of_the_moment():
    rate, store, called = [1.0], torch.ones(3), []

    def work(scale, x, store):
        called.append(len(x))
        return {"loss": x.sum() * rate[0] * scale}

    recorded = Pretended(work, lambda: rate[0])

    def call(n, size=4):
        x = torch.full((size,), float(n))
        result = recorded(2, x=x, store=store)["loss"]
        assert result == 2 * rate[0] * n * size
        return result

    results = [call(n) for n in range(WARM_UP + 2)]
    assert called == [4] * WARM_UP
    assert len(recorded.replayed) == 2
    assert [result.item() for result in results] == [8.0 * n for n in range(WARM_UP + 2)]  # none is overwritten
    assert recorded.held["store"] is store
    call(1, size=3)  # a short batch, after which the recording still serves
    call(7)
    assert (called, len(recorded.replayed)) == ([4] * WARM_UP + [3], 3)
    for _ in range(2 * WARM_UP):  # epochs, each with its short batch
        call(1, size=3)
        call(7)
    assert (called, len(recorded.replayed)) == ([4] * WARM_UP + [3] * (1 + 2 * WARM_UP), 3 + 2 * WARM_UP)
    called.clear()
    rate[0] = 0.5
    for n in range(WARM_UP + 1):
        call(n)
    assert called == [4] * WARM_UP
    assert recorded.replayed == [0.5]


def test_what_cannot_be_recorded_is_said(monkeypatch):
    @contextlib.contextmanager
    def refuse(graph, capture_error_mode):
        try:
            yield
        finally:  # PyTorch's way: ending the recording complains over what broke it
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace)
    monkeypatch.setattr(torch.cuda, "graph", refuse)

    def work(x):
        if recorded.times > WARM_UP:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return {"loss": x.sum()}

    recorded = Recorded(work, tuple)
    for _ in range(WARM_UP):
        recorded(x=torch.ones(2))
    with pytest.raises(UserError, match=r"\(operation not permitted .*capturing\); --train.graph false does without"):
        recorded(x=torch.ones(2))


def test_a_step_is_recorded_on_one_gpu():
    assert recordable(Runtime(GPU), None)
    assert recordable(Runtime(GPU), "default")
    assert not recordable(Runtime(GPU), "reduce-overhead")  # which records by itself
    assert not recordable(Runtime(GPU, world=2), None)
    assert not recordable(Runtime(CPU), None)


SHAPES = {"audio": (6, 8), "frame": (6, 16), "token": (6, 5, 12), "words": (77, 12)}
LEARNED = {"order": True, "sounds": True, "temporal": "learned", "spatial": "pairs", "fusion": "deep"}
LEARNED |= {"streams": ["a_sel", "v_sel", "v_spa", "fit"]}


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("tspm", {"top_k": 3, "tokens": 3}),
        ("tspm", LEARNED | {"top_k": 3, "tokens": 5}),
        ("tspm", LEARNED | {"top_k": 3, "tokens": 5, "gate": "perturbed"}),
        ("qa_tiger", {"top_k": 3, "tokens": 5}),
        ("pstp_net", {"spans": 3, "tokens": 5}),
        ("st_avqa", {"top_k": 3, "tokens": 5, "seconds": 3}),
        ("means", {}),
    ],
)
def test_a_step_waits_for_no_number(network, options):
    """A recording cannot: on the meta device, where tensors have no numbers, reading one is an error."""
    made = NETWORKS[network](hidden=16, **options)
    sizes = FeatureSizes(6, {kind: SHAPES[kind] for kind in made.kinds}, 16)
    model = build(made, sizes, 5).to("meta").train()
    seen = model(**{name: x.to("meta") for name, x in zero_inputs(sizes, 12).items()})
    terms = [term.weight * term.sum / term.count.clamp(min=1) for term in seen.losses.values()]
    (seen.logits.sum() + sum(terms)).backward()


@NEEDS_GPU
@pytest.mark.parametrize(
    ("network", "residency", "precision"),
    [("tspm", "device", "fp32"), ("tspm", "disk", "fp32"), *((name, "device", "bf16") for name in ON_GPU)],
)
def test_a_recorded_run_equals_one_that_is_not(tmp_path, network, residency, precision):
    data = make_data(tmp_path)
    write_words(tmp_path / "features")
    options = ("--train.device", "cuda", "--train.precision", precision, "--data.residency", residency)
    options += ("--model.network", network, *ON_GPU[network])
    options += ("--train.batch_size", 8, "--train.lr_step", 2, "--train.epochs", 4)
    for name, graph in (("recorded", "true"), ("launched", "false")):
        run("train.py", "--config", data, *options, "--train.graph", graph, "--out", tmp_path / name)
    assert losses(tmp_path / "recorded") == losses(tmp_path / "launched")
    ours, theirs = (weights(tmp_path / name / "last.pt") for name in ("recorded", "launched"))
    assert all((ours[key] == theirs[key]).all() for key in theirs)
    # Going on from what the other left: a recording begins with a checkpoint of either.
    more = ("--train.epochs", 5, "--resume", "--out", tmp_path / "launched")
    run("train.py", "--config", data, *options[:-2], *more, "--train.graph", "true")
    assert len(losses(tmp_path / "launched")) == 5
