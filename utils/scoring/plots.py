"""Pictures of predictions as PNG: which answers are mistaken for which, and accuracy by question type.

Figures are drawn on their own Agg canvas, without pyplot: nothing global, no display needed.
"""

import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from utils.files import write_bytes
from utils.scoring.intervals import intervals_of
from utils.scoring.metrics import Columns, accuracy_row
from utils.text import normalised

# Blue and vermilion of Okabe and Ito (2008): told apart in every common form of colour blindness, and in grey.
BLUE, PALE_BLUE, VERMILION, LIGHT_GREY = "#0072B2", "#8FC1DE", "#D55E00", "#E4E4E4"
OTHER = "other"

# Answers that have an order of their own come in it, the rest (instruments) in alphabetical order.
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "more than ten")
_ORDERED = ("yes", "no", *_NUMBERS, "left", "middle", "right", "indoor", "outdoor", "simultaneously")


def confusion_matrix(predictions: pd.DataFrame, path: str | Path, largest: int = 42) -> None:
    """Draw annotated answers (rows) against predicted ones (columns) to a PNG file.

    Cells hold the number of questions; their colour is the share of the row. Only answers that occur are shown, and
    of more than `largest` those annotated most often: predictions of any other answer are pooled in one column.
    Raises `UserError` if the file cannot be written.
    """
    answer, prediction = (predictions[column].map(normalised) for column in ("answer", "prediction"))
    shown, pooled = _answers_to_show(answer, prediction, largest)
    columns = [*shown, OTHER] if pooled else shown
    place = {form: i for i, form in enumerate(shown)}
    counts = np.zeros((len(shown), len(columns)), dtype=int)
    for row, column in zip(answer, prediction, strict=True):
        if row in place:
            counts[place[row], place.get(column, len(shown))] += 1
    totals = counts.sum(axis=1, keepdims=True)
    share = 100 * counts / np.maximum(totals, 1)

    side = max(0.34, 2.8 / len(shown))  # inches a cell: room for a count of four digits
    width, height = side * len(columns), side * len(shown)
    labels = 0.07 * max(map(len, map(_label, columns)))  # inches that the longest label takes
    roomy = ConstrainedLayoutEngine(w_pad=0.15)  # else the bar's label touches the edge
    figure = Figure(figsize=(width + labels + 2.2, height + labels + 0.9), layout=roomy)
    axes = figure.add_subplot()
    image = axes.imshow(np.ma.masked_equal(share, 0), cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(counts):
        colour = "white" if share[row, column] > 55 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=7, color=colour)
    names = [f"{_label(form)} ({total})" for form, total in zip(shown, totals[:, 0], strict=True)]
    axes.set_xticks(range(len(columns)), map(_label, columns), rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(shown)), names, fontsize=8, parse_math=False)  # "$" is a dollar
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(shown) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=LIGHT_GREY, linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.set(xlabel="predicted answer", ylabel="annotated answer (questions)")
    title = f"{totals.sum()} questions"
    if pooled:
        title += f" of {len(predictions)}: the {len(shown)} most frequent of {answer.nunique()} annotated answers"
    axes.set_title(title, fontsize=10)
    bar = figure.colorbar(image, ax=axes, fraction=0.25 / width, aspect=height / 0.2, pad=0.1 / width)
    bar.set_label("% of the annotated answer")
    save_png(figure, path)


def _answers_to_show(answer: pd.Series, prediction: pd.Series, largest: int) -> tuple[list[str], bool]:
    """The answers to give a row and a column, in print order, and whether others are left out."""
    occurring = set(answer) | set(prediction)
    if pooled := len(occurring) > largest:
        occurring = {form for form, _ in Counter(answer).most_common(largest)}
    rank = {form: i for i, form in enumerate(_ORDERED)}
    return sorted(occurring, key=lambda form: (rank.get(form, len(rank)), form)), pooled


def _label(answer: str) -> str:
    words = answer.replace("_", " ") or "(none)"
    return words if len(words) <= 24 else words[:23] + "…"


def accuracy_bars(
    predictions: pd.DataFrame, columns: Columns, path: str | Path, paper: Mapping[str, float] | None = None
) -> None:
    """Draw the accuracy of every column of a results row, with its 95 % interval over videos, to a PNG file.

    `paper`: a published row (e.g. `paper.TABLE1["TSPM"]`) to mark beside it, where its questions are the same.
    Raises `UserError` if the file cannot be written.
    """
    row, intervals = accuracy_row(predictions, columns), intervals_of([predictions], columns)
    questions = {column: int(mask.sum()) for column, mask in columns.masks(predictions).items()}
    groups = columns.layout(row)
    places: dict[str, float] = {}
    for i, labels in enumerate(groups.values()):
        places |= {column: len(places) + 0.6 * i + k for k, column in enumerate(labels)}
    names = {column: label for labels in groups.values() for column, label in labels.items()}

    figure = Figure(figsize=(max(6.0, 0.85 * len(places) + 1.6), 4.6), layout="constrained")
    axes = figure.add_subplot()
    x, height = np.array(list(places.values())), np.array([row[column] for column in places])
    low, high = np.array([intervals[column] for column in places]).T
    colours = [BLUE if names[column] in ("Avg", "All") else PALE_BLUE for column in places]
    axes.bar(x, height, width=0.8, color=colours)
    reach = height - low, high - height
    whiskers = axes.errorbar(x, height, reach, fmt="none", ecolor="black", elinewidth=1, capsize=3)
    whiskers.set_label("this run, 95 % interval over videos")
    if paper:
        known = [column for column in places if column in paper]
        at = [places[column] + 0.24 for column in known]  # beside the whisker, not on it
        published = [paper[column] for column in known]
        axes.plot(at, published, "D", color=VERMILION, markeredgecolor="white", label="TSPM, as published")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2)
    axes.set_xticks(x, [f"{names[c]}\n{row[c]:.1f}\nn = {questions[c]}" for c in places], fontsize=9)
    centres = [float(np.mean([places[column] for column in labels])) for labels in groups.values()]
    headers = axes.secondary_xaxis(location=0)
    headers.set_xticks(centres, [f"\n\n\n{name}" for name in groups], fontweight="bold", fontsize=10)
    headers.tick_params(length=0)
    headers.spines["bottom"].set_visible(False)
    axes.set(ylim=(0, 100), ylabel="accuracy, %")
    axes.grid(axis="y", color=LIGHT_GREY)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    save_png(figure, path)


def save_png(figure: Figure, path: str | Path, dpi: int = 150) -> None:
    """Write a figure as PNG, atomically. Raises `UserError` if the file cannot be written."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dpi)
    write_bytes(path, buffer.getvalue())
