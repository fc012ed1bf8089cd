"""Measuring: time in interleaved rounds, FLOPs and bytes of operators, and the limits of the machine.

Other programs use a machine too. Every task is therefore run once a round, so that all see the same company; a figure
is the best of the rounds, with the median and the worst beside it.
"""

import collections
import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry
from tqdm import tqdm

Mark = Callable[[str], None]
Task = Callable[[Mark], object]

SAMPLE_SECONDS = 0.05  # a task that is shorter is run several times in a row
MOST_RUNS = 50
OWN_PRODUCTS = 16
PEAK_SIZES = {"cpu": (1024, 2048, 4096), "cuda": (2048, 4096, 8192)}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}


@dataclass
class Timing:
    """Seconds of a task in each round, and of its parts: from the mark before to the mark that names the part.

    `flops` and `bytes` are `Counter`'s, of one run.
    """

    seconds: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)
    flops: int = 0
    bytes: int = 0

    @property
    def best(self) -> float:
        """Of the rounds."""
        return min(self.seconds)

    @property
    def rate(self) -> float:
        """FLOP/s of the best."""
        return self.flops / self.best

    def spread(self) -> dict[str, float]:
        """Best, median and worst."""
        return {"seconds": self.best, "median": statistics.median(self.seconds), "worst": max(self.seconds)}

    def summary(self, peak: float | None = None) -> dict[str, Any]:
        """Best, median and worst, the best of each part, and the work done; its share of `peak` FLOP/s, if given."""
        made = self.spread() | {"parts": {name: min(seconds) for name, seconds in self.parts.items()}}
        made |= {"flops": self.flops, "bytes": self.bytes}
        return made | ({"share_of_peak": self.rate / peak} if peak else {})


def interleaved(tasks: dict[str, Task], device: torch.device, rounds: int) -> dict[str, Timing]:
    """Time every task once a round, after a round that warms up and counts their work."""
    timings, runs = {name: Timing() for name in tasks}, {}
    with tqdm(total=len(tasks) * (rounds + 1), desc="measuring", leave=False, delay=1) as bar:
        for warming in (True, *[False] * rounds):
            for name, task in tasks.items():
                bar.set_postfix_str(name)
                if warming:
                    timings[name], runs[name] = _warm_up(task, device)
                else:
                    total, parts = run_seconds(task, device, runs[name])
                    timings[name].seconds.append(total)
                    for part, seconds in parts.items():
                        timings[name].parts.setdefault(part, []).append(seconds)
                bar.update()
    return timings


def _warm_up(task: Task, device: torch.device) -> tuple[Timing, int]:
    """Count a task's work, and choose how often it runs for a sample."""
    with Counter() as counted:
        seconds, _ = run_seconds(task, device)
    runs = max(1, min(MOST_RUNS, round(SAMPLE_SECONDS / seconds)))
    if device.type == "cuda":
        runs = max(runs, 10)  # the first run of all loads kernels, so its time tells little
        run_seconds(task, device, runs)
    return Timing(flops=counted.flops, bytes=counted.bytes), runs


def run_seconds(task: Task, device: torch.device, runs: int = 1) -> tuple[float, dict[str, float]]:
    """Seconds of one of `runs` runs, and of its parts, by the time line of the device."""
    synchronize(device)
    marks = [("", _now(device))]
    for _ in range(runs):
        task(lambda part: marks.append((part, _now(device))))
    marks.append(("", _now(device)))
    synchronize(device)
    parts: dict[str, float] = {}
    for (_, before), (part, after) in itertools.pairwise(marks):
        parts[part] = parts.get(part, 0.0) + _between(before, after) / runs
    parts.pop("", None)
    return _between(marks[0][1], marks[-1][1]) / runs, parts


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _now(device: torch.device) -> Any:
    if device.type == "cpu":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _between(before: Any, after: Any) -> float:
    return after - before if isinstance(before, float) else before.elapsed_time(after) / 1000


@contextlib.contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Products of float32 matrices in TF32 if `precision` says so, else exact, as `utils.runtime.start` sets them."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class Product:
    """A matrix product as a task, into memory that is there already."""

    def __init__(self, operator: Callable, operands: list[Tensor], precision: str):
        self.operator, self.operands, self.precision = operator, operands, precision
        self.out = operator(*operands)

    def __call__(self, mark: Mark) -> None:
        """Multiply."""
        with matrix_products(self.precision):
            self.operator(*self.operands, out=self.out)


def square_products(device: torch.device, precisions: Iterable[str]) -> dict[str, Product]:
    """Products of square matrices, by "<precision>, <n> x <n> @ <n> x <n>"."""
    made = {}
    for precision, n in itertools.product(precisions, PEAK_SIZES[device.type]):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        operands = list(torch.randn(2, n, n, device=device, dtype=dtype))
        made[f"{precision}, {n} x {n} @ {n} x {n}"] = Product(_aten.mm, operands, precision)
    return made


