"""Figure 4 of the paper: when and where a model looked, a block for each question.

Above are the question's words. Below, for each model, its answer, and beside it the weights of all T segments as bars,
the K selected ones marked; under them the segments in which the prompt is true, or the sound, and the selected frames
with the audio's weights on their patches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
from matplotlib.transforms import Bbox, BboxTransformTo, ScaledTranslation

from utils.scoring.geometry import Look, seen_box
from utils.scoring.plots import BLUE, VERMILION, save_png

GREEN = "#009E73"  # what is true; with the others of Okabe and Ito (2008)
GREY, DARK = "#BDBDBD", "#595959"
YELLOW = to_rgb("#FFD500")
HEAT = LinearSegmentedColormap.from_list("heat", [(*YELLOW, 0), (*YELLOW, 0.75)])  # laid over a frame in dim greys

WHITE = 340  # what a white pixel would be if a frame under heat were not dimmed; yellow shows on any grey below it

# Inches.
MARGIN, TEXT, AXIS, WIDE = 0.2, 2.75, 0.62, 7.6  # across: the words, the axis' labels, the pictures
LEFT = MARGIN + TEXT + AXIS  # where the pictures begin
BARS, MEL, BAND, SECONDS = 0.62, 0.5, 0.17, 0.26  # down: weights, sound, truth, axis
GAP, BETWEEN = 0.06, 0.32  # between frames, between blocks
HEAD, LABEL, LINE = 0.55, 0.17, 0.16  # the legend, a frame's label, a line of words
MODELS = 0.14  # between the rows of two models
COLUMNS = 5  # frames in a row
FRAME = (WIDE + GAP) / COLUMNS - GAP  # the width of one
THIN = 0.6 + 0.5 * FRAME  # of outlines on it, in points


SMALL, PLAIN = {"fontsize": 7.5, "color": DARK}, {"fontsize": 8.5}
BOLD = {"fontsize": 9, "fontweight": "bold"}


@dataclass
class Example:
    """A question, a model's answer, and what it looked at."""

    heading: str  # of what type the question is, and about which video
    question: str
    prompt: str
    prediction: str
    answer: str | None  # as annotated; None where nobody did
    correct: bool | None
    weights: np.ndarray  # (T,)
    selected: Sequence[float]  # K seconds of the video
    true: Sequence[int] | None  # segments in which the prompt is true; None where nobody knows
    looks: list[Look]  # K
    model: str = ""  # its name, where several are drawn
    start: float = 0.0  # second of the video at which segment 0 begins
    mel: np.ndarray | None = None  # (bands, frames) of the sound, which is drawn where it is given


def draw(blocks: Sequence[Sequence[Example]], title: str, path: str | Path) -> None:
    """Draw to a PNG file: a block for each question, in it a row for each model. Raises `UserError` as `save_png`."""
    sheet = _Sheet(LEFT + WIDE + MARGIN)
    _head(sheet, [example for block in blocks for example in block], title)
    top = HEAD
    for block in blocks:
        top = _block(sheet, top, block) + BETWEEN
    sheet.figure.set_figheight(top)
    save_png(sheet.figure, path, dpi=160)


class _Sheet:
    """A figure on which all is placed by inches from its left and its top, until it is known how high it must be."""

    def __init__(self, width: float):
        self.figure = Figure(figsize=(width, 1))
        self.inches = self.figure.dpi_scale_trans + ScaledTranslation(0, 1, BboxTransformTo(self.figure.bbox))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        def place(axes, renderer) -> Bbox:  # when it is drawn, the figure is as high as it will be
            box = Bbox.from_bounds(left, -top - height, width, height)
            return box.transformed(self.inches - self.figure.transFigure)

        return self.figure.add_axes((0, 0, 1, 1), axes_locator=place)

    def text(self, left: float, top: float, words: str, **style) -> None:
        self.figure.text(left, -top, words, va="top", parse_math=False, transform=self.inches, **style)

    def lines(self, top: float, words: str, style: dict, width: float) -> float:
        """Words in lines of so many inches at most; returns where they end."""
        font = FontProperties(size=style["fontsize"], weight=style.get("fontweight"))
        lines: list[str] = []
        for word in words.split():
            longer = f"{lines[-1]} {word}" if lines else ""
            points, _, _ = text_to_path.get_text_width_height_descent(longer, font, ismath=False)
            if lines and points <= 72 * width:
                lines[-1] = longer
            else:
                lines.append(word)
        for number, line in enumerate(lines):
            self.text(MARGIN, top + number * LINE, line, **style)
        return top + len(lines) * LINE


def _block(sheet: _Sheet, top: float, block: Sequence[Example]) -> float:
    """A question, below it what each model answered and looked at; returns where it ends."""
    first, wide = block[0], TEXT + WIDE  # short of the edge, as drawn letters may be wider
    top = sheet.lines(top, first.heading, SMALL, wide)
    top = sheet.lines(top, first.question, BOLD, wide)
    top = sheet.lines(top, f"Prompt: {first.prompt}", PLAIN, wide)
    if first.answer is not None:
        top = sheet.lines(top, f"Annotated: {first.answer.replace('_', ' ')}", PLAIN, wide)
    top += LINE
    for example in block:
        end = sheet.lines(top, example.model, BOLD, TEXT)
        if example.prompt != first.prompt:
            end = sheet.lines(end, f"Prompt: {example.prompt}", PLAIN, TEXT)
        end = sheet.lines(end, f"Predicted: {example.prediction.replace('_', ' ')}", PLAIN, TEXT)
        if example.answer is not None:  # else there is no verdict either
            verdict, colour = ("✓ right", BLUE) if example.correct else ("✗ wrong", VERMILION)
            end = sheet.lines(end, verdict, BOLD | {"color": colour}, TEXT)
        top = max(end, _look(sheet, top, example)) + MODELS
    return top - MODELS


