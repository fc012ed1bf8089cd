"""What is told of an answer: the words, how likely they are, and the seconds and places that were looked at.

T segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.scoring import figure4
from utils.scoring.geometry import Look


@dataclass(frozen=True)
class Answer:
    """The answer to one question, and what the model looked at."""

    video: str  # the file's name
    question: str  # as it was asked
    template: str  # of the prompt sheet; "*" where no other fits
    prompt: str  # filled in: what the segments were selected by
    answer: str
    probability: float
    others: list[tuple[str, float]]  # the next four answers with their probabilities
    selected: list[float]  # seconds of the video, ascending; each is the beginning of one
    segment_weights: np.ndarray | None  # (T,) of the seconds from `start` on; None where the network weighs none
    looks: list[Look]  # of the seconds whose patches were looked at
    seconds: int  # T
    own: int  # how many of them the video has; those after them repeat its last
    start: float
    note: str  # what is odd about the video, "; " between; "" where nothing is
    mel: np.ndarray | None  # (64, frames) log-mel of these seconds; None where the network does not hear

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """The answer and the next four, each with its probability."""
        return [(self.answer, self.probability), *self.others]

    def clipped(self, second: float) -> float:
        """A second that was seen, or the last one of the video where it is one that repeats that."""
        return min(second, self.start + self.own - 1)

    def as_dict(self) -> dict[str, Any]:
        """Everything but pictures and sound as plain data."""
        plain = [each.name for each in fields(self) if each.name not in ("segment_weights", "looks", "mel")]
        weights = self.segment_weights
        return {name: getattr(self, name) for name in plain} | {
            "segment_weights": None if weights is None else weights.tolist(),
            "looks": [look.as_dict() for look in self.looks],
        }


def draw(answers: Sequence[Answer], path: str | Path) -> None:
    """Draw when and where the model looked to a PNG file. Raises `UserError` where the network selects no seconds."""
    if not all(answer.looks for answer in answers):
        raise UserError(f"{path}: the network selects no seconds; there is none to draw")
    figure4.draw([[_example(answer)] for answer in answers], answers[0].video, path)


def _example(answer: Answer) -> figure4.Example:
    """An answer as Figure 4 draws it."""
    assert answer.segment_weights is not None, "who selects seconds weighs them"
    return figure4.Example(
        heading=f"Template: {answer.template}{answer.note and f'; {answer.note}'}",
        question=answer.question,
        prompt=answer.prompt,
        prediction=f"{answer.answer} {100 * answer.probability:.0f} %",
        answer=None,
        correct=None,
        weights=answer.segment_weights,
        selected=answer.selected,
        true=None,
        looks=answer.looks,
        start=answer.start,
        mel=answer.mel,
    )
