"""What the loop hands to each step, and what a step does to the network: by recording, not by its effects on a run."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train
from dataset.loader import Loader, epoch_order
from tests.small_run import make_learnable_data
from tests.test_train import CPU, config_of, gradients, open_all
from utils.runtime import Runtime
from utils.scoring.evaluation import at_once, perceive


class Second(Runtime):
    """The second of two processes; the other one has nothing to say."""

    def any(self, flag):
        return flag

    def sum(self, x):
        return x

    def gather(self, part):
        return [part] * self.world


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """117 training questions: the last of eight batches holds 5."""
    return make_learnable_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def fitted(data, tmp_path, monkeypatch):
    """Run the loop of the second of two processes for two epochs of seed 7; returns what it seeded and asked for."""
    seeded, told, orders, asked = [], [], [], []

    def learn(questions, answer, **inputs):
        told.append((questions, len(answer)))
        return {"answer": torch.tensor([1.0, len(answer)])}

    def order(*arguments):
        orders.append((arguments, epoch_order(*arguments)))
        return orders[-1][1]

    def by_video(split, rows, batch_size):
        asked.append(batch_size)
        return Loader.by_video(loader, split, rows, batch_size)

    config = config_of(data, "--out", tmp_path / "run", "--train.seed", 7, "--train.epochs", 2, "--data.window", 3)
    opened, loader, _ = open_all(data, config)
    second = Second(torch.device("cpu"), rank=1, world=2)
    loader.runtime = second
    state = train.set_up(config, opened, CPU, None)
    monkeypatch.setattr(train, "seed", lambda *numbers: seeded.append(numbers))
    monkeypatch.setattr(train, "epoch_order", order)
    monkeypatch.setattr(loader, "by_video", by_video)
    train.fit(config, state, opened, loader, learn, second)
    return SimpleNamespace(seeded=seeded, told=told, orders=orders, asked=asked, video=opened.splits["train"].video)


def test_each_step_is_told_its_true_size_and_seeded_by_its_place(fitted):
    """The loss is divided by the true count of the global batch; dropout differs by step and process."""
    assert fitted.seeded == [(7, step, 1) for step in range(16)]
    assert [questions for questions, _ in fitted.told] == [*[16] * 7, 5] * 2
    assert [mine for _, mine in fitted.told] == [*[8] * 7, 2] * 2


def test_the_order_is_that_of_the_run_s_seed(fitted):
    for epoch, ((video, *rest), _) in enumerate(fitted.orders):
        assert video is fitted.video
        assert rest == [16, 7, epoch, 3, 1]  # batch size, seed, epoch, window, group
    assert len(fitted.orders) == 2


def test_questions_are_answered_together_whatever_the_batches_of_training(fitted):
    """As many as the device is fast with: more than the 16 of a step, and four of its batches on a GPU."""
    assert fitted.asked == [64, 64]
    assert at_once(16, torch.device("cuda")) == 64


def test_the_gradient_of_one_of_two_processes_is_twice_its_share(data, monkeypatch):
    """DDP averages over the processes, and the loss is the sum over the global batch divided by its size."""
    monkeypatch.setattr(train, "DistributedDataParallel", lambda network, **_: network)
    alone, one_of_two = (gradients(data, np.arange(5), 16, each) for each in (CPU, Second(CPU.device, 1, 2)))
    for name, gradient in alone.items():
        torch.testing.assert_close(one_of_two[name], 2 * gradient, rtol=1e-4, atol=1e-6)


def stepping(data, *options):
    """A network and its step over the first questions; the optimizer does not move."""
    config = config_of(data, *options)
    opened, loader, _ = open_all(data, config)
    state = train.set_up(config, opened, CPU, None)
    state.optimizer.step = lambda: None
    learn = train.make_step(config, state, loader, CPU)
    (batch,) = loader.batches(opened.splits["train"], [np.arange(16)])
    return state, opened, loader, lambda: learn(16, answer=batch.answer, **batch.inputs)


def test_a_step_forgets_the_gradients_of_the_one_before(data):
    state, _, _, step = stepping(data, "--model.dropout", 0)
    found = []
    for _ in range(2):
        step()
        found.append({n: p.grad.clone() for n, p in state.model.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        assert torch.equal(found[1][name], gradient)


def test_validation_is_without_dropout_and_training_with_it_again(data):
    state, opened, loader, step = stepping(data, "--model.dropout", 0.5)
    asked = opened.splits["val"]

    def validate():
        batches = loader.by_video(asked, np.arange(len(asked)), 9)
        return torch.cat([seen.logits for _, seen in perceive(state.model, batches, "fp32", CPU.device)])

    first = validate()
    assert torch.equal(validate(), first)
    losses = [step()["answer"][0].item() for _ in range(3)]
    assert len(set(losses)) == 3  # every step draws anew
    assert torch.equal(validate(), first)
