"""Rows of MUSIC-AVQA's annotation files (Li et al., CVPR 2022), those of version 2 too (`dataset/music_avqa_v2.py`)."""

import json
from collections.abc import Mapping
from typing import Any

from dataset.music_answers import music_answer
from dataset.spec import Dataset, texts
from utils.errors import UserError
from utils.scoring.paper import LATER, TABLE1, TABLE1_COLUMNS

ANSWERS = (
    *("two", "cello", "congas", "zero", "no", "pipa", "six", "yes", "one", "four", "three", "seven", "five"),
    *("ukulele", "right", "piano", "left", "accordion", "clarinet", "guzheng", "more than ten", "nine", "indoor"),
    *("saxophone", "drum", "violin", "middle", "outdoor", "bagpipe", "bassoon", "acoustic_guitar", "banjo"),
    *("electric_bass", "ten", "eight", "flute", "simultaneously", "trumpet", "erhu", "xylophone", "tuba", "suona"),
)
"""The 42 answers in the index order of the public predictions files and checkpoints."""


def read_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of one row beside the question's text. Raises `UserError` naming the field that is wrong."""
    held: Any = row.get("type")
    try:
        kind = tuple(held if isinstance(held, list) else json.loads(held))
    except (TypeError, ValueError):
        kind = ()
    if kind not in TABLE1_COLUMNS.types.values():
        raise UserError(f'field \'type\' must be one of the nine types, such as ["Audio", "Counting"], is {held!r}')
    video, answer = texts(row, "video_id", "anser")
    if "unmatch_audio" in row:
        video = "+".join([video, *texts(row, "unmatch_audio")])
    return {
        "question_id": row.get("question_id"),
        "video_id": video,
        "modality": kind[0],
        "type": kind[1],
        "answer": answer,
    }


def recording(video_id: str) -> str:
    """The recording whose pictures a video shows: mirrored copies and those with other sound belong to the original."""
    return video_id.split("+")[0].removesuffix("_flip")


MUSIC_AVQA = Dataset(
    title="MUSIC-AVQA",
    read_row=read_row,
    vocabulary=lambda tables: ANSWERS,
    columns=TABLE1_COLUMNS,
    published={"TSPM paper, Table 1": TABLE1, "Later (* second-hand, + tuned)": LATER},
    published_questions=9129,  # of the test split, by question
    recording=recording,
    read_answer=music_answer,
)
