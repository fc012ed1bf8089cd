"""Measuring: time in interleaved rounds with the operations counted, and what the machine can do at most."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from utils.cuda_graph import WARM_UP
from utils.progress import tqdm

Task = Callable[[], object]
Rows = dict[str, dict[str, Any]]  # figures by name: a table

SAMPLE_SECONDS = 0.1  # a task that is shorter is run several times in a row
SQUARES = {"cpu": (1024, 2048, 4096), "cuda": (2048, 4096, 8192)}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def interleaved(tasks: dict[str, Task], device: torch.device, rounds: int) -> Rows:
    """Best, median and worst seconds of every task, and the GFLOP of a run, after a round that warms up and counts.

    Other programs use a machine too: every task is run once a round, so that all see the same company.
    """
    gflop, runs, seconds = {}, {}, {name: [] for name in tasks}
    for name, task in tasks.items():
        with FlopCounterMode(display=False) as counter:
            once = timed(task, device)
        gflop[name] = counter.get_total_flops() / 1e9
        if device.type == "cuda":  # the first runs load kernels and record the step
            timed(task, device, WARM_UP + 1)
            once = timed(task, device)
        runs[name] = max(1, min(100, round(SAMPLE_SECONDS / once)))
    for _ in tqdm(range(rounds), "measuring", leave=False, delay=1):
        for name, task in tasks.items():
            seconds[name].append(timed(task, device, runs[name]))
    return {
        name: {"seconds": min(each), "median": statistics.median(each), "worst": max(each), "gflop": gflop[name]}
        for name, each in seconds.items()
    }


def timed(task: Task, device: torch.device, runs: int = 1) -> float:
    """Seconds of one of `runs` runs."""
    began = now(device)
    for _ in range(runs):
        task()
    return (now(device) - began) / runs


def now(device: torch.device) -> float:
    """The time at which the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def set_products(precision: str) -> None:
    """Have float32 matrices multiplied in TF32 if `precision` says so, else exactly, as training does."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def limits(device: torch.device, precisions: tuple[str, ...]) -> dict[str, Task]:
    """Products of square matrices, "fp32, 1024", and "copy": of a large array."""

    def multiply(precision: str, a: Tensor, out: Tensor) -> None:
        set_products(precision)
        torch.mm(a, a, out=out)

    source = torch.ones(COPY_BYTES[device.type] // 4, device=device)
    made = {"copy": partial(torch.empty_like(source).copy_, source)}
    for precision in precisions:
        for n in SQUARES[device.type]:
            a = torch.randn(n, n, device=device).to(DTYPES.get(precision, torch.float32))
            made[f"{precision}, {n}"] = partial(multiply, precision, a, torch.empty_like(a))
    return made


def peaks(timings: Rows, device: torch.device, precisions: tuple[str, ...]) -> Rows:
    """The best of `limits`: GFLOP/s of each precision, and GB/s of copying, which reads and writes."""
    found = {"copy": {"gb_per_second": 2 * COPY_BYTES[device.type] / 1e9 / timings["copy"]["seconds"]}}
    for precision in precisions:
        rates = [timings[f"{precision}, {n}"] for n in SQUARES[device.type]]
        found[precision] = {"gflop_per_second": max(row["gflop"] / row["seconds"] for row in rates)}
    return found
