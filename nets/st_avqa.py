"""ST-AVQA, the spatio-temporally grounded network of MUSIC-AVQA (Li et al., CVPR 2022, Section 4).

B questions of a batch, V videos that they are about, S' stored videos, T segments, L of them that are looked at,
S tokens of a frame, K segments that are reported, D hidden width, C answers, N sentences in the text bank.

It reads TSPM's features: a frame's tokens are the cells of the visual map and its feature the pooled map, where the
authors trained a ResNet; the question's feature is what their LSTM gives (nets/README.md).
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.layers import QueryBlock, StandardizedLinear, take
from nets.network import Loss, Network, Perception
from nets.options import FeatureSizes, PeerOptions
from nets.tspm.fusion import Fusion
from utils.errors import UserError


@dataclass
class STAVQAOptions(PeerOptions):
    """ST-AVQA: sound finds its place in the picture, then the question its seconds."""

    network: str = "st_avqa"
    seconds: int | None = 10
    """Seconds L of a video that are looked at, evenly spread, as in the paper; null looks at all."""
    top_k: int = 10
    """Seconds K of largest weight that are reported as selected; the answer uses all by their weights."""

    kinds = ("audio", "frame", "token")

    def __post_init__(self) -> None:
        """Check what a field's type cannot."""
        self.require_sizes("hidden", "heads", "tokens", "seconds", "top_k")
        if self.hidden % self.heads or self.hidden % 4:  # the matching head narrows to a quarter
            raise UserError(f"model.hidden {self.hidden} must be a multiple of 4 and of model.heads {self.heads}")

    def check(self, segments: int, tokens: int | None) -> None:
        """Raise `UserError` where other tokens are stored than are read, or T segments are too few."""
        super().check(segments, tokens)
        if self.top_k > (looked := self.seconds or segments) or looked > segments:
            raise UserError(
                f"model.top_k {self.top_k} must be at most model.seconds {looked}, and these at most the "
                f"{segments} segments of a video"
            )

    def build(self, sizes: FeatureSizes, answers: int) -> "STAVQA":
        """Wire the stages."""
        return STAVQA(self, sizes, answers)


