"""Processes, device, precision, memory and seeds; what several processes do together is in test_train."""

import os
import re
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from functorch.compile import make_boxed_func
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._guards import TracingContext

from dataset.loader import in_batches
from tests.processes import begin
from utils.compiling import compiled
from utils.errors import Interrupted, UserError, command
from utils.interrupt import Interrupt
from utils.numerics import autocast, seed
from utils.runtime import Runtime, start
from utils.scoring.evaluation import predict

CPU = torch.device("cpu")


@given(st.integers(1, 100), st.integers(1, 40))
def test_a_split_is_answered_in_order_in_batches(questions, batch_size):
    batches = in_batches(np.arange(questions), batch_size)
    assert list(np.concatenate(batches)) == list(range(questions))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 0 < len(batches[-1]) <= batch_size


def test_one_process_is_main_and_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with start("cpu", "fp32") as runtime, runtime.main_first():
        assert runtime == Runtime(CPU, rank=0, world=1)
        assert runtime.is_main
        assert (runtime.any(True), runtime.any(False)) == (True, False)
        assert runtime.sum(torch.tensor([2.0, 3.0])).tolist() == [2, 3]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused_and_auto_does_without():
    with pytest.raises(UserError, match=r"--device cpu runs without one"), start("cuda", "fp32", option="device"):
        pass
    with start("auto", "fp32") as runtime:
        assert runtime.device == CPU


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU of the given compute capability."""

    def pretend(capability: tuple[int, int]) -> None:
        for name, value in (("is_available", True), ("device_count", 1), ("get_device_capability", capability)):
            monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)

    yield pretend
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(("precision", "set_to"), [("fp32", "highest"), ("tf32", "high"), ("bf16", "highest")])
def test_precision_rules_matrix_products_and_convolutions(precision, set_to, gpu):
    gpu((8, 0))
    with start("cuda", precision):
        assert torch.get_float32_matmul_precision() == set_to
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    if precision != "tf32":
        with start("cpu", precision), autocast(CPU, precision):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)


@pytest.mark.parametrize(
    ("device", "precision", "capability"),
    [("cpu", "tf32", (9, 0)), ("cuda", "tf32", (7, 5)), ("auto", "tf32", (7, 5)), ("cuda", "bf16", (7, 5))],
)
def test_a_precision_that_the_device_has_not_is_refused(device, precision, capability, gpu):
    gpu(capability)
    with (
        pytest.raises(UserError, match=f"train.precision {precision} needs a GPU of .* 8.0 or more; take fp32"),
        start(device, precision),
    ):
        pass


@command
def one_of_three(arguments: list[str]) -> None:
    with start("cpu", "fp32") as runtime:
        runtime.wait()
        if runtime.rank == 0:  # finds a fault after another one has ended
            with runtime.main_first():
                raise UserError("the data are broken")
        if runtime.rank == 1:
            raise RuntimeError("/home/gloo: the disk is full")
        runtime.gather("here")


def test_of_several_processes_each_tells_its_own_error(tmp_path):
    begun = begin(one_of_three, logs=tmp_path / "logs", processes=3)
    begun.end()
    said = [log.read_text() for log in begun.logs]
    assert said[0] == "error: the data are broken\n"
    assert said[1].endswith("RuntimeError: /home/gloo: the disk is full\n")
    assert re.match("error: process 2 ends because another one of the 3 has; the same .*\nit saw: Conn", said[2])


PAIR = "[/build/third_party/gloo/gloo/transport/tcp/pair.cc:553] "


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError(f"{PAIR}Connection closed by peer [::1]:1. Why?"), "Connection closed by peer [::1]:1"),
        (dist.DistNetworkError("failed to recv, got 0 bytes\nmore"), "failed to recv, got 0 bytes"),
        (dist.DistBackendError("NCCL error\nncclRemoteError: a remote process exiting"), "NCCL error"),
        (dist.DistBackendError("NCCL error\nncclUnhandledCudaError: out of memory"), None),
        (RuntimeError("gloo/transport: no such file"), None),
        (UserError("gloo.npy: no such file"), None),
    ],
)
def test_only_what_tells_of_a_lost_process_is_said_in_other_words(monkeypatch, error, told):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("init_process_group", "new_group", "destroy_process_group"):
        monkeypatch.setattr(dist, name, lambda *args, **options: None)
    with pytest.raises((RuntimeError, UserError)) as caught, start("cpu", "fp32"):
        raise error
    if told is None:
        assert caught.value is error
    else:
        assert isinstance(caught.value, UserError)
        assert str(caught.value).endswith(f"\nit saw: {told}")


class Constant(nn.Module):
    """Answers every question with the class that it is asked for."""

    def forward(self, wanted):
        return SimpleNamespace(logits=nn.functional.one_hot(wanted, 5).float())


class TwoProcesses(Runtime):
    """One process of two, of which the other has found `others`."""

    def sum(self, x):
        return x + self.others


@pytest.mark.parametrize("parts", [[[3, 0], [5]], [[3, 0, 5], []], [[]], []])
def test_each_process_gets_all_answers_whatever_its_share(parts):
    runtime = TwoProcesses(CPU, 0, 2)
    answered = [row for part in parts for row in part]
    expected = torch.tensor([2, 4, 1, 0, 3, 1])
    object.__setattr__(runtime, "others", expected.clone().index_fill(0, torch.tensor(answered).long(), 0))
    batches = []
    for part in parts:
        rows = np.array(part, int)
        batches.append(SimpleNamespace(rows=rows, inputs={"wanted": expected[torch.from_numpy(rows)]}, choices=None))
    np.testing.assert_array_equal(predict(Constant(), batches, 6, "fp32", runtime), expected.numpy())


def test_a_compiled_step_is_told_which_tensors_stay_where_they_are(monkeypatch):
    """Of all its inputs a CUDA graph copies only the others."""
    monkeypatch.setenv("CXX", "sh")  # nothing here needs a compiler
    inputs = {name: torch.ones(4, 3) for name in ("store", "batch")}
    compiled(nn.Identity(), "default", CPU, [inputs["store"]])  # marks it, for any step that is compiled afterwards
    copied = []

    def note(graph, example_inputs):
        static = TracingContext.get().fw_metadata.static_input_indices
        copied.extend(n for n in range(len(example_inputs)) if n not in static)
        return make_boxed_func(graph.forward)

    step = torch.compile(lambda store, batch: store * 2 + batch, backend=aot_autograd(fw_compiler=note))
    assert torch.equal(step(**inputs), torch.full((4, 3), 3.0))
    assert copied == [1]


def draw(*numbers: int) -> float:
    seed(*numbers)
    return torch.rand(()).item()


def test_equal_seeds_draw_equal_numbers_and_neighbours_do_not():
    tuples = [(seed, step, rank) for seed in (0, 1, 2**32 - 1) for step in (0, 1, 10**6) for rank in (0, 1, 7)]
    drawn = [draw(*numbers) for numbers in tuples]
    assert drawn == [draw(*numbers) for numbers in tuples]
    assert len(set(drawn)) == len(tuples)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_a_second_ctrl_c_stops(number):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    try:
        interrupt = Interrupt()
        assert not interrupt.asked
        os.kill(os.getpid(), number)
        assert interrupt.asked
        os.kill(os.getpid(), signal.SIGTERM)  # as a scheduler sends it to a whole job, and each parent in it again
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        for each, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(each, handler)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("x.npy: no such file"), 2, "error: x.npy"),
        (Interrupted("saved"), 130, "interrupted: saved"),
        (KeyboardInterrupt(), 130, "\ninterrupted"),
    ],
)
def test_a_command_ends_with_a_line_and_a_status(capsys, error, status, said):
    @command
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == status
    assert capsys.readouterr().err.startswith(said)


def test_a_defect_is_not_taken_for_the_users_error():
    @command
    def main():
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        main()
