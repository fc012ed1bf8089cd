"""A step whose kernels a GPU is given all at once, in place of one after the other by the host."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from utils.errors import UserError
from utils.runtime import Runtime

WARM_UP = 3  # calls before recording: libraries set themselves up in them, and an optimizer makes its state


def recordable(runtime: Runtime, compile_mode: str | None) -> bool:
    """Whether a training step can be recorded: on one GPU, unless its compiler makes such recordings itself."""
    return runtime.device.type == "cuda" and runtime.world == 1 and compile_mode in (None, "default")


class Recorded:
    """`function(*constants, **tensors) -> {name: tensor}`, recorded as a CUDA graph and replayed.

    What is called more than `WARM_UP` times in a row with tensors of the same shapes, the same constants and the same
    `reads()` is recorded; until then, and for a short batch in between, the function is called as it is. Either way
    every call does its work once. `reads` gives what else the function takes from the host, such as a learning rate:
    a recording holds the values that it was made with. Random numbers follow torch's generator as ever.

    Tensors that are the same in every call are read where they are; the others are copied to where those of the
    recording lie. Raises `UserError` where the GPU cannot record.
    """

    def __init__(self, function: Callable[..., dict[str, Tensor]], reads: Callable[[], Any]):
        self.function, self.reads = function, reads
        self.seen: tuple | None = None
        self.times = 0
        self.recorded: tuple | None = None

    def __call__(self, *constants: Any, **tensors: Tensor) -> dict[str, Tensor]:
        """What the function returns, in memory of its own."""
        shapes = {name: x.shape for name, x in tensors.items()}
        key = (shapes, constants, self.reads())
        if key == self.recorded:
            self.seen = None
            for name, x in tensors.items():
                if self.held[name].data_ptr() != x.data_ptr():
                    self.held[name].copy_(x)
        else:
            self.times = self.times + 1 if key == self.seen else 1
            self.seen = key
            if self.times <= WARM_UP:
                return self.function(*constants, **tensors)
            self._record(constants, tensors)
            self.recorded = key
        self.graph.replay()
        return {name: x.clone() for name, x in self.result.items()}

    def _record(self, constants: tuple, tensors: dict[str, Tensor]) -> None:
        self.held, self.graph = tensors, torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # other threads read batches ahead
                self.result = self.function(*constants, **tensors)
        except RuntimeError as error:
            # Ending the recording raises over what broke it.
            reason = str(error.__context__ or error).partition("\n")[0]
            raise UserError(f"the step cannot be recorded here ({reason}); --train.graph false does without") from error
