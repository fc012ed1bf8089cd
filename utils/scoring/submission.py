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
from utils.scoring.predictions import COLUMNS, MODELS_OWN, new_id, plain_id, read_predictions, read_text
from utils.text import normalised

logger = logging.getLogger(__name__)

FORMATS = (
    f"the header {','.join(COLUMNS)}, nor four fields between tabs (question_id, True|False, target index, predicted "
    'index), nor a JSON object such as {"question_id": 1, "answer": "two"}'
)


class Submission(NamedTuple):
    """The answers of one file to the questions of a benchmark.

    predictions: the predictions table, in the order of the questions; "" where there is no answer, which is wrong
    missing: the ids of questions that the file does not answer
    unmapped: question id -> text, of answers that give none of the benchmark's answers
    surplus: the ids of answers to rows that the annotation has and that cannot be used
    """

    predictions: pd.DataFrame
    missing: list[str]
    unmapped: dict[str, str]
    surplus: list[str]


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
    decide: where a file's targets differ, that is counted in a logged warning. Ids may be written as floats.

    Raises `UserError`, naming file and line, for a line that is malformed and for a question that comes twice; naming
    the first few, for more questions that are not in `questions` than rows of the annotation were `left_out`.
    """
    lines = read_text(path).split("\n")
    if lines[0].count("\t") == 3:
        given = pd.DataFrame(_parse_public(path, lines, answers()), columns=["question_id", "target", "prediction"])
    elif lines[0].lstrip().startswith("{"):
        given = pd.DataFrame(_parse_json_lines(path, lines), columns=["question_id", "text"])
    elif "question_id" in lines[0] and "," in lines[0]:
        table = read_predictions(path).rename(columns={"answer": "target"})
        given = table[["question_id", "target", "prediction", *(name for name in MODELS_OWN if name in table)]]
    else:
        raise UserError(f"{path}: its first line is neither {FORMATS}")
    given = given.set_index("question_id")
    surplus = given.index.difference(questions["question_id"].map(plain_id).tolist(), sort=False).tolist()
    if len(surplus) > left_out:
        raise UserError(
            f"{path}: answers {len(surplus)} questions that the annotation of {len(questions)} does not have, e.g. "
            f"{', '.join(surplus[:5])}; is it for another split or release?"
        )
    return Submission(*_match(path, given, questions, read_answer), surplus)


def _match(
    path: str | Path,
    given: pd.DataFrame,
    questions: pd.DataFrame,
    read_answer: Callable[[str, Mapping[Any, Any]], str | None],
) -> tuple[pd.DataFrame, list[str], dict[str, str]]:
    """Join what a file gives with the questions, whose answers decide: the predictions, what is missing, unmapped."""
    asked = pd.Index(questions["question_id"].map(plain_id))
    there = asked.isin(given.index)
    missing = asked[~there].tolist()
    given = given.reindex(asked)
    unmapped = {}
    if "text" in given:
        read = []
        for text, question in zip(given["text"], questions.to_dict("records"), strict=True):
            answer = read_answer(text, question) if isinstance(text, str) else None
            if answer is None and isinstance(text, str):
                unmapped[plain_id(question["question_id"])] = text
            read.append(answer or "")
        given["prediction"] = read
    predictions = judge(questions, given["prediction"].fillna("").tolist())
    predictions = predictions.assign(**{name: given[name].tolist() for name in MODELS_OWN if name in given})
    if "target" in given:
        _warn_of_targets(path, questions[there], given[there])
    return predictions, missing, unmapped


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


def _parse_public(path: str | Path, lines: Sequence[str], answers: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (question id, target answer, predicted answer) of each line of the public format."""
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 4:
            raise UserError(f"{where}: {len(fields)} fields between tabs where 4 are needed")
        question, flag, *indices = fields
        if flag not in ("True", "False"):
            raise UserError(f"{where}: the second field must be True or False, not {flag!r}")
        for name, index in zip(("target", "predicted"), indices, strict=True):
            if not re.fullmatch(r"[0-9]+", index) or int(index) >= len(answers):
                raise UserError(f"{where}: the {name} index must be 0 to {len(answers) - 1}, not {index!r}")
        target, predicted = map(int, indices)
        if flag != str(target == predicted):
            raise UserError(f"{where}: says {flag}, but the target is {target} and the prediction {predicted}")
        yield new_id(where, question, seen, number), answers[target], answers[predicted]


def _parse_json_lines(path: str | Path, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (question id, text) of each line; null is an empty text."""
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}: is no JSON object ({error})") from error
        if not isinstance(record, dict) or not {"question_id", "answer"} <= record.keys():
            raise UserError(f'{where}: must be an object with the fields "question_id" and "answer"')
        question, answer = record["question_id"], record["answer"]
        for field, held in (("question_id", question), ("answer", answer)):
            if isinstance(held, bool) or not isinstance(held, str | int | float | None):
                raise UserError(f"{where}: field {field!r} must be text or a number, is {held!r}")
        if question is None or not str(question).strip():
            raise UserError(f"{where}: field 'question_id' is empty")
        yield new_id(where, str(question), seen, number), "" if answer is None else str(answer)
