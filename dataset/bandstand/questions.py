"""MUSIC-AVQA's 33 question templates, each a function from a scene to every question it allows: the answer, and when.

A question is left out where two people could disagree on the answer: two instruments share a place, two performers
are equally loud, the first to sound ends before others, the sound comes from off screen. What the terms mean:

    sound     what is heard; `performer.sounds`. Somebody who mimes does not sound.
    comes in  begins to sound for the first time; two come in together if they begin in the same segment.
    last      comes in last and is still sounding when all others have ended; together, if they begin and end together.
    loudness  of a performer while it plays. "lowest" is the softest.
    rhythmic  more notes in a second.

`cell` is what a model could know without the modality that is asked for: words in the question's slots and, in audio
and visual questions, what the other modality shows of it. `benchmark.choose` balances the answers within each cell.

`segments` are those in which the question's prompt, a sentence of the sheet "MUSIC-AVQA" of `TextPrompt.xlsx`, is true.
"Together" and "at the same time" are about one segment. An instrument that is "coming in" sounds since this segment or
the one before. A prompt that is edited is still measured against these: there the answer can be found.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from dataset.bandstand.roles import (
    Segments,
    alone_at,
    coming_in,
    entries,
    first_or_last,
    in_view,
    kinds,
    loudest_or_lowest,
    neighbour,
    outermost,
    players,
    several,
    several_kinds,
    silent,
    sounding,
    unmistakable,
)
from dataset.bandstand.scene import INSTRUMENTS, PLACES, Performer, Scene, SeenPerformer

NUMBERS = ("zero", "one", "two", "three", "four")
ORDINALS = ("first", "second", "third", "fourth")


class Candidate(NamedTuple):
    """A question that a scene allows."""

    values: tuple[str, ...]  # of the slots, in their order
    answer: str
    cell: tuple  # within which answers are balanced
    segments: Segments  # where the prompt is true
    about: tuple[SeenPerformer, ...] | None = None  # whom in the picture the question is about; None: nobody certain


Candidates = Iterator[Candidate]
Measure = Callable[[Performer], float]
Join = Callable[..., Segments]  # makes one set of those of several performers, such as `frozenset.union`


class Template(NamedTuple):
    """A question with slots."""

    text: str
    modality: str
    kind: str
    candidates: Callable[[Scene], Candidates]


TEMPLATES: list[Template] = []


def template(text: str, modality: str, kind: str) -> Callable:
    """Register the function below as the one that finds the questions of this template."""

    def register(candidates: Callable[[Scene], Candidates]) -> Callable[[Scene], Candidates]:
        TEMPLATES.append(Template(text, modality, kind, candidates))
        return candidates

    return register


def yes(condition: bool) -> str:
    """The answer to a yes-or-no question."""
    return "yes" if condition else "no"


def _look(scene: Scene, instrument: str) -> str:
    """What the picture says of an instrument's sound: it is absent, rests or plays."""
    there = players(scene.seen, instrument)
    return ("plays" if any(p.plays for p in there) else "rests") if there else "absent"


def _asked_about(scene: Scene) -> Iterator[tuple[str, str]]:
    """Pairs of instruments: those of the scene, and one that is not there for each of them."""
    there = kinds(scene.performers)
    absent = [i for i in INSTRUMENTS if i not in there]
    turn = int(scene.video_id)
    yield from itertools.permutations(there, 2)
    for n, instrument in enumerate(there):
        other = absent[(7 * turn + n) % len(absent)]
        yield from ((instrument, other), (other, instrument))
    yield absent[(7 * turn + 4) % len(absent)], absent[(7 * turn + 5) % len(absent)]


# --- audio ----------------------------------------------------------------------------------------------------------


def _compare(performers: Sequence[Performer], measure: Measure, join: Join) -> Candidates:
    for p, q in itertools.permutations(unmistakable(performers), 2):
        if p.sounds and q.sounds and measure(p) != measure(q):
            about = (p, q) if isinstance(p, SeenPerformer) and isinstance(q, SeenPerformer) else None
            values, segments = (p.instrument, q.instrument), join(p.sounds, q.sounds)
            yield Candidate(values, yes(measure(p) > measure(q)), values[:1], segments, about)


@template("Is the <Object> more rhythmic than the <Object>?", "Audio", "Comparative")
def _more_rhythmic(scene: Scene) -> Candidates:
    yield from _compare(scene.heard, lambda p: p.notes_per_second, frozenset.union)


