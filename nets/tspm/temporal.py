"""Stage 3: TPM, temporal perception (Section 3.2, Eq. 1-2), and what replaces it in Tables 3 and 4.

B questions, V videos, T segments, K selected segments, D hidden width, Dq width of the text features.

Each module maps prompt features (B, Dq), projected frames (V, T, D) and the video of each question (B,) to segment
weights (B, T) and the indices of the selected segments (B, K), ascending in time.
"""

import torch
from torch import Tensor, nn

from nets.layers import attention_weights


class TemporalPerception(nn.Module):
    """The prompt attends to the frames; the `top_k` segments of largest weight are selected.

    Only indices leave this stage, so no gradient could reach it: its projections stay as they were initialised, as
    in the published implementation. The weights are taken without dropout.
    """

    def __init__(self, text_width: int, dim: int, heads: int, top_k: int):
        super().__init__()
        self.prompt = nn.Linear(text_width, dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.heads = heads
        self.top_k = top_k
        bound = (6 / (4 * dim)) ** 0.5  # the initial values of nn.MultiheadAttention
        nn.init.uniform_(self.query.weight, -bound, bound)
        nn.init.zeros_(self.query.bias)
        nn.init.uniform_(self.key.weight, -bound, bound)

    @torch.no_grad()
    def forward(self, prompt: Tensor, frame: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """Select segments by the attention of the prompt."""
        query = self.query(self.prompt(prompt))[:, None]  # (B, 1, D)
        weights = attention_weights(query, self.key.weight, frame[asked], self.heads).mean(dim=2)[:, 0]  # Eq. 1, (B, T)
        index = weights.topk(self.top_k, dim=-1).indices.sort(dim=-1).values  # Eq. 2, (B, K)
        return weights, index


class EvenSegments(nn.Module):
    """w/o TPM: K evenly spaced segments; K = T is w/o TPC, all segments."""

    def __init__(self, segments: int, top_k: int):
        super().__init__()
        middles = (torch.arange(top_k) * 2 + 1) * segments // (2 * top_k)
        self.register_buffer("index", middles, persistent=False)

    def forward(self, prompt: Tensor, frame: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """The same segments for every question, all weights 1 / T."""
        weights = frame.new_full((len(asked), frame.shape[1]), 1 / frame.shape[1])
        return weights, self.index.expand(len(asked), -1)
