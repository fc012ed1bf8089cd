"""Options of TSPM: the paper's by default; every row of Tables 3 to 5 differs in a field or two."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from nets.options import FeatureSizes, ModelOptions
from utils.errors import UserError

if TYPE_CHECKING:
    from nets.tspm.model import TSPM

Stream = Literal["fit", "a_grd", "a_ctx", "a_sel", "v_grd", "v_ctx", "v_sel", "v_spa"]


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
    order: bool = False
    """Tell segments their place in time and what was just before and after; the paper does not."""
    sounds: bool = False
    """Bring sound to CLIP's space, where words can be compared with it; the paper does not."""
    what: float = 0.3
    """Weight of the loss that teaches it: a second's sound belongs to its own picture. Only with `sounds`."""
    temporal: Literal["top_k", "printed", "learned", "similarity", "oracle", "even", "all"] = "top_k"
    """Segments: the K most attended by the prompt (TPM, not trained; or by Eq. 1 as printed), by scores that the answer
    trains, by CLIP's own similarity, those of data.truth before others (an upper bound, no result), K evenly spaced
    (w/o TPM), all of them (w/o TPC)."""
    start: Literal["similarity", "random"] = "similarity"
    """What the learned scores are at first."""
    gate: Literal["weights", "perturbed"] = "weights"
    """How the answer reaches the learned scores: by the softmax of the selected, or by a perturbed selection."""
    top_k: int = 10
    """Number K of selected segments."""
    spatial: Literal["tokens", "printed", "pairs", "frames"] = "tokens"
    """The audio attends to visual tokens (SPM; or by Eq. 5 as printed), by what it learns from pairs, or frames stand
    in for them (w/o SPM)."""
    where: float = 0.3
    """Weight of the loss of `spatial: pairs`: a second's sound resembles a token of its own picture."""
    tokens: int = 14
    """Tokens S per frame after merging. Where more are stored (data.tokens), the SPM blocks merge down to S."""
    spm_blocks: int = 1
    """Token self-attention blocks."""
    spm_frames: Literal["selected", "first_k"] = "selected"
    """Tokens of the selected segments (Eq. 3), or of segments 0..K-1 as in the published implementation."""
    streams: list[Stream] = field(default_factory=lambda: ["a_grd", "a_ctx", "a_sel", "v_grd", "v_ctx", "v_spa"])
    """Streams that the fusion concatenates, in order. The paper's Eq. 6 is [a_sel, v_sel, v_spa]."""
    ways: int = 8
    """In how many ways the stream `fit` compares the question with what is seen and heard."""
    fusion: Literal["product", "deep"] = "product"
    """Fused streams times the question (Eq. 6-7), or both and their product through a network of two layers."""
    fusion_width: int = 256
    """Width of the product in `fusion: deep`."""

    def __post_init__(self) -> None:
        """Check what a field's type cannot."""
        self.require_sizes("hidden", "heads", "top_k", "tokens", "spm_blocks", "ways", "fusion_width")
        if self.hidden % self.heads:
            raise UserError(f"model.hidden {self.hidden} must be a multiple of model.heads {self.heads}")
        if len(set(self.streams)) != len(self.streams):
            raise UserError(f"model.streams names a stream twice: {self.streams}")
        if self.temporal == "learned" and self.top_k == 1:
            raise UserError(
                "model.top_k must be at least 2 for model.temporal learned, is 1: what is selected is weighted against "
                "the rest of it, so one segment alone would teach nothing"
            )
        if not {name[0] for name in self.streams} >= {"a", "v"}:
            raise UserError(
                f"model.streams must hold an audio and a visual stream, is {self.streams}; "
                "for one of them alone take --model.network means"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """Audio, frames, tokens where they can reach the answer, and the truth where it is told."""
        reads_tokens = self.spatial != "frames" and not {"v_spa", "v_grd"}.isdisjoint(self.streams)
        return "audio", "frame", *["token"] * reads_tokens, *["truth"] * (self.temporal == "oracle")

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
        from nets.tspm.model import TSPM  # here, since --help does without torch

        return TSPM(self, sizes, answers)
