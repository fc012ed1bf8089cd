"""Processes, and the device that each computes on."""

import contextlib
import datetime
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.errors import UserError
from utils.machine import own_cores
from utils.numerics import set_precision

T = TypeVar("T")
PATIENCE = datetime.timedelta(days=7)  # where one process has hours of work before it meets the others
SMALL = 2e9  # parameters x rows of a batch: below it, a second thread gains nothing: results/benchmark/threads.md
# How gloo and NCCL say that they have lost another process. All other errors are this process's own.
LOST = re.compile(r"\[\S*/gloo/transport/\S+\] |.*ncclRemoteError", re.DOTALL)


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

    def gather(self, part: T) -> list[T]:
        """What each process gives, in order of rank, on every one; waits like `wait`."""
        parts = [part] * self.world
        if self.world > 1:
            dist.all_gather_object(parts, part, group=self.patient)
        return parts

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process do the block before the others, which then find what it has left on disk.

        Where it fails it waits for nobody: the others then learn that it has ended.
        """
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()


def set_threads(model: nn.Module, rows: int, wanted: int | None = None) -> int | None:
    """Set how many threads of the CPU share an operator of `model`, and return it; on a GPU `wanted`, untouched.

    OMP_NUM_THREADS, the user's word, wins; then `wanted`; else it is one where a batch of `rows` (questions x segments)
    is little work, and all cores where it is much (results/benchmark/threads.md). It decides the last bits of sums.
    """
    if next(model.parameters()).is_cuda:
        return wanted
    if not os.environ.get("OMP_NUM_THREADS"):
        work = rows * sum(parameter.numel() for parameter in model.parameters())
        torch.set_num_threads(wanted or (1 if work < SMALL else own_cores()))
    return torch.get_num_threads()


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
    set_precision(precision, device)
    patient = None
    if world > 1:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
        patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield Runtime(torch.device(device, local) if device == "cuda" else torch.device("cpu"), rank, world, patient)
    except RuntimeError as error:
        if isinstance(error, dist.DistNetworkError | dist.DistStoreError) or LOST.match(str(error)):
            seen, *_ = re.split(r"\. |\n", re.sub(r"^\[\S+\] ", "", str(error)))
            raise UserError(
                f"process {rank} ends because another one of the {world} has; "
                f"the same command goes on from what is saved (train.py: with --resume)\nit saw: {seen}"
            ) from error
        raise
    finally:
        if world > 1:
            dist.destroy_process_group()
