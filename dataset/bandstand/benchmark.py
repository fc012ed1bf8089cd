"""The benchmark's files: which questions are asked, annotations in MUSIC-AVQA's fields, and the truth of each video."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset.bandstand.questions import NUMBERS, TEMPLATES, Candidate, Template
from dataset.bandstand.scene import FRAME, Performer, Scene, make_scene
from utils.files import write_bytes, write_json

BENCHMARK, ENCODERS = 0, 1  # streams of scenes: no scene that an encoder was trained on is in the benchmark
SPLITS = {"train": range(0, 7), "val": range(7, 8), "test": range(8, 10)}  # last digit of the video's number

MOST, MEAN = 9, 2  # questions of one template about one scene: at most, and on average where there are as many


class Preset(NamedTuple):
    """A size of the benchmark."""

    videos: int
    seconds: int


PRESETS = {"demo": Preset(500, 20), "study": Preset(1000, 60), "full": Preset(6000, 60)}


def make_scenes(preset: Preset, seed: int) -> list[Scene]:
    """The preset's scenes, in the order of their numbers."""
    return [make_scene(seed, BENCHMARK, i, preset.seconds) for i in range(preset.videos)]


def to_the_eye(scene: Scene) -> Scene:
    """The scene as it looks without its sound: all who play are heard, nobody else is, and all of them play alike."""
    seen = (replace(p, heard=bool(p.plays), loudness_db=0.0, notes_per_second=1) for p in scene.seen)
    return replace(scene, performers=tuple(seen), voice_over=())


def choose(scenes: Sequence[Scene], template: Template, rng: np.random.Generator) -> list[tuple[int, Candidate]]:
    """Questions of one template about some scenes, as (position of the scene, question).

    Cells take turns, those with the fewest questions first. In a cell's turn each of its answers gets one question,
    about the scene that has the fewest so far; the cell is done when too few of its answers could have one. So "yes"
    is as frequent as "no", and of many answers none is far ahead. A cell with a single answer is left out: there the
    question, or the modality that is not asked for, would give the answer away.

    Where a question needs hearing, its cell holds what somebody deaf would answer too, and takes turns between scenes
    in which that is right and wrong.
    """
    candidates = []  # (position of the scene, question, the guess of somebody deaf, if it takes both senses)
    for position, scene in enumerate(scenes):
        deaf = template.candidates(to_the_eye(scene)) if template.modality == "Audio-Visual" else ()
        guesses = {candidate.values: candidate.answer for candidate in deaf}
        candidates += [(position, c, guesses.get(c.values)) for c in template.candidates(scene)]
    needs_hearing = any(guess not in (None, c.answer) for _, c, guess in candidates)
    pool: dict[tuple, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for position, candidate, guess in candidates:
        if needs_hearing and guess:
            pool[*candidate.cell, guess][str(guess == candidate.answer)].append((position, candidate))
        else:
            pool[candidate.cell][candidate.answer].append((position, candidate))
    for answers in pool.values():
        for answer, entries in answers.items():
            answers[answer] = [entries[i] for i in rng.permutation(len(entries))]
    waiting = sorted(pool.values(), key=lambda answers: min(map(len, answers.values())))
    asked: Counter[int] = Counter()
    chosen: list[tuple[int, Candidate]] = []
    while waiting and len(chosen) < MEAN * len(scenes):
        for answers in list(waiting):
            turn = []
            for entries in answers.values():
                entries[:] = [entry for entry in entries if asked[entry[0]] < MOST]
                if entries:
                    turn.append(entries.pop(min(range(len(entries)), key=lambda i: asked[entries[i][0]])))
                    asked[turn[-1][0]] += 1
            if len(turn) < _answers_needed(len(answers)):
                asked.subtract(position for position, _ in turn)
                waiting.remove(answers)
            else:
                chosen += turn
    return chosen


def _answers_needed(answers: int) -> int:
    """Of how many answers a cell must have questions left to have another turn."""
    return max(2, ceil(0.7 * answers) if answers <= len(NUMBERS) else answers // 3)


def write_annotations(scenes: Sequence[Scene], seed: int, folder: Path) -> dict[str, int]:
    """Write `annotations/<split>.json` and `truth/<video_id>.json` under `folder`; return the questions per split.

    The same scenes and seed give the same bytes.
    """
    truth: dict[str, dict[str, Any]] = {scene.video_id: {} for scene in scenes}
    number = count()
    sizes = {}
    for split, digits in SPLITS.items():
        those = [scene for scene in scenes if int(scene.video_id) % 10 in digits]
        picked: list[list[tuple[Template, Candidate]]] = [[] for _ in those]
        for n, template in enumerate(TEMPLATES):
            rng = np.random.default_rng((seed, n, digits.start))
            for position, candidate in choose(those, template, rng):
                picked[position].append((template, candidate))
        questions = []
        for scene, entries in zip(those, picked, strict=True):
            for template, candidate in entries:
                questions.append(_row(scene, next(number), template, candidate))
                truth[scene.video_id][str(questions[-1]["question_id"])] = {
                    "segments": sorted(candidate.segments),
                    "performers": candidate.about and [scene.performers.index(p) for p in candidate.about],
                }
        sizes[split] = len(questions)
        write_json(folder / "annotations" / f"{split}.json", questions)
    for scene in scenes:
        text = json.dumps(describe(scene) | {"questions": truth[scene.video_id]})
        write_bytes(folder / "truth" / f"{scene.video_id}.json", text.encode() + b"\n")
    return sizes


def describe(scene: Scene) -> dict[str, Any]:
    """What the truth file tells of a scene; times in seconds, boxes in pixels of a `frame` (width, height)."""
    return {
        "video_id": scene.video_id,
        "seconds": scene.seconds,
        "frame": [FRAME, FRAME],
        "outdoor": scene.outdoor,
        "voice_over": scene.voice_over,
        "performers": [_performer(p) for p in scene.performers],
    }


def _performer(p: Performer) -> dict[str, Any]:
    return {
        "instrument": p.instrument,
        **{name: getattr(p, name, None) for name in ("place", "box", "present")},  # none off screen
        "heard": p.heard,
        "intervals": p.intervals,
        "sounding_segments": sorted(p.sounds),
        "loudness_db": p.loudness_db,
        "notes_per_second": p.notes_per_second,
    }


def _row(scene: Scene, question_id: int, template: Template, candidate: Candidate) -> dict[str, Any]:
    return {
        "video_id": scene.video_id,
        "question_id": question_id,
        "type": json.dumps([template.modality, template.kind]),
        "question_content": template.text,
        "templ_values": json.dumps(list(candidate.values)),
        "question_deleted": 0,
        "anser": candidate.answer,  # the field's spelling in MUSIC-AVQA
    }
