"""Anti-aliased shapes as signed distances, and the sprites painted with them.

A shape is a function of coordinate grids (x, y) that returns the distance to its edge, negative inside. Distances
survive rotation and translation, so a group of shapes is placed by moving the grid instead of the shapes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Grid = np.ndarray
Shape = Callable[[Grid, Grid], Grid]
Colour = tuple[int, int, int]
Painted = tuple[Shape, Colour]


class Pose(NamedTuple):
    """Where a group of shapes is: its origin, its clockwise rotation in degrees, and how far x is stretched."""

    x: float
    y: float
    angle: float = 0.0
    stretch: float = 1.0


STANDING = Pose(0.0, 0.0)


def line(ax: float, ay: float, bx: float, by: float, start: float, end: float | None = None) -> Shape:
    """A line from a to b with round ends, of radius `start` at a and `end` (the same by default) at b."""
    dx, dy = bx - ax, by - ay
    widening = 0.0 if end is None else end - start

    def distance(x: Grid, y: Grid) -> Grid:
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
        return np.hypot(x - ax - along * dx, y - ay - along * dy) - start - widening * along

    return distance


def oval(cx: float, cy: float, rx: float, ry: float) -> Shape:
    """An ellipse with radii rx and ry; the distance is approximate, exact on the edge."""
    return lambda x, y: (np.hypot((x - cx) / rx, (y - cy) / ry) - 1) * min(rx, ry)


def box(cx: float, cy: float, half_width: float, half_height: float, corner: float = 1.0) -> Shape:
    """A rectangle with rounded corners."""

    def distance(x: Grid, y: Grid) -> Grid:
        qx, qy = np.abs(x - cx) - half_width + corner, np.abs(y - cy) - half_height + corner
        return np.hypot(np.maximum(qx, 0), np.maximum(qy, 0)) + np.minimum(np.maximum(qx, qy), 0) - corner

    return distance


def ring(cx: float, cy: float, rx: float, ry: float, width: float) -> Shape:
    """The edge of an ellipse, `width` to either side."""
    inside = oval(cx, cy, rx, ry)
    return lambda x, y: np.abs(inside(x, y)) - width


class Sprite:
    """A picture with soft edges: colour times opacity (h, w, 3) and transparency (h, w, 1), float32 in 0..255 and 0..1.

    Pixel (i, j) shows the point (left + j / scale, top + i / scale), each pixel at its centre.
    """

    def __init__(self, left: float, top: float, width: float, height: float, scale: float):
        rows, columns = round(height * scale), round(width * scale)
        self.scale = scale
        self.x = (left + (np.arange(columns, dtype=np.float32) + 0.5) / scale)[None, :]
        self.y = (top + (np.arange(rows, dtype=np.float32) + 0.5) / scale)[:, None]
        self.colour = np.zeros((rows, columns, 3), np.float32)
        self.clear = np.ones((rows, columns, 1), np.float32)

    def paint(self, shapes: list[Painted], pose: Pose = STANDING) -> None:
        """Paint the shapes in order, each over what is there, with the group at `pose`."""
        turn = np.deg2rad(pose.angle)
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        x, y = self.x - pose.x, self.y - pose.y
        x, y = (x * cos + y * sin) / pose.stretch, y * cos - x * sin
        for shape, colour in shapes:
            cover = np.clip(0.5 - shape(x, y) * self.scale, 0, 1)[..., None].astype(np.float32)
            self.colour += cover * (np.asarray(colour, np.float32) - self.colour)
            self.clear *= 1 - cover

    def onto(self, frame: np.ndarray, left: int, top: int) -> None:
        """Blend into the float32 frame (H, W, 3) with the sprite's corner at (left, top); it must fit."""
        rows, columns = self.clear.shape[:2]
        region = frame[top : top + rows, left : left + columns]
        region *= self.clear
        region += self.colour
