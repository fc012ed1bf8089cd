"""Predictions files: our CSV, and the public format of MUSIC-AVQA code bases."""

import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from utils.errors import UserError
from utils.files import write_bytes
from utils.scoring.metrics import judge
from utils.text import normalised

COLUMNS = ("question_id", "video_id", "modality", "type", "answer", "prediction", "correct")
MODELS_OWN = ("probability", "selected")
"""What a model tells beside: the probability of its answer (empty where no choice is known), selected segments."""

logger = logging.getLogger(__name__)


def write_predictions(path: str | Path, predictions: pd.DataFrame) -> None:
    """Write the columns `COLUMNS` of a predictions table, and of `MODELS_OWN` those it has, as CSV, atomically."""
    columns = [*COLUMNS, *(name for name in MODELS_OWN if name in predictions)]
    write_bytes(path, predictions[columns].to_csv(index=False, lineterminator="\n").encode())


def read_predictions(
    path: str | Path, questions: pd.DataFrame | None = None, answers: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read a predictions file, told by its first line, into a predictions table.

    Our CSV (a header with `COLUMNS`, perhaps `MODELS_OWN`; further columns are ignored) needs nothing else. The public
    format has a line `question_id \\t True|False \\t target index \\t predicted index` per question, blanks around the
    tabs allowed. It needs the questions table, whose order and answers are taken, and `answers`, the answer of each
    index (`dataset.music_avqa.ANSWERS`). Targets that are not the annotation's answer are counted in a logged warning,
    with what the file gives itself. Question ids may be written as floats: "12.0" is "12".

    Raises `UserError`, naming file and line, for a line that is malformed or contradicts itself and for a question
    that comes twice; naming the first question, for a file that answers other questions than the annotation's.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a predictions file ({error})") from error
    lines = text.split("\n")
    first = lines[0].replace('"', "")
    if first.count("\t") == 3:
        if questions is None or answers is None:
            raise UserError(f"{path}: holds answer indices only; the annotation file that it answers is needed too")
        return _match(path, list(_parse_public(path, lines, answers)), questions)
    if not {"question_id", "prediction"} <= set(first.split(",")):
        raise UserError(
            f"{path}: its first line is neither the header {','.join(COLUMNS)} nor four fields between tabs "
            "(question_id, True|False, target index, predicted index)"
        )
    reader = csv.DictReader(io.StringIO(text), strict=True)
    names = reader.fieldnames or []
    if missing := [name for name in COLUMNS if name not in names]:
        raise UserError(f"{path}: the header lacks {', '.join(missing)}")
    columns = [*COLUMNS, *(name for name in MODELS_OWN if name in names)]
    table = pd.DataFrame(_parse_csv(path, reader, columns), columns=columns)
    return table.assign(correct=table["correct"].str.upper() == "TRUE")


def _parse_csv(path: str | Path, reader: csv.DictReader, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the fields of each record of our CSV, in the order of `columns`."""
    width = len(reader.fieldnames or [])
    seen: dict[str, int] = {}
    try:
        for record in reader:
            where = f"{path}, line {reader.line_num}"
            if None in record or None in record.values():
                raise UserError(f"{where}: has not as many fields as the header, {width}")
            for name in COLUMNS[:5]:  # a prediction may be empty: no answer was offered that the model knows
                if not record[name].strip():
                    raise UserError(f"{where}: {name} is empty")
            right = normalised(record["answer"]) == normalised(record["prediction"])
            if record["correct"].upper() != str(right).upper():  # Excel writes TRUE
                raise UserError(
                    f"{where}: correct is {record['correct']!r}, but for answer {record['answer']!r} and prediction "
                    f"{record['prediction']!r} it must be {right}"
                )
            record["question_id"] = _new_id(where, record["question_id"], seen, reader.line_num)
            yield tuple(_probability(where, record[n]) if n == "probability" else record[n] for n in columns)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.reader.line_num}: {error}") from error


def _probability(where: str, text: str) -> float:
    """A probability, NaN where the field is empty."""
    try:
        value = float(text or "nan")
    except ValueError:
        value = -1.0
    if value < 0 or value > 1:
        raise UserError(f"{where}: probability must be between 0 and 1, is {text!r}")
    return value


def _parse_public(path: str | Path, lines: Iterable[str], answers: Sequence[str]) -> Iterator[tuple[str, str, str]]:
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
        yield _new_id(where, question, seen, number), answers[target], answers[predicted]


def _plain_id(text: str) -> str:
    """A question id without blanks, and without the ".0" that a float column leaves."""
    return re.sub(r"^([0-9]+)\.0+$", r"\1", text.strip())


def _new_id(where: str, text: str, seen: dict[str, int], number: int) -> str:
    """The question id of line `number`, noted in `seen`. Raises `UserError` if an earlier line has it."""
    question = _plain_id(text)
    if question in seen:
        raise UserError(f"{where}: question {question} was already answered in line {seen[question]}")
    seen[question] = number
    return question


def _match(path: str | Path, parsed: list[tuple[str, str, str]], questions: pd.DataFrame) -> pd.DataFrame:
    """Join (question id, target, predicted) with the questions, whose answers decide what is correct."""
    given = pd.DataFrame(parsed, columns=["question_id", "target", "prediction"]).set_index("question_id")
    asked = pd.Index(questions["question_id"].map(_plain_id))
    strange, missing = given.index.difference(asked), asked.difference(given.index)
    if len(strange) or len(missing):
        raise UserError(
            f"{path}: answers {len(strange)} questions that the annotation does not have and lacks {len(missing)} of "
            f"its {len(asked)}, e.g. question {[*strange, *missing][0]}; is it for another split or release?"
        )
    given = given.loc[asked]
    predictions = judge(questions, given["prediction"].tolist())
    target = given["target"].map(normalised).to_numpy()
    differ = target != questions["answer"].map(normalised).to_numpy()
    if differ.any():
        example = questions[differ].iloc[0]
        by_file = 100 * (given["target"] == given["prediction"]).mean()
        logger.warning(
            f"{path}: the target of {differ.sum()} of {len(asked)} questions is not the annotation's answer, e.g. "
            f"question {example['question_id']}: {given['target'].to_numpy()[differ][0]!r}, annotated "
            f"{example['answer']!r}. The annotation decides; by the file's own targets {by_file:.2f} % are correct."
        )
    return predictions