def _look(sheet: _Sheet, top: float, example: Example) -> float:
    """What a model looked at: the time line, below it the frames; returns where they end."""
    top = _time_line(sheet, top, example)
    tall = FRAME * min(max(len(look.picture) / look.picture.shape[1] for look in example.looks), 1.25)
    most = max((look.patches.max() for look in example.looks if look.patches is not None), default=0)
    for number, look in enumerate(example.looks):
        row, column = divmod(number, COLUMNS)
        down = top + row * (LABEL + tall + GAP)
        axes = sheet.axes(LEFT + column * (FRAME + GAP), down + LABEL, FRAME, tall)
        _draw_frame(axes, look, most or 1)  # 0: all on class tokens, which have no place
    return down + LABEL + tall + GAP


def _time_line(sheet: _Sheet, top: float, example: Example) -> float:
    """The weights as bars, below them the sound and what is true, where these are known; returns where they end."""
    segments, highest = len(example.weights), example.weights.max()
    chosen = np.isin(example.start + np.arange(segments), example.selected)
    bars = sheet.axes(LEFT, top, WIDE, BARS)
    bars.bar(np.arange(segments) + 0.5, example.weights, 0.86, color=np.where(chosen, BLUE, GREY))
    bars.plot(np.flatnonzero(chosen) + 0.5, example.weights[chosen] + 0.14 * highest, "v", color=BLUE, markersize=5)
    bars.set(xlim=(0, segments), ylim=(0, 1.3 * highest))
    bars.set_yticks([0, highest], ["0", f"{highest:.2g}"])
    bars.set_ylabel("weight", rotation=0, ha="right", va="center", fontsize=7.5)
    bars.yaxis.set_label_coords(-0.013, 0.38)  # between the two ticks
    bars.spines[["top", "right", "left"]].set_visible(False)
    bars.tick_params(left=False, labelsize=7.5)
    lowest, top = bars, top + BARS
    if example.mel is not None:
        lowest, top = sheet.axes(LEFT, top + 0.07, WIDE, MEL - 0.07), top + MEL
        lowest.imshow(example.mel, origin="lower", aspect="auto", cmap="magma", extent=(0, segments, 0, 1))
        lowest.set_yticks([0.5], ["log-mel"])
    if example.true is not None:
        lowest, top = sheet.axes(LEFT, top + 0.07, WIDE, BAND - 0.07), top + BAND
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
    return top + SECONDS


def _draw_frame(axes: Axes, look: Look, most: float) -> None:
    """Draw a frame with its heat, opaque at `most`, and without colour, so that what is coloured is heat."""
    height, width = look.picture.shape[:2]
    whole = (0, width, height, 0)
    if look.patches is not None:
        axes.imshow(look.picture.mean(axis=-1), cmap="gray", vmin=0, vmax=WHITE, extent=whole)
    else:
        axes.imshow(look.picture, extent=whole)
    if look.fit:
        left, top, right, bottom = seen_box(width, height, look.fit)
        if look.patches is not None:
            grid = math.isqrt(len(look.patches))
            share = look.patches.reshape(grid, grid) / most
            axes.imshow(HEAT(share), extent=(left, right, bottom, top), interpolation="nearest")
        sides = (0, 0, left, height), (right, 0, width, height), (0, 0, width, top), (0, bottom, width, height)
        for x0, y0, x1, y1 in sides:  # two of them are empty, or all
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, color="white", alpha=0.7, linewidth=0))
    for x0, y0, x1, y1 in look.boxes:
        outline = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=GREEN, linewidth=THIN)
        outline.set_path_effects([withStroke(linewidth=THIN + 1, foreground="white")])
        axes.add_patch(outline)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_anchor("NW")
    axes.set_title(f"{look.second:g}–{look.second + 1:g} s", fontsize=7.5, pad=2)
    axes.axis("off")


def _head(sheet: _Sheet, examples: Sequence[Example], title: str) -> None:
    sheet.text(MARGIN, 0.14, title, fontsize=8, color=DARK)
    looks = [look for example in examples for look in example.looks]
    keys: list[Artist] = [Line2D([], [], color=BLUE, marker="v", linestyle="", label="selected")]
    if any(example.true is not None for example in examples):
        keys.append(Patch(color=GREEN, label="prompt is true"))
    if any(look.boxes for look in looks):
        keys.append(Patch(facecolor="none", edgecolor=GREEN, linewidth=1.4, label="sounding performer"))
    holder = sheet.axes(LEFT, 0.08, WIDE, 0.25)
    holder.axis("off")
    holder.legend(
        handles=keys, loc="center left", ncols=len(keys), frameon=False, fontsize=8, borderpad=0, borderaxespad=0
    )
    if any(look.patches is not None for look in looks):
        right = LEFT + WIDE
        bar = sheet.axes(right - 1.4, 0.15, 1.0, 0.12)
        bar.set_facecolor(DARK)
        bar.imshow(HEAT(np.linspace(0, 1, 64))[None], aspect="auto")
        bar.set(xticks=[], yticks=[])
        sheet.text(right - 1.46, 0.14, "audio's weight on a patch: 0", fontsize=8, ha="right")
        sheet.text(right, 0.14, "most", fontsize=8, ha="right")
