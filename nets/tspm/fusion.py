"""Stage 6: fusion and answer (Section 3.4, Eq. 6-7).

B batch, D hidden width, C answers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nets.layers import Dropout


class Fusion(nn.Module):
    """`F_av = FC(tanh(concat of streams))`, `e = tanh(F_av * q)`, classifier."""

    def __init__(self, streams: Sequence[str], dim: int, answers: int):
        super().__init__()
        self.streams = streams
        self.fuse = nn.Linear(len(streams) * dim, dim)
        self.classifier = nn.Linear(dim, answers)

    def forward(self, question: Tensor, streams: dict[str, Tensor]) -> Tensor:
        """Question (B, D) and named streams (B, D) -> logits (B, C)."""
        fused = self.fuse(torch.cat([streams[name] for name in self.streams], dim=-1).tanh())  # Eq. 6
        return self.classifier((fused * question).tanh())  # Eq. 7


class DeepFusion(nn.Module):
    """`F_av = FC(LN(concat of streams))`, `e = MLP(LN[F_av * FC(q), F_av, q])`, classifier.

    What a product says, what the streams say and what is asked reach a network of two layers side by side.
    """

    def __init__(self, streams: Sequence[str], dim: int, answers: int, width: int, dropout: float):
        super().__init__()
        self.streams = streams
        self.norm = nn.LayerNorm(len(streams) * dim)
        self.fuse = nn.Linear(len(streams) * dim, width)
        self.ask = nn.Linear(dim, width)
        self.mix = nn.Sequential(
            nn.LayerNorm(2 * width + dim),
            Dropout(dropout),
            nn.Linear(2 * width + dim, 2 * dim),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(2 * dim, dim),
            nn.GELU(),
        )
        self.classifier = nn.Linear(dim, answers)

    def forward(self, question: Tensor, streams: dict[str, Tensor]) -> Tensor:
        """Question (B, D) and named streams (B, D) -> logits (B, C)."""
        fused = self.fuse(self.norm(torch.cat([streams[name] for name in self.streams], dim=-1)))  # (B, width)
        return self.classifier(self.mix(torch.cat([fused * self.ask(question), fused, question], dim=-1)))
