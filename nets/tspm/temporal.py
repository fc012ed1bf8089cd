"""Stage 3: TPM, temporal perception (Section 3.2, Eq. 1-2); one that learns; and what replaces either in comparisons.

B questions, V videos, T segments, K selected segments, D hidden width, Df and Dq widths of frame and text features.

Each module maps `Evidence` to segment weights (B, T), the indices of the selected segments (B, K), ascending in time,
and a gate (B, K, 1), 1 on average, by which what they give is weighted.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from nets.layers import attention_weights

Selection = tuple[Tensor, Tensor, Tensor]
Gate = Callable[[Tensor, Tensor], Tensor]  # of scores (B, T) and selected segments (B, K): (B, K, 1)


class Evidence(NamedTuple):
    """What segments are selected by."""

    prompt: Tensor  # (B, Dq)
    seen: Tensor  # (V, T, Df) frame features
    heard: Tensor | None  # (V, T, Df) sounds where their pictures would be (nets.tspm.learned)
    audio: Tensor  # (V, T, D)
    frame: Tensor  # (V, T, D)
    asked: Tensor  # (B,) row of V
    true: Tensor | None = None  # (B, T) whether the prompt is true there; only for `temporal: oracle`


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
    def forward(self, given: Evidence) -> Selection:
        """Select segments by the attention of the prompt."""
        query = self.query(self.prompt(given.prompt))[:, None]  # (B, 1, D)
        frame = given.frame[given.asked]  # (B, T, D)
        weights = attention_weights(query, self.key.weight, frame, self.heads).mean(dim=2)[:, 0]  # Eq. 1, (B, T)
        index = largest(weights, self.top_k)  # Eq. 2, (B, K)
        return weights, index, frame.new_ones(*index.shape, 1)


class PrintedSelection(nn.Module):
    """Eq. 1 as printed: the prompt's feature itself is the query, and frames have one projection. Not trained."""

    def __init__(self, text_width: int, dim: int, top_k: int):
        super().__init__()
        self.key = nn.Linear(dim, text_width, bias=False)
        self.top_k = top_k

    @torch.no_grad()
    def forward(self, given: Evidence) -> Selection:
        """Select segments by the attention of the prompt."""
        prompt = given.prompt
        scores = (self.key(given.frame)[given.asked] @ prompt[..., None])[..., 0] * prompt.shape[-1] ** -0.5
        weights = scores.softmax(dim=-1)  # Eq. 1, (B, T)
        index = largest(weights, self.top_k)  # Eq. 2, (B, K)
        return weights, index, prompt.new_ones(*index.shape, 1)


class LearnedSelection(nn.Module):
    """The prompt is compared with frames and sounds, and the answer trains it.

    `s_t = c_f cos(M_f r, f_t) + c_u cos(M_u r, u_t) + (Q r) . (K [v_t; a_t]) / sqrt(D)`; `w = softmax(s)` (Eq. 1). The
    largest are selected (Eq. 2) and weighted by a gate, through which the answer's gradient arrives. K starts at zero,
    c_f and c_u at 10 and, where `similar`, M_f and M_u at the identity. So the first scores are those of `Similarity`,
    plus those of sounds that have learned nothing yet. Without `sounds` there are neither u_t nor a_t.
    """

    def __init__(self, text_width: int, width: int, dim: int, top_k: int, sounds: bool, similar: bool, gate: Gate):
        super().__init__()
        keys = 2 if sounds else 1
        self.words = nn.ModuleList(nn.Linear(text_width, width, bias=False) for _ in range(keys))
        self.log_scale = nn.Parameter(torch.full((keys,), 10.0).log())
        self.query = nn.Linear(text_width, dim)
        self.key = nn.Linear(keys * dim, dim, bias=False)
        self.top_k = top_k
        self.gate = gate
        nn.init.zeros_(self.key.weight)
        if similar:
            for weight in self.words.parameters():
                nn.init.eye_(weight)

    def forward(self, given: Evidence) -> Selection:
        """Select segments by their scores."""
        prompt, asked = given.prompt, given.asked
        fit: list[Any] = [normalize(given.seen, dim=-1), given.heard][: len(self.words)]
        key = self.key(torch.cat([given.frame, given.audio][: len(self.words)], dim=-1))  # (V, T, D)
        scores = key[asked] @ self.query(prompt)[..., None] * key.shape[-1] ** -0.5  # (B, T, 1)
        for scale, words, x in zip(self.log_scale.exp(), self.words, fit, strict=True):
            scores = scores + scale * x[asked] @ normalize(words(prompt), dim=-1)[..., None]
        scores = scores[..., 0]  # Eq. 1, (B, T)
        index = largest(scores, self.top_k)  # Eq. 2, (B, K)
        return scores.softmax(dim=-1), index, self.gate(scores, index)


