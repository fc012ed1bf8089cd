"""Where on a frame the patches of the visual transformer lie."""

import math

import numpy as np


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