@template("Is the <Object> louder than the <Object>?", "Audio", "Comparative")
def _louder(scene: Scene) -> Candidates:
    yield from _compare(scene.heard, lambda p: p.loudness_db, frozenset.intersection)


@template("Is the <Object> playing longer than the <Object>?", "Audio", "Comparative")
def _longer(scene: Scene) -> Candidates:
    off_screen = [p for p in scene.heard if not isinstance(p, SeenPerformer)]  # the picture would tell of the others
    for candidate in _compare(off_screen, lambda p: len(p.sounds), frozenset.symmetric_difference):
        p, q = (players(off_screen, i)[0] for i in candidate.values)
        if abs(len(p.sounds) - len(q.sounds)) >= scene.seconds / 10:
            yield candidate


@template("Is there a <Object> sound?", "Audio", "Counting")
def _is_heard(scene: Scene) -> Candidates:
    for x in INSTRUMENTS:
        there = players(scene.heard, x)
        yield Candidate((x,), yes(bool(there)), (x, _look(scene, x)), sounding(there))


@template("Are there <Object> and <Object> sound?", "Audio", "Counting")
def _both_heard(scene: Scene) -> Candidates:
    for x, y in _asked_about(scene):
        one, other = players(scene.heard, x), players(scene.heard, y)
        looks = (_look(scene, x), _look(scene, y))
        yield Candidate((x, y), yes(bool(one and other)), looks, sounding(one + other))


@template("How many musical instruments were heard throughout the video?", "Audio", "Counting")
def _number_heard(scene: Scene) -> Candidates:
    if 1 <= len(scene.heard) == len(kinds(scene.heard)) <= 4:
        playing = sum(bool(p.plays) for p in scene.seen)
        yield Candidate((), NUMBERS[len(scene.heard)], (playing,), several(scene, scene.heard))


# --- visual ---------------------------------------------------------------------------------------------------------


@template("Is there a <Object> in the entire video?", "Visual", "Counting")
def _is_seen(scene: Scene) -> Candidates:
    for x in INSTRUMENTS:
        there = players(scene.seen, x)
        yield Candidate((x,), yes(bool(there)), (x, x in kinds(scene.heard)), in_view(there), there or None)


@template("Are there <Object> and <Object> instruments in the video?", "Visual", "Counting")
def _both_seen(scene: Scene) -> Candidates:
    heard = kinds(scene.heard)
    for x, y in _asked_about(scene):
        one, other = players(scene.seen, x), players(scene.seen, y)
        about = one + other
        yield Candidate((x, y), yes(bool(one and other)), (x in heard, y in heard), in_view(about), about or None)


@template("How many types of musical instruments appeared in the entire video?", "Visual", "Counting")
def _kinds_seen(scene: Scene) -> Candidates:
    segments = several_kinds(scene, scene.seen, lambda p: p.in_view)
    yield Candidate((), NUMBERS[len(kinds(scene.seen))], (len(kinds(scene.heard)),), segments, scene.seen)


@template("How many <Object> are in the entire video?", "Visual", "Counting")
def _number_seen(scene: Scene) -> Candidates:
    for x in INSTRUMENTS:
        there = players(scene.seen, x)
        yield Candidate((x,), NUMBERS[len(there)], (x in kinds(scene.heard),), in_view(there), there or None)


@template("Where is the performance?", "Visual", "Location")
def _surroundings(scene: Scene) -> Candidates:
    yield Candidate((), "outdoor" if scene.outdoor else "indoor", (), frozenset(range(scene.seconds)))


def _named_by_sight(
    scene: Scene, values: tuple[str, ...], join: Join, who: SeenPerformer | None, *others: SeenPerformer
) -> Candidates:
    """The question whose answer is who's instrument, unless the sound would tell it."""
    if who and who.instrument not in kinds(scene.heard):
        about = (who, *others)
        yield Candidate(values, who.instrument, values[:1], join(*(p.in_view for p in about)), about)


@template("What is the instrument on the <LR> of <Object>?", "Visual", "Location")
def _next_to(scene: Scene) -> Candidates:
    for p in unmistakable(scene.seen):
        for side in ("left", "right"):
            values, beside = (side, p.instrument), neighbour(scene, p, side)
            yield from _named_by_sight(scene, values, frozenset.intersection, beside, p)


