"""Your own videos and questions, as `python -m scripts.make_annotations` writes them: any answers, any types."""

from collections.abc import Mapping
from typing import Any

from dataset.answers import most_frequent_answers
from dataset.spec import Dataset, texts

CLASSES = 1000


def read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of one row beside the question's text; without a `type` all questions are of one, "question".

    Raises `UserError` naming the field that is wrong.
    """
    video, _, answer, kind = texts({"type": "question", **row}, "video", "question", "answer", "type")
    return {"question_id": row.get("id"), "video_id": video, "modality": "any", "type": kind, "answer": answer}


OWN = Dataset(title="Own videos", read_row=read_row, vocabulary=most_frequent_answers(CLASSES))
