"""Text prompt construction (TPC): the declarative sentence that stands for a question, looked up in a spreadsheet.

A template is a question with slots, "Where is the <FL> sounding instrument?". The slots of MUSIC-AVQA are Object, LR
(left, right, middle), LRer (leftest, rightest), LL (loudest, lowest), FL (first, last), TH (first to fifth) and BA
(before, after). AVQA's questions have none, so that there a template is the text of a question.
"""

import hashlib
import json
import re
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import openpyxl

from utils.errors import UserError
from utils.files import read_json
from utils.text import normalised

TEMPLATE, PROMPT = "Question Template", "Declarative Sentence Text Prompt"
ANY = "*"
"""The template of the row that serves every question that no other row does."""

DAMAGED = (OSError, EOFError, KeyError, ValueError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What a workbook with damaged bytes raises; `SyntaxError`: of the XML."""
LARGEST = 64 << 20  # bytes that a workbook may unpack to
CELLS = 10_000_000  # that a sheet may span

SLOT = re.compile(r"<([A-Za-z]+)([0-9]*)>")
_FINAL = " ?.!,;:"


class FilledPrompt(NamedTuple):
    """A question and its prompt as the text encoder reads them, slots filled."""

    question: str
    prompt: str
    template: str  # the row of the sheet that served, as written there; "*" where no other did


class PromptTable:
    """The prompts of one dataset: a sheet of `TextPrompt.xlsx`, or of a file with the same columns.

    Only the columns "Question Template" and "Declarative Sentence Text Prompt" are read; further columns, blank rows
    and merged cells are the author's. Templates match whatever their case, white space and final punctuation. In a
    prompt the n-th bare `<X>` takes the n-th X of the question; `<X2>` takes the second outright. A sheet with a row
    `*` serves every question; a sheet without one refuses a question it does not hold.

    templates: maps each template, as written in the sheet, to its prompt, slots open.
    spelling: of questions: "words", or "published", as published networks read them: values of slots as the annotations
    have them, such as `acoustic_guitar`, and no final mark.
    """

    def __init__(self, templates: Mapping[str, str], source: str, spelling: str = "words"):
        """`source` names the file and sheet in errors. The templates are taken as valid; `read` checks."""
        self.templates = dict(templates)
        self.source = source
        self.spelling = spelling
        self._by_key = {key_of(template): template for template in templates}

    @classmethod
    def read(cls, path: str | Path, sheet: str, spelling: str = "words") -> "PromptTable":
        """Read and check a sheet. Raises `UserError` naming file, sheet, row and column of every fault."""
        source = f"{path}, sheet {sheet!r}"
        rows = _read_rows(path, sheet)
        header_row, header = next(rows, (1, ()))
        columns = [normalised(cell) for cell in header]
        missing = [name for name in (TEMPLATE, PROMPT) if normalised(name) not in columns]
        if missing:
            raise UserError(f"{source}, row {header_row}: no column {' or '.join(map(repr, missing))} among {header}")
        wanted = [columns.index(normalised(name)) for name in (TEMPLATE, PROMPT)]
        templates: dict[str, str] = {}
        first_row: dict[str, int] = {}
        faults: list[str] = []
        for row, cells in rows:
            template, prompt = (cells[column] for column in wanted)
            if not template and not prompt:
                continue
            found = list(_row_faults(template, prompt))
            key = key_of(template)
            if key and first_row.setdefault(key, row) != row:
                found.append((TEMPLATE, f"{template!r} already stands in row {first_row[key]}; keep one of them"))
            templates[template] = prompt
            faults += [f"row {row}, column {column!r}: {fault}" for column, fault in found]
        if faults:
            more = [f"and {len(faults) - 10} more"] if len(faults) > 10 else []
            raise UserError("\n  ".join([f"{source}:", *faults[:10], *more]))
        if not templates:
            raise UserError(f"{source}: holds no template")
        return cls(templates, source, spelling)

    @property
    def digest(self) -> str:
        """SHA-256 of the templates with their prompts, wherever they were read."""
        return hashlib.sha256(json.dumps(self.templates).encode()).hexdigest()

    def serves(self, template: str) -> bool:
        """Whether there is a row for this template, be it `*`."""
        return self._row(template) is not None

    def fill(self, template: str, values: Sequence[str]) -> FilledPrompt:
        """Fill a question and its prompt with the values of the question's slots, in their order.

        Raises `UserError` for a template that the sheet has not (nor a row `*`) and for a wrong number of values.
        """
        row = self._row(template)
        if row is None:
            raise UserError(f"{self.source}: no row for the question {template!r}; add it, or a row {ANY!r} for all")
        question = _clean(template).rstrip(_FINAL) + "?"
        slots, words = slots_of(question), [_clean(_clean(value).replace("_", " ")) for value in values]
        if len(words) != len(slots) or not all(re.fullmatch("[^<>]+", word) for word in words):
            raise UserError(f"question {template!r} needs a word for each of its {len(slots)} slots, not {values!r}")
        word_of = dict(zip(slots, words, strict=True))
        if self.spelling == "published":
            spelt = _fill(question[:-1], dict(zip(slots, map(_clean, values), strict=True)))
        else:
            spelt = _fill(question, word_of)
        return FilledPrompt(spelt, _fill(self.templates[row], word_of), row)

    def _row(self, template: str) -> str | None:
        return self._by_key.get(key_of(template)) or self._by_key.get(ANY)


def question_text(row: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The (template, values) of an annotation row, as `PromptTable.fill` takes them.

    MUSIC-AVQA keeps the template in `question_content` and the values in `templ_values`, a list or JSON of one in a
    string, absent where the words are filled in already. AVQA keeps a whole question in `question_text`, others in
    `question`. Raises `UserError` naming the field and what it holds.
    """
    field = next((name for name in ("question_content", "question") if name in row), "question_text")
    template = row.get(field)
    if not isinstance(template, str) or not key_of(template):
        raise UserError(f"field {field!r} must hold a question, but holds {template!r}")
    if field != "question_content":
        return template, []
    held = row.get("templ_values", [])
    try:
        values = held if isinstance(held, list) else json.loads(held)
    except (TypeError, ValueError):
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UserError(f"field 'templ_values' must hold a list of words such as '[\"violin\"]', but holds {held!r}")
    return template, values


def read_rows(path: str | Path) -> list[Any]:
    """The rows of an annotation file. Raises `UserError` for a file that is no list."""
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: must hold a JSON list of questions, holds a {type(rows).__name__}")
    return rows


def filled_rows(
    path: str | Path, table: PromptTable, faults: list[str]
) -> Iterator[tuple[int, dict[str, Any], FilledPrompt]]:
    """The rows of an annotation file, each with its number, from 1 on, and its question and prompt.

    Malformed rows are left out, and `faults` gets a line for each. Raises `UserError` as `read_rows` and, after the
    last row, for templates that the table does not serve.
    """
    unserved: Counter[str] = Counter()
    for number, row in enumerate(read_rows(path), start=1):
        try:
            if not isinstance(row, dict):
                raise UserError(f"must be an object, is {row!r}")
            template, values = question_text(row)
            if not table.serves(template):
                unserved[template] += 1
                continue
            filled = table.fill(template, values)
        except UserError as error:
            faults.append(f"{path}, row {number}: {error}")
            continue
        yield number, row, filled
    if unserved:
        listed = ", ".join(f"{template!r} ({count} questions)" for template, count in unserved.most_common(5))
        raise UserError(f"{table.source}: no row for {len(unserved)} templates of {path}: {listed}; add rows for them")


def _clean(text: str) -> str:
    """NFKC with plain apostrophes, white space collapsed: no-break spaces and "？" become ordinary."""
    return " ".join(unicodedata.normalize("NFKC", text).replace("’", "'").split())


def key_of(template: str) -> str:
    """What two spellings of a template have in common."""
    return normalised(_clean(template)).rstrip(_FINAL)


def slots_of(sentence: str) -> list[tuple[str, int]]:
    """The slots of a sentence in their order: (x, n) for `<Xn>` and for the n-th bare `<X>`."""
    slots: list[tuple[str, int]] = []
    bare: Counter[str] = Counter()
    for match in SLOT.finditer(sentence):
        name, number = match[1].lower(), match[2]
        bare[name] += not number
        slots.append((name, int(number or bare[name])))
    return slots


def _fill(sentence: str, word_of: Mapping[tuple[str, int], str]) -> str:
    """Put words in the place of the slots."""
    slots = iter(slots_of(sentence))
    return SLOT.sub(lambda _: word_of[next(slots)], sentence)


def _row_faults(template: str, prompt: str) -> Iterator[tuple[str, str]]:
    """Yield (column, fault) for what is wrong with a row by itself."""
    for column, sentence in ((TEMPLATE, template), (PROMPT, prompt)):
        if not key_of(sentence):
            yield column, "is empty"
        if re.search("[<>]", SLOT.sub("", sentence)):
            yield column, f"{sentence!r} has a bracket that belongs to no slot; slots are written <Object> or <Object2>"
    held = slots_of(template)
    for name, n in slots_of(prompt):
        if (name, n) not in held:
            yield PROMPT, f"{prompt!r} takes <{name}> number {n}, which the question {template!r} lacks"


def _read_rows(path: str | Path, sheet: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (row number, cells as clean strings) for each row of a sheet that is not blank."""
    try:
        with open(path, "rb") as file:  # a file object, because openpyxl judges a path by its ending
            with zipfile.ZipFile(file) as packed:  # which reads no more of a member than its declared size
                size = sum(member.file_size for member in packed.infolist())
            if size > LARGEST:
                raise ValueError(f"unpacks to {size / 1e6:.0f} MB, more than a sheet of prompts can need")
            book = openpyxl.load_workbook(file, data_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except DAMAGED as error:
        raise UserError(f"{path}: cannot be read as an .xlsx workbook ({error})") from error
    sheets = {worksheet.title: worksheet for worksheet in book.worksheets}
    if sheet not in sheets:
        raise UserError(f"{path}: no sheet {sheet!r}; there are {', '.join(map(repr, sheets))}")
    rows, columns = sheets[sheet].max_row, sheets[sheet].max_column
    if rows * columns > CELLS:
        raise UserError(f"{path}, sheet {sheet!r}: spans {rows} x {columns} cells; delete the empty ones at its end")
    for row, cells in enumerate(sheets[sheet].iter_rows(min_row=1, values_only=True), start=1):
        texts = ["" if cell is None else _clean(str(cell)) for cell in cells]
        if any(texts):
            yield row, texts
