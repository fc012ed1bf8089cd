"""A table's files, made of its runs: rows that are means over seeds beside published rows, as Markdown and CSV.

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

from dataset import DATASETS
from dataset.annotations import read_annotations
from dataset.text_prompt import PromptTable
from scripts.reproduce.plan import Planned, Row
from utils.errors import UserError
from utils.files import write_bytes
from utils.scoring.intervals import compare, holm, intervals_of
from utils.scoring.metrics import Columns, accuracy_row


class Difference(NamedTuple):
    """What a row has more than the reference row in "All", percentage points; `p` is Holm's of all such rows."""

    points: float
    low: float
    high: float
    df: float  # degrees of freedom
    p: float  # NaN where `compare` has none


class Line(NamedTuple):
    """A line of a table; a published one, or a baseline, has no seeds."""

    name: str
    source: str
    mean: Row
    seeds: int = 0
    interval: Mapping[str, tuple[float, float]] = {}  # 95 %, by column
    predictions: Sequence[pd.DataFrame] = ()  # a table for each seed; of a baseline one
    difference: Difference | None = None


def differences(
    predictions: Mapping[str, Sequence[pd.DataFrame]], reference: str, columns: Columns
) -> dict[str, Difference]:
    """The difference of each row but `reference` to it, given the predictions of all seeds of each.

    Raises `UserError` where they do not answer the same questions.
    """
    found = {
        name: compare(predictions[reference], tables, columns).to_dict("index")["All"]
        for name, tables in predictions.items()
        if name != reference
    }
    corrected = holm([row["p"] for row in found.values()])
    return {
        name: Difference(row["difference"], row["low"], row["high"], row["df"], p)
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
    """Write a table in a block for each heading: means, the interval of "All" where there is one, and the difference to
    `reference`."""
    text = [head]
    interval = ["All, 95 %"] if any(line.interval for lines in blocks.values() for line in lines) else []
    against = [f"to {reference}", "95 %", "p"] if reference else []
    for heading, lines in blocks.items():
        cells = [["", "source", "seeds", *columns, *interval, *against]]
        cells.append(["---"] * 3 + ["---:"] * (len(cells[0]) - 3))
        for line in lines:
            means = [f"{line.mean[column]:.2f}" if column in line.mean else "-" for column in columns]
            cells.append([line.name, line.source, str(line.seeds or ""), *means])
            if interval:
                cells[-1].append(_range(line.interval.get("All")))
            if reference:
                cells[-1] += _against(line.difference)
        text.append(f"**{heading}**\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in cells))
    wrapped = textwrap.TextWrapper(150, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    text.append("\n".join(wrapped.fill(f"- {note}") for note in notes))
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


def write_table(path: Path, planned: Planned, head: str, failures: dict[Path, str]) -> None:
    """Write a table as Markdown and CSV to `path` with their endings; our rows above the paper's."""
    table, config = planned.table, planned.config
    columns = DATASETS[config.data.dataset].columns
    ours = {row: line for row in table.rows if (line := _line(planned, row, columns))}
    notes = [table.note] if table.note else []
    reference = table.reference if table.reference in ours and len(ours) > 1 else None
    if reference:
        try:
            gained = differences({row: line.predictions for row, line in ours.items()}, reference, columns)
            ours |= {row: ours[row]._replace(difference=found) for row, found in gained.items()}
        except UserError as error:
            notes.append(f"Not compared with {reference}: {error}")
            reference = None
    comparable = config.data.dataset == table.of or config.data.truth
    lines, others = [], dict(table.paper if comparable else {})
    for row in table.rows:
        lines += [ours[row]] if row in ours else []
        lines += [Line(row, "TSPM paper", others.pop(row))] if row in others else []
    name = Path(config.out).name
    on = f"Bandstand ({name}, generated)" if config.data.truth else f"{DATASETS[config.data.dataset].title} ({name})"
    blocks = {f"This project, on {on}": lines}
    if others:
        blocks["Other rows of the paper"] = [Line(row, "TSPM paper", others[row]) for row in others]
    if table.later and comparable:
        blocks["Published later (* second-hand, + tunes encoders or a language model)"] = [
            Line(row, "later", table.later[row]) for row in table.later
        ]
    shown = table.columns or _columns(planned, ours)
    notes += _notes(planned, list(ours.values()), reference, failures)
    write_markdown(path.with_suffix(".md"), f"# {table.title}, on {on}\n\n    {head}", shown, blocks, notes, reference)
    write_csv(path.with_suffix(".csv"), head, shown, [line for block in blocks.values() for line in block])


def _line(planned: Planned, row: str, columns: Columns) -> Line | None:
    """What was measured of a row of ours, the mean of its seeds; None where none of its runs is done."""
    own, data = planned.table.rows[row], planned.config.data
    if callable(own):
        prompts = PromptTable.read(data.prompts, data.sheet)
        train, test = (
            pd.concat(read_annotations(path, data.dataset, prompts).questions for path in data.files(split).values())
            for split in ("train", "test")
        )
        predictions, seeds = [own(train, test)], 0
        measured: list[Row] = [accuracy_row(predictions[0], columns)]
    else:
        runs = [run for run in planned.runs[row].values() if run.done]
        if not runs:
            return None
        predictions, seeds = [run.predictions for run in runs], len(runs)
        measured = [planned.table.measure(run) for run in runs]
    mean = {column: float(np.mean([one[column] for one in measured])) for column in measured[0]}
    interval = intervals_of(predictions, columns) if planned.table.intervals else {}
    return Line(row, "this project", mean, seeds, interval, predictions)


def _columns(planned: Planned, ours: dict[str, Line]) -> list[str]:
    """The columns of the data set that a table prints."""
    groups = DATASETS[planned.config.data.dataset].columns.averages.values()
    if groups:
        return [*(column for group in groups for column in (group if planned.table.by_type else group[-1:])), "All"]
    found = {column for line in ours.values() for column in line.mean}
    return [*sorted(found - {"All"}), "All"]


def _notes(planned: Planned, ours: list[Line], reference: str | None, failures: dict[Path, str]) -> list[str]:
    """What a reader of the table must know."""
    notes = []
    if planned.config.data.truth:
        notes.append(
            "Bandstand is a benchmark that this project generates; the paper's rows are for MUSIC-AVQA (AVQA in Table "
            "7), other questions about other videos: their order can be compared with ours, their height cannot."
        )
    if ours and planned.table.intervals:
        asked, videos = max((len(line.predictions[0]), line.predictions[0]["video_id"].nunique()) for line in ours)
        notes.append(
            f"{asked} test questions about {videos} videos. Intervals are over other videos and other seeds: SE² is "
            "that of the seeds' mean over resampled videos + the seeds' variance / their number, with Student's t."
        )
        if once := [line.name for line in ours if line.seeds == 1]:
            notes.append(f"Of one seed, so over other videos alone: {'; '.join(once)}.")
    if reference:
        notes.append(
            f"Differences to {reference} are on the same questions; p is two-sided, and corrected for "
            f"the number of rows compared, {len(ours) - 1} (Holm)."
        )
    notes += [f"Not run: {row}: {' '.join(reason.split())}" for row, reason in planned.reasons.items()]
    for by_seed in planned.runs.values():
        notes += [f"Failed: {run.label}: {failures[run.folder]}" for run in by_seed.values() if run.folder in failures]
    return notes
