"""Figure 4 of the paper: when and where a model looked, a block for each question.

Above are the question's words. Below, for each model, its answer, and beside it the weights of all T segments as bars,
the K selected ones marked; under them the segments in which the prompt is true, or the sound, and the selected frames
with the audio's weights on their patches.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.textpath import text_to_path

from utils.scoring.geometry import seen_box
from utils.scoring.plots import BLUE, VERMILION, save_png

GREEN = "#009E73"  # what is true; with the others of Okabe and Ito (2008)
GREY, DARK = "#BDBDBD", "#595959"
YELLOW = to_rgb("#FFD500")
HEAT = LinearSegmentedColormap.from_list("heat", [(*YELLOW, 0), (*YELLOW, 0.75)])  # laid over a frame in dim greys

WHITE = 340  # what a white pixel would be if a frame under heat were not dimmed; yellow shows on any grey below it

# Inches.
MARGIN, TEXT, AXIS, WIDE = 0.2, 2.75, 0.62, 7.6  # across: the words, the axis' labels, the pictures
BARS, MEL, BAND, SECONDS = 0.62, 0.5, 0.17, 0.26  # down: weights, sound, truth, axis
GAP, BETWEEN = 0.06, 0.32  # between frames, between blocks
HEAD, LABEL, LINE = 0.55, 0.17, 0.16  # the legend, a frame's label, a line of words
MODELS = 0.14  # between the rows of two models
COLUMNS = 5  # frames in a row
FRAME = (WIDE + GAP) / COLUMNS - GAP  # the width of one
THIN = 0.6 + 0.5 * FRAME  # of outlines on it, in points


Words = list[tuple[str, dict]]  # lines, each with its style


class Frame(NamedTuple):
    """One selected frame."""

    segment: int
    image: np.ndarray  # (h, w, 3) uint8
    size: tuple[int, int]  # width and height in pixels of the video, in which boxes are measured
    boxes: list[Sequence[float]]  # (left, top, right, bottom) of the performers sounding then
    heat: np.ndarray | None  # (P,) weights of the patches, row by row; they sum to 1 at most


@dataclass
class Example:
    """One question, its answers, and what was looked at."""

    name: str  # of question and video
    kind: str  # the question's type
    question: str
    prompt: str
    prediction: str
    answer: str | None  # as annotated; None where nobody did
    correct: bool | None
    weights: np.ndarray  # (T,)
    selected: np.ndarray  # (K,)
    true: Sequence[int] | None  # segments in which the prompt is true; None where nobody knows
    frames: list[Frame]  # K
    fit: str | None  # "crop" or "squash": the part of a frame that CLIP saw; None where it is not known
    model: str = ""  # its name, where several are drawn
    start: float = 0.0  # second of the video at which segment 0 begins
    mel: np.ndarray | None = None  # (bands, frames) of the sound, which is drawn where it is given


def draw(examples: Sequence[Example], title: str, path: str | Path) -> None:
    """Draw the examples to a PNG file; those in a row of one name and question are several models.

    Raises `UserError` if it cannot be written.
    """
    blocks = [list(block) for _, block in itertools.groupby(examples, lambda example: (example.name, example.question))]
    width = MARGIN + TEXT + AXIS + WIDE + MARGIN
    height = HEAD + sum(map(_height, blocks)) + BETWEEN * len(blocks)
    figure = Figure(figsize=(width, height))
    top = _Place(figure, HEAD)
    _head(figure, examples, title)
    for block in blocks:
        _block(top, block)
        top = top.below(_height(block) + BETWEEN)
    save_png(figure, path, dpi=160)


class _Place:
    """Axes and words by inches from the left and below `top`, on the figure."""

    def __init__(self, figure: Figure, top: float):
        self.figure, self.top = figure, top
        self.width, self.height = figure.get_size_inches()

    def below(self, distance: float) -> "_Place":
        return _Place(self.figure, self.top + distance)

    def axes(self, left: float, down: float, width: float, height: float) -> Axes:
        bottom = self.height - self.top - down - height
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))

    def text(self, left: float, down: float, words: str, **style) -> None:
        at = left / self.width, 1 - (self.top + down) / self.height
        self.figure.text(*at, words, va="top", parse_math=False, **style)

    def lines(self, words: Words) -> None:
        for number, (line, style) in enumerate(words):
            self.text(MARGIN, number * LINE, line, **style)


def _tall(example: Example) -> float:
    """The height of a frame's place."""
    return FRAME * min(max(frame.size[1] / frame.size[0] for frame in example.frames), 1.25)


