"""TSPM, the Temporal-Spatial Perception Model (Li, Du, Hu; ACM MM 2024), its baselines, and the one builder.

B batch, V videos that the batch draws from, T segments, K selected segments, M tokens of a frame as stored, S merged
tokens, D hidden width, C answers, N sentences in the text bank; Df, Dt, Dq widths of frame, token and text features.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nets.config import FeatureSizes, ModelConfig
from nets.layers import StandardizedLinear
from nets.token_merging import merge_schedule
from nets.tspm.av_attention import AudioVisualAttention, NoContext
from nets.tspm.fusion import Fusion, QuestionOnly
from nets.tspm.grounding import NoGrounding, QuestionGrounding
from nets.tspm.spatial import FramesOnly, SpatialPerception
from nets.tspm.temporal import EvenSegments, TemporalPerception
from utils.errors import UserError

EDGES = ("audio.", "frame.", "question.", "spatial.token.", "projections.", "fusion.classifier.")


class Perception(NamedTuple):
    """The answer's logits, and what the model looked at; None where it has no such stage."""

    logits: Tensor  # (B, C)
    segment_weights: Tensor | None = None  # (B, T) attention of the prompt over the segments
    selected: Tensor | None = None  # (B, K) indices of the selected segments, ascending
    token_weights: Tensor | None = None  # (B, K, S) attention of each segment's audio over its tokens
    token_source: Tensor | None = None  # (B, K, M) the merged token in which each stored token ended