@template("What kind of musical instrument is it?", "Visual", "Location")
def _the_only_kind(scene: Scene) -> Candidates:
    if len(kinds(scene.seen)) == 1:
        yield from _named_by_sight(scene, (), frozenset.union, *scene.seen)


@template("What kind of instrument is the <LRer> instrument?", "Visual", "Location")
def _outermost_kind(scene: Scene) -> Candidates:
    for side in ("leftest", "rightest"):
        yield from _named_by_sight(scene, (side,), frozenset.union, outermost(scene, side))


# --- audio-visual ---------------------------------------------------------------------------------------------------


@template("Is this sound from the instrument in the video?", "Audio-Visual", "Existential")
def _own_sound(scene: Scene) -> Candidates:
    if scene.own:
        yield Candidate((), "yes", (), sounding(scene.own), scene.own)
    elif scene.heard and not any(p.heard for p in scene.seen):
        yield Candidate((), "no", (), frozenset())


@template("Is the <Object> in the video always playing?", "Audio-Visual", "Existential")
def _always_playing(scene: Scene) -> Candidates:
    for p in unmistakable(scene.seen) if scene.own else ():
        if p.heard and (len(p.sounds) == scene.seconds or p.sounds < p.in_view):
            always, values = yes(len(p.sounds) == scene.seconds), (p.instrument,)
            yield Candidate(values, always, values, p.in_view - p.sounds, (p,))


@template("Is there a voiceover?", "Audio-Visual", "Existential")
def _voiceover(scene: Scene) -> Candidates:
    yield Candidate((), yes(bool(scene.voice_over)), (), scene.spoken)


def _count(scene: Scene, counted: Sequence, segments: Segments, about: Sequence[SeenPerformer]) -> Candidates:
    if scene.own:
        yield Candidate((), NUMBERS[len(counted)], (), segments, tuple(about))


@template("How many instruments are sounding in the video?", "Audio-Visual", "Counting")
def _number_sounding(scene: Scene) -> Candidates:
    yield from _count(scene, scene.own, several(scene, scene.own), scene.own)


@template("How many types of musical instruments sound in the video?", "Audio-Visual", "Counting")
def _kinds_sounding(scene: Scene) -> Candidates:
    segments = several_kinds(scene, scene.own, lambda p: p.sounds)
    yield from _count(scene, kinds(scene.own), segments, scene.own)


@template("How many instruments in the video did not sound from beginning to end?", "Audio-Visual", "Counting")
def _never_sounding(scene: Scene) -> Candidates:
    never = [p for p in scene.seen if not p.heard]
    yield from _count(scene, never, silent(scene.seen), never)


@template("How many sounding <Object> in the video？", "Audio-Visual", "Counting")
def _number_of_kind_sounding(scene: Scene) -> Candidates:
    for x in kinds(scene.seen) if scene.own else ():
        heard = players(scene.own, x)
        yield Candidate((x,), NUMBERS[len(heard)], (), sounding(heard), players(scene.seen, x))


@template("Where is the <LL> instrument?", "Audio-Visual", "Location")
def _place_by_loudness(scene: Scene) -> Candidates:
    for which in ("loudest", "lowest"):
        if p := loudest_or_lowest(scene.own, which):
            yield Candidate((which,), p.place, (which,), p.sounds, (p,))


@template("Is the <FL> sound coming from the <LR> instrument?", "Audio-Visual", "Location")
def _sound_from_place(scene: Scene) -> Candidates:
    for which, place in itertools.product(("first", "last"), PLACES):
        p, there = first_or_last(scene.own, which), alone_at(scene, place)
        if p and there:
            apart = there.sounds ^ sounding(q for q in scene.seen if q is not there)
            yield Candidate((which, place), yes(p is there), (which, place), apart, (p,))


@template("Which is the musical instrument that sounds at the same time as the <Object>?", "Audio-Visual", "Location")
def _sounds_together_with(scene: Scene) -> Candidates:
    for p in unmistakable(scene.own):
        others = [q for q in scene.own if q.instrument != p.instrument and q.sounds & p.sounds]
        if len(kinds(others)) == 1 and max(len(q.sounds & p.sounds) for q in others) >= 2:
            together = p.sounds & sounding(others)
            yield Candidate((p.instrument,), others[0].instrument, (), together, (p, *others))