def _axis_height(example: Example) -> float:
    return BARS + (0 if example.true is None else BAND) + (0 if example.mel is None else MEL) + SECONDS


def _row_height(example: Example, words: Words) -> float:
    rows = math.ceil(len(example.frames) / COLUMNS)
    return max(_axis_height(example) + rows * (LABEL + _tall(example) + GAP), LINE * len(words))


def _height(block: list[Example]) -> float:
    above, beside = _words(block)
    rows = [_row_height(example, words) for example, words in zip(block, beside, strict=True)]
    return LINE * len(above) + sum(rows) + MODELS * (len(block) - 1)


def _words(block: list[Example]) -> tuple[Words, list[Words]]:
    """The lines above a block, and those at the left of each model's row."""
    first, wide = block[0], TEXT + WIDE  # short of the edge, as drawn letters may be wider
    small, plain = {"fontsize": 7.5, "color": DARK}, {"fontsize": 8.5}
    bold = {"fontsize": 9, "fontweight": "bold"}
    above = [
        *_wrapped(f"{first.kind}; {first.name}", small, wide),
        *_wrapped(first.question, bold, wide),
        *_wrapped(f"Prompt: {first.prompt}", plain, wide),
    ]
    if first.answer is not None:  # of a question that nobody answered before, there is no verdict either
        above += _wrapped(f"Annotated: {first.answer.replace('_', ' ')}", plain, wide)
    right, wrong = ("✓ right", bold | {"color": BLUE}), ("✗ wrong", bold | {"color": VERMILION})
    rows = []
    for example in block:
        words = _wrapped(example.model, bold, TEXT)
        if example.prompt != first.prompt:
            words += _wrapped(f"Prompt: {example.prompt}", plain, TEXT)
        words += _wrapped(f"Predicted: {example.prediction.replace('_', ' ')}", plain, TEXT)
        rows.append([*words, *([] if first.answer is None else [right if example.correct else wrong])])
    return [*above, ("", {})], rows


def _wrapped(words: str, style: dict, width: float) -> Words:
    """Words in lines of so many inches at most."""
    font = FontProperties(size=style["fontsize"], weight=style.get("fontweight"))
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else ""
        points, _, _ = text_to_path.get_text_width_height_descent(longer, font, ismath=False)
        if lines and points <= 72 * width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [(line, style) for line in lines]


def _block(top: _Place, block: list[Example]) -> None:
    above, beside = _words(block)
    top.lines(above)
    top = top.below(LINE * len(above))
    for example, words in zip(block, beside, strict=True):
        top.lines(words)
        _look(top, example)
        top = top.below(_row_height(example, words) + MODELS)


def _look(top: _Place, example: Example) -> None:
    """What one model looked at: the time line, below it the frames."""
    left = MARGIN + TEXT + AXIS
    _time_line(top, left, example)
    tall = _tall(example)
    most = max((frame.heat.max() for frame in example.frames if frame.heat is not None), default=0)
    most = most or 1  # all on class tokens, which have no place
    for number, frame in enumerate(example.frames):
        row, column = divmod(number, COLUMNS)
        down = _axis_height(example) + row * (LABEL + tall + GAP) + LABEL
        axes = top.axes(left + column * (FRAME + GAP), down, FRAME, tall)
        _draw_frame(axes, frame, example.start, example.fit, most)