def own_products(run: Task, device: torch.device, precision: str) -> dict[str, Product]:
    """The matrix products that take most of a task's FLOPs, in their own shapes and layouts, each alone."""
    with matrix_products(precision), Counter() as counted:
        run(lambda part: None)
    made = {}
    for n, ((operator, like), _) in enumerate(counted.products.most_common(OWN_PRODUCTS), start=1):
        operands = [
            torch.randn(storage, device=device).to(dtype).as_strided(shape, stride)
            for shape, stride, storage, dtype in like
        ]
        shapes = " @ ".join(" x ".join(map(str, x.shape)) for x in operands[-2:])  # addmm's first is the bias
        made[f"{precision}, {shapes}, product {n} of the step"] = Product(operator, operands, precision)
    return made


def copying(device: torch.device) -> Task:
    """The copy of a large array."""
    source = torch.ones(COPY_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    return lambda mark: target.copy_(source)


class Counter(TorchDispatchMode):
    """Counts the FLOPs of matrix products, and the bytes of every operand and result of all operators.

    The bytes are what would move if nothing stayed in cache between one operator and the next. `FlopCounterMode` counts
    the same FLOPs, but cannot be used with `torch.autograd.grad`.
    """

    def __init__(self):
        super().__init__()
        self.flops = self.bytes = 0
        self.products: collections.Counter = collections.Counter()  # FLOPs by operator and operands' layouts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.overloadpacket in flop_registry:
            flops = flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
            self.flops += flops
            if func.overloadpacket in _PRODUCTS:
                self.products[func.overloadpacket, tuple(map(_layout, args))] += flops
        if func.overloadpacket in _PICKS:  # reads what it writes, wherever in the source that lies
            self.bytes += 2 * _bytes(out)
        elif not func.is_view and func.overloadpacket not in _NO_DATA:
            self.bytes += _bytes((args, kwargs)) + _bytes(out)
        return out


_aten = torch.ops.aten
_NO_DATA = {_aten._unsafe_view, _aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty}
_PRODUCTS = {_aten.mm, _aten.addmm, _aten.bmm}
_PICKS = {_aten.index, _aten.gather, _aten.index_select, _aten.embedding}


def _layout(x: Tensor) -> tuple:
    """Shape, stride, the elements that these span, and dtype."""
    span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return tuple(x.shape), x.stride(), span, x.dtype


def _bytes(values: Any) -> int:
    """Bytes behind all tensors of a nested structure; an expanded one holds each element once."""
    tensors = [x for x in tree_leaves(values) if isinstance(x, Tensor)]
    return sum(min(x.numel() * x.itemsize, x.untyped_storage().nbytes()) for x in tensors)


def on_device(task: Task, device: torch.device, runs: int = 5) -> dict[str, float]:
    """Kernels that a run of `task` launches, and the seconds for which they keep the device busy."""
    with torch.profiler.profile() as seen:
        for _ in range(runs):
            task(lambda part: None)
        synchronize(device)
    kernels = [e for e in seen.events() if e.device_type.name == device.type.upper() and not e.is_user_annotation]
    busy = sum(kernel.time_range.elapsed_us() for kernel in kernels) / 1e6
    return {"kernels": len(kernels) / runs, "busy_seconds": busy / runs}


def alone(modules: dict[str, nn.Module], run: Callable[[], object]) -> dict[str, Task]:
    """Each module forward and backward by itself, on what it receives in `run`, as often as it is called there."""
    calls: dict[str, list[Task]] = {name: [] for name in modules}
    hooks = [
        module.register_forward_pre_hook(lambda module, given, name=name: calls[name].append(_call(module, given)))
        for name, module in modules.items()
    ]
    run()
    for hook in hooks:
        hook.remove()
    return {name: in_turn(tasks) for name, tasks in calls.items() if tasks}


def in_turn(tasks: Iterable[Task]) -> Task:
    """One task of several."""
    tasks = list(tasks)

    def run(mark: Mark) -> None:
        for task in tasks:
            task(mark)

    return run


def _call(module: nn.Module, given: tuple) -> Task:
    given = tree_map(lambda x: x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x, given)
    leaves = [x for x in [*tree_leaves(given), *module.parameters()] if isinstance(x, Tensor) and x.requires_grad]

    def run(mark: Mark) -> None:
        made = [x for x in tree_leaves(module(*given)) if isinstance(x, Tensor) and x.requires_grad]
        if made:
            torch.autograd.grad(made, leaves, [torch.ones_like(x) for x in made], allow_unused=True)

    return run
