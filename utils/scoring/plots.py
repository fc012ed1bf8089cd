"""A picture of predictions as PNG: which answers are mistaken for which.

Figures are drawn on their own Agg canvas, without pyplot: nothing global, no display needed.
"""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils.files import write_bytes
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
    figure = Figure(figsize=(width + labels + 2.2, height + labels + 0.9), layout="constrained")
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


def save_png(figure: Figure, path: str | Path, dpi: int = 150) -> None:
    """Write a figure as PNG, atomically. Raises `UserError` if the file cannot be written."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dpi)
    write_bytes(path, buffer.getvalue())
