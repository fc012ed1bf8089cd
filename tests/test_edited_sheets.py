"""Sheets made or edited elsewhere: the untidy are read, every fault is named."""

import re
from pathlib import Path

import openpyxl
import pytest

from dataset.text_prompt import PROMPT, TEMPLATE, PromptTable
from utils.errors import UserError

SHEETS = Path(__file__).parents[1] / "dataset" / "TextPrompt.xlsx"
HEADER = ("No.", "Modalities", "Type", TEMPLATE, PROMPT)


@pytest.fixture
def write(tmp_path):
    """A function that writes rows into sheet "S" of a new workbook and returns its path."""

    def write(*rows, header=HEADER):
        book = openpyxl.Workbook()
        book.active.title = "S"
        for row in (header, *rows):
            book.active.append(row)
        book.save(tmp_path / "prompts.xlsx")
        return tmp_path / "prompts.xlsx"

    return write


def fault(path, sheet="S"):
    with pytest.raises(UserError) as error:
        PromptTable.read(path, sheet)
    message = str(error.value)
    assert str(path) in message
    return message


def test_untidy_sheets_are_read(write):
    header = ("Notes", " question  template ", "NO.", "declarative sentence\u00a0text prompt", None, None)
    path = write(
        (None, "Who\u00a0plays?", 1.0, " Someone  plays. ", None, "checked"),
        (None,) * 6,
        ("merged cells above", "Is there a <Object> sound? ", None, "The <Object> sounds.", None, None),
        (None, None, 3.0, None, None, None),
        (" ", "\u00a0", None, "", None, None),
        header=header,
    )
    rows = PromptTable.read(path, "S")
    assert rows.templates == {"Who plays?": "Someone plays.", "Is there a <Object> sound?": "The <Object> sounds."}


def test_blank_rows_above_the_header_are_skipped(write):
    path = write(HEADER, (1, "", "", "Who plays?", "Someone plays."), header=(None,) * 5)
    assert PromptTable.read(path, "S").fill("who plays", []).prompt == "Someone plays."


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("Who?", "A."), ("Why?", "B."), ("who ？", "C.")], r"row 4, column 'Question Template'.* in row 2"),
        ([("Who is <Object>?", "The <LR>.")], rf"row 2, column '{PROMPT}'.*<lr> number 1.*Who is <Object>"),
        ([("Who is <Object>?", "<Object> <Object>.")], rf"row 2, column '{PROMPT}'.*<object> number 2"),
        ([("Who is <Object>?", "The <Object2>.")], rf"row 2, column '{PROMPT}'.*<object> number 2"),
        ([("Who is <Object>?", "The <Object0>.")], rf"row 2, column '{PROMPT}'.*<object> number 0"),
        ([("Who is <Object>?", "The <Object.")], rf"row 2, column '{PROMPT}'.*belongs to no slot"),
        ([("Who is Object>?", "The.")], r"row 2, column 'Question Template'.*belongs to no slot"),
        ([("Who?", "A."), ("Why?", None)], rf"row 3, column '{PROMPT}': is empty"),
        ([("Who?", "A."), ("Why?", " . ")], rf"row 3, column '{PROMPT}': is empty"),
        ([(None, "A.")], r"row 2, column 'Question Template': is empty"),
        ([("*", "The <Object>.")], rf"row 2, column '{PROMPT}'.*<object> number 1"),
        ([], "holds no template"),
    ],
)
def test_faults_name_sheet_row_and_column(write, rows, message):
    found = fault(write(*((1, "", "", *row) for row in rows)))
    assert "sheet 'S'" in found
    assert re.search(message, found)


def test_all_faults_are_told_at_once_but_ten_are_enough(write):
    found = fault(write(*((1, "", "", f"Question {i}?", None) for i in range(13))))
    assert re.findall(r"row (\d+)", found) == [str(row) for row in range(2, 12)]
    assert "and 3 more" in found


@pytest.mark.parametrize("lacking", [TEMPLATE, PROMPT])
def test_a_missing_column_is_named(write, lacking):
    found = fault(write((1, "Who?"), header=("No.", TEMPLATE if lacking == PROMPT else PROMPT)))
    assert "row 1" in found
    assert f"no column {lacking!r}" in found


def test_an_unknown_sheet_lists_those_there_are():
    assert "'MUSIC-AVQA', 'AVQA'" in fault(SHEETS, "music")


def test_files_that_are_no_workbook(tmp_path):
    assert "no such file" in fault(tmp_path / "absent.xlsx")
    (tmp_path / "text.xlsx").write_text("No.,Type\n")
    assert "cannot be read as an .xlsx workbook" in fault(tmp_path / "text.xlsx")
    half = SHEETS.read_bytes()
    (tmp_path / "half.xlsx").write_bytes(half[: len(half) // 2])
    assert "cannot be read" in fault(tmp_path / "half.xlsx")
    assert "cannot be read" in fault(tmp_path)
