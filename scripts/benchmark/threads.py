"""How many threads a training step wants on the CPU: alone, and beside a process that keeps a core busy.

An operator shared among threads ends with the last of them, and a core that is taken keeps all others waiting.
"""

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from scripts.benchmark.measure import Rows
from scripts.benchmark.step import Shapes, Step
from utils.machine import usable_cores
from utils.progress import tqdm

NARROW = Shapes(segments=20, frame=128, token=128, text=128, top_k=5)  # Bandstand's demo, but for hidden and batch
SHAPES = [
    shapes._replace(hidden=hidden, batch=batch)
    for shapes in (NARROW, Shapes())
    for hidden in (64, 128, 256, 512)
    for batch in (16, 64)
    if shapes is NARROW or hidden >= 128
]
SECONDS = 0.3  # of a measurement, or a step where that takes longer


def thread_rates(rounds: int) -> Rows:
    """Steps a second on one thread and on all cores, alone and beside a neighbour: medians of rounds in turn.

    Beside them the work by which `utils.runtime.set_threads` decides, in billions.
    """
    before, cores, steps, work = torch.get_num_threads(), usable_cores(), {}, {}
    for each in SHAPES:
        name = f"hidden {each.hidden}, batch {each.batch}, {each.segments} segments"
        steps[name] = step = Step(each, torch.device("cpu"))
        rows = each.batch * each.segments
        work[name] = rows * sum(parameter.numel() for parameter in step.model.parameters()) / 1e9
        step()
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in steps}
    for _ in tqdm(range(rounds), "measuring", leave=False, delay=1):
        for name, step in steps.items():
            for beside, company in (("alone", contextlib.nullcontext()), ("beside a neighbour", _neighbour())):
                with company:
                    for threads in sorted({1, cores}):
                        torch.set_num_threads(threads)
                        rates[name].setdefault(f"{threads} {beside}", []).append(_rate(step))
    torch.set_num_threads(before)
    return {
        name: {"work": work[name]} | {key: statistics.median(each) for key, each in row.items()}
        for name, row in rates.items()
    }


def _rate(step: Step) -> float:
    """Steps a second."""
    began, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - began) < SECONDS:
        step()
        count += 1
    return count / taken


@contextlib.contextmanager
def _neighbour() -> Iterator[None]:
    """A process keeps a core busy, as long as this one lives."""
    code = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()
