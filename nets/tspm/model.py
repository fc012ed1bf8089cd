"""TSPM, the Temporal-Spatial Perception Model (Li, Du, Hu; ACM MM 2024): the chain of its stages, and their wiring.

B questions of a batch, V videos that they are about, S' stored videos, T segments, K selected segments, M tokens of a
frame as stored, S merged tokens, D hidden width, C answers, N sentences in the text bank; Df, Dt, Dq widths of frame,
token and text features.
"""

from torch import Tensor, nn

from nets.layers import QueryBlock, StandardizedLinear, take, unrounded
from nets.network import Network, Perception
from nets.options import FeatureSizes
from nets.token_merging import merge_schedule
from nets.tspm.av_attention import AudioVisualAttention, NoContext
from nets.tspm.fusion import DeepFusion, Fusion
from nets.tspm.grounding import NoGrounding, QuestionGrounding
from nets.tspm.joint import NoFit, NoSound, QuestionFit, SoundInPicture
from nets.tspm.options import TSPMOptions
from nets.tspm.order import InTime
from nets.tspm.pairs import PairedPerception
from nets.tspm.spatial import FramesOnly, PrintedQuery, SpatialPerception
from nets.tspm.temporal import (
    EvenSegments,
    Evidence,
    LearnedSelection,
    OracleSegments,
    Perturbed,
    PrintedSelection,
    Similarity,
    TemporalPerception,
    Weighting,
)
from utils.errors import UserError


class TSPM(Network):
    """The stages in order. Ablations are other modules of the same shapes, chosen by `wire`."""

    def __init__(
        self,
        audio: nn.Module,
        frame: nn.Module,
        question: nn.Module,
        audio_in_time: nn.Module,
        frame_in_time: nn.Module,
        sound: nn.Module,
        fit: nn.Module,
        context: nn.Module,
        temporal: nn.Module,
        spatial: nn.Module,
        grounding: nn.Module,
        fusion: nn.Module,
    ):
        super().__init__()
        self.audio = audio
        self.frame = frame
        self.question = question
        self.audio_in_time = audio_in_time
        self.frame_in_time = frame_in_time
        self.sound = sound
        self.fit = fit
        self.context = context
        self.temporal = temporal
        self.spatial = spatial
        self.grounding = grounding
        self.fusion = fusion

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
        v_spa, *tokens, where = self.spatial(a_sel, v_sel, token, video[asked], selected)  # Eq. 3-5: (B, K, D)
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
        return Perception(logits, segment_weights, selected, *tokens, what | where)

    def rate_groups(self) -> dict[str, list[nn.Parameter]]:
        """`deep`: what lies between the input projections and the classifier, but for the selection."""
        edges = [self.audio, self.frame, self.question, self.spatial.token, self.temporal, self.fusion.classifier]
        shallow = {parameter for edge in edges if edge is not None for parameter in edge.parameters()}
        return {"deep": [parameter for parameter in self.parameters() if parameter not in shallow]}


def wire(options: TSPMOptions, sizes: FeatureSizes, answers: int) -> TSPM:
    """The stages that `options` choose, for features of these sizes. Raises `UserError` for tokens out of reach."""
    options.check(sizes.segments, tokens=None)  # of tokens more is asked below
    similar = {"similarity", "oracle"} | ({"learned"} if options.start == "similarity" else set())
    if options.temporal in similar and sizes.width("frame") != sizes.text:
        raise UserError(
            f"model.temporal {options.temporal} compares text ({sizes.text}) with frames ({sizes.width('frame')}) "
            "of one CLIP; features of several take --model.temporal learned --model.start random"
        )
    dim, heads, dropout = options.hidden, options.heads, options.dropout
    project = StandardizedLinear if options.standardize else nn.Linear
    selects = sizes.segments if options.temporal == "all" else options.top_k
    streams = set(options.streams)
    in_time = InTime if options.order else _as_it_is
    fuse = DeepFusion if options.fusion == "deep" else Fusion
    deep = (options.fusion_width, dropout) if options.fusion == "deep" else ()
    return TSPM(
        question=nn.Linear(sizes.text, dim),
        audio=project(sizes.width("audio"), dim),
        frame=project(sizes.width("frame"), dim),
        audio_in_time=in_time(sizes.segments, dim),
        frame_in_time=in_time(sizes.segments, dim),
        sound=SoundInPicture(dim, sizes.width("frame"), options.what) if options.sounds else NoSound(),
        fit=QuestionFit(sizes.text, sizes.width("frame"), options.ways, dim, options.sounds)
        if "fit" in streams
        else NoFit(),
        context=NoContext() if streams.isdisjoint({"a_ctx", "v_ctx"}) else AudioVisualAttention(dim, dropout),
        temporal=_temporal(options, sizes, selects),
        spatial=_spatial(options, sizes, project) if "token" in options.kinds else FramesOnly(),
        grounding=NoGrounding() if streams.isdisjoint({"a_grd", "v_grd"}) else QuestionGrounding(dim, heads, dropout),
        fusion=fuse(tuple(options.streams), dim, answers, *deep),
    )


def _as_it_is(segments: int, dim: int) -> nn.Module:
    return nn.Identity()


def _temporal(options: TSPMOptions, sizes: FeatureSizes, top_k: int) -> nn.Module:
    if options.temporal == "top_k":
        return TemporalPerception(sizes.text, options.hidden, options.heads, top_k)
    if options.temporal == "printed":
        return PrintedSelection(sizes.text, options.hidden, top_k)
    if options.temporal == "learned":
        similar = options.start == "similarity"
        gate = Perturbed() if options.gate == "perturbed" else Weighting()
        return LearnedSelection(sizes.text, sizes.width("frame"), options.hidden, top_k, options.sounds, similar, gate)
    if options.temporal in ("similarity", "oracle"):
        return (OracleSegments if options.temporal == "oracle" else Similarity)(top_k)
    return EvenSegments(sizes.segments, top_k)


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
