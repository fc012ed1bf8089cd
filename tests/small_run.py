"""A whole data set of a few videos with random features, and train.py and test.py run on it as a user runs them."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

import train
from dataset.config import DataConfig
from dataset.music_avqa import ANSWERS
from dataset.text_prompt import PromptTable, question_text
from tests.synthetic import write_features, write_public
from utils.checkpoint import load_checkpoint
from utils.files import save_npy, write_json

ROOT = Path(__file__).parents[1]
TOKENS = 4
TEMPLATES = [  # one of each of MUSIC-AVQA's nine types
    (["Audio", "Counting"], "Is there a <Object> sound?", ["flute"]),
    (["Audio", "Comparative"], "Is the <Object> louder than the <Object>?", ["cello", "piano"]),
    (["Visual", "Counting"], "How many <Object> are in the entire video?", ["violin"]),
    (["Visual", "Location"], "Where is the performance?", []),
    (["Audio-Visual", "Existential"], "Is there a voiceover?", []),
    (["Audio-Visual", "Counting"], "How many sounding <Object> in the video？", ["erhu"]),
    (["Audio-Visual", "Location"], "Where is the <LL> instrument?", ["loudest"]),
    (
        ["Audio-Visual", "Comparative"],
        "Is the instrument on the <LR> louder than the instrument on the <LR>?",
        ["left", "right"],
    ),
    (["Audio-Visual", "Temporal"], "Which <Object> makes the sound <FL>?", ["drum", "last"]),
]


def music_rows(videos: list[str], first_id: int = 1) -> list[dict]:
    """Annotation rows in MUSIC-AVQA's format: a question of each type about each video, answers in turn."""
    answers = itertools.cycle(ANSWERS)
    asked = itertools.product(videos, TEMPLATES)
    return [
        {
            "video_id": video,
            "question_id": number,
            "type": json.dumps(kind),
            "question_content": template,
            "templ_values": json.dumps(values),
            "question_deleted": 0,
            "anser": next(answers),
        }
        for number, (video, (kind, template, values)) in enumerate(asked, start=first_id)
    ]


AVQA_QUESTIONS = [  # three with a row of their own in the sheet, one that falls to `*`
    ("Where", "Where did the video take place?", ["field", "seabed", "kitchen", "stadium"]),
    ("Happening", "What are the people doing in this video?", ["riding", "cooking", "singing", "diving"]),
    ("Come From", "What is the main source of sound in this video?", ["dog", "engine", "rain", "violin"]),
    ("Why", "For what reason might the little orchestra bow?", ["applause", "rain", "fatigue", "fright"]),
]


def avqa_rows(videos: list[str], first_id: int = 1) -> list[dict]:
    """Annotation rows in AVQA's format: four questions about each video; odd ids hold the answer's index, even its
    string."""
    rows = []
    for number, (video, (kind, text, choices)) in enumerate(itertools.product(videos, AVQA_QUESTIONS), start=first_id):
        answer = number * 7 // 5 % 4
        rows.append(
            {
                "id": number,
                "video_name": f"{video}.mp4",
                "video_id": number + 1000,
                "question_text": text,
                "multi_choice": choices[number % 4 :] + choices[: number % 4],
                "answer": answer if number % 2 else choices[answer],
                "question_relation": ("Both", "View", "Sound")[number % 3],
                "question_type": kind,
            }
        )
    return rows


SHEETS = {"music_avqa": ("MUSIC-AVQA", music_rows), "avqa": ("AVQA", avqa_rows)}


