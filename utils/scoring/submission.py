"""Predictions made elsewhere, matched with the questions: our CSV, the public format, free text in JSON lines."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from utils.errors import UserError
from utils.scoring.metrics import judge
from utils.scoring.predictions import COLUMNS, by_question, plain_id, read_predictions, read_text
from utils.text import normalised

logger = logging.getLogger(__name__)

FORMATS = (
    f"the header {','.join(COLUMNS)}, nor four fields between tabs (question_id, True|False, target index, predicted "
    'index), nor a JSON object such as {"question_id": 1, "answer": "two"}'
)


class Submission(NamedTuple):
    """The answers of one file to the questions of a benchmark."""

    predictions: pd.DataFrame  # the predictions table, in the order of the questions; "" for no answer, which is wrong
    missing: list[str]  # the ids of questions that the file does not answer
    unmapped: dict[str, str]  # by question, texts that give none of the benchmark's answers
    surplus: list[str]  # the ids of answers to rows that the annotation has and that cannot be used


def read_submission(
    path: str | Path,
    questions: pd.DataFrame,
    answers: Callable[[], Sequence[str]],
    read_answer: Callable[[str, Mapping[Any, Any]], str | None],
    left_out: int = 0,
) -> Submission:
    """Read a predictions file, whose first line tells the format, as answers to `questions` (a questions table).

    Our CSV, and the public format: a line `question_id \\t True|False \\t target index \\t predicted index` per
    question, blanks around the tabs allowed, indices into `answers()`. JSON lines: an object a line with `question_id`
    and `answer`, free text in which `read_answer` finds the answer to a question, or None. The questions' own answers
    decide: where a file's targets differ, that is counted in a logged warning.

    Raises `UserError` as `read_predictions`, whatever the format, and naming the first few, for more questions that are
    not in `questions` than rows of the annotation were `left_out`.
    """
    asked = pd.Index(questions["question_id"].map(plain_id))
    given = _given(path, answers).set_index("question_id")
    surplus = given.index.difference(asked, sort=False).tolist()
    if len(surplus) > left_out:
        raise UserError(
            f"{path}: answers {len(surplus)} questions that the annotation of {len(questions)} does not have, e.g. "
            f"{', '.join(surplus[:5])}; is it for another split or release?"
        )
    there = asked.isin(given.index)
    given = given.reindex(asked)
    if "target" in given:
        _warn_of_targets(path, questions[there], given[there])
    unmapped = {}
    if "text" in given:
        given["prediction"] = [
            read_answer(text, question) if answered else ""
            for answered, text, question in zip(there, given["text"], questions.to_dict("records"), strict=True)
        ]
        unread = given.loc[given["prediction"].isna(), "text"]
        unmapped = {str(question): text for question, text in unread.items()}
    predictions = judge(questions, given["prediction"].fillna("").tolist())
    return Submission(predictions, asked[~there].tolist(), unmapped, surplus)


def _given(path: str | Path, answers: Callable[[], Sequence[str]]) -> pd.DataFrame:
    """What a file says of each question: `prediction` and `target`, or `text`."""
    first, *_ = lines = read_text(path).split("\n")
    if first.count("\t") == 3:
        return by_question(path, _read_public(path, lines, answers()), ["question_id", "target", "prediction"])
    if first.lstrip().startswith("{"):
        return by_question(path, _read_json_lines(path, lines), ["question_id", "text"])
    if "question_id" in first and "," in first:
        return read_predictions(path).rename(columns={"answer": "target"})
    raise UserError(f"{path}: its first line is neither {FORMATS}")


def _warn_of_targets(path: str | Path, questions: pd.DataFrame, given: pd.DataFrame) -> None:
    """Log how many of a file's own targets are not the annotation's answers."""
    target = given["target"].map(normalised).to_numpy()
    differ = target != questions["answer"].map(normalised).to_numpy()
    if differ.any():
        example = questions[differ].iloc[0]
        by_file = 100 * (target == given["prediction"].map(normalised).to_numpy()).mean()
        logger.warning(
            f"{path}: the target of {differ.sum()} of {len(given)} questions is not the annotation's answer, e.g. "
            f"question {example['question_id']}: {given['target'].to_numpy()[differ][0]!r}, annotated "
            f"{example['answer']!r}. The annotation decides; by the file's own targets {by_file:.2f} % are correct."
        )


def _filled(path: str | Path, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (file and number, line) of each line that is not blank."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{path}, line {number}", line


def _read_public(path: str | Path, lines: Sequence[str], answers: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (question id, target answer, predicted answer) of each line of the public format."""
    for where, line in _filled(path, lines):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 4:
            raise UserError(f"{where}: {len(fields)} fields between tabs where 4 are needed")
        question, flag, *indices = fields
        for name, index in zip(("target", "predicted"), indices, strict=True):
            if not re.fullmatch(r"[0-9]+", index) or int(index) >= len(answers):
                raise UserError(f"{where}: the {name} index must be 0 to {len(answers) - 1}, not {index!r}")
        target, predicted = map(int, indices)
        if flag != str(target == predicted):
            raise UserError(f"{where}: says {flag!r}, but the target is {target} and the prediction {predicted}")
        yield question, answers[target], answers[predicted]


def _read_json_lines(path: str | Path, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (question id, text) of each line; null is an empty text."""
    for where, line in _filled(path, lines):
        try:
            record = json.loads(line)
            held = {field: record[field] for field in ("question_id", "answer")}
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f'{where}: is no JSON object with "question_id" and "answer" ({error})') from error
        for field, value in held.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float | None):
                raise UserError(f"{where}: field {field!r} must be text or a number, is {value!r}")
        yield str(held["question_id"]), "" if held["answer"] is None else str(held["answer"])
