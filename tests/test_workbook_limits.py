"""A small file that unpacks to a large workbook is refused before it is unpacked."""

import struct
import tracemalloc
import zipfile

import openpyxl
import pytest

from dataset.text_prompt import PROMPT, TEMPLATE, PromptTable
from utils.errors import UserError

HUGE = 300_000_000  # bytes that the sheet of the bomb unpacks to


@pytest.fixture
def book(tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "S"
    book.active.append((TEMPLATE, PROMPT))
    book.active.append(("Is it loud?", "It is loud."))
    return book


def bomb(path, book):
    """Save a workbook whose sheet begins with very many blanks, which hardly take room when packed."""
    plain = path.with_name("plain.xlsx")
    book.save(plain)
    with zipfile.ZipFile(plain) as held, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        for member in held.infolist():
            with out.open(member.filename, "w") as file:
                for _ in range(HUGE // 1_000_000 if "sheet1" in member.filename else 0):
                    file.write(b" " * 1_000_000)
                file.write(held.read(member))
    return path


def test_a_workbook_that_unpacks_to_too_much(tmp_path, book):
    path = bomb(tmp_path / "bomb.xlsx", book)
    assert path.stat().st_size < 3_000_000
    with pytest.raises(UserError, match=r"bomb\.xlsx: cannot be read .* \(unpacks to 300 MB"):
        PromptTable.read(path, "S")


def test_one_that_says_less_than_it_unpacks_to(tmp_path, book):
    """Its directory lies about the sheet's size: no more than that is read."""
    path = bomb(tmp_path / "bomb.xlsx", book)
    with zipfile.ZipFile(path) as held:
        (size,) = [member.file_size for member in held.infolist() if "sheet1" in member.filename]
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", size), struct.pack("<L", 1000)))
    tracemalloc.start()
    with pytest.raises(UserError, match="cannot be read as an"):
        PromptTable.read(path, "S")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < HUGE / 10


def test_a_sheet_of_very_many_empty_cells(tmp_path, book):
    book.active.cell(1_048_576, 16_384).value = " "
    book.save(tmp_path / "wide.xlsx")
    with pytest.raises(UserError, match="spans 1048576 x 16384 cells; delete the empty ones"):
        PromptTable.read(tmp_path / "wide.xlsx", "S")
