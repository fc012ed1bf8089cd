"""Text rows by sentence, or in the public layout by question id.

N sentences in use, Nq of them questions, Q questions asked, Dq width of a text row, Dw of a word's state.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset.feature_folder import describe_faults, plain_folder
from dataset.kinds import TEXT, WORDS_MAKER
from utils.errors import UserError
from utils.text_rows import TextRows, text_rows, word_rows


class TextBank(NamedTuple):
    """The text rows in use, each once, and where each question's are."""

    bank: np.ndarray  # (N, Dq) float32, questions before prompts
    question: np.ndarray  # (Q,) int64, rows of the bank, and of the words
    prompt: np.ndarray  # (Q,) int64, rows of the bank
    words: np.ndarray | None = None  # (Nq, 77, Dw) float16, of the bank's first rows, where they are wanted


class Rows:
    """Rows by sentence, of the given sizes (None: any). Raises `UserError` as `TextRows.read`, with the remedy."""

    def __init__(self, files: TextRows, sizes: Sequence[int | None], dtype: str, maker: str):
        self.files, self.maker = files, maker
        try:
            sentences, self.features = files.read(sizes, dtype)
        except UserError as error:
            raise UserError(f"{error}; encode again with: {maker}") from error
        self.rows = {sentence: row for row, sentence in enumerate(sentences)}

    def read(self, wanted: Sequence[str]) -> np.ndarray:
        """The rows of some sentences, (len(wanted), ...). Raises `UserError` where some are not encoded."""
        missing = [sentence for sentence in wanted if sentence not in self.rows]
        if missing:
            raise UserError(
                f"{self.files.sentences}: {len(missing)} of {len(wanted)} sentences are not encoded, e.g. "
                f"{missing[0]!r}; encode them with: {self.maker} (only what is new is encoded)"
            )
        return self.features[[self.rows[sentence] for sentence in wanted]]


class Sentences:
    """The text of a folder that extraction made, and the words of its questions where these are wanted."""

    def __init__(self, path: Path, manifest: dict[str, Any], words: bool):
        self.path, (self.width,) = path, manifest["shape"]
        self.text = Rows(text_rows(path), (self.width,), manifest["dtype"], TEXT.maker)
        self.words = Rows(word_rows(path), (None, None), "float16", WORDS_MAKER) if words else None

    def read(self, ids: Sequence[int | str], questions: Sequence[str], prompts: Sequence[str]) -> TextBank:
        """The rows of questions and prompts, by sentence."""
        place: dict[str, int] = {}
        for sentence in (*questions, *prompts):
            place.setdefault(sentence, len(place))
        bank = self.text.read(list(place)).astype(np.float32)
        index = [np.array([place[sentence] for sentence in some], np.int64) for some in (questions, prompts)]
        words = self.words.read(list(dict.fromkeys(questions))) if self.words else None
        return TextBank(bank, index[0], index[1], words)


class PublicText:
    """Rows by question id: a (1, Dq) file for the question, one for its prompt. Equal rows are kept once."""

    words = None

    def __init__(self, question: Path, prompt: Path):
        self.path = question.parent
        questions = plain_folder(question, (1, None))
        self.folders, self.width = [questions, plain_folder(prompt, questions.shape)], questions.shape[1]

    def read(self, ids: Sequence[int | str], questions: Sequence[str], prompts: Sequence[str]) -> TextBank:
        """The rows of questions and prompts, by question id."""
        names, index = [str(number) for number in ids], []
        rows: dict[bytes, int] = {}
        for folder in self.folders:
            if faults := folder.check(names):
                raise UserError(f"{folder.path}: {len(faults)} questions are faulty\n{describe_faults(faults)}")
            found = folder.read(names).astype(np.float32)
            index.append(np.array([rows.setdefault(row.tobytes(), len(rows)) for row in found], np.int64))
        bank = np.frombuffer(bytearray().join(rows), np.float32).reshape(-1, self.width)  # PyTorch wants it writable
        return TextBank(bank, *index)
