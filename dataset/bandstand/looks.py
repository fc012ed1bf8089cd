"""What the 22 instruments and their players look like, resting and playing.

Body coordinates: x from -40 to 40, y from 0 (top) to 100 (feet), the head at (0, 16). An instrument is drawn in its
own coordinates around (0, 0) and placed by a pose.
"""

from typing import NamedTuple

import numpy as np

from dataset.bandstand.drawing import Colour, Painted, Pose, Sprite, box, line, oval, ring

POINTS = tuple[tuple[float, float], tuple[float, float]]
SWINGS = (-1.0, -0.35, 0.35, 1.0)  # phases of the playing movement

BLACK, WHITE, STEEL, GOLD = (25, 22, 26), (245, 243, 235), (205, 215, 225), (240, 195, 40)
SKIN = ((250, 214, 180), (224, 172, 120), (160, 105, 65), (105, 66, 45))
SHIRTS = ((70, 90, 160), (120, 60, 130), (60, 120, 90), (150, 70, 70), (90, 90, 100), (190, 190, 200), (60, 60, 70))
HAIR = ((40, 30, 25), (90, 55, 30), (130, 125, 120), (60, 40, 40))


class Hold(NamedTuple):
    """Where an instrument is, and how it is played."""

    rest: Pose
    play: Pose
    hands: POINTS  # where the hands are when playing: left of the picture, right
    strokes: POINTS  # how far either hand swings
    sway: float = 4.0  # degrees the instrument swings
    breath: float = 0.0  # how far it stretches and shrinks
    stick: str = ""  # "bow": the right hand draws a bow; "both": both hands hold sticks
    stands: bool = False  # on the floor: who rests keeps the hands behind it


def _standing(place: Pose, hands: POINTS, strokes: POINTS, stick: str = "") -> Hold:
    return Hold(place, place, hands, strokes, sway=0, stick=stick, stands=True)


def _with_neck(body: list[Painted], wood: Colour, length: float) -> list[Painted]:
    """Body at the origin with a neck of `length` to the left and a head at its end."""
    return [(line(0, 0, -length, 0, 1.8), wood), (box(-length, 0, 4, 1.8 + 1.6), wood), *body]


def _figure_eight(size: float, wood: Colour) -> list[Painted]:
    return [
        (oval(-0.45 * size, 0, 0.75 * size, 0.75 * size), wood),
        (oval(0.5 * size, 0, size, size), wood),
        (oval(-0.1 * size, 0, 0.33 * size, 0.33 * size), BLACK),
        (box(0.8 * size, 0, 0.12 * size, 0.4 * size), BLACK),
    ]


