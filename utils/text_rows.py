"""Rows of sentences on disk: a list of sentences, an array with a row for each, and a digest, which tells damage.

The digest's file holds {"sentences": n, "sha256": of the first n sentences and their rows}: it stays right while
sentences are appended. A folder without one was written by an older release, or elsewhere.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.errors import UserError
from utils.files import json_bytes, read_json, write_json


class TextRows(NamedTuple):
    """The files of one kind of rows."""

    features: Path
    sentences: Path
    digest: Path

    def note_digest(self, sentences: list[str]) -> None:
        """Write the digest of the sentences and of their rows."""
        write_json(self.digest, self._digest(sentences))

    def is_damaged(self, sentences: list[str]) -> bool:
        """Whether the sentences or their rows are others than those that were noted."""
        if not self.digest.exists():
            return False
        try:
            noted = read_json(self.digest)
            return noted != self._digest(sentences[: noted["sentences"]])
        except (UserError, KeyError, TypeError):
            return True

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
