"""Rows of a table over seeds, beside published rows: Markdown, CSV, and a picture of one column.

A row is a dict column -> number (or text), as in `utils.scoring.metrics`.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.files import write_bytes
from utils.scoring.plots import BLUE, LIGHT_GREY, PALE_BLUE, VERMILION, save_png

Row = Mapping[str, float]

# 97.5 % quantile of Student's t for 2, 3, ... seeds
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
MOST_SEEDS = len(_T) + 1


class Line(NamedTuple):
    """A line of a table: one row for each seed, or a single one that depends on none."""

    name: str
    source: str
    rows: Sequence[Row]

    def mean(self, column: str) -> tuple[float, float | None] | None:
        """Mean over the seeds and half its 95 % interval (Student's t), None where there is no interval, or nothing."""
        values = [row[column] for row in self.rows if column in row]
        if not values:
            return None
        half = None
        if len(values) > 1:
            half = _T[len(values) - 2] * float(np.std(values, ddof=1)) / len(values) ** 0.5
        return float(np.mean(values)), half


def write_markdown(
    path: str | Path, head: str, columns: Sequence[str], blocks: Mapping[str, Sequence[Line]], notes: Sequence[str]
) -> None:
    """Write a table in a block for each heading; means with half their interval, "-" where there is no number."""

    def cell(line: Line, column: str) -> str:
        if (found := line.mean(column)) is None:
            return "-"
        mean, half = found
        return f"{mean:.2f}" if half is None or half < 0.005 else f"{mean:.2f} ± {half:.2f}"

    text = [head]
    for heading, lines in blocks.items():
        cells = [["", "source", "seeds", *columns], ["---"] * 3 + ["---:"] * len(columns)]
        for line in lines:
            seeds = str(len(line.rows)) if len(line.rows) > 1 else ""
            cells.append([line.name, line.source, seeds, *(cell(line, column) for column in columns)])
        text.append(f"**{heading}**\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in cells))
    text.append("\n".join(f"- {note}" for note in notes))
    write_bytes(path, ("\n\n".join(text) + "\n").encode())


def write_csv(path: str | Path, head: str, columns: Sequence[str], lines: Sequence[Line]) -> None:
    """Write a line for each row: name, source, seeds, and each column with half its interval; `head` is a comment."""
    buffer = io.StringIO()
    buffer.write(f"# {head}\n")
    out = csv.writer(buffer, lineterminator="\n")
    out.writerow(["row", "source", "seeds", *(name for column in columns for name in (column, f"{column} ±"))])
    for line in lines:
        numbers = (number for column in columns for number in line.mean(column) or (None, None))
        rounded = ["" if number is None else f"{number:.4f}" for number in numbers]
        out.writerow([line.name, line.source, len(line.rows) if len(line.rows) > 1 else "", *rounded])
    write_bytes(path, buffer.getvalue().encode())


def draw_bars(
    path: str | Path, title: str, ours: Mapping[str, Mapping[int, Row]], paper: Mapping[str, Row], reference: str
) -> None:
    """Draw accuracy ("All") of each row over seeds, and its difference to the row `reference`, paired by seed.

    `ours` maps each name, `reference` among them, to its row for each seed, of which each shares one with `reference`.
    The paper's values are marked beside. Raises `UserError` if the file cannot be written.
    """
    figure = Figure(figsize=(9.5, 0.42 * len(ours) + 1.7), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(ours))[::-1]
    colours = [BLUE if name == reference else PALE_BLUE for name in ours]
    for axes, base in ((left, None), (right, reference)):
        rows_of = {name: _less(rows, ours[base]) if base else list(rows.values()) for name, rows in ours.items()}
        lines = [Line(name, "", rows) for name, rows in rows_of.items()]
        means, halves = zip(*(line.mean("All") for line in lines), strict=True)
        axes.barh(places, means, height=0.7, color=colours)
        if any(half is not None for half in halves):  # one seed has no interval
            reach = [half or 0.0 for half in halves]
            whiskers = axes.errorbar(means, places, xerr=reach, fmt="none", ecolor="black", elinewidth=1, capsize=3)
            whiskers.set_label("mean over seeds, 95 % interval")
        known = [(place, name) for place, name in zip(places, ours, strict=True) if name in paper]
        published = [paper[name]["All"] - (paper[base]["All"] if base else 0) for _, name in known]
        at = [place + 0.22 for place, _ in known]  # beside the whisker, not on it
        axes.plot(published, at, "D", color=VERMILION, markeredgecolor="white", label="the paper's, on MUSIC-AVQA")
        axes.grid(axis="x", color=LIGHT_GREY)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    left.set_yticks(places, list(ours))
    left.set(xlim=(0, 100), xlabel="accuracy, %")
    right.axvline(0, color="black", linewidth=0.8)
    right.set(xlabel=f"difference to {reference}, points")
    right.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))  # not quarters: long labels meet
    figure.suptitle(title, fontsize=11)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    save_png(figure, path)


def _less(rows: Mapping[int, Row], base: Mapping[int, Row]) -> list[Row]:
    """The difference for each seed that both have."""
    return [{"All": rows[seed]["All"] - base[seed]["All"]} for seed in rows.keys() & base.keys()]
