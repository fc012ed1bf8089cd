"""Options of the model, and the sizes that it takes from the features."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from utils.errors import UserError

Stream = Literal["a_grd", "a_ctx", "a_sel", "v_grd", "v_ctx", "v_sel", "v_spa"]


class FeatureSizes(NamedTuple):
    """What the feature folders hold, read from their manifests. Sizes of kinds that a model does not read are 0."""

    segments: int
    audio: int  # width
    frame: int  # width
    tokens: int  # per frame, as stored
    token: int  # width
    text: int  # width

    @classmethod
    def of(cls, segments: int, shapes: dict[str, tuple[int, ...]], text: int) -> "FeatureSizes":
        """Sizes from one video's shape of each kind that is read: audio (T, Da), frame (T, Df), token (T, M, Dt)."""
        shapes = {"audio": (0,), "frame": (0,), "token": (0, 0)} | shapes
        return cls(segments, shapes["audio"][-1], shapes["frame"][-1], *shapes["token"][-2:], text)


@dataclass
class ModelConfig:
    """The model. The defaults are the paper's TSPM; every row of Tables 3 to 5 differs in a field or two."""

    network: Literal["tspm", "audio_visual", "audio", "visual", "question"] = "tspm"
    """TSPM, or the question fused with the mean of these features alone ('audio_visual' is w/o all of Table 3)."""
    hidden: int = 512
    """Hidden width D of every stage."""
    standardize: bool = False
    """Standardise audio, frame and token features by mean and deviation in training videos; the paper does not."""
    heads: int = 4
    """Attention heads of the temporal selection, the audio's query and the question's query."""
    dropout: float = 0.1
    """Dropout rate, on attention weights and on every branch."""
    temporal: Literal["top_k", "even", "all"] = "top_k"
    """Segments: the K most attended by the prompt (TPM), K evenly spaced (w/o TPM), all of them (w/o TPC)."""
    top_k: int = 10
    """Number K of selected segments."""
    spatial: Literal["tokens", "frames"] = "tokens"
    """The audio attends to visual tokens (SPM), or the selected frames stand in for them (w/o SPM)."""
    tokens: int = 14
    """Tokens S per frame after merging. Where more are stored (data.tokens), the SPM blocks merge down to S."""
    spm_blocks: int = 1
    """Token self-attention blocks."""
    spm_frames: Literal["selected", "first_k"] = "selected"
    """Tokens of the selected segments (Eq. 3), or of segments 0..K-1 as in the published implementation."""
    streams: list[Stream] = field(default_factory=lambda: ["a_grd", "a_ctx", "a_sel", "v_grd", "v_ctx", "v_spa"])
    """Streams that the fusion concatenates, in order. The paper's Eq. 6 is [a_sel, v_sel, v_spa]."""

    def __post_init__(self) -> None:
        """Check what a field's type cannot."""
        for name in ("hidden", "heads", "top_k", "tokens", "spm_blocks"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} must be at least 1, is {getattr(self, name)}")
        if self.hidden % self.heads:
            raise UserError(f"model.hidden {self.hidden} must be a multiple of model.heads {self.heads}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout must be in [0, 1), is {self.dropout}")
        if len(set(self.streams)) != len(self.streams):
            raise UserError(f"model.streams names a stream twice: {self.streams}")
        if {name[0] for name in self.streams} != {"a", "v"}:
            raise UserError(
                f"model.streams must hold an audio and a visual stream, is {self.streams}; "
                "for one of them alone set model.network"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of features that this model reads."""
        if self.network != "tspm":
            kinds = {"audio_visual": ("audio", "frame"), "audio": ("audio",), "visual": ("frame",), "question": ()}
            return kinds[self.network]
        return ("audio", "frame", "token") if self.uses_tokens else ("audio", "frame")

    @property
    def uses_tokens(self) -> bool:
        """Whether visual tokens can reach the answer."""
        return self.network == "tspm" and self.spatial == "tokens" and not {"v_spa", "v_grd"}.isdisjoint(self.streams)
