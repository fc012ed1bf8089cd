"""When the prompt of a question holds: for each template, the segments in which the sentence of the sheet is true.

The sentences are those of the sheet "MUSIC-AVQA" of `TextPrompt.xlsx`, read as follows. "Together" and "at the same
time" are about one segment. An instrument that is "coming in" sounds since this segment or the one before. A prompt
that is edited is still measured against these segments: they are where the answer to the question can be found.
"""

from collections.abc import Callable, Iterable, Sequence

from dataset.bandstand.questions import (
    ORDINALS,
    Kin,
    alone_at,
    entries,
    first_or_last,
    loudest_or_lowest,
    neighbour,
    outermost,
    players,
)
from dataset.bandstand.scene import PLACES, Performer, Scene, SeenPerformer

Segments = frozenset[int]
ENTRY = 2  # segments for which an instrument is said to come in


def segments_of(template: str, scene: Scene, values: Sequence[str]) -> list[int]:
    """The segments in which the template's prompt, slots filled with `values`, is true of the scene, ascending."""
    return sorted(MOMENTS[template](scene, *values))


def sounding(performers: Iterable[Performer]) -> Segments:
    """Where at least one of them is heard."""
    return frozenset().union(*(p.sounds for p in performers))


def in_view(performers: Iterable[SeenPerformer]) -> Segments:
    """Where at least one of them is in the picture."""
    return frozenset().union(*(p.in_view for p in performers))


def _one(performer: Kin | None) -> Kin:
    """Whom the prompt is about: its question is asked only where there is such a performer."""
    assert performer is not None
    return performer


def _heard(scene: Scene, instrument: str) -> Segments:
    return sounding(players(scene.heard, instrument))


def _shown(scene: Scene, instrument: str) -> Segments:
    return in_view(players(scene.seen, instrument))


def _in_video(scene: Scene) -> list[SeenPerformer]:
    """Who is in the picture and heard."""
    return [p for p in scene.seen if p.heard]


def _where(scene: Scene, condition: Callable[[int], bool]) -> Segments:
    return frozenset(s for s in range(scene.seconds) if condition(s))


def _several(scene: Scene, performers: Sequence[Performer]) -> Segments:
    return _where(scene, lambda s: sum(s in p.sounds for p in performers) > 1)


def _several_kinds(scene: Scene, performers: Sequence[Kin], of: Callable[[Kin], Segments]) -> Segments:
    return _where(scene, lambda s: len({p.instrument for p in performers if s in of(p)}) > 1)


def _some_but_not_all(performers: Sequence[Performer]) -> Segments:
    """Where some of them sound and others do not."""
    return sounding(performers) - frozenset.intersection(*(p.sounds for p in performers))


def _beside(scene: Scene, side: str, instrument: str) -> Segments:
    (performer,) = players(scene.seen, instrument)
    return performer.in_view & _one(neighbour(scene, performer, side)).in_view


def _silent_in_video(scene: Scene) -> Segments:
    return frozenset().union(*(p.in_view - p.sounds for p in scene.seen))


def _apart(scene: Scene, which: str, place: str) -> Segments:
    one = _one(alone_at(scene, place))
    others = sounding(p for p in scene.seen if p is not one)
    return one.sounds ^ others


def _together_with(scene: Scene, instrument: str) -> Segments:
    return _heard(scene, instrument) & sounding(p for p in scene.heard if p.instrument != instrument)


def _alone_with_neighbour(scene: Scene, side: str, which: str) -> Segments:
    one = _one(first_or_last(scene.own, which))
    return (one.sounds - sounding(p for p in scene.own if p is not one)) & _one(neighbour(scene, one, side)).in_view


def _at(scene: Scene, values: Sequence[str]) -> list[Segments]:
    """Where those sound who are at the two places among the values."""
    return [_one(alone_at(scene, value)).sounds for value in values if value in PLACES]


def _either_place(scene: Scene, *values: str) -> Segments:
    return frozenset.union(*_at(scene, values))


