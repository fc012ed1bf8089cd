"""Attention and feed-forward layers.

N sequences, Q queries and L keys in each, D hidden width, H heads of d = D / H.

Keys and values are not projected, but for `ManyHeadAttention`: `(Wq q) . (Wk k) = (Wk' Wq q) . k`, and a weighted sum
of `Wv k` is `Wv` times the weighted sum of `k`. So the projections move to the side of the queries, where there are
fewer rows or where two matrices multiply into one. The functions and the parameters (names, shapes, initial values)
are those of `nn.MultiheadAttention`; the key bias adds the same to every score of a query, which softmax cancels, so
it is unused.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def unrounded(device: torch.device) -> AbstractContextManager:
    """The block whose products are in float32 under autocast too: what selects or pairs must not be rounded."""
    if device.type == "meta":  # shapes without data; autocast does not know it
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def take(x: Tensor, rows: Tensor, segments: Tensor) -> Tensor:
    """x (V, T, D) at one of the rows (B,) and some segments (B, K) each: (B, K, D).

    As `x[rows[:, None], segments]`, but for a gradient that a GPU adds up instead of sorting it.
    """
    places = rows[:, None] * x.shape[1] + segments
    return x.flatten(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape)


class LeftOut(nn.Module):
    """In place of a stage that was left out: gives the same, whatever it gets."""

    def __init__(self, gives: Any):
        super().__init__()
        self.gives = gives

    def forward(self, *_: Any) -> Any:
        """What it was made with."""
        return self.gives


class Dropout(nn.Module):
    """Inverted dropout. On the CPU, uncompiled, a draw of 64 bits serves four elements: a third of `nn.Dropout`'s time.

    There the rate is rounded to a multiple of 1 / 65536, and the scale is that of the rounded rate.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Zero elements of x (...) at the rate, and scale the others so that the mean stays."""
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():  # drawing integers would break the graph
            return F.dropout(x, self.rate)
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        dropped = round(self.rate * 2**16)  # of the 2**16 values that an int16 takes
        kept = torch.empty_like(x, requires_grad=False)  # comparing into floats saves turning Booleans into floats
        torch.ge(draws.view(torch.int16)[: x.numel()].view(x.shape), dropped - 2**15, out=kept)
        return x * kept.mul_(2**16 / (2**16 - dropped))


class StandardizedLinear(nn.Linear):
    """A linear layer of standardised features: `Linear((x - mean) / deviation)`, feature by feature.

    Mean and deviation are buffers, 0 and 1 until they are measured, and part of the state_dict.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, dim: int):
        super().__init__(width, dim)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    @torch.no_grad()
    def measure(self, parts: Iterable[Tensor]) -> None:
        """Take mean and deviation over parts (..., width), one at a time; what never changes is only shifted."""
        count, total, squares = 0, torch.zeros(()), torch.zeros(())  # become float64
        for x in parts:
            rows = x.flatten(0, -2).double()
            count, total, squares = count + len(rows), total + rows.sum(dim=0), squares + rows.square().sum(dim=0)
        mean = total / count
        deviation = (squares / count - mean**2).clamp_min(0).sqrt()
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.where(deviation > 1e-6, torch.ones_like(deviation)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., dim)."""
        return super().forward((x - self.mean) / self.deviation)


class _Projections(nn.Module):
    """The parameters of `nn.MultiheadAttention`, initialised as there."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)


class SingleHeadAttention(_Projections):
    """One-head attention of many queries: four projections folded into two.

    `Wk' Wq` and `Wo Wv` are multiplied once a step (D x D), instead of projecting N x (Q + L) rows by each.
    """

    def __init__(self, dim: int, dropout: float):
        super().__init__(dim, 1, dropout)

    def forward(self, query: Tensor, keys: Tensor, bias: Tensor | float = 0.0) -> Tensor:
        """Query (N, Q, D) attends to keys (N, L, D); `bias`, broadcast to (N, Q, L), is added to the scores."""
        wq, wk, wv = self.in_proj_weight.chunk(3)
        bq, _, bv = self.in_proj_bias.chunk(3)
        wo, bo = self.out_proj.weight, self.out_proj.bias

        probe = F.linear(query, wk.T @ wq, wk.T @ bq) * wq.shape[0] ** -0.5  # (N, Q, D)
        weights = self.dropout((probe @ keys.transpose(1, 2) + bias).softmax(dim=-1))  # (N, Q, L)
        context = F.linear(weights @ keys, wo @ wv, bo)  # (N, Q, D)
        return context + weights.sum(dim=-1, keepdim=True) * (wo @ bv)  # the sum is 1 but for dropout

    def keys(self, x: Tensor) -> Tensor:
        """Projected keys (N, L, D) of x (N, L, D), the metric of token merging."""
        _, wk, _ = self.in_proj_weight.chunk(3)
        _, bk, _ = self.in_proj_bias.chunk(3)
        return F.linear(x, wk, bk)


