"""Scenes by hand."""

from dataset.bandstand.scene import PLACES, Performer, Scene, SeenPerformer

HEIGHT, WIDTH = 90, 72


def performer(instrument, place, *intervals, heard=True, loudness=0.0, rate=3, present=(0.0, 20.0)):
    played = (instrument, heard and bool(intervals), intervals, loudness, rate)
    if not place:
        return Performer(*played)
    left = 75 * PLACES.index(place)
    return SeenPerformer(*played, present, place, (left, 130, left + WIDTH, 130 + HEIGHT))


def scene(*performers, voice_over=(), outdoor=False):
    return Scene("00000000", 20, outdoor, performers, voice_over, (7, 7))