def make_data(
    root: Path,
    videos: int = 10,
    segments: int = 6,
    tokens: int = TOKENS,
    widths: dict[str, int] | None = None,
    dataset: str = "music_avqa",
    layout: str = "files",
) -> Path:
    """Write annotations, features and `small.yaml` below `root`; returns the YAML's path.

    Of 10 videos the last three are validation and test. MUSIC-AVQA asks nine questions of each, AVQA four.
    """
    sheet, make_rows = SHEETS[dataset]
    names = [f"{number:08d}" for number in range(videos)]
    chosen = {"train": names[:-3], "val": names[-3:-2], "test": names[-2:]}
    table = PromptTable.read(ROOT / "dataset/TextPrompt.xlsx", sheet)
    sentences, first_id = {}, 1
    for split, some in chosen.items():
        rows = make_rows(some, first_id)
        write_json(root / f"{split}.json", rows)
        for number, row in enumerate(rows, start=first_id):
            filled = table.fill(*question_text(row))
            sentences[number] = (filled.question, filled.prompt)
        first_id += len(rows)
    features = root / "features"
    if layout == "public":
        write_public(features, names, sentences, segments, tokens, widths)
    else:
        write_features(features, names, list(itertools.chain(*sentences.values())), segments, tokens, widths)
    options = {
        "data": {split: str(root / f"{split}.json") for split in chosen}
        | {"dataset": dataset, "sheet": sheet, "features": str(features), "layout": layout, "segments": segments},
        "model": {"hidden": 16, "top_k": 3, "tokens": tokens},
        "train": {"epochs": 3, "batch_size": 16, "lr": 1e-3, "device": "cpu"},
    }
    path = root / "small.yaml"
    path.write_text(yaml.safe_dump(options))
    return path


def make_learnable_data(root: Path) -> Path:
    """As `make_data`, of 20 videos of two sorts that sound and look different; the answer is one of two by the sort.

    13 videos are for training, 3 for validation, 4 for testing. A quarter of the training answers is wrong, so that
    what is learnt for long is learnt too well: validation accuracy has a peak.
    """
    path = make_data(root, videos=20)
    names = [f"{number:08d}" for number in range(20)]
    random = np.random.default_rng(3)
    sort = dict(zip(names, random.integers(2, size=20).tolist(), strict=True))
    for folder in ("vggish", "clip_frame"):
        for name in names:
            file = root / "features" / folder / f"{name}.npy"
            features = np.load(file)
            features[:, :4] += (2 * sort[name] - 1) * features.dtype.type(0.7)
            save_npy(file, features)
    for split, some in {"train": names[:13], "val": names[13:16], "test": names[16:]}.items():
        rows = music_rows(some)
        for number, row in enumerate(rows):
            wrong = split == "train" and random.random() < 0.25
            row["anser"] = ANSWERS[2 * (number % len(TEMPLATES)) + (sort[row["video_id"]] ^ wrong)]
        write_json(root / f"{split}.json", rows)
    return path


def trained(*arguments: str | Path | float) -> Path:
    """Run train.py in this process; returns the run folder, which follows --out."""
    words = [str(argument) for argument in arguments]
    train.main(words)
    return Path(words[words.index("--out") + 1])


def data_config(path: Path, **options) -> DataConfig:
    """The data options of a `small.yaml`, some of them changed."""
    return DataConfig(**yaml.safe_load(path.read_text())["data"] | {"tokens": TOKENS} | options)


def run(*command: str | Path) -> str:
    """Run a script of the project, in a process with one thread; returns what it printed, both streams together."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], check=False, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def losses(folder: Path) -> list[tuple[int, float, dict]]:
    """(epoch, train loss, validation row) of each line of a run's metrics.jsonl."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(line["epoch"], line["train_loss"], line["val"]) for line in lines]


def assert_same_run(folder: Path, reference: Path) -> None:
    """Equal losses, validation rows and weights, to the bit."""
    assert losses(folder) == losses(reference)
    for name in ("last.pt", "best.pt"):
        ours, theirs = weights(folder / name), weights(reference / name)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def weights(path: Path) -> dict[str, np.ndarray]:
    """The model's weights in a checkpoint."""
    return {k: v.numpy() for k, v in load_checkpoint(path)["model"].items()}