class STAVQA(Network):
    """Spatial grounding, temporal grounding, fusion; in training the matching of sounds and pictures too."""

    shallow = ("audio", "frame", "token", "question", "match", "fusion.classifier")
    seconds: Tensor

    def __init__(self, options: STAVQAOptions, sizes: FeatureSizes, answers: int):
        super().__init__()
        dim, segments = options.hidden, sizes.segments
        project = StandardizedLinear if options.standardize else nn.Linear
        self.audio, self.frame, self.token = (project(sizes.width(kind), dim) for kind in options.kinds)
        self.question = nn.Linear(sizes.text, dim)
        self.hear = nn.Sequential(nn.ReLU(), nn.Linear(dim, dim))
        self.spatial = SpatialGrounding(dim)
        self.match = Match(dim)
        self.audio_query = QueryBlock(dim, options.heads, options.dropout)
        self.visual_query = QueryBlock(dim, options.heads, options.dropout)
        self.fusion = Fusion(("audio", "visual"), dim, answers)
        looked = options.seconds or segments
        self.register_buffer("seconds", torch.arange(looked) * segments // looked, persistent=False)  # (L,)
        self.top_k = options.top_k

    def forward(
        self,
        audio: Tensor,  # (S', T, 128)
        frame: Tensor,  # (S', T, Df)
        token: Tensor,  # (S', T, S, Dt)
        text: Tensor,  # (N, Dq)
        video: Tensor,  # (V,)
        asked: Tensor,  # (B,)
        question: Tensor,  # (B,)
        prompt: Tensor,  # (B,)
    ) -> Perception:
        """Answer B questions about V videos."""
        at = [x.flatten() for x in torch.broadcast_tensors(video[:, None], self.seconds)]  # rows, seconds: (V L,)
        sound = self.hear(self.audio(audio[*at].to(text.dtype)))  # (V L, D)
        pooled = self.frame(frame[*at].to(text.dtype))  # (V L, D)
        cells = self.token(token[*at].to(text.dtype))  # (V L, S, D)
        picture, cell_weights = self.spatial(sound, pooled, cells)  # (V L, D), (V L, S)
        losses = {"match": self.match(self.spatial, sound, picture, pooled, cells, video)} if self.training else {}

        q = self.question(text[question])  # (B, D)
        a, v = (x.unflatten(0, (len(video), -1)).index_select(0, asked) for x in (sound, picture))  # (B, L, D)
        a_grd, _ = self.audio_query(q, a)  # (B, D)
        v_grd, weights = self.visual_query(q, v)  # (B, D), (B, L)
        logits = self.fusion(q, {"audio": a_grd + a.mean(dim=1), "visual": v_grd + v.mean(dim=1)})  # (B, C)

        top = weights.topk(self.top_k).indices.sort().values  # (B, K) of the L
        segment_weights = weights.new_zeros(len(asked), audio.shape[1]).index_copy(1, self.seconds, weights)  # (B, T)
        token_weights = take(cell_weights.unflatten(0, (len(video), -1)), asked, top)  # (B, K, S)
        source = torch.arange(token_weights.shape[2], device=top.device).expand_as(token_weights)
        selected = self.seconds[top]  # (B, K)
        return Perception(logits, segment_weights, selected, selected, token_weights, source, losses)


class SpatialGrounding(nn.Module):
    """Spatial grounding: `w = softmax(cos(a, m))` over the cells m, `v = FC(tanh([pooled; sum of w m / |m|]))`."""

    def __init__(self, dim: int):
        super().__init__()
        self.fuse = nn.Linear(2 * dim, dim)

    def forward(self, sound: Tensor, pooled: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Sounds (P, D), pooled maps (P, D) and cells (P, S, D) -> pictures (P, D) and weights (P, S)."""
        size = cells.norm(dim=-1).clamp_min(1e-12)  # (P, S): weights are divided, so no copy of the cells is kept
        weights = ((cells @ F.normalize(sound, dim=-1)[..., None])[..., 0] / size).softmax(dim=-1)
        grounded = ((weights / size)[:, None] @ cells)[:, 0]
        return self.fuse(torch.cat([pooled, grounded], dim=-1).tanh()), weights


class Match(nn.Module):
    """The matching loss: `MLP([a; v])` tells a second's own picture from a random second's of another video."""

    def __init__(self, dim: int):
        super().__init__()
        widths = (2 * dim, dim, dim // 2, dim // 4)
        hidden = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.head = nn.Sequential(*hidden, nn.Linear(widths[-1], 2))

    def forward(
        self, spatial: SpatialGrounding, sound: Tensor, picture: Tensor, pooled: Tensor, cells: Tensor, video: Tensor
    ) -> Loss:
        """Sounds with their own pictures (V L, D) and others'; rows of `video` (V,) that are equal are one video."""
        other = video[:, None] != video  # (V, V)
        others = other.sort(dim=1, descending=True).indices  # (V, V) rows of other videos first
        length = len(sound) // len(video)
        drawn = torch.rand(len(video), length, device=video.device) * other.sum(dim=1, keepdim=True)  # (V, L)
        row = others.gather(1, drawn.long())  # (V, L)
        places = (row * length + torch.randint(length, row.shape, device=row.device)).flatten()  # (V L,)
        strange, _ = spatial(sound, pooled.index_select(0, places), cells.index_select(0, places))  # (V L, D)

        pairs = torch.cat([torch.cat([sound, picture], dim=-1), torch.cat([sound, strange], dim=-1)])  # (2 V L, 2 D)
        label = (torch.arange(len(pairs), device=row.device) < len(sound)).long()  # 1: its own
        total = F.cross_entropy(self.head(pairs).float(), label, reduction="sum")
        counts = other.any()  # of one video alone there is nothing to tell apart
        return Loss(0.5, total * counts, counts * len(pairs))
