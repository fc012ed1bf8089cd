"""What every network says of itself before it is built, and the sizes that it takes from the features."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from utils.errors import UserError

if TYPE_CHECKING:  # options are read where torch is not needed, and importing it takes a second
    from nets.network import Network


class FeatureSizes(NamedTuple):
    """What the feature folders hold, read from their manifests."""

    segments: int
    shapes: dict[str, tuple[int, ...]]
    """One video's shape of each kind that is read: audio (T, Da), frame (T, Df), token (T, M, Dt); of words one
    question's, (77, Dw)."""
    text: int
    """Width of a text row."""

    def width(self, kind: str) -> int:
        """The last dimension of a kind."""
        return self.shapes[kind][-1]


@dataclass
class ModelOptions(ABC):
    """The network's options. A network subclasses it with fields of its own, each with a default and a line of help."""

    network: str = "tspm"
    """The network, by its name in nets/__init__.py; the other options under `model` are its own."""

    def require_sizes(self, *names: str) -> None:
        """Raise `UserError` where one of these fields is below 1 (None is no size), or dropout is not in [0, 1)."""
        for name in names:
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"model.{name} must be at least 1, is {value}")
        if not 0 <= (rate := getattr(self, "dropout", 0.0)) < 1:  # not every network has it
            raise UserError(f"model.dropout must be in [0, 1), is {rate}")

    @property
    @abstractmethod
    def kinds(self) -> tuple[str, ...]:
        """What the network reads beside the text: kinds of `dataset.kinds.KINDS`; "words" of the questions; "truth"."""

    @abstractmethod
    def build(self, sizes: FeatureSizes, answers: int) -> "Network":
        """Wire the network for features of these sizes, which are checked, and so many answers."""

    def stored_tokens(self) -> int | None:
        """How many tokens of a frame should be stored where `data.tokens` leaves it open; None if it reads none."""
        return None

    def check(self, segments: int, tokens: int | None) -> None:  # noqa: B027  (most networks take any)
        """Raise `UserError` where T segments and M stored tokens cannot serve; before any feature is opened."""


@dataclass
class PeerOptions(ModelOptions):
    """What the peers' options have in common; they read a frame's tokens as they are stored."""

    hidden: int = 512
    """Hidden width D of every stage."""
    standardize: bool = False
    """Standardise audio, frame and token features by mean and deviation in training videos; the paper does not."""
    heads: int = 4
    """Attention heads."""
    dropout: float = 0.1
    """Dropout rate, on attention weights and on branches."""
    tokens: int = 14
    """Tokens S per frame, as stored; none are merged here."""

    def stored_tokens(self) -> int | None:
        """As many as are read."""
        return self.tokens if "token" in self.kinds else None

    def check(self, segments: int, tokens: int | None) -> None:
        """Raise `UserError` where other tokens are stored than are read."""
        if "token" in self.kinds and tokens not in (None, self.tokens):
            raise UserError(
                f"model.tokens {self.tokens} is not the {tokens} stored (data.tokens): none are merged here"
            )
