"""Checkpoints: a file that is whole or absent, and an error in words where it does not fit."""

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.errors import UserError
from utils.files import atomic_path

VERSION = 2  # of what train.py writes
REMEDY = "restore a copy of it, or train again with another --out"


def save_checkpoint(path: str | Path, state: dict[str, Any], keep: bool = False) -> None:
    """Write `state` atomically, and so that a loss of power leaves it whole; `keep` the one before as `before(path)`.

    Raises `UserError` where the disk is full; the checkpoint before stays.
    """
    path, buffer = Path(path), io.BytesIO()
    torch.save(state, buffer)
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            os.replace(path, before(path))


def before(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_name(f"{path.stem}.before{path.suffix}")


def load_latest(path: Path) -> dict[str, Any] | None:
    """The checkpoint at `path`; where it is broken or missing, the one before, which is said. None if there is none."""
    if not before(path).exists():
        return load_run(path) if path.exists() else None
    try:
        return load_run(path)
    except UserError as broken:
        print(f"{broken}; going on from {before(path)}")
        return load_run(before(path))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code in it. Raises `UserError` where it is not whole."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if spoilt := archive.testzip():  # torch.load does not look at the checksums
                    raise ValueError(f"{spoilt} is damaged")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; name one that is there, or train it first") from None
    except Exception as error:  # torch.load raises half a dozen types for a damaged file, some without a message
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise UserError(f"{path}: not a readable checkpoint ({reason}); {REMEDY}") from error


def load_run(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that train.py wrote. Raises `UserError` where it is none, or of another version."""
    stored = load_checkpoint(path)
    if not isinstance(stored, dict) or "config" not in stored:
        raise UserError(f"{path}: is no checkpoint of train.py; scripts.convert_public converts published weights")
    if stored.get("version") != VERSION:
        raise UserError(
            f"{path}: was written by release 0.1, whose options had other names; train it anew (CHANGELOG.md)"
        )
    return stored


def weights_sha256(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of weights, wherever they are and whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].cpu().contiguous().numpy().data)
    return digest.hexdigest()


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], path: str | Path) -> None:
    """Load `weights` strictly. Raises `UserError` naming the first key that is missing, unknown or of another shape."""
    wanted = model.state_dict()
    for key in wanted.keys() | weights.keys():
        ours, theirs = (tuple(state[key].shape) if key in state else None for state in (wanted, weights))
        if ours != theirs:
            raise UserError(
                f"{path}: {key} has shape {theirs} there and {ours} in this model; "
                "the options under `model`, the features or the answers differ from the run's"
            )
    model.load_state_dict(weights)
