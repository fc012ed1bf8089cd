"""Questions of MUSIC-AVQA's format with four answers offered each, in AVQA's format: Table 7 on Bandstand.

The three wrong answers are those of other questions of the same template, then of the same type, then any. Templates
and their values are kept, so that prompts and text features stay the same: train with `--data.dataset avqa`.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from dataset.avqa import CHOICES
from dataset.music_avqa import read_row
from utils.files import read_json, write_json

SPLITS = ("train", "val", "test")
RELATIONS = {"Audio": "Sound", "Visual": "View", "Audio-Visual": "Both"}


def offer_choices(annotations: Path, out: Path) -> None:
    """Write the splits of folder `annotations` into `out`, in AVQA's format. Raises `UserError` for a faulty row."""
    rows = {split: read_json(annotations / f"{split}.json") for split in SPLITS}
    answers = defaultdict(set)  # of a template, of a type, of all
    for row in rows["train"]:
        for group in _groups(row):
            answers[group].add(read_row(row)["answer"])
    for number, (split, some) in enumerate(rows.items()):
        random = np.random.default_rng((0, number))
        write_json(out / f"{split}.json", [_offer(row, answers, random) for row in some])


def _groups(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["question_content"], str(row["type"]), ""


def _offer(row: dict[str, Any], answers: dict[str, set[str]], random: np.random.Generator) -> dict[str, Any]:
    fields = read_row(row)
    offered = [fields["answer"]]
    for group in _groups(row):
        others = sorted(answers[group] - set(offered))
        offered += random.permutation(others)[: CHOICES - len(offered)].tolist()
    offered = random.permutation(offered).tolist()
    return {
        "id": fields["question_id"],
        "video_name": fields["video_id"],
        "question_content": row["question_content"],
        "templ_values": row["templ_values"],
        "multi_choice": offered,
        "answer": offered.index(fields["answer"]),
        "question_relation": RELATIONS[fields["modality"]],
        "question_type": fields["type"],
    }
