"""What is told of an answer: the words, how likely they are, and the seconds and places that were looked at.

T segments, K selected segments, P patches of a frame.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from utils.scoring.geometry import patch_centres, seen_box

ACROSS, DOWN = ("left", "middle", "right"), ("top", "centre", "bottom")


class Look(NamedTuple):
    """A selected second: what was on the screen, and where on it the sound was sought."""

    second: float  # of the video
    picture: np.ndarray  # (H, W, 3) uint8
    heat: np.ndarray | None  # (H, W) the audio's weight on the patch there; None where the network has no such stage
    box: tuple[int, int, int, int] | None  # x0, y0, x1, y1 of the patches with the largest weight, in pixels
    place: str  # where these are, in words: "left, centre"; "" where there are none
    patches: np.ndarray | None  # (P,) the weights themselves, row by row
    fit: str  # the part of the picture that CLIP saw: its centred square ("crop") or all of it ("squash")

    def as_dict(self) -> dict[str, Any]:
        """Everything but the picture as plain data; `box` is in pixels of a picture of `size` (width, height)."""
        height, width = self.picture.shape[:2]
        told = {"second": self.second, "place": self.place, "box": self.box, "size": [width, height], "fit": self.fit}
        return told | {"patches": None if self.patches is None else self.patches.tolist()}


@dataclass(frozen=True)
class Answer:
    """The answer to one question, and what the model looked at."""

    video: str  # the file's name
    question: str  # as it was asked
    template: str  # of the prompt sheet; "*" where no other fits
    prompt: str  # filled in: what the segments were selected by
    answer: str
    probability: float
    others: list[tuple[str, float]]  # the next four answers with their probabilities
    selected: list[float]  # seconds of the video, ascending; each is the beginning of one
    segment_weights: np.ndarray | None  # (T,) of the seconds from `start` on; None where the network weighs none
    looks: list[Look]  # of the seconds whose patches were looked at
    seconds: int  # T
    own: int  # how many of them the video has; those after them repeat its last
    start: float
    note: str  # what is odd about the video, "; " between; "" where nothing is
    mel: np.ndarray | None  # (64, frames) log-mel of these seconds; None where the network does not hear

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """The answer and the next four, each with its probability."""
        return [(self.answer, self.probability), *self.others]

    def clipped(self, second: float) -> float:
        """A second that was seen, or the last one of the video where it is one that repeats that."""
        return min(second, self.start + self.own - 1)

    def as_dict(self) -> dict[str, Any]:
        """Everything but pictures and sound as plain data."""
        plain = [each.name for each in fields(self) if each.name not in ("segment_weights", "looks", "mel")]
        weights = self.segment_weights
        return {name: getattr(self, name) for name in plain} | {
            "segment_weights": None if weights is None else weights.tolist(),
            "looks": [look.as_dict() for look in self.looks],
        }


def look_at(second: float, picture: np.ndarray, patches: np.ndarray | None, fit: str) -> Look:
    """A second that was looked at, its weights on the patches (P,) laid over the picture (H, W, 3)."""
    if patches is None:
        return Look(second, picture, None, None, "", None, fit)
    (height, width), grid = picture.shape[:2], math.isqrt(len(patches))
    left, top, right, bottom = (round(edge) for edge in seen_box(width, height, fit))
    row, column = (np.arange(side) * grid // side for side in (bottom - top, right - left))
    heat = np.zeros((height, width))
    heat[top:bottom, left:right] = patches.reshape(grid, grid)[row][:, column]
    if not patches.any():  # all on the class token, which has no place
        return Look(second, picture, heat, None, "", patches, fit)
    rows, columns = np.nonzero(heat == heat.max())
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    x, y = patch_centres(width, height, fit, len(patches))[patches == patches.max()].mean(axis=0)
    place = f"{ACROSS[int(3 * x / width)]}, {DOWN[int(3 * y / height)]}"
    return Look(second, picture, heat, box, place, patches, fit)
