"""Questions of MUSIC-AVQA's format with four answers offered each, in AVQA's format: Table 7 on Bandstand.

    python -m scripts.offer_choices --annotations data/bandstand/annotations --out data/bandstand/annotations_choice

The three wrong answers are those of other questions of the same template, then of the same type, then any. Templates
and their values are kept, so that prompts and text features stay the same: train with `--data.dataset avqa`.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from dataset.avqa import CHOICES
from dataset.music_avqa import read_row
from scripts.split_by_video import require_none
from utils.cli import Parser
from utils.errors import command
from utils.files import read_json, write_json

SPLITS = ("train", "val", "test")
RELATIONS = {"Audio": "Sound", "Visual": "View", "Audio-Visual": "Both"}


def offer_choices(annotations: str | Path, out: str | Path, seed: int = 0) -> dict[str, int]:
    """Write the splits of folder `annotations` into `out`, in AVQA's format; return their numbers of questions.

    Raises `UserError` for a row that cannot be read, and where `out` holds such files already.
    """
    require_none(out)
    rows = {split: read_json(Path(annotations) / f"{split}.json") for split in SPLITS}
    answers = defaultdict(set)  # of a template, of a type, of all
    for row in rows["train"]:
        for group in _groups(row):
            answers[group].add(read_row(row)["answer"])
    for number, (split, some) in enumerate(rows.items()):
        random = np.random.default_rng((seed, number))
        write_json(Path(out) / f"{split}.json", [_offer(row, answers, random) for row in some])
    return {split: len(some) for split, some in rows.items()}


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


@command
def main(args: list[str] | None = None) -> None:
    """Write the files and say how many questions they hold."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--annotations", required=True, help="folder of train.json, val.json and test.json")
    parser.add_argument("--out", required=True, help="folder of the new ones")
    parser.add_argument("--seed", type=int, default=0, help="of the choices and their order")
    options = parser.parse_args(args)
    for split, questions in offer_choices(options.annotations, options.out, options.seed).items():
        print(f"{Path(options.out) / split}.json: {questions} questions")


if __name__ == "__main__":
    main()
