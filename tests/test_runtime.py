"""Processes, device, precision and seeds; what several processes do together is in test_train."""

import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import Interrupted, UserError, command
from utils.evaluation import in_batches
from utils.runtime import Interrupt, Runtime, autocast, seed, start

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


@pytest.mark.parametrize(("precision", "set_to"), [("fp32", "highest"), ("tf32", "high"), ("bf16", "highest")])
def test_precision_rules_matrix_products(precision, set_to):
    with start("cpu", precision):
        assert torch.get_float32_matmul_precision() == set_to
        with autocast(CPU, precision):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    torch.set_float32_matmul_precision("highest")


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
