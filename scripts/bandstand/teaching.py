"""What training either of Bandstand's encoders needs."""

import math

import numpy as np
import torch
from torch import Tensor, nn

SECONDS = 20  # of a scene
HELD_OUT = range(100_000, 100_100)  # scenes for the final measures, far from those trained on


def optimiser(model: nn.Module, rate: float, steps: int):
    """A function that takes a loss and makes a step: AdamW, a short warm-up, then a cosine to zero."""
    adam = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda i: min((i + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * min(1, i / steps)))
    )

    def update(loss: Tensor) -> None:
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        schedule.step()

    return update


def rms(features: Tensor) -> Tensor:
    """Root mean square, by which small encoders divide: public ones give values around 1 too, and training needs it."""
    return features.square().mean().sqrt()


def average_precision(score: np.ndarray, true: np.ndarray) -> float:
    """The mean, over what is true, of the share of truth among all that scores at least as high."""
    ranked = true[np.argsort(-score, kind="stable")]
    return float((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean())
