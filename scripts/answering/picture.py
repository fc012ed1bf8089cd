"""One picture of answers: when the model looked, what was to be heard, and where on the frames it looked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scripts.answering.answers import Answer, Look
from utils.errors import UserError
from utils.scoring.figure4 import Example, Frame
from utils.scoring.figure4 import draw as draw_examples


def draw(answers: Sequence[Answer], path: str | Path) -> None:
    """Draw answers, a block each, to a PNG file. Raises `UserError` where the network selects no seconds."""
    if not all(answer.looks for answer in answers):
        raise UserError(f"{path}: the network selects no seconds; there is none to draw")
    draw_examples([_example(answer) for answer in answers], answers[0].video, path)


def _example(answer: Answer) -> Example:
    """An answer as Figure 4 draws it."""
    assert answer.segment_weights is not None, "who selects seconds weighs them"
    segments = [round(second - answer.start) for second in answer.selected]
    return Example(
        name=answer.note,
        kind=f"Template: {answer.template}",
        question=answer.question,
        prompt=answer.prompt,
        prediction=f"{answer.answer} {100 * answer.probability:.0f} %",
        answer=None,
        correct=None,
        weights=answer.segment_weights,
        selected=np.array(segments),
        true=None,
        frames=[_frame(look, answer.start) for look in answer.looks],
        fit=answer.looks[0].fit,
        start=answer.start,
        mel=answer.mel,
    )


def _frame(look: Look, start: float) -> Frame:
    height, width = look.picture.shape[:2]
    return Frame(round(look.second - start), look.picture, (width, height), [], look.patches)
