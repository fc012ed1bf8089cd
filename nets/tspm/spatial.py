"""Stage 4: SPM, spatial perception (Section 3.3, Eq. 3-5), and what replaces it in Table 3.

B questions, P distinct segments of videos, T segments, K selected segments, M tokens of a frame as stored, S merged
tokens, Dt token width, D hidden width, S' stored videos.

Each module maps the selected audio and frames (B, K, D), the videos' tokens (S', T, M, Dt), the batch's rows in them
(B,) and the selected indices (B, K) to `v_spa` (B, K, D), the segments whose tokens were read (B, K), the audio's
weights over these (B, K, S), where each stored token ended (B, K, M), and losses of its own.
"""

import torch
from torch import Tensor, nn

from nets.layers import QueryAttention, QueryBlock, SelfAttentionBlock, SingleHeadAttention
from nets.network import Loss
from nets.token_merging import match_tokens, merge_source, merge_tokens


class TokenBlock(SelfAttentionBlock):
    """Self-attention among the tokens of a frame, in which larger tokens weigh more.

    r tokens merge between its attention and its MLP, by the keys of its attention (Eq. 4).
    """

    def __init__(self, dim: int, dropout: float, r: int):
        super().__init__(dim, dropout)
        self.r = r

    def forward(self, x: Tensor, size: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (N, n, D), their sizes (N, n) and the token of each stored token (N, M) -> those of n - r tokens."""
        attended = self.attend(x, size.log()[:, None])
        if self.r:
            matching = match_tokens(self.attention.keys(x), self.r)
            attended, size = merge_tokens(attended, size, matching)
            source = merge_source(source, matching)
        return self.feed(attended), size, source


class SpatialPerception(nn.Module):
    """Tokens of the selected segments attend to each other and merge; then the segment's audio attends to them.

    What is asked of one segment of a video by several questions is the same: evaluation computes it once.

    `project` maps a token to D; `merge_schedule` holds the tokens that each block merges away. `first_k` takes the
    tokens of segments 0..K-1 whatever was selected, as the published implementation does; the audio stays that of the
    selected segments.
    """

    def __init__(
        self,
        project: nn.Linear,
        dim: int,
        heads: int,
        dropout: float,
        merge_schedule: tuple[int, ...],
        first_k: bool,
        query: type[nn.Module] = QueryBlock,
    ):
        super().__init__()
        self.token = project
        self.blocks = nn.ModuleList(TokenBlock(dim, dropout, r) for r in merge_schedule)
        self.audio_query = query(dim, heads, dropout)
        self.frames = _first_k if first_k else _selected

    def forward(
        self, audio: Tensor, frame: Tensor, token: Tensor, video: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Loss]]:
        """Attend from the audio to the tokens of the selected segments."""
        segments = self.frames(index)  # (B, K)
        pairs = torch.stack([video[:, None].expand_as(index), segments, index]).flatten(1)  # (3, B K)
        one, of = distinct(pairs, self.training)  # (P,), (B K,)
        x = token[pairs[0, one], pairs[1, one]]  # Eq. 3, (P, M, Dt)
        x = self.token(x.to(self.token.weight.dtype))  # (P, M, D)
        size = torch.ones_like(x[..., 0])
        source = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        for block in self.blocks:
            x, size, source = block(x, size, source)  # Eq. 4, (P, S, D)
        attended, weights = self.audio_query(audio.flatten(0, 1)[one], x)  # Eq. 5
        attended, weights, source = (part[of].unflatten(0, index.shape) for part in (attended, weights, source))
        return attended, segments, weights, source, {}


class PrintedQuery(nn.Module):
    """Eq. 5 as printed: tokens + their self-attention + the audio's attention to them, then the mean over tokens."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.among_tokens = SingleHeadAttention(dim, dropout)
        self.from_audio = QueryAttention(dim, heads, dropout)

    def forward(self, audio: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Audio (P, D) over tokens (P, S, D) -> (P, D) and weights (P, S)."""
        attended, weights = self.from_audio(audio[:, None], tokens)  # (P, 1, D), (P, 1, S)
        return (tokens + self.among_tokens(tokens, tokens) + attended).mean(dim=1), weights[:, 0]


class FramesOnly(nn.Module):
    """w/o SPM: the selected frames stand in for `v_spa`; there are no tokens to look at."""

    def forward(
        self, audio: Tensor, frame: Tensor, token: None, video: Tensor, index: Tensor
    ) -> tuple[Tensor, None, None, None, dict[str, Loss]]:
        """The selected frames as they are."""
        return frame, None, None, None, {}


def distinct(pairs: Tensor, training: bool) -> tuple[Tensor | slice, Tensor | slice]:
    """Where each distinct column of (n, N) first stands (P,), and which of these every column is (N,).

    In training every column stands for itself, so that no shape depends on what was selected.
    """
    if training:
        return slice(None), slice(None)
    columns, of = pairs.unique(dim=1, return_inverse=True)
    places = torch.arange(pairs.shape[1], device=pairs.device)
    first = places.new_full((columns.shape[1],), pairs.shape[1]).scatter_reduce(0, of, places, "amin")
    return first, of


def _selected(index: Tensor) -> Tensor:
    return index


def _first_k(index: Tensor) -> Tensor:
    return torch.arange(index.shape[1], device=index.device).expand_as(index)
