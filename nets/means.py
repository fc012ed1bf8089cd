"""Baselines: the question fused with the mean of projected features.

B questions of a batch, V videos that they are about, S' stored videos, T segments, D hidden width, C answers,
N sentences in the text bank.
"""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from nets.layers import StandardizedLinear
from nets.network import Network, Perception
from nets.options import FeatureSizes, ModelOptions
from nets.tspm.fusion import Fusion
from utils.errors import UserError


@dataclass
class MeansOptions(ModelOptions):
    """The question fused with means over time: w/o all of Table 3, or one modality, or the question alone."""

    network: str = "means"
    means_of: list[Literal["audio", "frame"]] = field(default_factory=lambda: ["audio", "frame"])
    """Features whose mean is fused with the question; none, [], leaves the question alone."""
    hidden: int = 512
    """Hidden width D."""
    standardize: bool = False
    """Standardise features by mean and deviation in training videos; the paper does not."""

    def __post_init__(self) -> None:
        """Check what a field's type cannot."""
        self.require_sizes("hidden")
        if len(set(self.means_of)) != len(self.means_of):
            raise UserError(f"model.means_of names a kind twice: {self.means_of}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of features whose means are fused."""
        return tuple(self.means_of)

    def build(self, sizes: FeatureSizes, answers: int) -> "Means":
        """Wire the baseline."""
        return Means(self, sizes, answers)


class QuestionOnly(nn.Module):
    """The question alone: `e = tanh(q)`, classifier."""

    def __init__(self, dim: int, answers: int):
        super().__init__()
        self.classifier = nn.Linear(dim, answers)

    def forward(self, question: Tensor, streams: dict[str, Tensor]) -> Tensor:
        """Question (B, D) -> logits (B, C)."""
        return self.classifier(question.tanh())


class Means(Network):
    """w/o all of Table 3, or one modality, or none."""

    shallow = ("projections", "question", "fusion.classifier")

    def __init__(self, options: MeansOptions, sizes: FeatureSizes, answers: int):
        super().__init__()
        dim, kinds = options.hidden, options.kinds
        project = StandardizedLinear if options.standardize else nn.Linear
        question = nn.Linear(sizes.text, dim)  # its initial values are drawn before the others'
        self.projections = nn.ModuleDict({kind: project(sizes.width(kind), dim) for kind in kinds})
        self.question = question
        self.fusion = Fusion(kinds, dim, answers) if kinds else QuestionOnly(dim, answers)

    def forward(
        self,
        text: Tensor,  # (N, Dq)
        video: Tensor,  # (V,)
        asked: Tensor,  # (B,)
        question: Tensor,  # (B,)
        prompt: Tensor,  # (B,)
        **features: Tensor,  # (S', T, ...) by kind
    ) -> Perception:
        """Answer B questions about V videos."""
        streams = {
            kind: project(features[kind][video].to(text.dtype).mean(dim=1)).index_select(0, asked)
            for kind, project in self.projections.items()
        }
        return Perception(self.fusion(self.question(text[question]), streams))  # (B, C)
