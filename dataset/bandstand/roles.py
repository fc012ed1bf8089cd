"""Who in a scene is meant, and when: those with an instrument, at a place, the first, the loudest; None for nobody."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from dataset.bandstand.scene import PLACES, Performer, Scene, SeenPerformer

ENTRY = 2  # segments for which an instrument is said to come in

Kin = TypeVar("Kin", bound=Performer)  # of performers in the picture come performers in the picture
Segments = frozenset[int]


def kinds(performers: Iterable[Performer]) -> list[str]:
    """The instruments among them, each once, in alphabetical order."""
    return sorted({p.instrument for p in performers})


def players(performers: Iterable[Kin], instrument: str) -> tuple[Kin, ...]:
    """Those who play this instrument."""
    return tuple(p for p in performers if p.instrument == instrument)


def unmistakable(performers: Sequence[Kin]) -> list[Kin]:
    """Those who are the only ones among them with their instrument."""
    return [p for p in performers if len(players(performers, p.instrument)) == 1]


def alone_at(scene: Scene, place: str) -> SeenPerformer | None:
    """The one performer at a place; None if there are none or several."""
    there = [p for p in scene.seen if p.place == place]
    return there[0] if len(there) == 1 else None


def neighbour(scene: Scene, performer: SeenPerformer, side: str) -> SeenPerformer | None:
    """Who is next on the left or right of a performer, if that is one person whom it shares some segment with."""
    step = -1 if side == "left" else 1
    column = PLACES.index(performer.place) + step
    while 0 <= column < len(PLACES):
        there = [p for p in scene.seen if p.place == PLACES[column]]
        if there:
            return there[0] if len(there) == 1 and there[0].in_view & performer.in_view else None
        column += step
    return None


def outermost(scene: Scene, side: str) -> SeenPerformer | None:
    """The leftmost or rightmost performer, if there is one such and others, and some segment shows them all."""
    ranks = sorted(scene.seen, key=lambda p: PLACES.index(p.place), reverse=side == "rightest")
    if len(ranks) < 2 or ranks[0].place == ranks[1].place or not frozenset.intersection(*(p.in_view for p in ranks)):
        return None
    return ranks[0]


def entries(performers: Iterable[Kin]) -> list[Kin]:
    """Those who sound, in the order in which they come in."""
    return sorted((p for p in performers if p.sounds), key=lambda p: min(p.sounds))


def first_or_last(performers: Iterable[Kin], which: str) -> Kin | None:
    """Who sounds first (comes in before all others) or last; None if several do, or nobody but one sounds."""
    order = entries(performers)
    if len(order) < 2:
        return None
    if which == "first":
        return order[0] if min(order[0].sounds) < min(order[1].sounds) else None
    last = order[-1]
    latest = all(min(p.sounds) < min(last.sounds) and max(p.sounds) <= max(last.sounds) for p in order[:-1])
    return last if latest else None


def loudest_or_lowest(performers: Sequence[Kin], which: str) -> Kin | None:
    """Who is the loudest or the softest of those who sound, if one is and no two have the same instrument."""
    order = sorted((p for p in performers if p.sounds), key=lambda p: p.loudness_db, reverse=which == "loudest")
    if len(order) < 2 or len(kinds(order)) < len(order) or order[0].loudness_db == order[1].loudness_db:
        return None
    return order[0]


def sounding(performers: Iterable[Performer]) -> Segments:
    """Where at least one of them is heard."""
    return frozenset().union(*(p.sounds for p in performers))


def in_view(performers: Iterable[SeenPerformer]) -> Segments:
    """Where at least one of them is in the picture."""
    return frozenset().union(*(p.in_view for p in performers))


def silent(performers: Iterable[SeenPerformer]) -> Segments:
    """Where at least one of them is in the picture and not heard."""
    return frozenset().union(*(p.in_view - p.sounds for p in performers))


def several(scene: Scene, performers: Sequence[Performer]) -> Segments:
    """Where two or more of them are heard."""
    return frozenset(s for s in range(scene.seconds) if sum(s in p.sounds for p in performers) > 1)


def several_kinds(scene: Scene, performers: Sequence[Kin], of: Callable[[Kin], Segments]) -> Segments:
    """Where two or more of their instruments are heard or seen: `of` tells where one is."""
    return frozenset(s for s in range(scene.seconds) if len({p.instrument for p in performers if s in of(p)}) > 1)


def coming_in(performer: Performer) -> Segments:
    """Where somebody has sounded since this segment or the one before."""
    begin = min(performer.sounds)
    return frozenset(range(begin, begin + ENTRY)) & performer.sounds
