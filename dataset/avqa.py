"""Rows of AVQA's annotation files (Yang et al., ACM MM 2022): a choice among four."""

from collections.abc import Mapping
from typing import Any

from dataset.answers import all_choices
from dataset.free_text import chosen
from dataset.spec import Dataset, texts
from utils.errors import UserError
from utils.scoring.paper import LATER_AVQA, TABLE7
from utils.text import normalised

CHOICES = 4


def read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of one row beside the question's text; `answer` may be an index into the choices or a string.

    Raises `UserError` naming the field that is wrong, also where the answer is not among the choices.
    """
    choices = row.get("multi_choice")
    if not isinstance(choices, list) or len(choices) != CHOICES or not all(isinstance(c, str) for c in choices):
        raise UserError(f"field 'multi_choice' must be a list of {CHOICES} strings, is {choices!r}")
    video, kind, relation = texts(row, "video_name", "question_type", "question_relation")
    choices = [choice.strip() for choice in choices]
    answer = row.get("answer")
    if type(answer) is int and 0 <= answer < CHOICES:  # true and false are no indices
        answer = choices[answer]
    if not isinstance(answer, str) or normalised(answer) not in map(normalised, choices):
        raise UserError(f"field 'answer' is {answer!r}, which is not among the choices {choices}")
    return {
        "question_id": row.get("id"),
        "video_id": video.removesuffix(".mp4"),
        "modality": relation,
        "type": kind,
        "answer": answer.strip(),
        "choices": choices,
    }


AVQA = Dataset(
    title="AVQA",
    read_row=read_row,
    vocabulary=all_choices,
    published={"TSPM paper, Table 7": TABLE7, "Later (+ tuned)": LATER_AVQA},
    read_answer=chosen,
)
