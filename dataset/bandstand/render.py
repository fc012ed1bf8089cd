"""A scene becomes frames, samples and an MP4 file (H.264, AAC)."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from dataset.bandstand.drawing import Colour, Painted, Sprite, box, line, oval
from dataset.bandstand.looks import SWINGS, draw
from dataset.bandstand.scene import FRAME, Interval, Scene, SeenPerformer
from dataset.bandstand.sounds import RATE, soundtrack
from utils.files import atomic_path

FPS = 5  # the middle of each second is also the middle of a frame's time on screen
# Without mbtree: where x264 has AVX-512 for it, the same pictures give other bytes, and pixels, in every run.
H264 = {"preset": "veryfast", "crf": "23", "tune": "animation", "x264-params": "mbtree=0"}
WALLS: tuple[Colour, ...] = ((196, 176, 150), (176, 180, 190), (190, 160, 150), (170, 185, 165), (205, 195, 170))
SKIES: tuple[Colour, ...] = ((150, 200, 240), (170, 205, 225), (190, 210, 230), (240, 200, 160))


def frames(scene: Scene, onsets: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The pictures (FRAME, FRAME, 3) uint8 of a scene, FPS a second; `onsets` as `soundtrack` gives them."""
    rng = np.random.default_rng((*scene.seed, 1))
    stage = background(scene.outdoor, rng)
    cast = []
    for performer, times in zip(scene.performers, onsets, strict=True):
        if isinstance(performer, SeenPerformer):
            x0, y0, x1, y1 = performer.box
            clothes = rng.integers(12, size=3)
            sprites = [draw(performer.instrument, (x1 - x0, y1 - y0), clothes, s) for s in (None, *SWINGS)]
            cast.append((performer.box, sprites, _swings(performer, scene.seconds, times, rng)))
    cast.sort(key=lambda entry: entry[0][3])  # who stands in front is drawn last
    for i in range(scene.seconds * FPS):
        frame = stage.copy()
        for (left, top, _, _), sprites, swings in cast:
            if swings[i] >= 0:
                sprites[swings[i]].onto(frame, left, top)
        yield frame.astype(np.uint8)


def background(outdoor: bool, rng: np.random.Generator) -> np.ndarray:
    """A room or a meadow (FRAME, FRAME, 3), float32 in 0..255."""
    stage = Sprite(0, 0, FRAME, FRAME, 1.0)
    stage.paint(_meadow(rng) if outdoor else _room(rng))
    return np.clip(stage.colour * rng.uniform(0.85, 1.08), 0, 255)


def render(scene: Scene, path: str | Path) -> None:
    """Write the scene's video, atomically."""
    sound, onsets = soundtrack(scene)
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as container:
        video = container.add_stream("libx264", FPS, options=H264)
        video.width = video.height = FRAME
        video.pix_fmt = "yuv420p"
        video.codec_context.gop_size = 2 * FPS
        video.codec_context.thread_count = 1  # videos are rendered side by side
        audio = container.add_stream("aac", RATE, layout="mono", options={"aac_coder": "fast"})
        audio.bit_rate = 48_000
        for picture in frames(scene, onsets):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        block = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(audio.encode(block))
        container.mux(video.encode())
        container.mux(audio.encode())


def _swings(performer: SeenPerformer, seconds: int, onsets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which sprite each frame shows: -1 for none, 0 for resting, else 1 + the phase, a new one with every note."""
    time = (np.arange(seconds * FPS) + 0.5) / FPS
    playing = _within(time, performer.intervals)
    hops = np.cumsum(rng.integers(1, len(SWINGS), len(onsets) + 1)) % len(SWINGS)
    phase = hops[np.searchsorted(onsets, time)]
    return np.where(_within(time, [performer.present]), np.where(playing, 1 + phase, 0), -1)


def _within(time: np.ndarray, intervals: Iterable[Interval]) -> np.ndarray:
    return np.any([(start <= time) & (time < end) for start, end in intervals] or [np.zeros(len(time), bool)], axis=0)


def _room(rng: np.random.Generator) -> list[Painted]:
    wall, floor = WALLS[rng.integers(len(WALLS))], int(rng.integers(105, 125))
    shapes: list[Painted] = [(box(112, 112, 120, 120), wall), (box(112, floor + 60, 120, 60, 0), (140, 96, 62))]
    shapes += [(line(112 + 22 * i, floor, 112 + 60 * i, 240, 0.6), (112, 74, 46)) for i in range(-6, 7)]
    shapes.append((box(112, floor, 120, 2.5, 0), (235, 230, 220)))
    for side in (-1, 1):
        shapes.append((box(112 + side * 110, floor - 58, 16, 62, 4), (128, 40, 48)))
        shapes += [(line(112 + side * x, 0, 112 + side * x, floor, 0.8), (98, 28, 36)) for x in (100, 108)]
    lamp = int(rng.integers(60, 165))
    shapes += [(line(lamp, 0, lamp, 14, 0.8), (40, 40, 40)), (oval(lamp, 18, 11, 6), (255, 244, 190))]
    window = int(rng.integers(70, 155))
    shapes += [(box(window, 52, 20, 15), (240, 240, 240)), (box(window, 52, 17.5, 12.5), (60, 75, 110))]
    return [*shapes, (line(window, 40, window, 64, 1.0), (240, 240, 240))]


def _meadow(rng: np.random.Generator) -> list[Painted]:
    ground = int(rng.integers(95, 120))
    shapes: list[Painted] = [(box(112, 112, 120, 120), SKIES[rng.integers(len(SKIES))])]
    shapes.append((oval(rng.uniform(30, 190), rng.uniform(14, 28), 10, 10), (255, 240, 150)))
    for _ in range(3):
        x, y = rng.uniform(10, 214), rng.uniform(14, 50)
        shapes += [(oval(x + dx, y, 14, 6), (250, 250, 250)) for dx in (-9, 0, 9)]
    shapes += [(oval(rng.uniform(0, 224), ground + 8, 80, 34), (110, 160, 110)) for _ in range(2)]
    shapes.append((box(112, ground + 70, 120, 70, 0), (116, 172, 84)))
    for x in rng.uniform(0, 224, 2):
        shapes += [(line(x, ground, x, ground - 22, 3.0), (100, 72, 48)), (oval(x, ground - 34, 17, 19), (50, 120, 60))]
    for x, y in zip(rng.uniform(0, 224, 24), rng.uniform(ground + 8, 222, 24), strict=True):
        shapes.append((line(x, y, x + 2, y - 5, 0.7), (86, 140, 62)))
    return shapes
