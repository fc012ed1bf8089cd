"""Losses of a training epoch, by name, summed where they are made."""

import math

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from utils.errors import UserError
from utils.runtime import Runtime


class Losses:
    """Sum and count of each loss over an epoch, and of the steps since the last look."""

    def __init__(self, totals: dict[str, list[float]], ids: pd.Series, runtime: Runtime):
        self.ids, self.runtime = ids, runtime
        self.totals = {
            name: torch.tensor(pair, dtype=torch.float64, device=runtime.device) for name, pair in totals.items()
        }
        self.unseen: list[tuple[dict[str, Tensor], np.ndarray]] = []

    def add(self, step: dict[str, Tensor], rows: np.ndarray) -> None:
        """Add what a step over these questions gave; waits for nothing."""
        self.totals = {name: pair.double() + self.totals.get(name, 0) for name, pair in step.items()}
        self.unseen.append((step, rows))

    def look(self) -> dict[str, float]:
        """Mean of each loss since the last look. Raises `UserError` with the questions of a step with none."""
        means = {}
        for name in self.totals:
            pairs = torch.stack([step[name] for step, _ in self.unseen]).tolist()
            for (total, _), (_, rows) in zip(pairs, self.unseen, strict=True):
                if not math.isfinite(total):
                    listed = ", ".join(self.ids.iloc[rows])
                    raise UserError(f"the loss ({name}) is not finite; the batch held the questions {listed}")
            total, count = map(sum, zip(*pairs, strict=True))
            means[name] = total / max(count, 1)
        self.unseen.clear()
        return means

    def sums(self) -> dict[str, list[float]]:
        """Sum and count of each loss, of all processes."""
        return {name: self.runtime.sum(pair).tolist() for name, pair in self.totals.items()}

    def means(self) -> dict[str, float]:
        """Mean of each loss over the epoch, of all processes."""
        return {name: total / max(count, 1) for name, (total, count) in self.sums().items()}
