"""Scenes by hand."""

from dataset.bandstand.scene import PLACES, Performer, Scene

HEIGHT, WIDTH = 90, 72


def performer(instrument, place, *intervals, heard=True, loudness=0.0, rate=3, present=(0.0, 20.0)):
    box = None
    if place:
        left = 75 * PLACES.index(place)
        box = (left, 130, left + WIDTH, 130 + HEIGHT)
    return Performer(
        instrument, heard and bool(intervals), intervals, loudness, rate, present if place else None, place, box
    )


def scene(*performers, voice_over=(), outdoor=False):
    return Scene("00000000", 20, outdoor, performers, voice_over, (7, 7))