BARS = ((225, 40, 40), (240, 130, 30), (245, 215, 50), (60, 180, 70), (50, 170, 210), (60, 80, 200), (150, 60, 180))
SHAPES: dict[str, list[Painted]] = {
    "accordion": [
        (box(0, 0, 14, 12), BLACK),
        *[(box(x, 0, 1, 12), (225, 215, 215)) for x in (-9, -4.5, 0, 4.5, 9)],
        *[(box(x, 0, 6, 15, 3), (205, 20, 35)) for x in (-18, 18)],
        *[(box(20, y, 3, 1), WHITE) for y in (-9, -5, -1, 3, 7)],
    ],
    "acoustic_guitar": _with_neck(_figure_eight(13, (226, 168, 84)), (120, 72, 36), 34),
    "bagpipe": [
        *[(line(4, -4, x, y, 1.6, 2.2), BLACK) for x, y in ((6, -40), (16, -38), (25, -31))],
        (line(-6, 6, -8, 34, 1.8, 3.0), BLACK),
        (line(-6, -4, -4, -22, 1.4), BLACK),
        (oval(2, 2, 17, 12), (20, 120, 60)),
        *[(line(x, -8, x + 3, 12, 1.0), (215, 190, 40)) for x in (-8, 0, 8)],
        (line(-13, 2, 17, 2, 1.0), (170, 30, 40)),
    ],
    "banjo": _with_neck(
        [(oval(0, 0, 13, 13), STEEL), (oval(0, 0, 11, 11), WHITE), (box(5, 0, 1.2, 5), (120, 72, 36))], (90, 50, 30), 38
    ),
    "bassoon": [
        (line(0, 36, 0, -44, 4.2, 3.2), (120, 32, 28)),
        (line(5, 36, 5, -10, 3.4, 2.6), (120, 32, 28)),
        *[(box(0, y, 4.4, 1.0), STEEL) for y in (-40, -24, -8, 10, 26)],
        (line(4, -10, -10, -20, 0.9), STEEL),
    ],
    "cello": [
        (line(0, 10, 0, -42, 2.0), BLACK),
        (oval(0, -4, 12, 11), (150, 52, 22)),
        (oval(0, 15, 16, 15), (150, 52, 22)),
        (line(0, 30, 0, 38, 1.0), STEEL),
        *[(line(x, 0, x, 10, 1.0), BLACK) for x in (-6, 6)],
        (box(0, 16, 1.6, 9), BLACK),
    ],
    "clarinet": [
        (line(0, 0, 0, 38, 1.7, 2.2), BLACK),
        (line(0, 38, 0, 45, 2.4, 5.5), BLACK),
        *[(box(0, y, 2.8, 0.9), STEEL) for y in (8, 14, 20, 26, 32)],
    ],
    "congas": [
        p
        for x, wood in ((-15, (225, 120, 40)), (15, (185, 60, 35)))
        for p in (
            (line(x, 2, x, 32, 13, 9), wood),
            (box(x, 12, 13, 1.4), BLACK),
            (oval(x, -6, 13, 5.5), BLACK),
            (oval(x, -7, 12, 4.5), WHITE),
        )
    ],
    "drum": [
        *[(line(s * 30, -26, s * 30, 36, 0.9), STEEL) for s in (-1, 1)],
        *[(oval(s * 28, -26, 12, 3.2), GOLD) for s in (-1, 1)],
        *[(box(s * 15, -8, 9, 6, 2), (30, 80, 200)) for s in (-1, 1)],
        (oval(0, 16, 21, 21), (30, 80, 200)),
        (oval(0, 16, 17.5, 17.5), WHITE),
        (oval(0, 16, 5, 5), (30, 80, 200)),
    ],
    "electric_bass": _with_neck(
        [
            (oval(4, 0, 13, 9), (225, 25, 95)),
            *[(line(0, s * 5, -12, s * 9, 4.0, 2.5), (225, 25, 95)) for s in (-1, 1)],
            (box(4, 3, 8, 4), WHITE),
        ],
        BLACK,
        42,
    ),
    "erhu": [
        (line(0, 22, 0, -40, 1.5), (45, 25, 60)),
        *[(line(0, y, 9, y - 1, 1.3), (45, 25, 60)) for y in (-34, -28)],
        (box(0, 22, 8, 8, 2), (95, 40, 130)),
        (oval(0, 22, 5, 5), (200, 190, 150)),
    ],
    "flute": [(line(-6, 0, 36, 0, 1.9), STEEL), *[(oval(x, 0, 1.3, 1.3), (90, 110, 135)) for x in (8, 14, 20, 26, 31)]],
    "guzheng": [
        *[(line(x, 4, x, 27, 1.5), (70, 40, 25)) for x in (-30, 30)],
        (box(0, 0, 38, 8, 3), (135, 75, 35)),
        *[(line(-34, y, 34, y, 0.5), (250, 225, 170)) for y in (-4.5, -1.5, 1.5, 4.5)],
        *[(oval(-26 + 7.5 * i, -4.5 + 1.3 * i, 1.5, 1.5), WHITE) for i in range(8)],
    ],
    "piano": [
        (box(0, 8, 36, 24, 2), (28, 26, 30)),
        (box(0, -8, 36, 5, 1), WHITE),
        *[(box(-31 + 6.2 * i, -10, 1.4, 3, 0.5), BLACK) for i in range(11) if i % 7 not in (2, 6)],
        *[(line(x, 30, x, 36, 2.0), BLACK) for x in (-30, 30)],
    ],
    "pipa": [
        (line(0, 4, 0, -34, 2.4), (60, 35, 25)),
        (line(0, -34, 6, -39, 2.2), (60, 35, 25)),
        (line(0, -8, 0, 14, 6, 14), (96, 52, 30)),
        (line(0, -6, 0, 14, 4, 11.5), (240, 214, 150)),
        *[(box(0, y, 3.4, 0.8), (96, 52, 30)) for y in (-8, -3, 2)],
        (box(0, 19, 6, 1.2), BLACK),
    ],
    "saxophone": [
        (line(-8, -20, 0, -22, 1.2), BLACK),
        (line(0, -22, 2, 16, 1.8, 3.2), GOLD),
        (line(2, 16, 9, 20, 3.4, 4.0), GOLD),
        (line(9, 20, 15, 0, 4.2, 8.0), GOLD),
        (oval(15, -3, 7, 3.5), (120, 85, 20)),
        *[(oval(0.8, y, 1.6, 1.6), WHITE) for y in (-12, -5, 2, 9)],
    ],
    "suona": [
        (line(0, 0, 0, 22, 1.6, 2.6), (150, 30, 40)),
        (line(0, 24, 0, 36, 3.0, 11), GOLD),
        (oval(0, 44, 10.5, 3), (130, 70, 20)),
        *[(oval(0, y, 1.1, 1.1), WHITE) for y in (6, 11, 16, 21)],
    ],
    "trumpet": [
        (line(0, 0, 32, 0, 1.5), (255, 222, 90)),
        (line(27, 0, 36, 0, 2.0, 8.0), (255, 222, 90)),
        (ring(15, 4.5, 10, 5, 1.5), (255, 222, 90)),
        *[(line(x, -5, x, 7, 1.7), WHITE) for x in (11, 15.5, 20)],
    ],
    "tuba": [
        (line(14, 18, 17, -28, 5, 9), (190, 120, 55)),
        (line(17, -28, 18, -36, 9, 17), (190, 120, 55)),
        (oval(18, -44, 17, 5), (110, 62, 25)),
        (ring(0, 12, 17, 20, 4.2), (190, 120, 55)),
        (ring(0, 12, 7, 10, 2.0), (160, 98, 45)),
        *[(line(x, 6, x, 18, 1.6), STEEL) for x in (-4, 0, 4)],
    ],
    "ukulele": _with_neck(_figure_eight(9, (40, 190, 200)), (245, 235, 200), 22),
    "violin": [
        (line(0, 0, 25, 0, 1.7), BLACK),
        (oval(-7, 0, 9.5, 9), (205, 95, 25)),
        (oval(6, 0, 7.5, 7), (205, 95, 25)),
        (box(-1, 0, 8, 1.2), BLACK),
    ],
    "xylophone": [
        *[(line(s * 24, 0, s * 30, 34, 1.5), STEEL) for s in (-1, 1)],
        *[(box(-28.5 + 9.5 * i, 0, 4.0, 15 - i), colour) for i, colour in enumerate(BARS)],
        *[(line(-32, y, 32, y * 0.6, 0.8), BLACK) for y in (-6, 6)],
    ],
}
STRUMMED = Hold(Pose(6, 80, -75), Pose(9, 56, 20), ((-22, 46), (10, 54)), ((3, 1), (1, 7)))
HOLDS = {
    "accordion": Hold(Pose(0, 74, 0, 0.6), Pose(0, 50, 0, 1.15), ((-25, 50), (25, 50)), ((-4, 0), (4, 0)), breath=0.3),
    "acoustic_guitar": STRUMMED,
    "bagpipe": Hold(Pose(4, 74, 70), Pose(4, 44), ((-8, 66), (12, 50)), ((2, 5), (0, 3)), breath=0.12),
    "banjo": STRUMMED,
    "bassoon": Hold(Pose(24, 62, 0), Pose(12, 48, 28), ((4, 44), (4, 64)), ((2, 3), (-2, 3))),
    "cello": Hold(Pose(22, 62, 12), Pose(0, 60, -4), ((-6, 30), (16, 64)), ((0, 5), (9, 1)), stick="bow"),
    "clarinet": Hold(Pose(17, 56, -12), Pose(0, 24, -32), ((7, 38), (16, 48)), ((-1, 2), (2, 3)), sway=9),
    "congas": _standing(Pose(0, 62), ((-17, 45), (17, 45)), ((-3, -13), (3, 13))),
    "drum": _standing(Pose(0, 62), ((-20, 36), (20, 36)), ((-2, -12), (2, 12)), stick="both"),
    "electric_bass": STRUMMED,
    "erhu": Hold(Pose(-22, 62, -6), Pose(-8, 56, 4), ((-7, 36), (12, 72)), ((0, 4), (9, 0)), stick="bow"),
    "flute": Hold(Pose(19, 50, 88), Pose(2, 23, 10), ((12, 27), (24, 29)), ((0, 2), (1, -2)), sway=7),
    "guzheng": _standing(Pose(0, 72, -6), ((-18, 62), (16, 62)), ((10, -9), (-10, 9))),
    "piano": _standing(Pose(0, 62), ((-20, 48), (18, 48)), ((11, -8), (-11, 8))),
    "pipa": Hold(Pose(20, 68, 70), Pose(2, 52, 6), ((-4, 30), (8, 60)), ((0, 5), (5, 5))),
    "saxophone": Hold(Pose(20, 66, 25), Pose(7, 46), ((7, 40), (9, 54)), ((-1, 2), (2, 3)), sway=9),
    "suona": Hold(Pose(18, 52), Pose(2, 24, -75), ((13, 29), (22, 31)), ((0, 2), (1, -2)), sway=10),
    "trumpet": Hold(Pose(-17, 58, 78), Pose(2, 23, -6), ((14, 31), (18, 20)), ((0, 1), (0, 3)), sway=7),
    "tuba": Hold(Pose(-10, 76, 48), Pose(1, 56), ((-16, 60), (6, 58)), ((0, 2), (0, 4)), breath=0.06),
    "ukulele": STRUMMED,
    "violin": Hold(Pose(18, 70, 70), Pose(12, 29, -4), ((31, 29), (2, 22)), ((0, 1), (7, -7)), stick="bow"),
    "xylophone": _standing(Pose(0, 64), ((-17, 50), (17, 50)), ((-5, -9), (5, 9)), stick="both"),
}


