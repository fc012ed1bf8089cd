"""Stage 5: question-guided grounding over the selected segments.

B batch, K selected segments, D hidden width.
"""

import torch
from torch import Tensor, nn

from nets.layers import QueryBlock


class QuestionGrounding(nn.Module):
    """The question attends to the selected audio and to `v_spa`, with one set of weights."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.question_query = QueryBlock(dim, heads, dropout)

    def forward(self, question: Tensor, audio: Tensor, spatial: Tensor) -> tuple[Tensor, Tensor]:
        """Question (B, D) over streams (B, K, D) -> `a_grd`, `v_grd`: (B, D)."""
        grounded, _ = self.question_query(torch.cat([question, question]), torch.cat([audio, spatial]))
        audio, visual = grounded.chunk(2)
        return audio, visual
