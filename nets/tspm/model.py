"""TSPM, the Temporal-Spatial Perception Model (Li, Du, Hu; ACM MM 2024): the chain of its stages, and their wiring.

B questions of a batch, V videos that they are about, S' stored videos, T segments, K selected segments, M tokens of a
frame as stored, S merged tokens, D hidden width, C answers, N sentences in the text bank; Df, Dt, Dq widths of frame,
token and text features.
"""

from torch import Tensor, nn

from nets.layers import LeftOut, QueryBlock, StandardizedLinear, take, unrounded
from nets.network import Network, Perception
from nets.options import FeatureSizes
from nets.token_merging import merge_schedule
from nets.tspm.av_attention import AudioVisualAttention, NoContext
from nets.tspm.fusion import DeepFusion, Fusion
from nets.tspm.grounding import QuestionGrounding
from nets.tspm.learned import InTime, PairedPerception, QuestionFit, SoundInPicture
from nets.tspm.options import TSPMOptions
from nets.tspm.spatial import FramesOnly, PrintedQuery, SpatialPerception
from nets.tspm.temporal import (
    EvenSegments,
    Evidence,
    LearnedSelection,
    Perturbed,
    PrintedSelection,
    Similarity,
    TemporalPerception,
    weighting,
)
from utils.errors import UserError


class TSPM(Network):
    """The stages in order. An ablation is another module of the same shapes, chosen when the network is built."""

    shallow = ("audio", "frame", "question", "spatial.token", "temporal", "fusion.classifier")

    def __init__(self, options: TSPMOptions, sizes: FeatureSizes, answers: int):
        super().__init__()
        dim, heads, dropout = options.hidden, options.heads, options.dropout
        streams, width = options.streams, sizes.width("frame")
        project = StandardizedLinear if options.standardize else nn.Linear
        question = nn.Linear(sizes.text, dim)  # its initial values are drawn before the others'
        self.audio = project(sizes.width("audio"), dim)
        self.frame = project(width, dim)
        self.question = question
        self.audio_in_time = InTime(sizes.segments, dim) if options.order else nn.Identity()
        self.frame_in_time = InTime(sizes.segments, dim) if options.order else nn.Identity()
        self.sound = SoundInPicture(dim, width, options.what) if options.sounds else LeftOut((None, {}))
        fit = "fit" in streams
        self.fit = QuestionFit(sizes.text, width, options.ways, dim, options.sounds) if fit else LeftOut(None)
        self.context = AudioVisualAttention(dim, dropout) if {"a_ctx", "v_ctx"} & {*streams} else NoContext()
        self.temporal = _temporal(options, sizes)
        self.spatial = _spatial(options, sizes, project) if "token" in options.kinds else FramesOnly()
        grounded = {"a_grd", "v_grd"} & {*streams}
        self.grounding = QuestionGrounding(dim, heads, dropout) if grounded else LeftOut((None, None))
        if options.fusion == "deep":
            self.fusion: nn.Module = DeepFusion(streams, dim, answers, options.fusion_width, dropout)
        else:
            self.fusion = Fusion(streams, dim, answers)

    def forward(
        self,
        audio: Tensor,  # (S', T, 128)
        frame: Tensor,  # (S', T, Df)
        text: Tensor,  # (N, Dq) features of all sentences
        video: Tensor,  # (V,) rows of audio, frame and token
        asked: Tensor,  # (B,) row of video
        question: Tensor,  # (B,) row of text
        prompt: Tensor,  # (B,) row of text: the declarative prompt (TPC, Section 3.2)
        token: Tensor | None = None,  # (S', T, M, Dt)
        truth: Tensor | None = None,  # (B, T) whether the prompt is true there
    ) -> Perception:
        """Answer B questions about V videos."""
        q = self.question(text[question])  # (B, D)
        with unrounded(text.device):  # rounded scores select other segments
            seen = frame[video].to(text.dtype)  # (V, T, Df)
            a = self.audio_in_time(self.audio(audio[video].to(text.dtype)))  # (V, T, D)
            v = self.frame_in_time(self.frame(seen))  # (V, T, D)
            heard, what = self.sound(a, seen, video)  # (V, T, Df)
            evidence = Evidence(text[prompt], seen, heard, a, v, asked, truth)
            segment_weights, selected, gate = self.temporal(evidence)  # Eq. 1-2
            fit = self.fit(text[question], seen, heard, asked, selected, gate)  # (B, D)
        a_ctx, v_ctx = self.context(a, v)  # (V, T, D)

        a_sel = take(a, asked, selected)  # (B, K, D)
        v_sel = take(v, asked, selected)  # (B, K, D)
        # Eq. 3-5: (B, K, D), and of the tokens: segments (B, K), weights (B, K, S), sources (B, K, M)
        v_spa, looked, on_tokens, source, where = self.spatial(a_sel, v_sel, token, video[asked], selected)
        a_sel, v_sel, v_spa = (gate * stream for stream in (a_sel, v_sel, v_spa))
        a_grd, v_grd = self.grounding(q, a_sel, v_spa)  # (B, D)

        streams = {
            "fit": fit,
            "a_grd": a_grd,
            "a_ctx": a_ctx.mean(dim=1).index_select(0, asked),
            "a_sel": a_sel.mean(dim=1),
            "v_grd": v_grd,
            "v_ctx": v_ctx.mean(dim=1).index_select(0, asked),
            "v_sel": v_sel.mean(dim=1),
            "v_spa": v_spa.mean(dim=1),
        }
        logits = self.fusion(q, streams)  # Eq. 6-7: (B, C)
        return Perception(logits, segment_weights, selected, looked, on_tokens, source, what | where)


