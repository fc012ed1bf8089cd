"""Our predictions files: CSV with a header."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from utils.errors import UserError
from utils.files import write_bytes
from utils.text import normalised

COLUMNS = ("question_id", "video_id", "modality", "type", "answer", "prediction", "correct")
MODELS_OWN = ("probability", "selected")
"""What a model tells beside: the probability of its answer (empty where no choice is known), selected segments."""


def write_predictions(path: str | Path, predictions: pd.DataFrame) -> None:
    """Write the columns `COLUMNS` of a predictions table, and of `MODELS_OWN` those it has, as CSV, atomically."""
    columns = [*COLUMNS, *(name for name in MODELS_OWN if name in predictions)]
    write_bytes(path, predictions[columns].to_csv(index=False, lineterminator="\n").encode())


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read our CSV (a header with `COLUMNS`, perhaps `MODELS_OWN`; further columns are ignored): a predictions table.

    Question ids may be written as floats: "12.0" is "12". Raises `UserError`, naming file and line, for a line that is
    malformed or contradicts itself and for a question that comes twice.
    """
    text = read_text(path)
    if not {"question_id", "prediction"} <= set(text.split("\n", 1)[0].replace('"', "").strip().split(",")):
        raise UserError(f"{path}: its first line is not the header {','.join(COLUMNS)}")
    reader = csv.DictReader(io.StringIO(text), strict=True)
    names = reader.fieldnames or []
    if missing := [name for name in COLUMNS if name not in names]:
        raise UserError(f"{path}: the header lacks {', '.join(missing)}")
    columns = [*COLUMNS, *(name for name in MODELS_OWN if name in names)]
    table = pd.DataFrame(_parse_csv(path, reader, columns), columns=columns)
    return table.assign(correct=table["correct"].str.upper() == "TRUE")


def read_text(path: str | Path) -> str:
    """The text of a predictions file of any format. Raises `UserError` for one that cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a predictions file ({error})") from error


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
            record["question_id"] = new_id(where, record["question_id"], seen, reader.line_num)
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


def plain_id(text: str) -> str:
    """A question id without blanks, and without the ".0" that a float column leaves."""
    return re.sub(r"^([0-9]+)\.0+$", r"\1", text.strip())


def new_id(where: str, text: str, seen: dict[str, int], number: int) -> str:
    """The question id of line `number`, noted in `seen`. Raises `UserError` if an earlier line has it."""
    question = plain_id(text)
    if question in seen:
        raise UserError(f"{where}: question {question} was already answered in line {seen[question]}")
    seen[question] = number
    return question
