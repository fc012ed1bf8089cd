"""Rows of a table, each the mean over seeds, beside published rows: Markdown, CSV, and a picture of one column.

A row is a dict column -> number, as in `utils.scoring.metrics`; a table of predictions as in `utils.scoring.intervals`.
"""

import csv
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.files import write_bytes
from utils.scoring.intervals import compare, holm, intervals_of
from utils.scoring.metrics import Columns
from utils.scoring.plots import BLUE, LIGHT_GREY, PALE_BLUE, VERMILION, save_png

Row = Mapping[str, float]
WHOLE_WORDS = {"break_long_words": False, "break_on_hyphens": False}


class Difference(NamedTuple):
    """What a row has more than the reference row in "All", percentage points; `p` is Holm's of all such rows."""

    points: float
    low: float
    high: float
    df: float  # degrees of freedom
    p: float  # NaN where there is one video alone


class Line(NamedTuple):
    """A line of a table; a published one, or a baseline, has no seeds and perhaps no intervals."""

    name: str
    source: str
    mean: Row
    seeds: int = 0
    interval: Mapping[str, tuple[float, float]] = {}  # 95 %, by column
    difference: Difference | None = None


def mean_line(
    name: str, source: str, rows: Sequence[Row], predictions: Sequence[pd.DataFrame], columns: Columns, seeds: int
) -> Line:
    """The mean of rows, one for each seed, with intervals from the predictions of all seeds."""
    mean = {column: float(np.mean([row[column] for row in rows])) for column in rows[0]}
    return Line(name, source, mean, seeds, intervals_of(predictions, columns))


def differences(
    predictions: Mapping[str, Sequence[pd.DataFrame]], reference: str, columns: Columns
) -> dict[str, Difference]:
    """The difference of each row but `reference` to it, given the predictions of all seeds of each.

    Raises `UserError` where they do not answer the same questions.
    """
    found = {
        name: compare(predictions[reference], tables, columns).loc["All"]
        for name, tables in predictions.items()
        if name != reference
    }
    corrected = holm([row["p"] for row in found.values()])
    return {
        name: Difference(*row[["difference", "low", "high", "df"]], p)
        for (name, row), p in zip(found.items(), corrected, strict=True)
    }


def write_markdown(
    path: str | Path,
    head: str,
    columns: Sequence[str],
    blocks: Mapping[str, Sequence[Line]],
    notes: Sequence[str],
    reference: str | None,
) -> None:
    """Write a table in a block for each heading: means, the interval of "All", and the difference to `reference`."""
    text = [head]
    against = [f"to {reference}", "95 %", "p"] if reference else []
    for heading, lines in blocks.items():
        cells = [["", "source", "seeds", *columns, "All, 95 %", *against]]
        cells.append(["---"] * 3 + ["---:"] * (len(cells[0]) - 3))
        for line in lines:
            means = [f"{line.mean[column]:.2f}" if column in line.mean else "-" for column in columns]
            cells.append([line.name, line.source, str(line.seeds or ""), *means, _range(line.interval.get("All"))])
            if reference:
                cells[-1] += _against(line.difference)
        text.append(f"**{heading}**\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in cells))
    text.append("\n".join(textwrap.fill(f"- {note}", 150, subsequent_indent="  ", **WHOLE_WORDS) for note in notes))
    write_bytes(path, ("\n\n".join(text) + "\n").encode())


def _range(limits: tuple[float, float] | None) -> str:
    return "" if limits is None else f"{limits[0]:.2f} to {limits[1]:.2f}"


def _against(difference: Difference | None) -> list[str]:
    if difference is None:
        return [""] * 3
    points, low, high, _, p = difference
    level = "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
    return [f"{points:+.2f}", f"{low:+.2f} to {high:+.2f}", level]


def write_csv(path: str | Path, head: str, columns: Sequence[str], lines: Sequence[Line]) -> None:
    """Write each line: name, source, seeds, each column with the limits of its interval, and the difference.

    `head` is a comment.
    """
    buffer = io.StringIO()
    buffer.write(f"# {head}\n")
    out = csv.writer(buffer, lineterminator="\n")
    limits = (name for column in columns for name in (column, f"{column} low", f"{column} high"))
    out.writerow(["row", "source", "seeds", *limits, "difference", "difference low", "difference high", "df", "p"])
    for line in lines:
        numbers = [n for column in columns for n in (line.mean.get(column), *line.interval.get(column, (None, None)))]
        numbers += (line.difference or [None] * 5)[:-1]
        rounded = ["" if number is None else f"{number:.4f}" for number in numbers]
        p = f"{line.difference.p:.3g}" if line.difference else ""
        out.writerow([line.name, line.source, line.seeds or "", *rounded, p])
    write_bytes(path, buffer.getvalue().encode())


def draw_bars(path: str | Path, title: str, lines: Sequence[Line], paper: Mapping[str, Row], reference: str) -> None:
    """Draw accuracy ("All") of each line, and its difference to the line `reference`, with their intervals.

    The paper's values are marked beside. Raises `UserError` if the file cannot be written.
    """
    figure = Figure(figsize=(9.5, 0.42 * len(lines) + 1.7), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(lines))[::-1]
    colours = [BLUE if line.name == reference else PALE_BLUE for line in lines]
    reached = [(line.mean["All"], *line.interval["All"]) for line in lines]
    gained = [line.difference[:3] if line.difference else (0.0, 0.0, 0.0) for line in lines]
    for axes, values, base in ((left, reached, 0.0), (right, gained, paper.get(reference, {}).get("All"))):
        means, lows, highs = np.array(values).T
        axes.barh(places, means, height=0.7, color=colours)
        reach = means - lows, highs - means
        whiskers = axes.errorbar(means, places, xerr=reach, fmt="none", ecolor="black", elinewidth=1, capsize=3)
        whiskers.set_label("95 % interval")
        known = [
            (place, paper[line.name]["All"]) for place, line in zip(places, lines, strict=True) if line.name in paper
        ]
        if base is not None and known:
            at, published = np.array(known).T
            beside = at + 0.22  # beside the whisker, not on it
            marks = {"color": VERMILION, "markeredgecolor": "white", "label": "the paper's, on MUSIC-AVQA"}
            axes.plot(published - base, beside, "D", **marks)
        axes.grid(axis="x", color=LIGHT_GREY)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    left.set_yticks(places, [line.name for line in lines])
    left.set(xlim=(0, 100), xlabel="accuracy, %")
    right.axvline(0, color="black", linewidth=0.8)
    right.set(xlabel=f"difference to {reference}, points")
    right.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))  # not quarters: long labels meet
    figure.suptitle(title, fontsize=11)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    save_png(figure, path)
