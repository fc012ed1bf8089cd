"""What the small encoders are taught: single seconds of scenes outside the benchmark, and sentences true of them.

N scenes, F frames, S sentences.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from dataset.bandstand.benchmark import ENCODERS
from dataset.bandstand.looks import SWINGS, draw
from dataset.bandstand.questions import NUMBERS, TEMPLATES
from dataset.bandstand.render import background
from dataset.bandstand.scene import FRAME, INSTRUMENTS, PLACES, Scene, make_scene
from dataset.bandstand.sounds import RATE, soundtrack
from dataset.text_prompt import PromptTable

OUTFITS, STAGES = 4, 50  # few, so that what was drawn once can be used again
SIDE = FRAME // 2  # pixels of the frames that the small CLIP sees
FALSE, TRUE, UNKNOWN = 0, 1, -1


class Sentence(NamedTuple):
    """A prompt of the sheet filled for a scene, with the question that it stands for."""

    prompt: str
    question: str
    template: int  # its number in TEMPLATES
    values: tuple[str, ...]
    segments: frozenset[int]  # where the prompt is true of the scene


class Lesson(NamedTuple):
    """A scene with all that can be asked about it."""

    scene: Scene
    sentences: list[Sentence]


class Fact(NamedTuple):
    """Somebody in the picture of one second."""

    instrument: str
    place: str
    plays: bool


def lessons(seed: int, numbers: range, seconds: int, prompts: PromptTable) -> list[Lesson]:
    """Scenes of the encoders' own stream, by their numbers, each with its questions and prompts."""
    found = []
    for number in numbers:
        scene = make_scene(seed, ENCODERS, number, seconds)
        sentences = []
        for n, template in enumerate(TEMPLATES):
            for candidate in template.candidates(scene):
                filled = prompts.fill(template.text, candidate.values)
                sentences.append(Sentence(filled.prompt, filled.question, n, candidate.values, candidate.segments))
        found.append(Lesson(scene, sentences))
    return found


def facts(scene: Scene, second: int) -> list[Fact]:
    """Who is in the picture of a second, and whether it plays."""
    return [Fact(p.instrument, p.place, second in p.plays) for p in scene.seen if second in p.in_view]


def truth(sentence: Sentence, owner: Lesson, lesson: Lesson, second: int) -> int:
    """Whether a sentence about `owner` is true of a second of another lesson's scene; UNKNOWN if it takes thought.

    What takes none: a sentence about instruments is false of a scene that has none of them.
    """
    if lesson is owner:
        return TRUE if second in sentence.segments else FALSE
    named = set(sentence.values) & set(INSTRUMENTS)
    there = {p.instrument for p in lesson.scene.performers}
    return FALSE if named and not named & there else UNKNOWN


def captions(present: list[Fact], outdoor: bool) -> list[str]:
    """Every plain sentence that is true of a frame with these performers."""
    found = [f"The {_words(f.instrument)} on the {f.place} is {'playing' if f.plays else 'resting'}." for f in present]
    found += [f"The {_words(f.instrument)} is {'playing' if f.plays else 'resting'}." for f in present]
    found.append(f"The performance is {'outdoor' if outdoor else 'indoor'}.")
    found.append(f"{NUMBERS[len(present)].capitalize()} instruments can be seen.")
    found.append(f"{NUMBERS[sum(f.plays for f in present)].capitalize()} instruments are playing.")
    return found


def all_captions() -> list[str]:
    """Every sentence that `captions` can give, in a fixed order."""
    every = [Fact(i, p, plays) for i in INSTRUMENTS for p in PLACES for plays in (True, False)]
    found = [caption for fact in every for caption in captions([fact], outdoor=False)[:2]]
    found += [f"The performance is {where}." for where in ("indoor", "outdoor")]
    found += [f"{n.capitalize()} instruments {what}." for n in NUMBERS for what in ("can be seen", "are playing")]
    return list(dict.fromkeys(found))


def frame(scene: Scene, second: int, rng: np.random.Generator) -> np.ndarray:
    """A picture (SIDE, SIDE, 3) uint8 of a second, with clothes, stage and pose by chance.

    Drawn as `render.frames` draws it, from a stock of sprites and stages, and reduced as CLIP's preparation would.
    """
    picture = _stage(scene.outdoor, int(rng.integers(STAGES))).copy()
    for performer in sorted((p for p in scene.seen if second in p.in_view), key=lambda p: p.box[3]):
        swing = SWINGS[rng.integers(len(SWINGS))] if second in performer.plays else None
        x0, y0, _, y1 = performer.box
        height = (y1 - y0) // 8 * 8
        sprite = _sprite(performer.instrument, height, int(rng.integers(OUTFITS)), swing)
        columns = sprite.clear.shape[1]
        sprite.onto(picture, min(max(x0 + int(rng.integers(-4, 5)), 0), FRAME - columns), y1 - height)
    picture = picture[::2] + picture[1::2]
    picture = (picture[:, ::2] + picture[:, 1::2]) * np.float32(0.25 * rng.uniform(0.9, 1.1))
    picture += 3 * rng.standard_normal(picture.shape, np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


def cover(scene: Scene, second: int, patches: int) -> np.ndarray:
    """Whose box each of the patches x patches squares of a frame has its centre in: (patches ** 2,) int64.

    2 * instrument + 1 where the performer plays, 2 * instrument where it rests, -1 where nobody is.
    """
    centre = (np.arange(patches) + 0.5) * FRAME / patches
    found = np.full((patches, patches), -1)
    for performer in sorted((p for p in scene.seen if second in p.in_view), key=lambda p: p.box[3]):
        x0, y0, x1, y1 = performer.box
        inside = ((y0 <= centre) & (centre < y1))[:, None] & ((x0 <= centre) & (centre < x1))
        found[inside] = 2 * INSTRUMENTS.index(performer.instrument) + (second in performer.plays)
    return found.ravel()


class Sounds(NamedTuple):
    """What is heard in each of N seconds."""

    samples: np.ndarray  # (N, RATE) float32
    sounding: np.ndarray  # (N, 22) bool
    loudness: np.ndarray  # (N, 22) float32, dB below the loudest, of what sounds
    rate: np.ndarray  # (N, 22) float32, notes a second, of what sounds
    voice: np.ndarray  # (N,) bool


def sounds(scene: Scene) -> Sounds:
    """The sound track of a scene, second by second."""
    samples, _ = soundtrack(scene)
    sounding = np.zeros((scene.seconds, len(INSTRUMENTS)), bool)
    loudness, rate = np.zeros(sounding.shape, np.float32), np.zeros(sounding.shape, np.float32)
    for performer in sorted(scene.heard, key=lambda p: p.loudness_db):  # of two of a kind, the louder counts
        where = (sorted(performer.sounds), INSTRUMENTS.index(performer.instrument))
        sounding[where], loudness[where], rate[where] = True, performer.loudness_db, performer.notes_per_second
    voice = np.isin(np.arange(scene.seconds), sorted(scene.spoken))
    return Sounds(samples.reshape(scene.seconds, RATE), sounding, loudness, rate, voice)


@cache
def _stage(outdoor: bool, number: int) -> np.ndarray:
    return background(outdoor, np.random.default_rng((outdoor, number)))


@cache
def _sprite(instrument: str, height: int, outfit: int, swing: float | None):
    clothes = np.random.default_rng((INSTRUMENTS.index(instrument), outfit)).integers(12, size=3)
    return draw(instrument, (round(height * 0.8), height), clothes, swing)


def _words(instrument: str) -> str:
    return instrument.replace("_", " ")