def weighting(scores: Tensor, index: Tensor) -> Tensor:
    """What is selected, (B, K) of scores (B, T), is weighted by the softmax of its scores: gate (B, K, 1)."""
    return index.shape[1] * scores.gather(1, index).softmax(dim=-1)[..., None]


class Perturbed(nn.Module):
    """What is selected is weighted by how often noise on the scores would select it too; all alike in evaluation.

    The gradient is that of perturbed maximisers (Cordonnier et al. 2021; Berthet et al. 2020). Of many segments with
    nearly equal scores, noise may select none of those: such a question is weighted by zero, and not by 0 / 0.
    """

    def forward(self, scores: Tensor, index: Tensor) -> Tensor:
        """Scores (B, T) and selected segments (B, K) -> gate (B, K, 1)."""
        if not self.training:
            return scores.new_ones(*index.shape, 1)
        chosen = _Perturbed.apply(scores, index.shape[1]).gather(1, index)
        total = chosen.sum(dim=-1, keepdim=True).clamp_min(1 / _Perturbed.SAMPLES)  # the least that is not zero
        return (index.shape[1] * chosen / total)[..., None]


class _Perturbed(torch.autograd.Function):
    """Scores (B, T) -> how often each segment is among the k largest under Gaussian noise (B, T)."""

    SAMPLES, SIGMA = 100, 1.0

    @staticmethod
    def forward(ctx, scores: Tensor, k: int) -> Tensor:
        noise = torch.randn(_Perturbed.SAMPLES, *scores.shape, device=scores.device)
        among = torch.zeros_like(noise).scatter_(-1, (scores + _Perturbed.SIGMA * noise).topk(k).indices, 1.0)
        ctx.save_for_backward(among, noise)
        return among.mean(dim=0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        among, noise = ctx.saved_tensors
        along = (among * gradient).sum(dim=-1, keepdim=True)  # (samples, B, 1)
        return (along * noise).mean(dim=0) / _Perturbed.SIGMA, None


class Similarity(nn.Module):
    """CLIP's own similarity of prompt and frames selects, and is not trained: `s_t = 10 cos(r, f_t)`.

    Where the truth is told (`temporal: oracle`), true segments come before all others: an upper bound, and no result.
    """

    def __init__(self, top_k: int):
        super().__init__()
        self.top_k = top_k

    def forward(self, given: Evidence) -> Selection:
        """Select segments by their similarity."""
        seen, prompt = normalize(given.seen, dim=-1), normalize(given.prompt, dim=-1)
        scores = 10 * (seen[given.asked] @ prompt[..., None])[..., 0]  # (B, T)
        if given.true is not None:
            scores = scores + 100 * given.true
        index = largest(scores, self.top_k)
        return scores.softmax(dim=-1), index, weighting(scores, index)


class EvenSegments(nn.Module):
    """w/o TPM: K evenly spaced segments; K = T is w/o TPC, all segments."""

    index: Tensor

    def __init__(self, segments: int, top_k: int):
        super().__init__()
        middles = (torch.arange(top_k) * 2 + 1) * segments // (2 * top_k)
        self.register_buffer("index", middles, persistent=False)

    def forward(self, given: Evidence) -> Selection:
        """The same segments for every question, all weights 1 / T."""
        questions, segments = len(given.asked), given.frame.shape[1]
        weights = given.frame.new_full((questions, segments), 1 / segments)
        index = self.index.expand(questions, -1)
        return weights, index, given.frame.new_ones(*index.shape, 1)


def largest(weights: Tensor, k: int) -> Tensor:
    """The indices (B, k) of the k largest of (B, T), ascending."""
    return weights.topk(k, dim=-1).indices.sort(dim=-1).values
