"""QA-TIGER (Kim et al., CVPR 2025): Gaussian experts over time, chosen by the question.

B questions of a batch, V videos that they are about, S' stored videos, T segments, K segments of most weight, S tokens
of a frame as stored, D hidden width, E experts, A of them active, F = D / 2, G streams, C answers, N sentences in the
text bank, Nq of them questions; Df, Dt, Dw, Dq widths of frame, token, word and text features.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nets.layers import Dropout, FeedForward, ManyHeadAttention, QueryAttention, StandardizedLinear, take, unrounded
from nets.network import Network, Perception
from nets.options import FeatureSizes, PeerOptions
from utils.errors import UserError

NARROWEST, SHARPNESS = 0.09, 9  # of a Gaussian: its width is between 0.09 / 9 and 1 / 9 of the video


@dataclass
class QATigerOptions(PeerOptions):
    """QA-TIGER."""

    network: str = "qa_tiger"
    heads: int = 8
    experts: int = 7
    """Number E of experts, each with a Gaussian over time."""
    active: int = 7
    """Number A of experts that answer a question: those of largest router weight."""
    ranking: Literal["own", "mixed"] = "own"
    """Whose ranking says which expert reads a segment: the question's own, or, as in the published implementation by a
    fault of its indices, that of another question of the batch."""
    top_k: int = 10
    """Number K of segments of most weight that count as selected; the answer reads all."""

    kinds = ("audio", "frame", "token", "words")

    def __post_init__(self) -> None:
        """Check what a field's type cannot."""
        self.require_sizes("hidden", "heads", "experts", "active", "tokens", "top_k")
        if self.hidden % (2 * self.heads):
            raise UserError(f"model.hidden {self.hidden} must be even, and a multiple of model.heads {self.heads}")
        if self.active > self.experts:
            raise UserError(f"model.active {self.active} is more than the {self.experts} experts (model.experts)")

    def check(self, segments: int, tokens: int | None) -> None:
        """Raise `UserError` where other tokens are stored than are read, or a video has fewer segments than K."""
        super().check(segments, tokens)
        if self.top_k > segments:
            raise UserError(f"model.top_k {self.top_k} is more than the {segments} segments of a video")

    def build(self, sizes: FeatureSizes, answers: int) -> "QATiger":
        """Wire it for features of these sizes."""
        return QATiger(self, sizes, answers)


