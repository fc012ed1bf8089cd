"""Where on a frame the patches of the visual transformer lie, and what a model looked at there. P patches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

ACROSS, DOWN = ("left", "middle", "right"), ("top", "centre", "bottom")
LONG_SIDE = 320  # pixels of a frame as it is shown


def seen_box(width: float, height: float, fit: str) -> tuple[float, float, float, float]:
    """The part (left, top, right, bottom) of a frame that CLIP is shown: its centred square ("crop"), or all of it."""
    if fit == "squash":
        return 0.0, 0.0, width, height
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def patch_centres(width: float, height: float, fit: str, patches: int) -> np.ndarray:
    """Centres (x, y) of the patches, (patches, 2), row by row from the top left, in pixels of the frame."""
    grid = math.isqrt(patches)
    left, top, right, bottom = seen_box(width, height, fit)
    steps = (np.arange(grid) + 0.5) / grid
    x, y = np.meshgrid(left + steps * (right - left), top + steps * (bottom - top))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def thumbnail(image: np.ndarray) -> Image.Image:
    """A frame (H, W, 3) uint8, as large as it is shown."""
    picture = Image.fromarray(image)
    picture.thumbnail((LONG_SIDE, LONG_SIDE))
    return picture


@dataclass(frozen=True)
class Look:
    """A second that was looked at: what was on the screen, and where on it the sound was sought."""

    second: float  # of the video
    picture: np.ndarray  # (H, W, 3) uint8
    patches: np.ndarray | None  # (P,) the audio's weights, row by row; None where the network has no such stage
    fit: str  # the part of the picture that CLIP saw, as `seen_box` takes it; "" where nobody knows
    boxes: Sequence[Sequence[float]] = ()  # (left, top, right, bottom) of the performers sounding then, in pixels

    @property
    def heat(self) -> np.ndarray | None:
        """(H, W) the audio's weight on the patch there."""
        if self.patches is None:
            return None
        (height, width), grid = self.picture.shape[:2], math.isqrt(len(self.patches))
        left, top, right, bottom = (round(edge) for edge in seen_box(width, height, self.fit))
        row, column = (np.arange(side) * grid // side for side in (bottom - top, right - left))
        heat = np.zeros((height, width))
        heat[top:bottom, left:right] = self.patches.reshape(grid, grid)[row][:, column]
        return heat

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """x0, y0, x1, y1 of the patches with the largest weight, in pixels; None where all is on the class token."""
        heat = self.heat
        if heat is None or not heat.any():
            return None
        rows, columns = np.nonzero(heat == heat.max())
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1

    @property
    def place(self) -> str:
        """Where these are, in words: "left, centre"; "" where there are none."""
        if self.patches is None or not self.patches.any():
            return ""
        height, width = self.picture.shape[:2]
        x, y = patch_centres(width, height, self.fit, len(self.patches))[self.patches == self.patches.max()].mean(
            axis=0
        )
        return f"{ACROSS[int(3 * x / width)]}, {DOWN[int(3 * y / height)]}"

    def as_dict(self) -> dict[str, Any]:
        """Everything but the picture as plain data; `box` is in pixels of a picture of `size` (width, height)."""
        height, width = self.picture.shape[:2]
        told = {"second": self.second, "place": self.place, "box": self.box, "size": [width, height], "fit": self.fit}
        return told | {"patches": None if self.patches is None else self.patches.tolist()}
