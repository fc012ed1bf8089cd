"""Token merging (ToMe, Bolya et al., ICLR 2023) as pure functions; used by SPM (Eq. 4) and by extraction.

N images, n tokens (the class token first), r tokens merged away, C channels, M tokens before the first merge.

Tokens at even positions are set A, at odd positions set B. Every A has one best B; the r best pairs merge. The
class token is in A and never merges. Order afterwards: the A that are left, in order, then all of B. It decides the
next A and B, so it belongs to the algorithm.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nets.layers import unrounded


class Matching(NamedTuple):
    """Which tokens merge: positions are within set A, targets within set B."""

    kept: Tensor  # (N, nA - r) positions in A that stay, ascending; the class token first
    merged: Tensor  # (N, r) positions in A that merge away, best pair first
    target: Tensor  # (N, r) position in B that each of them joins
    assign: Tensor  # (N, n) new position of every old token


def tokens_after(n: int, r: int) -> int:
    """How many of n tokens are left when r are to merge: at most all of A but the class token can."""
    return n - min(r, (n - 1) // 2)


def merge_schedule(tokens: int, wanted: int, blocks: int) -> tuple[int, ...]:
    """How many tokens each block merges away so that `wanted` of `tokens` are left after `blocks` blocks.

    A constant r on the first n blocks: the largest n that ends at `wanted`, then the smallest r. Raises `ValueError`,
    listing what can be reached, where no r and n do.
    """
    if wanted == tokens:
        return (0,) * blocks
    reachable = set()
    for n in range(blocks, 0, -1):
        for r in range(1, (tokens - 1) // 2 + 1):
            counts = [tokens]
            for _ in range(n):
                counts.append(tokens_after(counts[-1], r))
            if counts[-1] == wanted:
                return tuple(a - b for a, b in itertools.pairwise(counts)) + (0,) * (blocks - n)
            reachable.add(counts[-1])
    raise ValueError(
        f"{wanted} of {tokens} tokens cannot be reached in {blocks} blocks; these can: {_as_ranges(reachable)}"
    )


def match_tokens(metric: Tensor, r: int) -> Matching:
    """Choose the r pairs to merge by the cosine similarity of `metric` (N, n, C), 1 <= r <= (n - 1) // 2.

    In float32, also under autocast: rounded similarities would pair other tokens. TF32 applies where it is on.
    """
    n = metric.shape[1]
    assert 1 <= r <= (n - 1) // 2, (n, r)
    with torch.no_grad(), unrounded(metric.device):
        metric = F.normalize(metric.float(), dim=-1)
        similarity = metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)  # (N, nA, nB)
        similarity[:, 0] = -torch.inf  # the class token sorts last, so it is kept
        best, partner = similarity.max(dim=-1)
        order = best.argsort(dim=-1, descending=True, stable=True)
        merged, kept = order[:, :r], order[:, r:].sort(dim=-1).values
        target = partner.gather(1, merged)

        first_b = kept.shape[1]
        assign = torch.empty(metric.shape[:2], dtype=torch.long, device=metric.device)
        assign[:, 1::2] = first_b + torch.arange(n // 2, device=metric.device)
        in_a = torch.empty_like(order)
        in_a.scatter_(1, kept, torch.arange(first_b, device=metric.device).expand_as(kept))
        in_a.scatter_(1, merged, first_b + target)
        assign[:, ::2] = in_a
    return Matching(kept, merged, target, assign)


def merge_tokens(x: Tensor, size: Tensor, matching: Matching) -> tuple[Tensor, Tensor]:
    """Merge tokens x (N, n, C) of sizes (N, n) to their size-weighted means (N, n - r, C) and sizes (N, n - r).

    Sums run in float32, also under autocast, as a product with a 0/1 matrix: unlike scattered additions that is
    deterministic on CUDA. TF32 applies where it is on.
    """
    with unrounded(x.device):
        weighted = torch.cat([x.float() * size[..., None], size[..., None]], dim=-1)  # the size rides as a channel
        a, b = weighted[:, ::2], weighted[:, 1::2]
        joins = F.one_hot(matching.target, b.shape[1]).to(weighted.dtype).transpose(1, 2)  # (N, nB, r)
        kept = torch.take_along_dim(a, matching.kept[..., None], dim=1)
        merged = torch.take_along_dim(a, matching.merged[..., None], dim=1)
        total = torch.cat([kept, b + joins @ merged], dim=1)
        size = total[..., -1]
        return (total[..., :-1] / size[..., None]).to(x.dtype), size


def merge_source(source: Tensor, matching: Matching) -> Tensor:
    """Follow each of the M original tokens, now in token `source` (N, M), to the token it is in after merging."""
    return matching.assign.gather(1, source)


def _as_ranges(numbers: set[int]) -> str:
    """{1, 2, 3, 7} -> "1-3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][-1:] = [number] if len(runs[-1]) > 1 else [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)
