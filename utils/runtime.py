"""Processes, device, precision and seeds."""

import contextlib
import datetime
import os
import resource
import shutil
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._triton import has_triton

from utils.errors import UserError

PATIENCE = datetime.timedelta(days=7)  # where one process has hours of work before it meets the others


@dataclass(frozen=True)
class Runtime:
    """This process among `world`, and the device that it computes on."""

    device: torch.device
    rank: int = 0
    world: int = 1
    patient: dist.ProcessGroup | None = None  # all processes, with more time to wait for each other

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and prints."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any process. Every process must call it, and all get the same answer."""
        if self.world == 1:
            return flag
        held = torch.tensor(int(flag))
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return bool(held)

    def sum(self, x: Tensor) -> Tensor:
        """Sum of `x` over the processes."""
        if self.world > 1:
            dist.all_reduce(x)
        return x

    def wait(self) -> None:
        """Wait for the other processes, for days if need be."""
        if self.world > 1:
            dist.barrier(group=self.patient)

    def gather(self, part: Any) -> list[Any]:
        """What each process gives, in order of rank, on every one; waits like `wait`."""
        parts = [part] * self.world
        if self.world > 1:
            dist.all_gather_object(parts, part, group=self.patient)
        return parts

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process do the block before the others, which then find what it has left on disk."""
        if not self.is_main:
            self.wait()
        try:
            yield
        finally:
            if self.is_main:
                self.wait()


@contextlib.contextmanager
def start(device: str, precision: str, option: str = "train.device") -> Iterator[Runtime]:
    """Set the device and precision, and join the other processes where `torchrun` started several.

    `option` is what the user calls `device`. Raises `UserError` where a GPU is asked for and none can be used, where
    the device has not the precision, and where another process was lost.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{option} is cuda, but PyTorch finds no GPU here; --{option} cpu runs without one")
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise UserError(
                f"process {local} of this machine has no GPU of its own, there are {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(local)
    wants_gpu = precision == "tf32" or (precision, device) == ("bf16", "cuda")  # CPUs have bf16, or emulate it
    if wants_gpu and (device == "cpu" or torch.cuda.get_device_capability() < (8, 0)):
        raise UserError(f"train.precision {precision} needs a GPU of compute capability 8.0 or more; take fp32")
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"  # convolutions, which PyTorch lets have it by default
    patient = None
    if world > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
        patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield Runtime(torch.device(device, local) if device == "cuda" else torch.device("cpu"), rank, world, patient)
    except RuntimeError as error:
        if world > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise UserError(
                f"process {rank} ends because another one of the {world} has; "
                "the same command goes on from what is saved (train.py: with --resume)"
            ) from error
        raise
    finally:
        if world > 1:
            dist.destroy_process_group()


def compiled(network: nn.Module, mode: str | None, device: torch.device, resident: Iterable[Tensor]) -> nn.Module:
    """`network` by `torch.compile` in this mode, or as it is for None; a short last batch is compiled by itself.

    `resident` are tensors that every call is given: CUDA graphs read them where they are, and copy all other inputs.
    Raises `UserError` where the mode or the machine has not what it takes.
    """
    if mode is None:
        return network
    if device.type == "cpu" and mode == "reduce-overhead":
        raise UserError("train.compile reduce-overhead records CUDA graphs, and train.device is cpu; take default")
    compiler = "Triton" if device.type == "cuda" else os.environ.get("CXX", "g++")
    if not (has_triton() if device.type == "cuda" else shutil.which(compiler)):
        raise UserError(f"train.compile needs {compiler}, which is not here; install it, or leave train.compile out")
    for tensor in resident:
        torch._dynamo.mark_static_address(tensor)
    return torch.compile(network, mode=mode, dynamic=False)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The block in which matrix products run in bfloat16, if `precision` says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


class PeakMemory:
    """The most memory that this process was seen to hold: of the host and, where it has one, of its GPU.

    Of the host's memory what is anonymous counts: tensors, also those that threads gather ahead. Pages of mapped files,
    such as packed features, do not: they are the system's cache, which gives way.
    """

    def __init__(self, device: torch.device):
        self.device, self.host = device, 0.0
        self.look()

    def look(self) -> None:
        """See what the host holds now; best between forward and backward, where it holds most."""
        statm = Path("/proc/self/statm")
        if statm.exists():
            resident, of_files = map(int, statm.read_text().split()[1:3])
            self.host = max(self.host, (resident - of_files) * os.sysconf("SC_PAGE_SIZE") / 1e9)
        else:
            self.host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # macOS counts all, in bytes

    @property
    def gb(self) -> dict[str, float]:
        """What was seen, in GB."""
        on_gpu = self.device.type == "cuda"
        return {"host": self.host} | ({"device": torch.cuda.max_memory_allocated(self.device) / 1e9} if on_gpu else {})


def seed(*numbers: int) -> None:
    """Seed torch's generators by a tuple, such as (seed, step, rank): equal tuples draw equal numbers."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))


class Interrupt:
    """The first Ctrl-C or SIGTERM asks the loop to save and stop; a second Ctrl-C stops at once.

    A second SIGTERM does not: a scheduler sends one to the whole job, and what started this process passes it on.
    """

    def __init__(self):
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
