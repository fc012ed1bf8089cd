"""What happens in a video: who plays what, where, when, how loud and how fast. A seed says it all.

Times are seconds, segment s covers [s, s + 1). An interval begins and ends within `JITTER` of a whole second, so that
a performer plays for most of a segment or for next to none of it, and a performer that plays in a segment plays at
its middle.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

INSTRUMENTS = (
    *("accordion", "acoustic_guitar", "bagpipe", "banjo", "bassoon", "cello", "clarinet", "congas", "drum"),
    *("electric_bass", "erhu", "flute", "guzheng", "piano", "pipa", "saxophone", "suona", "trumpet", "tuba"),
    *("ukulele", "violin", "xylophone"),
)
PLACES = ("left", "middle", "right")
LOUDNESS_DB = (0.0, -6.0, -12.0)  # of a performer while it plays; two that differ can be told apart
NOTES_PER_SECOND = (1, 3, 6)
FRAME = 224  # pixels, both sides
JITTER = 0.2

Interval = tuple[float, float]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; x1 and y1 are outside
Plan = list[tuple[int, int]]  # in which whole seconds a performer plays, before the jitter


@dataclass(frozen=True)
class Performer:
    """Somebody with an instrument. One who is not `heard` mimes, or never plays."""

    instrument: str
    heard: bool
    intervals: tuple[Interval, ...]  # in which it plays, ascending; empty: it rests from beginning to end
    loudness_db: float
    notes_per_second: int

    @cached_property
    def plays(self) -> frozenset[int]:
        """The segments in which it plays or mimes."""
        return _segments(self.intervals)

    @cached_property
    def sounds(self) -> frozenset[int]:
        """The segments in which it is heard."""
        return self.plays if self.heard else frozenset()


@dataclass(frozen=True)
class SeenPerformer(Performer):
    """A performer in the picture; one who is not is heard from off screen."""

    present: Interval  # in which it is in the picture, all of `intervals` within
    place: str
    box: Box

    @cached_property
    def in_view(self) -> frozenset[int]:
        """The segments in which it is in the picture."""
        return _segments([self.present])


def _segments(intervals: Iterable[Interval]) -> frozenset[int]:
    """The segments of which at least half lies in the intervals."""
    return frozenset(s for a, b in intervals for s in range(round(a), round(b)))


@dataclass(frozen=True)
class Scene:
    """A video before it is rendered."""

    video_id: str
    seconds: int
    outdoor: bool
    performers: tuple[Performer, ...]
    voice_over: tuple[Interval, ...]
    seed: tuple[int, ...] = field(repr=False)  # of the details that no question asks about: clothes, melodies

    @cached_property
    def seen(self) -> tuple[SeenPerformer, ...]:
        """Who is in the picture."""
        return tuple(p for p in self.performers if isinstance(p, SeenPerformer))

    @cached_property
    def heard(self) -> tuple[Performer, ...]:
        """Who makes a sound, seen or not."""
        return tuple(p for p in self.performers if p.heard)

    @cached_property
    def own(self) -> tuple[SeenPerformer, ...]:
        """Who makes a sound, if all of them are in the picture; nobody if a sound comes from off screen."""
        own = tuple(p for p in self.seen if p.heard)
        return own if len(own) == len(self.heard) else ()

    @cached_property
    def spoken(self) -> frozenset[int]:
        """The segments in which the voice-over speaks."""
        return _segments(self.voice_over)


def make_scene(seed: int, stream: int, index: int, seconds: int) -> Scene:
    """Scene number `index` of a stream (benchmark or encoder training): the same numbers give the same scene.

    The picture is drawn before the sound track, and one of three tracks is chosen without looking at it: the
    performers' own sounds (up to two of them only mime), those and an unseen instrument, or a sound track by
    unseen instruments alone. So the picture does not give away what is heard, nor the sound what is seen.
    """
    rng = np.random.default_rng((seed, stream, index))
    times = np.arange(seconds + 1) + np.r_[0, rng.uniform(-JITTER, JITTER, seconds - 1), 0]
    instruments = _band(rng)
    track = rng.choice(["own", "extra", "dubbed"], p=[0.75, 0.10, 0.15])
    absent = [i for i in INSTRUMENTS if i not in instruments]
    unseen = {"own": 0, "extra": 1, "dubbed": int(rng.integers(1, 5))}[track]
    if track == "extra":
        plans = _arrange(rng, len(instruments) + 1, seconds)
        seen_plans, unseen_plans = plans[1:], plans[:1]
    else:
        seen_plans, unseen_plans = _arrange(rng, len(instruments), seconds), _arrange(rng, unseen, seconds)

    size = len(instruments) + unseen
    loudness, rate = iter(_deal(rng, LOUDNESS_DB, size)), iter(_deal(rng, NOTES_PER_SECOND, size))
    performers: list[Performer] = []
    mimes = _mimes(rng, instruments, seen_plans) if track != "dubbed" else instruments
    for instrument, (place, box), plan in zip(instruments, _spots(rng, len(instruments)), seen_plans, strict=True):
        intervals, present = _timed(plan, times), _presence(rng, plan, times)
        heard = bool(plan) and instrument not in mimes
        performers.append(SeenPerformer(instrument, heard, intervals, next(loudness), next(rate), present, place, box))
    for instrument, plan in zip(rng.choice(absent, unseen, replace=False), unseen_plans, strict=True):
        if plan:
            intervals = _timed(plan, times)
            performers.append(Performer(str(instrument), True, intervals, next(loudness), next(rate)))
    voice_over: tuple[Interval, ...] = ()
    if rng.random() < 0.5:
        length = int(rng.integers(seconds // 4, seconds // 2 + 1))
        start = int(rng.integers(0, seconds - length + 1))
        voice_over = ((float(times[start]), float(times[start + length])),)
    outdoor = bool(rng.random() < 0.5)
    return Scene(f"{index:08d}", seconds, outdoor, tuple(performers), voice_over, (seed, stream, index, 1))


def _band(rng: np.random.Generator) -> list[str]:
    """One to four instruments for the picture; in a quarter of the bands some are the same."""
    size = int(rng.choice([1, 2, 3, 4], p=[0.10, 0.20, 0.35, 0.35]))
    instruments = [str(i) for i in rng.choice(INSTRUMENTS, size, replace=False)]
    if size > 1 and rng.random() < 0.3:
        copies = int(rng.integers(2, size + 1))
        instruments[:copies] = [instruments[0]] * copies
    return [instruments[i] for i in rng.permutation(size)]


def _mimes(rng: np.random.Generator, instruments: list[str], plans: list[Plan]) -> list[str]:
    """Who only mimes: up to two of those who play, none of them with another of its kind, which by ear could be it."""
    able = [i for i, plan in zip(instruments, plans, strict=True) if plan and instruments.count(i) == 1]
    return [able[i] for i in rng.permutation(len(able))[: rng.choice(3, p=[0.3, 0.45, 0.25])]]


def _spots(rng: np.random.Generator, size: int) -> list[tuple[str, Box]]:
    """Where the performers stand: three columns, two rows. Only the fourth shares a column."""
    columns = [*rng.permutation(3), rng.integers(3)][:size]
    rows = [int(r) for r in rng.integers(2, size=size)]
    if size == 4:
        rows[3] = 1 - rows[columns.index(columns[3])]
    spots = []
    for column, row in zip(columns, rows, strict=True):
        height = int(rng.integers(88, 97) if row else rng.integers(82, 91))
        width = round(height * 0.8)
        x = 37 + 75 * int(column) + int(rng.integers(-3, 4)) - width // 2
        y = (223 if row else 124) + int(rng.integers(-6, 1)) - height
        x = min(max(x, 0), FRAME - width)
        spots.append((PLACES[column], (x, y, x + width, y + height)))
    return spots


def _arrange(rng: np.random.Generator, size: int, seconds: int) -> list[Plan]:
    """Whole-second intervals for each of `size` performers; about one in six never plays, one at least does."""
    way = rng.choice(["together", "staggered", "turns", "free"], p=[0.15, 0.50, 0.15, 0.20])
    shortest = max(3, seconds // 6)
    latest = seconds - shortest
    if way == "together":
        start = int(rng.choice([0, int(rng.integers(1, latest // 2))]))
        plans = [[(start, _end(rng, start, seconds, shortest))] for _ in range(size)]
    elif way == "staggered":
        gap = max(2, latest // 6)
        slots = rng.choice(latest // gap, size, replace=False)
        plans = [[(int(s) * gap, _end(rng, int(s) * gap, seconds, shortest))] for s in slots]
    elif way == "turns":
        bounds = np.linspace(0, seconds, size + 1).astype(int)
        plans = [[(int(a) + int(rng.integers(2)), int(b))] for a, b in itertools.pairwise(bounds)]
        plans = [plans[i] for i in rng.permutation(size)]
    else:
        plans = [_free(rng, seconds, shortest) for _ in range(size)]
    silent = rng.random(size) < 0.18
    if silent.all() and size:
        silent[rng.integers(size)] = False
    return [[] if s else plan for s, plan in zip(silent, plans, strict=True)]


def _end(rng: np.random.Generator, start: int, seconds: int, shortest: int) -> int:
    """Where an interval from `start` ends: half of them last until the end of the video."""
    return int(rng.choice([seconds, int(rng.integers(start + shortest, seconds + 1))]))


def _free(rng: np.random.Generator, seconds: int, shortest: int) -> Plan:
    """All the time (half of them), once, or twice with a pause between."""
    if rng.random() < 0.5:
        return [(0, seconds)]
    start = int(rng.integers(0, seconds - 2 * shortest))
    end = int(rng.integers(start + shortest, seconds - shortest + 1))
    if rng.random() < 0.5 or end + 2 > seconds - shortest:
        return [(start, end)]
    again = int(rng.integers(end + 2, seconds - shortest + 1))
    return [(start, end), (again, _end(rng, again, seconds, shortest))]


def _deal(rng: np.random.Generator, values: tuple, size: int) -> list:
    """`size` of the values in random order, none a second time before all others were dealt."""
    rounds = [rng.permutation(len(values)) for _ in range(size // len(values) + 1)]
    return [values[i] for i in np.concatenate(rounds)[:size]]


def _timed(plan: Plan, times: np.ndarray) -> tuple[Interval, ...]:
    return tuple((float(times[a]), float(times[b])) for a, b in plan)


def _presence(rng: np.random.Generator, plan: Plan, times: np.ndarray) -> Interval:
    """All of the video for most; some walk on before they play, some off afterwards."""
    first, last = 0, len(times) - 1
    if rng.random() < 0.2:
        first = int(rng.integers(0, plan[0][0] + 1 if plan else last // 2))
    if rng.random() < 0.2:
        last = int(rng.integers(plan[-1][1] if plan else last // 2, last + 1))
    return float(times[first]), float(times[last])
