"""Stage 1 that knows time: segments carry their place, and what was just before and after.

V videos, T segments, D hidden width.
"""

import torch
from torch import Tensor, nn


class InTime(nn.Module):
    """Adds to each segment a vector for its place in time, and a filter over its neighbours, feature by feature."""

    def __init__(self, segments: int, dim: int):
        super().__init__()
        self.place = nn.Parameter(0.02 * torch.randn(segments, dim))
        self.neighbours = nn.Conv1d(dim, dim, kernel_size=3, padding=1, groups=dim, bias=False)
        nn.init.zeros_(self.neighbours.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(V, T, D) -> (V, T, D)."""
        return x + self.place + self.neighbours(x.transpose(1, 2)).transpose(1, 2)