def _temporal(options: TSPMOptions, sizes: FeatureSizes) -> nn.Module:
    chosen, dim, top_k = options.temporal, options.hidden, options.top_k
    similar = chosen in ("similarity", "oracle") or (chosen == "learned" and options.start == "similarity")
    if similar and sizes.width("frame") != sizes.text:
        raise UserError(
            f"model.temporal {chosen} compares text ({sizes.text}) with frames ({sizes.width('frame')}) "
            "of one CLIP; features of several take --model.temporal learned --model.start random"
        )
    if chosen == "top_k":
        return TemporalPerception(sizes.text, dim, options.heads, top_k)
    if chosen == "printed":
        return PrintedSelection(sizes.text, dim, top_k)
    if chosen == "learned":
        gate = Perturbed() if options.gate == "perturbed" else weighting
        return LearnedSelection(sizes.text, sizes.width("frame"), dim, top_k, options.sounds, similar, gate)
    if similar:
        return Similarity(top_k)
    return EvenSegments(sizes.segments, sizes.segments if chosen == "all" else top_k)


def _spatial(options: TSPMOptions, sizes: FeatureSizes, project: type[nn.Linear]) -> nn.Module:
    _, stored, width = sizes.shapes["token"]
    if options.spatial == "pairs":
        narrow = options.hidden // 2
        compared = nn.Linear(width, narrow), nn.Linear(options.hidden, narrow)
        return PairedPerception(project(width, options.hidden), *compared, options.where)
    try:
        schedule = merge_schedule(stored, options.tokens, options.spm_blocks)
    except ValueError as error:
        raise UserError(f"model.tokens, model.spm_blocks: {error}") from None
    query: type[nn.Module] = QueryBlock
    if options.spatial == "printed":
        query, schedule = PrintedQuery, tuple(r for r in schedule if r)  # tokens attend to each other in Eq. 5 itself
    return SpatialPerception(
        project(width, options.hidden),
        options.hidden,
        options.heads,
        options.dropout,
        schedule,
        first_k=options.spm_frames == "first_k",
        query=query,
    )