def draw(instrument: str, size: tuple[int, int], clothes: np.ndarray, swing: float | None) -> Sprite:
    """A performer in a picture of `size` (width, height) pixels, `swing` a phase of playing or None for resting.

    `clothes`: three integers that choose skin, shirt and hair.
    """
    hold, shapes = HOLDS[instrument], SHAPES[instrument]
    width, height = size
    person = Sprite(-50 * width / height, 0, 100 * width / height, 100, height / 100)
    skin, shirt, hair = (colours[n % len(colours)] for colours, n in zip((SKIN, SHIRTS, HAIR), clothes, strict=True))
    playing = swing is not None
    swing = swing or 0.0
    lean = 1.6 * swing
    head = (lean, 17.0) if playing else (0.0, 15.0)
    person.paint(
        [
            *[(line(s * 5, 62, s * 7, 96, 4.5, 3.5), (45, 45, 60)) for s in (-1, 1)],
            *[(line(s * 7, 97, s * 11, 98, 2.0), BLACK) for s in (-1, 1)],
            (line(lean / 2, 36, 0, 62, 10, 9), shirt),
            (oval(head[0], head[1] - 2, 9.5, 9.5), hair),
            (oval(head[0], head[1] + 1, 8, 8.5), skin),
        ]
    )
    if playing:
        angle, stretch = hold.play.angle + hold.sway * swing, hold.play.stretch * (1 + hold.breath * swing)
        pose = hold.play._replace(angle=angle, stretch=stretch)
        moved = zip(hold.hands, hold.strokes, strict=True)
        left, right = ((h[0] + swing * s[0], h[1] + swing * s[1]) for h, s in moved)
    else:
        pose, left, right = hold.rest, (-16.0, 64.0), (16.0, 64.0)
    arms: list[Painted] = []
    for side, (x, y) in zip((-1, 1), (left, right), strict=True):
        elbow = ((side * 12 + x) / 2 + side * 5, (36 + y) / 2 + 4)
        arms += [
            (line(lean / 2 + side * 11, 36, *elbow, 3.6), _darker(shirt)),
            (line(*elbow, x, y, 3.2, 2.6), _darker(shirt)),
            (oval(x, y, 3.4, 3.4), skin),
        ]
        if hold.stick == "both" and playing:
            arms.append((line(x, y, x - side * 9, y + 11, 1.0), WHITE))
    if hold.stick == "bow":
        x, y = right
        tip = (x - 34, y - 5) if playing else (x + 4, y + 30)
        arms.append((line(x, y, *tip, 1.2), WHITE))
    if hold.stands and not playing:
        person.paint(arms)
        person.paint(shapes, pose)
    else:
        person.paint(shapes, pose)
        person.paint(arms)
    return person


def _darker(colour: Colour) -> Colour:
    red, green, blue = (int(0.82 * c) for c in colour)
    return red, green, blue
