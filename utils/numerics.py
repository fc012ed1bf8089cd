"""What a run's numbers depend on besides its data: precision and seeds."""

import numpy as np
import torch

from utils.errors import UserError


def set_precision(precision: str, device: str) -> None:
    """Have float32 products exact, or in TF32 if `precision` says so. Raises `UserError` where the device lacks it."""
    wants_gpu = precision == "tf32" or (precision, device) == ("bf16", "cuda")  # CPUs have bf16, or emulate it
    if wants_gpu and (device == "cpu" or torch.cuda.get_device_capability() < (8, 0)):
        raise UserError(f"train.precision {precision} needs a GPU of compute capability 8.0 or more; take fp32")
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"  # convolutions, which PyTorch lets have it by default


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The block in which matrix products run in bfloat16, if `precision` says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def seed(*numbers: int) -> None:
    """Seed torch's generators by a tuple, such as (seed, step, rank): equal tuples draw equal numbers."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))
