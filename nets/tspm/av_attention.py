"""Stage 2: audio-visual attention. Every segment of one stream reads its own stream and the other.

B batch, T segments, D hidden width.
"""

import torch
from torch import Tensor, nn

from nets.layers import Dropout, FeedForward, SingleHeadAttention


class AudioVisualAttention(nn.Module):
    """One post-norm layer with self- and cross-attention (1 head each); its weights serve both directions."""

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.self_attention = SingleHeadAttention(dim, dropout)
        self.cross_attention = SingleHeadAttention(dim, dropout)
        self.ffn = FeedForward(dim, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, audio: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Streams (B, T, D) -> context streams (B, T, D); both are computed from the same inputs."""
        x = self.read(torch.cat([audio, frame]), torch.cat([frame, audio]))  # (2B, T, D): both directions in one pass
        audio, frame = x.chunk(2)
        return audio, frame

    def read(self, x: Tensor, other: Tensor) -> Tensor:
        """A stream (N, T, D) that has read itself and the other (N, T, D)."""
        x = self.norm1(x + self.dropout(self.self_attention(x, x)) + self.dropout(self.cross_attention(x, other)))
        return self.norm2(x + self.ffn(x))


class NoContext(nn.Module):
    """In place of stage 2 where no context stream is fused."""

    def forward(self, audio: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """The streams as they are."""
        return audio, frame