class TSPM(nn.Module):
    """The stages in order. Ablations are other modules of the same shapes, chosen by `build_model`."""

    def __init__(
        self,
        audio: nn.Module,
        frame: nn.Module,
        question: nn.Module,
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
        self.context = context
        self.temporal = temporal
        self.spatial = spatial
        self.grounding = grounding
        self.fusion = fusion

    def forward(
        self,
        audio: Tensor,  # (V, T, 128)
        frame: Tensor,  # (V, T, Df)
        token: Tensor | None,  # (V, T, M, Dt)
        text: Tensor,  # (N, Dq) features of all sentences
        video: Tensor,  # (B,) rows of audio, frame and token
        question: Tensor,  # (B,) row of text
        prompt: Tensor,  # (B,) row of text: the declarative prompt (TPC, Section 3.2)
    ) -> Perception:
        """Answer B questions about V videos."""
        a = self.audio(audio[video].to(text.dtype))  # (B, T, D)
        v = self.frame(frame[video].to(text.dtype))  # (B, T, D)
        q = self.question(text[question])  # (B, D)
        a_ctx, v_ctx = self.context(a, v)  # (B, T, D)

        segment_weights, selected = self.temporal(text[prompt], v)  # Eq. 1-2: (B, T), (B, K)
        a_sel = torch.take_along_dim(a, selected[..., None], dim=1)  # (B, K, D)
        v_sel = torch.take_along_dim(v, selected[..., None], dim=1)  # (B, K, D)
        v_spa, token_weights, source = self.spatial(a_sel, v_sel, token, video, selected)  # Eq. 3-5: (B, K, D)
        a_grd, v_grd = self.grounding(q, a_sel, v_spa)  # (B, D)

        streams = {
            "a_grd": a_grd,
            "a_ctx": a_ctx.mean(dim=1),
            "a_sel": a_sel.mean(dim=1),
            "v_grd": v_grd,
            "v_ctx": v_ctx.mean(dim=1),
            "v_sel": v_sel.mean(dim=1),
            "v_spa": v_spa.mean(dim=1),
        }
        logits = self.fusion(q, streams)  # Eq. 6-7: (B, C)
        return Perception(logits, segment_weights, selected, token_weights, source)


class MeanBaseline(nn.Module):
    """The question fused with the mean of the projected features: w/o all of Table 3, or one modality, or none."""

    def __init__(self, projections: dict[str, nn.Module], question: nn.Module, fusion: nn.Module):
        super().__init__()
        self.projections = nn.ModuleDict(projections)
        self.question = question
        self.fusion = fusion

    def forward(
        self,
        audio: Tensor | None,
        frame: Tensor | None,
        token: None,
        text: Tensor,
        video: Tensor,
        question: Tensor,
        prompt: Tensor,
    ) -> Perception:
        """Answer B questions; arguments as `TSPM`'s, the features it does not read may be None."""
        features = {"audio": audio, "frame": frame}
        streams = {
            name: project(features[name][video].to(text.dtype).mean(dim=1))  # the mean commutes with the projection
            for name, project in self.projections.items()
        }
        return Perception(self.fusion(self.question(text[question]), streams))


def build_model(config: ModelConfig, sizes: FeatureSizes, answers: int) -> nn.Module:
    """Wire the model that `config` describes for features of the given sizes and `answers` classes.

    Parameters that no gradient can reach are frozen. Raises `UserError` naming the field that does not fit the
    features.
    """
    dim, heads, dropout = config.hidden, config.heads, config.dropout
    question = nn.Linear(sizes.text, dim)
    project = StandardizedLinear if config.standardize else nn.Linear
    if config.network != "tspm":
        widths = {"audio": sizes.audio, "frame": sizes.frame}
        projections = {kind: project(widths[kind], dim) for kind in config.kinds}
        fusion = Fusion(config.kinds, dim, answers) if projections else QuestionOnly(dim, answers)
        return MeanBaseline(projections, question, fusion)

    selects = sizes.segments if config.temporal == "all" else config.top_k
    if selects > sizes.segments:
        raise UserError(f"model.top_k {config.top_k} is more than the {sizes.segments} segments of a video")
    streams = set(config.streams)
    model = TSPM(
        audio=project(sizes.audio, dim),
        frame=project(sizes.frame, dim),
        question=question,
        context=NoContext() if streams.isdisjoint({"a_ctx", "v_ctx"}) else AudioVisualAttention(dim, dropout),
        temporal=TemporalPerception(sizes.text, dim, heads, selects)
        if config.temporal == "top_k"
        else EvenSegments(sizes.segments, selects),
        spatial=_spatial(config, sizes, project) if config.uses_tokens else FramesOnly(),
        grounding=NoGrounding() if streams.isdisjoint({"a_grd", "v_grd"}) else QuestionGrounding(dim, heads, dropout),
        fusion=Fusion(tuple(config.streams), dim, answers),
    )
    _freeze_unreached(model, sizes)
    return model


def _spatial(config: ModelConfig, sizes: FeatureSizes, project: type[nn.Linear]) -> SpatialPerception:
    try:
        schedule = merge_schedule(sizes.tokens, config.tokens, config.spm_blocks)
    except ValueError as error:
        raise UserError(f"model.tokens, model.spm_blocks: {error}") from None
    return SpatialPerception(
        project(sizes.token, config.hidden),
        config.hidden,
        config.heads,
        config.dropout,
        schedule,
        first_k=config.spm_frames == "first_k",
    )


def _freeze_unreached(model: nn.Module, sizes: FeatureSizes) -> None:
    """Freeze what no gradient can reach, since an optimizer or DDP could do nothing with it.

    With hard selection that is all of TPM, and the frame projection where nothing but TPM reads it.
    """
    row = torch.zeros(1, dtype=torch.long)
    parameters = list(model.parameters())
    with torch.enable_grad():  # also where a model is built to be used without gradients
        logits = model.eval()(**zero_features(sizes), video=row, question=row, prompt=row).logits
        gradients = torch.autograd.grad(logits.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
    model.train()


def edges_and_depths(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trained parameters of the input projections and the classifier, and those of all that lies between."""
    edges, depths = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (edges if name.startswith(EDGES) else depths).append(parameter)
    return edges, depths


def zero_features(sizes: FeatureSizes) -> dict[str, Tensor]:
    """Features of one video and one sentence, all zero, in the shapes that a model reads."""
    return {
        "audio": torch.zeros(1, sizes.segments, sizes.audio),
        "frame": torch.zeros(1, sizes.segments, sizes.frame),
        "token": torch.zeros(1, sizes.segments, sizes.tokens, sizes.token),
        "text": torch.zeros(1, sizes.text),
    }
