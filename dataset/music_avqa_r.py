"""MUSIC-AVQA-R (Ma et al., NeurIPS 2024): every test question of MUSIC-AVQA rephrased, up to 25 times.

Words are filled in and `templ_values` gone. With `data.sheet MUSIC-AVQA-R` questions that are no template take the
prompt of that sheet's row `*`. Rephrasings may keep the `question_id` of their original, so that a question is called
by its row in the file: row-1, row-2, ...
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dataset.music_avqa import MUSIC_AVQA, read_row


def read_rephrased(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of one row, without its id. Raises `UserError` naming the field that is wrong."""
    return read_row(row) | {"question_id": None}


SECOND_HAND = {"QA-TIGER": 67.99, "DG-SCT": 66.50, "LAVISH": 65.00, "PSTP-Net": 64.50, "ST-AVQA": 63.89}

MUSIC_AVQA_R = replace(
    MUSIC_AVQA,
    title="MUSIC-AVQA-R",
    read_row=read_rephrased,
    published={"Reported second-hand, overall": {name: {"All": score} for name, score in SECOND_HAND.items()}},
    published_questions=211_572,  # head and tail together
)
