"""How many threads a training step wants on the CPU: alone, and beside a process that keeps a core busy.

An operator shared among threads ends with the last of them, and a core that is taken keeps all others waiting.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import torch

from scripts.benchmark.measure import Rows, interleaved
from scripts.benchmark.step import Shapes, Step
from utils.machine import usable_cores

CPU = torch.device("cpu")
NARROW = Shapes(segments=20, frame=128, token=128, text=128, top_k=5)  # Bandstand's demo, but for hidden and batch
SHAPES = [
    shapes._replace(hidden=hidden, batch=batch)
    for shapes in (NARROW, Shapes())
    for hidden in (128, 256, 512)
    for batch in (16, 64)
]


def thread_rates(rounds: int) -> Rows:
    """Steps a second on one thread and on all cores, alone and beside a neighbour: medians of rounds in turn.

    Beside them the work by which `utils.runtime.set_threads` decides, in billions.
    """
    before, found, tasks = torch.get_num_threads(), {}, {}
    for each in SHAPES:
        name, step = f"hidden {each.hidden}, batch {each.batch}, {each.segments} segments", Step(each, CPU)
        parameters = sum(parameter.numel() for parameter in step.model.parameters())
        found[name] = {"work": each.batch * each.segments * parameters / 1e9}
        tasks |= {(name, threads): partial(_on, threads, step) for threads in sorted({1, usable_cores()})}
    for beside, company in (("alone", contextlib.nullcontext()), ("beside a neighbour", _neighbour())):
        with company:
            for (name, threads), row in interleaved(tasks, CPU, rounds).items():
                found[name][f"{threads} {beside}"] = 1 / row["median"]
    torch.set_num_threads(before)
    return found


def _on(threads: int, step: Step) -> None:
    torch.set_num_threads(threads)
    step()


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
