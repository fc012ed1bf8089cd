"""What training either of Bandstand's encoders needs."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from utils.progress import tqdm

SECONDS = 20  # of a scene
HELD_OUT = range(100_000, 100_100)  # scenes for the final measures, far from those trained on


def training(
    model: nn.Module, rate: float, steps: int, name: str, weights: dict[str, float]
) -> Iterator[Callable[[dict[str, Tensor]], None]]:
    """Yield, for each of `steps`, a function that takes losses by name and makes a step on their weighted sum.

    AdamW, a short warm-up, then a cosine to zero.
    """
    adam = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda i: min((i + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * min(1, i / steps)))
    )
    progress = tqdm(range(steps), desc=name, unit="step")

    def update(losses: dict[str, Tensor]) -> None:
        adam.zero_grad()
        total: Any = sum(weights[part] * loss for part, loss in losses.items())
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        schedule.step()
        progress.set_postfix({part: f"{loss:.3f}" for part, loss in losses.items()})

    for _ in progress:
        yield update


def rms(features: Tensor) -> Tensor:
    """Root mean square, by which small encoders divide: public ones give values around 1 too, and training needs it."""
    return features.square().mean().sqrt()
