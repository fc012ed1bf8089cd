"""Measuring: time in interleaved rounds, FLOPs and bytes of operators, what the machine can do at most, kernels."""

import re
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from utils.cuda_graph import WARM_UP
from utils.progress import tqdm

Task = Callable[[], object]
Rows = dict[str, dict[str, Any]]  # figures by name: a table

SAMPLE_SECONDS = 0.1  # a task that is shorter is run several times in a row
SQUARES = {"cpu": (1024, 2048, 4096), "cuda": (2048, 4096, 8192)}
ROWS = (640, 3840)  # of the model's own products, by 512 x 512: those of the selected segments, and of all
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def interleaved(tasks: dict[str, Task], device: torch.device, rounds: int) -> Rows:
    """Best, median and worst seconds of every task, and the work of a run, after a round that warms up and counts it.

    Other programs use a machine too: every task is run once a round, so that all see the same company.
    """
    work, runs, seconds = {}, {}, {name: [] for name in tasks}
    for name, task in tasks.items():
        with Counter() as work[name]:
            once = timed(task, device)
        if device.type == "cuda":  # the first runs load kernels and record the step
            timed(task, device, WARM_UP + 1)
            once = timed(task, device)
        runs[name] = max(1, min(100, round(SAMPLE_SECONDS / once)))
    for _ in tqdm(range(rounds), "measuring", leave=False, delay=1):
        for name, task in tasks.items():
            seconds[name].append(timed(task, device, runs[name]))
    return {
        name: {"seconds": min(each), "median": statistics.median(each), "worst": max(each)}
        | {"gflop": work[name].flops / 1e9, "gb": work[name].bytes / 1e9}
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
    """Matrix products, "fp32, 640 x 512 @ 512 x 512", and "copy": of a large array."""

    def multiply(precision: str, a: Tensor, b: Tensor, out: Tensor) -> None:
        set_products(precision)
        torch.mm(a, b, out=out)

    source = torch.ones(COPY_BYTES[device.type] // 4, device=device)
    made = {"copy": partial(torch.empty_like(source).copy_, source)}
    for precision in precisions:
        for rows, n in [(n, n) for n in SQUARES[device.type]] + [(rows, 512) for rows in ROWS]:
            a, b = (torch.randn(m, n, device=device).to(DTYPES.get(precision, torch.float32)) for m in (rows, n))
            made[f"{precision}, {rows} x {n} @ {n} x {n}"] = partial(multiply, precision, a, b, torch.empty_like(a))
    return made


def peaks(timings: Rows, precisions: tuple[str, ...]) -> Rows:
    """The best of `limits`: GFLOP/s of each precision with the product that gave it, and GB/s of copying."""
    found = {"copy": {"gb_per_second": timings["copy"]["gb"] / timings["copy"]["seconds"]}}
    for precision in precisions:
        rates = {name: row["gflop"] / row["seconds"] for name, row in timings.items() if name.startswith(precision)}
        best = max(rates, key=rates.get)
        found[precision] = {"gflop_per_second": rates[best], "by": best.partition(", ")[2]}
    return found


class Counter(TorchDispatchMode):
    """Counts the FLOPs of matrix products, and the bytes of every operand and result of all operators.

    The bytes are what would move if nothing stayed in cache between one operator and the next.
    """

    flops = bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.flops += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        if not func.is_view and "empty" not in func.name() and "view" not in func.name():
            touched = {id(x): x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)}
            self.bytes += sum(min(x.numel() * x.itemsize, x.untyped_storage().nbytes()) for x in touched.values())
        return out


KERNELS = {  # class of kernels: what the names of its own hold; the first that fits
    "matrix products": "gemm|gemv|cutlass|nvjet|xmma|splitk",
    "norms and softmax": "layer_?norm|gammabeta|softmax",
    "sums and means": "reduce",
    "copies and gathers": "copy|memcpy|cat|index|gather|scatter|fill|memset",
    "Adam": "adam|multi_tensor",
    "other elementwise": "",
}


def profile(task: Task, device: torch.device, runs: int = 5) -> Rows:
    """Kernels that a run of `task` launches by class, and the milliseconds for which they keep the device busy."""
    with torch.profiler.profile() as seen:
        timed(task, device, runs)
    found = {name: {"kernels": 0.0, "milliseconds": 0.0} for name in ("all", *KERNELS)}
    for event in seen.events():
        if event.device_type.name == device.type.upper() and not event.is_user_annotation:
            kind = next(kind for kind, names in KERNELS.items() if re.search(names, event.name, re.IGNORECASE))
            for name in ("all", kind):
                found[name]["kernels"] += 1
                found[name]["milliseconds"] += event.time_range.elapsed_us() / 1000
    return {name: {key: total / runs for key, total in row.items()} for name, row in found.items()}
