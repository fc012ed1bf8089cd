"""Rows of sentences on disk: a list of sentences, an array with a row for each, and a digest, which tells damage.

The digest's file holds {"sentences": n, "sha256": of the first n sentences and their rows}: it stays right while
sentences are appended. A folder without one was written by an older release, or elsewhere.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.errors import UserError
from utils.files import fits, json_bytes, npy_header, read_json, told, write_json


class TextRows(NamedTuple):
    """The files of one kind of rows."""

    features: Path
    sentences: Path
    digest: Path

    def note_digest(self, sentences: list[str]) -> None:
        """Write the digest of the sentences and of their rows."""
        write_json(self.digest, self._digest(sentences))

    def read(self, sizes: Sequence[int | None], dtype: str) -> tuple[list[str], np.ndarray]:
        """The sentences, and the array with their rows and perhaps surplus ones, mapped into memory.

        `sizes` are those of a row; None: any. Raises `UserError` where list and array do not fit together, or are not
        as noted.
        """
        sentences = read_json(self.sentences)
        shape, found = npy_header(self.features)
        if not isinstance(sentences, list):
            raise UserError(f"{self.sentences}: must be a list of sentences, one for a row of {self.features.name}")
        if not fits(shape, (None, *sizes)) or found != np.dtype(dtype) or shape[0] < len(sentences):
            raise UserError(
                f"{self.features}: is {found} {shape}, but {self.sentences.name} and the manifest want "
                f"{dtype} ({len(sentences)} or more, {told(sizes)})"
            )
        if self.digest.exists():
            try:
                noted = read_json(self.digest)
                whole = noted == self._digest(sentences[: noted["sentences"]])
            except (UserError, KeyError, TypeError):
                whole = False
            if not whole:
                both = f"{self.sentences.name} and {self.features.name}"
                raise UserError(f"{self.sentences.parent}: {both} are not as {self.digest.name} noted them")
        return sentences, np.load(self.features, mmap_mode="r", allow_pickle=False)

    def _digest(self, sentences: list[str]) -> dict[str, Any]:
        digest = hashlib.sha256(json_bytes(sentences))
        digest.update(np.load(self.features, mmap_mode="r", allow_pickle=False)[: len(sentences)])
        return {"sentences": len(sentences), "sha256": digest.hexdigest()}


def text_rows(folder: Path) -> TextRows:
    """Of CLIP's text features, (N, Dq) float32."""
    return TextRows(folder / "features.npy", folder / "sentences.json", folder / "digest.json")


def word_rows(folder: Path) -> TextRows:
    """Of the states of a sentence's words, (N, 77, Dw) float16."""
    return TextRows(folder / "words.npy", folder / "words.json", folder / "words_digest.json")
