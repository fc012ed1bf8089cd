"""An annotation file becomes a table of questions; what is wrong with single rows is collected, never fatal."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from dataset import DATASETS
from dataset.text_prompt import ANY, PromptTable, filled_rows, read_rows
from utils.errors import UserError


class Annotations(NamedTuple):
    """The questions of one file.

    questions: a row each, with the columns question_id, video_id, modality, type, template, question, prompt, answer
        (strings) and, where they are offered, choices (list of strings)
    faults: a line for each row that was left out, naming file, row and field
    """

    questions: pd.DataFrame
    faults: list[str]

    @property
    def fallbacks(self) -> int:
        """How many questions took the prompt of the sheet's `*` row."""
        return int((self.questions["template"] == ANY).sum())


def read_annotations(path: str | Path, dataset: str, prompts: PromptTable) -> Annotations:
    """Read a file of `dataset`, a name of `DATASETS`, with the prompt of each question.

    Rows that are malformed are left out and listed. Raises `UserError` for a file that is no list of rows or that
    holds no usable one, and for templates that `prompts` does not serve.
    """
    questions: list[dict[str, Any]] = []
    faults: list[str] = []
    seen: dict[str, int] = {}  # the row of each question_id
    for number, row, filled in filled_rows(path, prompts, faults):
        try:
            fields = DATASETS[dataset].read_row(row)
            fields["question_id"] = name = _question_id(fields["question_id"], number)
            if seen.setdefault(name, number) != number:
                raise UserError(f"question_id {name} already stands in row {seen[name]}")
        except UserError as error:
            faults.append(f"{path}, row {number}: {error}")
            continue
        questions.append(fields | filled._asdict())
    if not questions:
        raise UserError(f"{path}: holds no usable question ({len(faults)} rows{''.join(f'; {f}' for f in faults[:1])})")
    return Annotations(pd.DataFrame(questions), faults)


def annotated_videos(paths: Iterable[str], dataset: str) -> list[str]:
    """The distinct videos of annotation files, sorted; of rows that cannot be used, none. Raises `UserError`."""
    videos = set()
    for path in paths:
        for row in read_rows(path):
            with contextlib.suppress(UserError):
                videos.add(DATASETS[dataset].read_row(row)["video_id"])
    return sorted(videos)


def describe(faults: list[str]) -> str:
    """The number of rows that were left out, and the first few reasons, a line each."""
    return "\n  ".join([f"{len(faults)} rows left out:", *faults[:3]])


def _question_id(held: Any, number: int) -> str:
    """An id as a string: 12, 12.0 and "12" are one; a row without one is called by its place in the file."""
    if held is None:
        return f"row-{number}"
    if isinstance(held, float) and held.is_integer():
        held = int(held)
    if not isinstance(held, int | str) or isinstance(held, bool) or not str(held).strip():
        raise UserError(f"the question's id must be a number or a string, is {held!r}")
    return str(held).strip()
