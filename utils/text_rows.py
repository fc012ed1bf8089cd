"""Text features on disk: `sentences.json`, a row for each in `features.npy`, and `digest.json`, which tells damage.

`digest.json` holds {"sentences": n, "sha256": of the first n sentences and their rows}: it stays right while sentences
are appended. A folder without one was written by an older release, or elsewhere.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.files import json_bytes, read_json, write_json

FEATURES, SENTENCES, DIGEST = "features.npy", "sentences.json", "digest.json"


def note_digest(folder: Path, sentences: list[str]) -> None:
    """Write the digest of the sentences and of their rows."""
    write_json(folder / DIGEST, _digest(folder, sentences))


def is_damaged(folder: Path, sentences: list[str]) -> bool:
    """Whether the sentences or their rows are others than those that were noted."""
    if not (folder / DIGEST).exists():
        return False
    try:
        noted = read_json(folder / DIGEST)
        return noted != _digest(folder, sentences[: noted["sentences"]])
    except (UserError, KeyError, TypeError):
        return True


def _digest(folder: Path, sentences: list[str]) -> dict[str, Any]:
    digest = hashlib.sha256(json_bytes(sentences))
    digest.update(np.load(folder / FEATURES, mmap_mode="r", allow_pickle=False)[: len(sentences)].tobytes())
    return {"sentences": len(sentences), "sha256": digest.hexdigest()}
