"""What belongs together, learned from pairs: the loss of the stages that learn without answers.

N pairs, each of a second of some video.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from nets.network import Loss

OTHERS = 8  # videos at least that a pair is told from; with fewer, telling them apart says little


def contrast(scores: Tensor, video: Tensor, weight: float) -> Loss:
    """Symmetric InfoNCE of scores (N, N): row n belongs to column n, and not to those of other videos (N,).

    Other pairs of the same video are left out, since they may belong together too. Zero, of nothing, where a process
    holds pairs of fewer than `OTHERS` other videos.
    """
    same = video[:, None] == video
    pair = torch.eye(len(video), dtype=torch.bool, device=video.device)
    scores = scores.masked_fill(same & ~pair, -torch.inf)
    truth = torch.arange(len(video), device=video.device)
    found = (F.cross_entropy(scores, truth, reduction="sum") + F.cross_entropy(scores.T, truth, reduction="sum")) / 2
    videos = (1 / same.sum(dim=1)).sum()  # that differ
    enough = videos > OTHERS + 0.5
    return Loss(weight, found * enough, len(video) * enough)
