"""Our predictions files: CSV with a header."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from utils.errors import UserError
from utils.files import write_bytes
from utils.text import normalised

COLUMNS = ("question_id", "video_id", "modality", "type", "answer", "prediction", "correct")
MODELS_OWN = ("probability", "selected")
"""What a model tells beside, for who reads the file: the probability of its answer (empty where no choice is known),
selected segments."""


def write_predictions(path: str | Path, predictions: pd.DataFrame) -> None:
    """Write the columns `COLUMNS` of a predictions table, and of `MODELS_OWN` those it has, as CSV, atomically."""
    columns = [*COLUMNS, *(name for name in MODELS_OWN if name in predictions)]
    write_bytes(path, predictions[columns].to_csv(index=False, lineterminator="\n").encode())


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read our CSV (a header with `COLUMNS`; further columns are ignored): a predictions table.

    Raises `UserError`, naming file and line, for a line that is malformed or contradicts itself, and as `by_question`.
    """
    reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    try:
        names = reader.fieldnames or []
        if missing := [name for name in COLUMNS if name not in names]:
            raise UserError(
                f"{path}: its first line is not the header {','.join(COLUMNS)}, it lacks {', '.join(missing)}"
            )
        table = by_question(path, _rows(path, reader), COLUMNS)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.reader.line_num}: {error}") from error
    return table.assign(correct=table["correct"].str.upper() == "TRUE")


def read_text(path: str | Path) -> str:
    """The text of a predictions file of any format. Raises `UserError` for one that cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a predictions file ({error})") from error


def by_question(path: str | Path, rows: Iterable[tuple[str, ...]], columns: Sequence[str]) -> pd.DataFrame:
    """The rows of a file as a table. Question ids may be written as floats: "12.0" is "12".

    Raises `UserError` for a question that is answered twice.
    """
    table = pd.DataFrame(rows, columns=list(columns))
    table["question_id"] = table["question_id"].map(plain_id)
    again = table.loc[table["question_id"].duplicated(), "question_id"]
    if len(again):
        raise UserError(f"{path}: question {again.iloc[0]} is answered twice")
    return table


def plain_id(text: str) -> str:
    """A question id without blanks, and without the ".0" that a float column leaves."""
    return re.sub(r"^([0-9]+)\.0+$", r"\1", text.strip())


def _rows(path: str | Path, reader: csv.DictReader) -> Iterator[tuple[str, ...]]:
    """Yield the fields of each record, in the order of `COLUMNS`."""
    for record in reader:
        where = f"{path}, line {reader.line_num}"
        if None in record or None in record.values():
            raise UserError(f"{where}: has not as many fields as the header, {len(reader.fieldnames or [])}")
        for name in COLUMNS[:5]:  # a prediction may be empty: no answer was offered that the model knows
            if not record[name].strip():
                raise UserError(f"{where}: {name} is empty")
        right = normalised(record["answer"]) == normalised(record["prediction"])
        if record["correct"].upper() != str(right).upper():  # Excel writes TRUE
            raise UserError(
                f"{where}: correct is {record['correct']!r}, but for answer {record['answer']!r} and prediction "
                f"{record['prediction']!r} it must be {right}"
            )
        yield tuple(record[name] for name in COLUMNS)
