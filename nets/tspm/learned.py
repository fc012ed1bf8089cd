"""What the learned model has of its own: order in time, sound among words, how well a question fits, and where.

B questions, V videos, T segments, K selected segments, P distinct segments of videos, S tokens of a frame, D hidden
width; Df, Dq, Dt widths of CLIP's space, text and tokens; E width in which sound and tokens are compared; N pairs, each
of a second of some video.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import normalize

from nets.layers import take
from nets.network import Loss
from nets.tspm.spatial import distinct

EVERY = 4  # one second in so many is compared with those of other videos: neighbours say the same
OTHERS = 8  # videos at least that a pair is told from; with fewer, telling them apart says little
SECONDS = 10  # of a question at most: every second of a minute with every other's picture would be most of a step


class InTime(nn.Module):
    """Adds to each segment a vector for its place in time, and a filter over its neighbours, feature by feature."""

    def __init__(self, segments: int, dim: int):
        super().__init__()
        self.place = nn.Parameter(0.02 * torch.randn(segments, dim))
        self.neighbours = nn.Conv1d(dim, dim, kernel_size=3, padding=1, groups=dim, bias=False)
        nn.init.zeros_(self.neighbours.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(V, T, D) -> (V, T, D)."""
        return x + self.place + self.neighbours(x.transpose(1, 2)).transpose(1, 2)


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


class SoundInPicture(nn.Module):
    """`u_t = MLP(a_t)` of size 1, a second's sound where its picture would be.

    It learns from seconds and their own frames (InfoNCE; Wav2CLIP, Wu et al. 2022), and needs no answer.
    """

    def __init__(self, dim: int, width: int, weight: float):
        super().__init__()
        self.project = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, width))
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.weight = weight

    def forward(self, audio: Tensor, seen: Tensor, video: Tensor) -> tuple[Tensor, dict[str, Loss]]:
        """Audio (V, T, D), frame features (V, T, Df) and whose they are (V,) -> sounds (V, T, Df), the loss "what"."""
        heard = normalize(self.project(audio), dim=-1)
        return heard, {"what": self._match(heard, seen, video)} if self.training else {}

    def _match(self, heard: Tensor, seen: Tensor, video: Tensor) -> Loss:
        every = min(EVERY, heard.shape[1])
        places = torch.arange(0, heard.shape[1] - every + 1, every, device=heard.device)
        places = places + torch.randint(every, (1,), device=heard.device)
        sound, picture = heard[:, places].flatten(0, 1), normalize(seen[:, places], dim=-1).flatten(0, 1)  # (N, Df)
        return contrast(self.scale * sound @ picture.T, video.repeat_interleave(len(places)), self.weight)


class QuestionFit(nn.Module):
    """How well the question fits what is seen and heard, in H ways: the cosines of `M_h q` with frames and sounds.

    Their mean over all segments, and over the selected ones by their gate. M_h starts near the identity, so at CLIP's
    own similarity, with noise by which the ways differ. Features of several CLIPs have none: there it starts at random.
    """

    def __init__(self, text_width: int, width: int, ways: int, dim: int, sounds: bool):
        super().__init__()
        self.kinds = 2 if sounds else 1
        self.words = nn.Linear(text_width, ways * width)
        if text_width == width:
            with torch.no_grad():
                self.words.weight += torch.eye(width).repeat(ways, 1)
        self.ways = ways
        self.out = nn.Sequential(nn.LayerNorm(2 * self.kinds * ways), nn.Linear(2 * self.kinds * ways, dim), nn.GELU())

    def forward(
        self, question: Tensor, seen: Tensor, heard: Tensor | None, asked: Tensor, selected: Tensor, gate: Tensor
    ) -> Tensor:
        """Question (B, Dq), frame features and sounds (V, T, Df), selected segments and their gate -> (B, D)."""
        words = normalize(self.words(question).unflatten(-1, (self.ways, -1)), dim=-1)  # (B, H, Df)
        given: list[Any] = [normalize(seen, dim=-1), heard]
        found = torch.cat(given[: self.kinds], dim=-1)  # (V, T, 2 Df); without sounds Df
        everywhere = found.mean(dim=1).index_select(0, asked)  # (B, 2 Df)
        there = (gate * take(found, asked, selected)).mean(dim=1)
        of = torch.stack([everywhere, there], dim=1).unflatten(-1, (self.kinds, -1)).flatten(1, 2)  # (B, 4, Df)
        return self.out(10 * (words @ of.transpose(1, 2)).flatten(1))


class PairedPerception(nn.Module):
    """Stage 4 that learns where, in place of Eq. 4-5, over the tokens p of a second.

    `w = softmax(c cos(U a, V p))`, `v_spa = FC(sum of w p)`. U and V learn from pairs: a second's sound resembles the
    best-matching token of its own picture more than any of other videos' pictures, and the other way round (InfoNCE
    over the best match; EZ-VSL, Mo and Morgado 2022).
    """

    def __init__(self, project: nn.Linear, compare: nn.Linear, sound: nn.Linear, weight: float):
        super().__init__()
        self.token = project  # Dt -> D; it commutes with the weighted sum, so one vector a second is projected
        self.place = compare  # Dt -> E
        self.sound = sound  # D -> E
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.weight = weight

    def forward(
        self, audio: Tensor, frame: Tensor, token: Tensor, video: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Loss]]:
        """Attend from the audio to the tokens of the selected segments, as `SpatialPerception` does."""
        pairs = torch.stack([video[:, None].expand_as(index), index]).flatten(1)  # (2, B K)
        one, of = distinct(pairs, self.training)  # (P,), (B K,)
        x = token[pairs[0, one], pairs[1, one]].to(self.token.weight.dtype)  # Eq. 3, (P, S, Dt)
        sound = normalize(self.sound(audio.flatten(0, 1)[one]), dim=-1)  # (P, E)
        places = normalize(self.place(x), dim=-1)  # (P, S, E)
        weights = (self.scale * (places @ sound[..., None])[..., 0]).softmax(dim=-1)  # (P, S)
        attended = self.token((weights[:, None] @ x)[:, 0])  # (P, D)
        losses = {"where": self._match(sound, places, pairs[0, one], index)} if self.training else {}
        source = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        attended, weights, source = (part[of].unflatten(0, index.shape) for part in (attended, weights, source))
        return attended, index, weights, source, losses

    def _match(self, sound: Tensor, places: Tensor, video: Tensor, index: Tensor) -> Loss:
        every = -(-index.shape[1] // SECONDS)
        sound, places, video = (x.unflatten(0, index.shape)[:, ::every].flatten(0, 1) for x in (sound, places, video))
        best = (places.flatten(0, 1) @ sound.T).unflatten(0, places.shape[:2]).amax(dim=1)  # (P, P): picture, sound
        return contrast(self.scale * best.T, video, self.weight)
