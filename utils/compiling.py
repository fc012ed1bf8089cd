"""The network by `torch.compile`."""

import os
import shutil
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils._triton import has_triton

from utils.errors import UserError


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
    return cast(nn.Module, torch.compile(network, mode=mode, dynamic=False))