class QueryAttention(_Projections):
    """Multi-head attention of few queries over many keys: only the queries are projected."""

    def forward(self, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Query (N, Q, D) over keys (N, L, D) -> (N, Q, D) and the weights before dropout (N, Q, L), head average."""
        wq, wk, wv = self.in_proj_weight.chunk(3)
        bq, _, bv = self.in_proj_bias.chunk(3)
        by_head = attention_weights(F.linear(query, wq, bq), wk, keys, self.heads)  # (N, Q, H, L)
        kept = self.dropout(by_head)
        context = (kept.flatten(1, 2) @ keys).unflatten(1, by_head.shape[1:3])  # (N, Q, H, D)
        values = torch.einsum("nqhc,hdc->nqhd", context, wv.unflatten(0, (self.heads, -1)))
        values = values + kept.sum(dim=-1, keepdim=True) * bv.unflatten(0, (self.heads, -1))
        return self.out_proj(values.flatten(2)), by_head.mean(dim=2)


class ManyHeadAttention(_Projections):
    """Multi-head attention of many queries over many keys, everything projected."""

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Query (N, Q, D) attends to keys (N, L, D) -> (N, Q, D)."""
        dim = query.shape[-1]
        q = F.linear(query, self.in_proj_weight[:dim], self.in_proj_bias[:dim])
        k, v = F.linear(keys, self.in_proj_weight[dim:], self.in_proj_bias[dim:]).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))  # (N, H, Q or L, d)
        weights = self.dropout((q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1))  # (N, H, Q, L)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2))


def attention_weights(query: Tensor, key_weight: Tensor, keys: Tensor, heads: int) -> Tensor:
    """Weights (N, Q, H, L) of projected queries (N, Q, D) over keys (N, L, D) that `key_weight` (D, D) projects."""
    query = query.unflatten(-1, (heads, -1))  # (N, Q, H, d)
    probe = torch.einsum("nqhd,hdc->nqhc", query, key_weight.unflatten(0, (heads, -1))) * query.shape[-1] ** -0.5
    scores = probe.flatten(1, 2) @ keys.transpose(1, 2)  # (N, Q H, L)
    return scores.unflatten(1, query.shape[1:3]).softmax(dim=-1)


class FeedForward(nn.Sequential):
    """Linear, ReLU, dropout, Linear, dropout; (..., D) -> (..., D)."""

    def __init__(self, dim: int, dropout: float):
        super().__init__(nn.Linear(dim, dim), nn.ReLU(), Dropout(dropout), nn.Linear(dim, dim), Dropout(dropout))


class SelfAttentionBlock(nn.Module):
    """Post-norm self-attention with one head, in two halves: tokens may merge between them."""

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.attention = SingleHeadAttention(dim, dropout)
        self.ffn = FeedForward(dim, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def attend(self, x: Tensor, bias: Tensor | float = 0.0) -> Tensor:
        """`LN(x + drop(Self(x)))` of x (N, L, D); `bias` is added to the scores."""
        return self.norm1(x + self.dropout(self.attention(x, x, bias)))

    def feed(self, x: Tensor) -> Tensor:
        """`LN(x + FFN(x))` of x (N, L, D)."""
        return self.norm2(x + self.ffn(x))


class QueryBlock(nn.Module):
    """`LN(attn + FFN(attn))` of a query over keys: no residual from the query (stages 4 and 5)."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.attention = QueryAttention(dim, heads, dropout)
        self.ffn = FeedForward(dim, dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """One query (N, D) for each of the N sequences of keys (N, L, D) -> (N, D) and weights (N, L)."""
        attended, weights = self.attention(query[:, None], keys)
        attended = attended[:, 0]
        return self.norm(attended + self.ffn(attended)), weights[:, 0]