class QATiger(Network):
    """The question's words join audio and frames, its Gaussians weigh them in time, and it reads what they hold."""

    shallow = ("audio", "frame", "token", "words", "question", "head")

    def __init__(self, options: QATigerOptions, sizes: FeatureSizes, answers: int):
        super().__init__()
        dim, heads, dropout = options.hidden, options.heads, options.dropout
        experts, active, mixed = options.experts, options.active, options.ranking == "mixed"
        project = StandardizedLinear if options.standardize else nn.Linear
        self.audio, self.frame, self.token = (project(sizes.width(kind), dim) for kind in ("audio", "frame", "token"))
        self.words, self.question = nn.Linear(sizes.width("words"), dim), nn.Linear(sizes.text, dim)
        self.context = WordContext(dim, heads, dropout)
        self.patches = PatchQueries(dim, heads, dropout)
        self.heard = GaussianExperts(dim, heads, dropout, experts, active, mixed, streams=1)
        self.seen = GaussianExperts(dim, heads, dropout, experts, active, mixed, streams=2)
        self.grounding = QuestionGrounding(dim, heads, dropout)
        self.head = nn.Linear(dim, answers)
        self.top_k = options.top_k
        _kaiming(self.audio, self.frame, self.token, self.words, self.question, self.head)

    def forward(
        self,
        audio: Tensor,  # (S', T, 128)
        frame: Tensor,  # (S', T, Df)
        token: Tensor,  # (S', T, S, Dt)
        words: Tensor,  # (Nq, 77, Dw)
        text: Tensor,  # (N, Dq)
        video: Tensor,  # (V,) rows of audio, frame and token
        asked: Tensor,  # (B,) row of video
        question: Tensor,  # (B,) row of text and words
        prompt: Tensor,  # (B,) is not read
    ) -> Perception:
        """Answer B questions about V videos."""
        a = self.audio(audio[video].to(text.dtype))  # (V, T, D)
        v = self.frame(frame[video].to(text.dtype))  # (V, T, D)
        every = torch.arange(a.shape[1], device=a.device).expand(a.shape[:2])  # (V, T)
        x = token[video.repeat_interleave(a.shape[1]), every.flatten()]  # (V T, S, Dt): also what stays on disk
        p = self.patches.context(self.token(x.to(text.dtype))).unflatten(0, every.shape)  # (V, T, S, D)
        w = self.words(words[question].to(text.dtype))  # (B, 77, D)
        q = self.question(text[question])  # (B, D)

        a, v = self.context(a, v, w, asked)  # (B, T, D)
        p_a, p_v, on_tokens = self.patches(a, v, p.index_select(0, asked))  # (B, T, D), (B, T, D), (B, T, S)
        (a,), when_heard = self.heard(q, a, a[None])  # (B, D), (B, T)
        (p_a, p_v), when_seen = self.seen(q, v, torch.stack([v + p_a, v + p_v]))  # (B, D), (B, T)
        fused = self.grounding(q, torch.stack([p_a, p_v], dim=1))  # (B, D)
        fused = self.grounding(q, torch.stack([fused, a], dim=1))
        logits = self.head(fused.relu())  # (B, C)

        weights = (when_heard + when_seen).detach()
        weights = weights / weights.sum(dim=1, keepdim=True)
        selected = weights.topk(self.top_k).indices.sort(dim=1).values  # (B, K)
        looked = take(on_tokens, torch.arange(len(selected), device=selected.device), selected)  # (B, K, S)
        source = torch.arange(looked.shape[2], device=looked.device).expand(looked.shape)
        return Perception(logits, weights, selected, selected, looked, source)


