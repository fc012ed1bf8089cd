"""Options of TSPM: the paper's by default; every row of Tables 3 to 5 differs in a field or two."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from nets.options import FeatureSizes, ModelOptions
from utils.errors import UserError

if TYPE_CHECKING:
    from nets.tspm.model import TSPM

Stream = Literal["a_grd", "a_ctx", "a_sel", "v_grd", "v_ctx", "v_sel", "v_spa"]


@dataclass
class TSPMOptions(ModelOptions):
    """TSPM."""

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
                "for one of them alone take --model.network means"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """Audio, frames, and tokens where they can reach the answer."""
        reads_tokens = self.spatial == "tokens" and not {"v_spa", "v_grd"}.isdisjoint(self.streams)
        return ("audio", "frame", "token") if reads_tokens else ("audio", "frame")

    def stored_tokens(self) -> int:
        """As many as the model merges to."""
        return self.tokens

    def check(self, segments: int, tokens: int | None) -> None:
        """Raise `UserError` where a video has fewer segments or a frame fewer tokens than are wanted."""
        if tokens is not None and self.tokens > tokens:
            raise UserError(f"model.tokens {self.tokens} is more than the {tokens} stored (data.tokens)")
        if self.temporal != "all" and self.top_k > segments:
            raise UserError(f"model.top_k {self.top_k} is more than the {segments} segments of a video")

    def build(self, sizes: FeatureSizes, answers: int) -> "TSPM":
        """Wire the stages."""
        from nets.tspm.model import wire  # here, since --help does without torch

        return wire(self, sizes, answers)
