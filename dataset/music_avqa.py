"""Rows of MUSIC-AVQA's annotation files (Li et al., CVPR 2022)."""

import json
from collections.abc import Mapping
from typing import Any

from utils.errors import UserError
from utils.metrics import TABLE1_TYPES


def read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of one row beside the question's text. Raises `UserError` naming the field that is wrong."""
    held = row.get("type")
    try:
        kind = tuple(json.loads(held))
    except (TypeError, ValueError):
        kind = ()
    if kind not in TABLE1_TYPES.values():
        raise UserError(f'field \'type\' must be one of the nine types, such as ["Audio", "Counting"], is {held!r}')
    for field in ("video_id", "anser"):
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise UserError(f"field {field!r} must be a string that is not empty, is {row.get(field)!r}")
    return {
        "question_id": row.get("question_id"),
        "video_id": row["video_id"].strip(),
        "modality": kind[0],
        "type": kind[1],
        "answer": row["anser"].strip(),
    }