class WordContext(nn.Module):
    """Every segment of a stream reads its own stream, the other, and the words; its weights serve both streams."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.own, self.other, self.words = (ManyHeadAttention(dim, heads, dropout) for _ in range(3))
        self.ffn = FeedForward(dim, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)
        _kaiming(self.ffn)

    def forward(self, audio: Tensor, frame: Tensor, words: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """Streams (V, T, D) and words (B, 77, D) -> streams (B, T, D), both computed from the same inputs."""
        x, other = torch.cat([audio, frame]), torch.cat([frame, audio])  # (2V, T, D)
        joined = x + self.dropout(self.own(x, x)) + self.dropout(self.other(x, other))
        x, joined = (torch.cat(each.chunk(2), dim=1).index_select(0, asked) for each in (x, joined))  # (B, 2T, D)
        x = self.norm1(joined + self.dropout(self.words(x, words)))
        x = self.norm2(x + self.ffn(x))
        audio, frame = x.chunk(2, dim=1)
        return audio, frame


class PatchQueries(nn.Module):
    """The audio and the frame of every segment ask its tokens."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.tokens = ManyHeadAttention(dim, heads, dropout)
        self.query = QueryAttention(dim, heads, dropout)
        self.dropout = Dropout(dropout)
        self.mlp = _mlp(dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))

    def context(self, tokens: Tensor) -> Tensor:
        """Tokens of frames (N, S, D) that have read each other."""
        return tokens + self.tokens(tokens, tokens)

    def forward(self, audio: Tensor, frame: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Streams (B, T, D) over tokens (B, T, S, D) -> what each found (B, T, D), the audio's weights (B, T, S)."""
        queries = torch.stack([audio, frame], dim=2)  # (B, T, 2, D)
        found, weights = self.query(queries.flatten(0, 1), tokens.flatten(0, 1))  # (B T, 2, D), (B T, 2, S)
        found = self.mlp(self.dropout(found)).unflatten(0, queries.shape[:2])  # (B, T, 2, D)
        of_audio, of_frame = (norm(x) for norm, x in zip(self.norms, found.unbind(2), strict=True))
        return of_audio, of_frame, weights[:, 0].unflatten(0, queries.shape[:2])


class GaussianExperts(nn.Module):
    """A mixture of experts, each with a Gaussian over time; the question places the Gaussians and routes."""

    grid: Tensor

    def __init__(self, dim: int, heads: int, dropout: float, experts: int, active: int, mixed: bool, streams: int):
        super().__init__()
        self.query = QueryAttention(dim, heads, dropout)
        self.router, self.gaussian = nn.Linear(dim, experts), nn.Linear(dim, 2 * experts)
        self.inner = nn.Linear(dim, experts * (dim // 2))  # the first layers of all experts
        self.outer = nn.Parameter(torch.randn(experts, dim // 2, dim) * (4 / dim) ** 0.5)  # Kaiming: F values in
        self.bias = nn.Parameter(torch.zeros(experts, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(streams))
        self.register_buffer("grid", (torch.arange(experts) + 0.5) / experts, persistent=False)
        self.active, self.mixed = active, mixed
        _kaiming(self.router, self.gaussian, self.inner)

    def forward(self, question: Tensor, x: Tensor, streams: Tensor) -> tuple[list[Tensor], Tensor]:
        """The question (B, D), by what it finds in x (B, T, D), weighs streams (G, B, T, D) -> G x (B, D), (B, T)."""
        weights = self.weigh(question, x)  # (B, T, E)
        inner = self.inner(streams).relu().unflatten(-1, (len(self.grid), -1))  # (G, B, T, E, F)
        inner = (weights[..., None] * inner).sum(dim=2)  # over time first: the second layers are linear
        outer = torch.einsum("gbef,efd->gbd", inner, self.outer) + weights.sum(dim=1) @ self.bias  # (G, B, D)
        return [norm(out) for norm, out in zip(self.norms, outer, strict=True)], weights.sum(dim=2)

    def weigh(self, question: Tensor, x: Tensor) -> Tensor:
        """How much each expert says of each segment: its router weight times its Gaussian, (B, T, E)."""
        found, _ = self.query(question[:, None], x)
        batch, length, _ = x.shape
        with unrounded(x.device):  # a Gaussian is narrower than a rounded centre is exact
            found = found[:, 0].to(self.grid.dtype)  # (B, D)
            routed, ranking = self.router(found).softmax(dim=-1).topk(self.active)  # (B, A)
            routed = routed / routed.sum(dim=-1, keepdim=True)
            shift, width = self.gaussian(found).unflatten(-1, (-1, 2)).unbind(-1)  # (B, E)
            centre = self.grid + shift.tanh() / (2 * len(self.grid))
            width = width.sigmoid().clamp(min=NARROWEST) / SHARPNESS
            time = torch.linspace(0, 1, length, device=x.device, dtype=self.grid.dtype)
            exponent = -(((time - centre[..., None]) / width[..., None]) ** 2) / 2  # (B, E, T)
            gaussian = (exponent - exponent.amax(dim=-1, keepdim=True)).exp()  # 1 at its largest
            ranked = gaussian.gather(1, ranking[..., None].expand(-1, -1, length)) * routed[..., None]  # (B, A, T)
            place = torch.arange(batch * length, device=x.device)
            whose = place % max(batch, 1) if self.mixed else place // length
            expert = ranking[whose].unflatten(0, (batch, length))  # (B, T, A): who is the first, the second, ...
            return ranked.new_zeros(batch, length, len(self.grid)).scatter(2, expert, ranked.transpose(1, 2))


class QuestionGrounding(nn.Module):
    """The question reads a few vectors; what it finds is added to their mean."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.query = QueryAttention(dim, heads, dropout)
        self.mlp = _mlp(dim)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, question: Tensor, x: Tensor) -> Tensor:
        """Question (B, D) over x (B, L, D) -> (B, D)."""
        found, _ = self.query(question[:, None], x)
        return self.norm(x.mean(dim=1) + self.dropout(self.mlp(found[:, 0])))


def _mlp(dim: int) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, dim))
    _kaiming(layers)
    return layers


def _kaiming(*modules: nn.Module) -> None:
    """Linear layers start by Kaiming's normal distribution, and without biases."""
    for layer in (layer for module in modules for layer in module.modules() if isinstance(layer, nn.Linear)):
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
