"""Your own videos and questions, as `python -m scripts.make_annotations` writes them: any answers, any types."""

from collections.abc import Mapping
from typing import Any

from dataset.answers import most_frequent_answers
from dataset.spec import Dataset
from utils.errors import UserError

FIELDS = ("video", "question", "answer")
CLASSES = 1000


def read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of one row beside the question's text; without a `type` all questions are of one, "question".

    Raises `UserError` naming the field that is wrong.
    """
    for field in (*FIELDS, *(["type"] if "type" in row else [])):
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise UserError(f"field {field!r} must be a string that is not empty, is {row.get(field)!r}")
    return {
        "question_id": row.get("id"),
        "video_id": row["video"].strip(),
        "modality": "any",
        "type": row.get("type", "question").strip(),
        "answer": row["answer"].strip(),
    }


OWN = Dataset(title="Own videos", read_row=read_row, vocabulary=most_frequent_answers(CLASSES))
