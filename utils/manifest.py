"""`manifest.json`: the constants of a feature folder. The first writer writes it, every other compares.

Fields of every manifest:

    version         1
    kind            audio | frame | token | token_source | text
    encoder         name of the network, e.g. "vggish", "ViT-L/14@336px"
    weights_sha256  digest of its checkpoint file
    shape           of one video's array, e.g. [60, 14, 1024]; of one sentence's row for text, e.g. [768]
    dtype           numpy's name, e.g. "float16"

and by kind: `hop_seconds` (audio); `image_size`, `fit` (frame, token, token_source); `merge_schedule`, the tokens
merged away by each block (token, token_source). Segments and tokens are read off `shape`. `adopted`: made elsewhere.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import create, json_bytes, read_json

NAME = "manifest.json"
VERSION = 1
DAMAGED = "if it is damaged, delete it and extract again with the settings that made the folder"
PATIENCE = 5  # s that a manifest may be half-written by another process


def make_manifest(
    kind: str, encoder: str, weights_sha256: str, shape: Sequence[int], dtype: str, **of_kind: Any
) -> dict[str, Any]:
    """A manifest, with the fields that its kind has besides."""
    same = {"encoder": encoder, "weights_sha256": weights_sha256, "shape": [*shape], "dtype": dtype}
    return {"version": VERSION, "kind": kind} | same | of_kind


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Read a folder's manifest. Raises `UserError` where it is missing or no JSON object."""
    try:
        manifest = read_json(Path(folder) / NAME)
    except UserError as error:
        raise UserError(f"{error}; {DAMAGED}") from error
    if not isinstance(manifest, dict):
        raise UserError(f"{Path(folder) / NAME}: must be a JSON object; {DAMAGED}")
    return manifest


def claim_manifest(folder: str | Path, manifest: dict[str, Any]) -> None:
    """Write `manifest` if the folder has none, else compare; safe among processes that start together.

    Raises `UserError` naming the first field that differs.
    """
    path = Path(folder) / NAME
    if path.exists() or not create(path, json_bytes(manifest)):
        compare_manifests(path, manifest, _written(path), DAMAGED)


def _written(path: Path) -> dict[str, Any]:
    """The manifest that another process wrote, or is writing."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return read_manifest(path.parent)
        except UserError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def compare_manifests(path: str | Path, wanted: dict[str, Any], found: dict[str, Any], remedy: str) -> None:
    """Raise `UserError` for the first field in which the manifest at `path` differs from the wanted one."""
    for field in sorted(wanted.keys() | found.keys()):
        if wanted.get(field) != found.get(field):
            raise UserError(
                f"{path}: field {field!r} is {found.get(field)!r}, but this run wants {wanted.get(field)!r}; "
                f"use another folder, or the settings that made this one; {remedy}"
            )