@template("What is the <LR> instrument of the <FL> sounding instrument?", "Audio-Visual", "Location")
def _next_to_sounding(scene: Scene) -> Candidates:
    for side, which in itertools.product(("left", "right"), ("first", "last")):
        p = first_or_last(scene.own, which)
        if p and (other := neighbour(scene, p, side)):
            alone = p.sounds - sounding(q for q in scene.own if q is not p)
            yield Candidate((side, which), other.instrument, (side, which), alone & other.in_view, (p, other))


def _compare_places(scene: Scene, measure: Measure, join: Join, name_them: bool) -> Candidates:
    for one, other in itertools.permutations(PLACES, 2):
        p, q = alone_at(scene, one), alone_at(scene, other)
        if p and q and {p, q} <= set(unmistakable(scene.own)) and measure(p) != measure(q):
            values = (p.instrument, one, q.instrument, other) if name_them else (one, other)
            yield Candidate(values, yes(measure(p) > measure(q)), (one, other), join(p.sounds, q.sounds), (p, q))


@template("Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?", "Audio-Visual", "Comparative")
def _place_more_rhythmic(scene: Scene) -> Candidates:
    yield from _compare_places(scene, lambda p: p.notes_per_second, frozenset.union, name_them=False)


@template("Is the instrument on the <LR> louder than the instrument on the <LR>?", "Audio-Visual", "Comparative")
def _place_louder(scene: Scene) -> Candidates:
    yield from _compare_places(scene, lambda p: p.loudness_db, frozenset.intersection, name_them=False)


@template("Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?", "Audio-Visual", "Comparative")
def _named_more_rhythmic(scene: Scene) -> Candidates:
    yield from _compare_places(scene, lambda p: p.notes_per_second, frozenset.union, name_them=True)


@template("Is the <Object> on the <LR> louder than the <Object> on the <LR>?", "Audio-Visual", "Comparative")
def _named_louder(scene: Scene) -> Candidates:
    yield from _compare_places(scene, lambda p: p.loudness_db, frozenset.intersection, name_them=True)


@template("Where is the <FL> sounding instrument?", "Audio-Visual", "Temporal")
def _place_by_order(scene: Scene) -> Candidates:
    for which in ("first", "last"):
        if p := first_or_last(scene.own, which):
            some_but_not_all = sounding(scene.own) - frozenset.intersection(*(q.sounds for q in scene.own))
            yield Candidate((which,), p.place, (which,), some_but_not_all, (p,))


@template("Which <Object> makes the sound <FL>?", "Audio-Visual", "Temporal")
def _which_of_them(scene: Scene) -> Candidates:
    for x, which in itertools.product(kinds(scene.seen), ("first", "last")):
        they, order = players(scene.seen, x), entries(players(scene.own, x))
        not_all = sounding(they) & silent(they)
        begins, ends = {min(p.sounds) for p in order}, {max(p.sounds) for p in order}
        if len(order) > 1 and len(begins) == 1 and (which == "first" or len(ends) == 1):
            yield Candidate((x, which), "simultaneously", (which,), not_all, tuple(order))
        elif (p := first_or_last(order, which)) and [q.place for q in they].count(p.place) == 1:
            yield Candidate((x, which), p.place, (which,), not_all, (p,))


@template("What is the <TH> instrument that comes in?", "Audio-Visual", "Temporal")
def _comes_in(scene: Scene) -> Candidates:
    order = entries(scene.own)
    begins = [min(p.sounds) for p in order]
    for ordinal, p in zip(ORDINALS, order if len(order) > 1 else (), strict=False):
        if begins.count(min(p.sounds)) == 1:
            yield Candidate((ordinal,), p.instrument, (ordinal,), coming_in(p), (p,))


@template("Which instrument makes sounds <BA> the <Object>?", "Audio-Visual", "Temporal")
def _before_or_after(scene: Scene) -> Candidates:
    for p in unmistakable(scene.own):
        others = [q for q in scene.own if q is not p]
        earlier = [q for q in others if min(q.sounds) < min(p.sounds)]
        later = [q for q in others if min(q.sounds) > min(p.sounds)]
        for word, found in (("before", earlier), ("after", later)):
            if len(found) == 1 and found[0].instrument != p.instrument:
                yield Candidate((word, p.instrument), found[0].instrument, (word,), coming_in(found[0]), (p, found[0]))
