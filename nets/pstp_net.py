"""PSTP-Net, the Progressive Spatio-Temporal Perception Network (Li, Hou, Hu; ACM MM 2023, Section 3).

B questions of a batch, V videos that they are about, S' stored videos, T segments, P spans that they are parted into,
K segments of the selected spans, S tokens of a frame, m of them that are kept, W words of a question (padding too),
D hidden width, C answers, N sentences in the text bank, Nq of them questions.

It is as the paper has it, but for `model.fused projections`; nets/README.md says where the published code differs.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nets.layers import LeftOut, QueryBlock, SelfAttentionBlock, StandardizedLinear, attention_weights, take, unrounded
from nets.network import Network, Perception
from nets.options import FeatureSizes, PeerOptions
from nets.tspm.av_attention import AudioVisualAttention
from nets.tspm.spatial import distinct
from utils.errors import UserError


@dataclass
class PSTPNetOptions(PeerOptions):
    """PSTP-Net: the question selects spans, then tokens in them; the sound attends to these."""

    network: str = "pstp_net"
    spans: int = 12
    """Equal spans that a video is parted into; their number divides its segments."""
    top_spans: int = 2
    """Spans that the question selects."""
    token_share: float = 0.4
    """Share of a frame's tokens that the question keeps, 20 of 49 in the paper; the published code has 25."""
    fused: Literal["perceived", "projections"] = "perceived"
    """What is fused: all that is perceived, or projected audio, frames and words alone as in the published code."""

    def __post_init__(self) -> None:
        """Check what a field's type cannot."""
        self.require_sizes("hidden", "heads", "spans", "top_spans", "tokens")
        if self.hidden % self.heads:
            raise UserError(f"model.hidden {self.hidden} must be a multiple of model.heads {self.heads}")
        if self.top_spans > self.spans:
            raise UserError(f"model.top_spans {self.top_spans} is more than model.spans {self.spans}")
        if not 0 < self.token_share <= 1:
            raise UserError(f"model.token_share must be in (0, 1], is {self.token_share}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Audio, frames and words, and tokens where they can reach the answer."""
        return ("audio", "frame", "token", "words") if self.fused == "perceived" else ("audio", "frame", "words")

    def check(self, segments: int, tokens: int | None) -> None:
        """Raise `UserError` where other tokens are stored than are read, or spans do not divide T segments."""
        super().check(segments, tokens)
        if segments % self.spans:
            raise UserError(f"model.spans {self.spans} must divide the {segments} segments of a video (data.segments)")

    def build(self, sizes: FeatureSizes, answers: int) -> "PSTPNet":
        """Wire the stages."""
        return PSTPNet(self, sizes, answers)


class PSTPNet(Network):
    """The stages in order; `perceive` is chosen by `model.fused`."""

    shallow = ("audio", "frame", "words", "question", "perceive.token", "classifier")

    def __init__(self, options: PSTPNetOptions, sizes: FeatureSizes, answers: int):
        super().__init__()
        dim, heads, dropout = options.hidden, options.heads, options.dropout
        project = StandardizedLinear if options.standardize else nn.Linear
        self.audio, self.frame = project(sizes.width("audio"), dim), project(sizes.width("frame"), dim)
        self.words, self.question = nn.Linear(sizes.width("words"), dim), nn.Linear(sizes.text, dim)
        self.temporal = TemporalSelection(dim, heads, options.spans, options.top_spans)
        self.perceive: nn.Module = LeftOut([[]])  # no streams, and no tokens that were looked at
        if options.fused == "perceived":
            kept = max(1, round(options.token_share * options.tokens))
            self.perceive = Perceive(project(sizes.width("token"), dim), dim, heads, dropout, kept)
        self.mix = SelfAttentionBlock(dim, dropout)
        self.classifier = nn.Linear(dim, answers)

    def forward(
        self,
        audio: Tensor,  # (S', T, 128)
        frame: Tensor,  # (S', T, Df)
        words: Tensor,  # (Nq, W, Dw)
        text: Tensor,  # (N, Dq)
        video: Tensor,  # (V,)
        asked: Tensor,  # (B,)
        question: Tensor,  # (B,)
        prompt: Tensor,  # (B,)
        token: Tensor | None = None,  # (S', T, S, Dt)
    ) -> Perception:
        """Answer B questions about V videos."""
        with unrounded(text.device):  # rounded weights select other segments
            a = self.audio(audio[video].to(text.dtype))  # (V, T, D)
            v = self.frame(frame[video].to(text.dtype))  # (V, T, D)
            q = self.question(text[question])  # (B, D)
            segment_weights, selected = self.temporal(q, a, v, asked)  # (B, T), (B, K)
        w = self.words(words[question].to(text.dtype))  # (B, W, D)
        perceived, *tokens = self.perceive(q, a, v, token, video, asked, selected)  # (B, ..., D) each
        along_time = [w, a.index_select(0, asked), v.index_select(0, asked), *perceived]
        fused = self.mix.feed(self.mix.attend(torch.cat(along_time, dim=1))).mean(dim=1)  # (B, D)
        return Perception(self.classifier((fused * q).tanh()), segment_weights, selected, *tokens)


class QuestionWeights(nn.Module):
    """`softmax((Wq q) (Wk x)' / sqrt(D / heads))`, the mean over heads; no dropout.

    Only indices are made of it, so no gradient could reach it: it stays as it was initialised.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.heads = heads
        for layer in (self.query, self.key):
            nn.init.xavier_uniform_(layer.weight, gain=2**-0.5)  # as nn.MultiheadAttention, whose three are one matrix
        nn.init.zeros_(self.query.bias)

    @torch.no_grad()
    def forward(self, question: Tensor, x: Tensor) -> Tensor:
        """Questions (n, D) over x (n, L, D) each -> (n, L)."""
        return attention_weights(self.query(question)[:, None], self.key.weight, x, self.heads).mean(dim=2)[:, 0]


class TemporalSelection(nn.Module):
    """Temporal segment selection: a span is `FC(tanh([mean a; mean v]))`, and the question selects the largest."""

    def __init__(self, dim: int, heads: int, spans: int, top_spans: int):
        super().__init__()
        self.span = nn.Linear(2 * dim, dim)
        self.attend = QuestionWeights(dim, heads)
        self.spans, self.top_spans = spans, top_spans

    @torch.no_grad()
    def forward(self, question: Tensor, audio: Tensor, frame: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """Questions (B, D), audio and frames (V, T, D) -> weights (B, T), selected segments (B, K) in time order."""
        length = audio.shape[1] // self.spans
        spans = torch.cat([audio, frame], dim=-1).unflatten(1, (self.spans, length)).mean(dim=2)  # (V, P, 2D)
        weights = self.attend(question, self.span(spans.tanh())[asked])  # (B, P)
        chosen = weights.topk(self.top_spans).indices.sort().values * length  # (B, top_spans) first segments
        selected = (chosen[..., None] + torch.arange(length, device=chosen.device)).flatten(1)
        return weights.repeat_interleave(length, dim=1) / length, selected


class Perceive(nn.Module):
    """What is fused beside projections: the selected segments, their tokens, the audio's view of these, contexts."""

    def __init__(self, project: nn.Linear, dim: int, heads: int, dropout: float, kept: int):
        super().__init__()
        self.token = project
        self.attend = QuestionWeights(dim, heads)
        self.audio_query = QueryBlock(dim, heads, dropout)
        self.context = GlobalPerception(dim, dropout)
        self.kept = kept

    def forward(
        self, question: Tensor, audio: Tensor, frame: Tensor, token: Tensor, video: Tensor, asked: Tensor, index: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """Streams (B, ..., D); the segments (B, K) whose tokens were read, the audio's weights (B, K, S), the S tokens.

        Of questions (B, D), projected audio and frames (V, T, D), tokens (S', T, S, Dt) and selected segments (B, K).
        """
        pairs = torch.stack([video[asked][:, None].expand_as(index), index]).flatten(1)  # (2, B K)
        one, of = distinct(pairs, self.training)
        with unrounded(question.device):
            x = self.token(token[pairs[0, one], pairs[1, one]].to(question.dtype))[of]  # (B K, S, D)
            weights = self.attend(question.repeat_interleave(index.shape[1], dim=0), x)  # (B K, S)
        best = weights.topk(self.kept).indices.sort().values  # (B K, m): spatial region selection
        regions = take(x, torch.arange(len(x), device=x.device), best)  # (B K, m, D)

        a_sel, v_sel = take(audio, asked, index), take(frame, asked, index)  # (B, K, D)
        guided, weights = self.audio_query(a_sel.flatten(0, 1), regions)  # audio-guided attention: (B K, D), (B K, m)
        contexts = [x.index_select(0, asked) for x in self.context(audio, frame)]  # (B, T, D) each
        streams = [a_sel, v_sel, regions.unflatten(0, index.shape).flatten(1, 2), guided.unflatten(0, index.shape)]

        all_weights = weights.new_zeros(x.shape[:2]).scatter(1, best, weights).unflatten(0, index.shape)  # (B, K, S)
        source = torch.arange(x.shape[1], device=x.device).expand_as(all_weights)
        return [*streams, *contexts], index, all_weights, source


class GlobalPerception(AudioVisualAttention):
    """A self- and cross-attention layer over all T segments; the frames read the audio that it has updated."""

    def forward(self, audio: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Streams (V, T, D) -> context streams (V, T, D)."""
        audio = self.read(audio, frame)
        return audio, self.read(frame, audio)
