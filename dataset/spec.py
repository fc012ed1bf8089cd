"""What a data set says of itself: how its rows are read, which answers there are, and how results are reported."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from dataset.free_text import plain
from utils.errors import UserError
from utils.scoring.metrics import Columns


@dataclass(frozen=True)
class Dataset:
    """A data set.

    title: as it is printed
    read_row: the fields question_id, video_id, modality, type and answer of an annotation row, and `choices` where the
        answer is one among a few; raises `UserError` naming the field that is wrong. The question itself is read by
        `text_prompt.question_text`.
    vocabulary: the answers that are classes, from the questions of each split that is opened (dataset/answers.py)
    columns: those of a results row
    published: rows to print beside ours: heading -> name -> row
    published_questions: how many questions the published rows are for, where that is known
    recording: the recording that a video is made of; videos of one must not be in two parts of a split
    read_answer: the answer that free text gives to a question (a row of the questions table), or None
    """

    title: str
    read_row: Callable[[Mapping[str, Any]], dict[str, Any]]
    vocabulary: Callable[[Mapping[str, pd.DataFrame]], Sequence[str]]
    columns: Columns = field(default_factory=Columns)
    published: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    published_questions: int | None = None
    recording: Callable[[str], str] = str
    read_answer: Callable[[str, Mapping[str, Any]], str | None] = plain


def texts(row: Mapping[str, Any], *fields: str) -> list[str]:
    """What fields of an annotation row say, without white space around it. Raises `UserError` for one that is empty."""
    for name in fields:
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise UserError(f"field {name!r} must be a string that is not empty, is {row.get(name)!r}")
    return [row[name].strip() for name in fields]
