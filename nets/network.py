"""What every network is: a module that answers questions and tells what it looked at; and the one builder.

B questions of a batch, V videos that they are about, S' stored videos, T segments, K selected segments, M tokens of a
frame as stored, S merged tokens, C answers, N sentences in the text bank, Nq of them questions; Dq width of a sentence,
Dw of a word.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nets.options import FeatureSizes, ModelOptions


class Loss(NamedTuple):
    """A term that a network adds to the loss of its answers: `weight * sum / count`."""

    weight: float
    sum: Tensor  # () over what this process saw
    count: Tensor  # type: ignore[assignment]  # () of what was summed; 0 where there was nothing: then the sum is 0


class Perception(NamedTuple):
    """The answer's logits, and what the network looked at; None where it has no such stage."""

    logits: Tensor  # (B, C)
    segment_weights: Tensor | None = None  # (B, T) attention over the segments
    selected: Tensor | None = None  # (B, K) indices of the selected segments, ascending
    token_segments: Tensor | None = None  # (B, K) the segments whose tokens were looked at
    token_weights: Tensor | None = None  # (B, K, S) attention of each segment's audio over its tokens
    token_source: Tensor | None = None  # (B, K, M) the merged token in which each stored token ended
    losses: Mapping[str, Loss] = {}  # by name


class Network(nn.Module):
    """Called as `network(text=, video=, asked=, question=, prompt=, **features)` -> `Perception`.

    text (N, Dq) holds the features of all sentences, `question` and `prompt` (B,) rows of it. Each kind of features
    that its options name, such as audio (S', T, Da), holds the videos that are at hand; `video` (V,) are the rows of
    those that are asked about, and `asked` (B,) says about which of these each question is. In training every question
    has a row of its own; in evaluation a video has one, so that what depends on it alone is computed once. Of the kind
    "words" it gets `words` (Nq, 77, Dw), float16: the words of a question are at its row, `words[question]`. The kind
    "truth" is `truth` (B, T): whether the prompt is true in a segment, by the files of `data.truth`.
    """

    shallow: tuple[str, ...] = ()
    """Parts that are not in the group `deep` of `rate_groups`, such as "fusion.classifier"; without any it is none."""

    def rate_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters whose learning rate `train.rates` may scale, by the group's name; all others learn at train.lr."""
        if not self.shallow:
            return {}
        parts = tuple(f"{part}." for part in self.shallow)
        return {"deep": [parameter for name, parameter in self.named_parameters() if not name.startswith(parts)]}


def build(options: ModelOptions, sizes: FeatureSizes, answers: int) -> Network:
    """The network that `options` describe. Parameters that no gradient can reach are frozen.

    Raises `UserError` naming the option that does not fit the features.
    """
    options.check(sizes.segments, sizes.shapes["token"][1] if "token" in options.kinds else None)
    model = options.build(sizes, answers)
    _freeze_unreached(model, sizes)
    return model


def _freeze_unreached(model: Network, sizes: FeatureSizes) -> None:
    """Freeze what no gradient can reach, since an optimizer or DDP could do nothing with it."""
    parameters = list(model.parameters())
    with torch.enable_grad():  # also where a model is built to be used without gradients
        seen = model.train()(**zero_inputs(sizes, 2))  # two videos: a loss may set one against the other
        total = seen.logits.sum() + sum(loss.sum for loss in seen.losses.values())
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


def zero_inputs(sizes: FeatureSizes, questions: int, videos: int | None = None) -> dict[str, Tensor]:
    """What a network reads, all features zero: a question about each of as many videos, or of `videos`, in turn."""
    videos = videos or questions
    inputs = {kind: torch.zeros(videos, *shape) for kind, shape in sizes.shapes.items()}
    rows = torch.arange(questions)
    sentence = torch.zeros(questions, dtype=torch.long)
    return inputs | {
        "text": torch.zeros(1, sizes.text),
        "video": rows % videos,
        "asked": rows,
        "question": sentence,
        "prompt": sentence,
    }