def _both_places(scene: Scene, *values: str) -> Segments:
    return frozenset.intersection(*_at(scene, values))


def _not_all_players(scene: Scene, instrument: str, which: str) -> Segments:
    they = players(scene.seen, instrument)
    return _where(scene, lambda s: {True, False} <= {s in p.sounds for p in they if s in p.in_view})


def _entry(performer: Performer) -> Segments:
    begin = min(performer.sounds)
    return frozenset(range(begin, begin + ENTRY)) & performer.sounds


def _comes_in(scene: Scene, ordinal: str) -> Segments:
    return _entry(entries(scene.heard)[ORDINALS.index(ordinal)])


def _comes_in_relative(scene: Scene, word: str, instrument: str) -> Segments:
    (one,) = players(scene.heard, instrument)
    begin = min(one.sounds)
    chosen = [p for p in scene.heard if p is not one and (min(p.sounds) - begin) * (1 if word == "after" else -1) > 0]
    return frozenset().union(*map(_entry, chosen))


MOMENTS: dict[str, Callable[..., Segments]] = {
    "Is the <Object> more rhythmic than the <Object>?": lambda s, x, y: _heard(s, x) | _heard(s, y),
    "Is the <Object> louder than the <Object>?": lambda s, x, y: _heard(s, x) & _heard(s, y),
    "Is the <Object> playing longer than the <Object>?": lambda s, x, y: _heard(s, x) ^ _heard(s, y),
    "Is there a <Object> sound?": _heard,
    "Are there <Object> and <Object> sound?": lambda s, x, y: _heard(s, x) | _heard(s, y),
    "How many musical instruments were heard throughout the video?": lambda s: _several(s, s.heard),
    "Is there a <Object> in the entire video?": _shown,
    "Are there <Object> and <Object> instruments in the video?": lambda s, x, y: _shown(s, x) | _shown(s, y),
    "How many types of musical instruments appeared in the entire video?": lambda s: _several_kinds(
        s, s.seen, lambda p: p.in_view
    ),
    "How many <Object> are in the entire video?": _shown,
    "Where is the performance?": lambda s: frozenset(range(s.seconds)),
    "What is the instrument on the <LR> of <Object>?": _beside,
    "What kind of musical instrument is it?": lambda s: in_view(s.seen),
    "What kind of instrument is the <LRer> instrument?": lambda s, side: _one(outermost(s, side)).in_view,
    "Is this sound from the instrument in the video?": lambda s: sounding(_in_video(s)),
    "Is the <Object> in the video always playing?": lambda s, x: _shown(s, x) - _heard(s, x),
    "Is there a voiceover?": lambda s: s.spoken,
    "How many instruments are sounding in the video?": lambda s: _several(s, _in_video(s)),
    "How many types of musical instruments sound in the video?": lambda s: _several_kinds(
        s, _in_video(s), lambda p: p.sounds
    ),
    "How many instruments in the video did not sound from beginning to end?": _silent_in_video,
    "How many sounding <Object> in the video？": lambda s, x: sounding(players(_in_video(s), x)),
    "Where is the <LL> instrument?": lambda s, which: _one(loudest_or_lowest(s.heard, which)).sounds,
    "Is the <FL> sound coming from the <LR> instrument?": _apart,
    "Which is the musical instrument that sounds at the same time as the <Object>?": _together_with,
    "What is the <LR> instrument of the <FL> sounding instrument?": _alone_with_neighbour,
    "Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?": _either_place,
    "Is the instrument on the <LR> louder than the instrument on the <LR>?": _both_places,
    "Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?": _either_place,
    "Is the <Object> on the <LR> louder than the <Object> on the <LR>?": _both_places,
    "Where is the <FL> sounding instrument?": lambda s, which: _some_but_not_all(s.heard),
    "Which <Object> makes the sound <FL>?": _not_all_players,
    "What is the <TH> instrument that comes in?": _comes_in,
    "Which instrument makes sounds <BA> the <Object>?": _comes_in_relative,
}