def _time_line(top: _Place, left: float, example: Example) -> None:
    segments, highest = len(example.weights), example.weights.max()
    chosen = np.isin(np.arange(segments), example.selected)
    bars = top.axes(left, 0, WIDE, BARS)
    bars.bar(np.arange(segments) + 0.5, example.weights, 0.86, color=np.where(chosen, BLUE, GREY))
    bars.plot(example.selected + 0.5, example.weights[example.selected] + 0.14 * highest, "v", color=BLUE, markersize=5)
    bars.set(xlim=(0, segments), ylim=(0, 1.3 * highest))
    bars.set_yticks([0, highest], ["0", f"{highest:.2g}"])
    bars.set_ylabel("weight", rotation=0, ha="right", va="center", fontsize=7.5)
    bars.yaxis.set_label_coords(-0.013, 0.38)  # between the two ticks
    bars.spines[["top", "right", "left"]].set_visible(False)
    bars.tick_params(left=False, labelsize=7.5)
    lowest, down = bars, BARS
    if example.mel is not None:
        lowest, down = top.axes(left, down + 0.07, WIDE, MEL - 0.07), down + MEL
        lowest.imshow(example.mel, origin="lower", aspect="auto", cmap="magma", extent=(0, segments, 0, 1))
        lowest.set_yticks([0.5], ["log-mel"])
    if example.true is not None:
        lowest = top.axes(left, down + 0.07, WIDE, BAND - 0.07)
        lowest.broken_barh([(segment, 1) for segment in example.true], (0, 1), color=GREEN)
        lowest.set(xlim=(0, segments), ylim=(0, 1))
        lowest.set_yticks([0.5], ["true"])
        lowest.spines[:].set_color(GREY)
    if lowest is not bars:
        bars.tick_params(bottom=False, labelbottom=False)
        lowest.tick_params(left=False, labelsize=7.5)
    step = 5 if segments > 10 else 1
    ticks = range(0, segments + 1, step)
    lowest.set_xticks(ticks, [f"{example.start + second:g} s" for second in ticks])


def _draw_frame(axes: Axes, frame: Frame, start: float, fit: str | None, most: float) -> None:
    """Draw a frame with its heat, opaque at `most`, and without colour, so that what is coloured is heat."""
    width, height = frame.size
    image, whole = frame.image, (0, width, height, 0)
    if frame.heat is not None:
        axes.imshow(image.mean(axis=-1), cmap="gray", vmin=0, vmax=WHITE, extent=whole)
    else:
        axes.imshow(image, extent=whole)
    if fit:
        left, top, right, bottom = seen_box(width, height, fit)
        if frame.heat is not None:
            grid = math.isqrt(len(frame.heat))
            share = frame.heat.reshape(grid, grid) / most
            axes.imshow(HEAT(share), extent=(left, right, bottom, top), interpolation="nearest")
        sides = (0, 0, left, height), (right, 0, width, height), (0, 0, width, top), (0, bottom, width, height)
        for x0, y0, x1, y1 in sides:  # two of them are empty, or all
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, color="white", alpha=0.7, linewidth=0))
    for x0, y0, x1, y1 in frame.boxes:
        outline = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=GREEN, linewidth=THIN)
        outline.set_path_effects([withStroke(linewidth=THIN + 1, foreground="white")])
        axes.add_patch(outline)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_anchor("NW")
    axes.set_title(f"{start + frame.segment:g}–{start + frame.segment + 1:g} s", fontsize=7.5, pad=2)
    axes.axis("off")


def _head(figure: Figure, examples: Sequence[Example], title: str) -> None:
    place = _Place(figure, 0)
    place.text(MARGIN, 0.14, title, fontsize=8, color=DARK)
    frames = [frame for example in examples for frame in example.frames]
    keys: list[Artist] = [Line2D([], [], color=BLUE, marker="v", linestyle="", label="selected")]
    if any(example.true is not None for example in examples):
        keys.append(Patch(color=GREEN, label="prompt is true"))
    if any(frame.boxes for frame in frames):
        keys.append(Patch(facecolor="none", edgecolor=GREEN, linewidth=1.4, label="sounding performer"))
    left = MARGIN + TEXT + AXIS
    holder = place.axes(left, 0.08, WIDE, 0.25)
    holder.axis("off")
    holder.legend(
        handles=keys, loc="center left", ncols=len(keys), frameon=False, fontsize=8, borderpad=0, borderaxespad=0
    )
    if any(frame.heat is not None for frame in frames):
        right = left + WIDE
        bar = place.axes(right - 1.4, 0.15, 1.0, 0.12)
        bar.set_facecolor(DARK)
        bar.imshow(HEAT(np.linspace(0, 1, 64))[None], aspect="auto")
        bar.set(xticks=[], yticks=[])
        place.text(right - 1.46, 0.14, "audio's weight on a patch: 0", fontsize=8, ha="right")
        place.text(right, 0.14, "most", fontsize=8, ha="right")
