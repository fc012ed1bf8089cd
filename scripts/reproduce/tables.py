"""A table's files, made of its runs: rows that are means over seeds beside published rows, as Markdown and CSV.

A line is a dict by the columns of the CSV, those that are known: `row`, its name; `source`; `seeds`, where it is a
mean over seeds; the columns of `utils.scoring.metrics`, with 95 % intervals as "<column> low" and "<column> high"; and
what it has more than the reference row in "All": `difference` in percentage points with its limits, degrees of freedom
`df`, and `p`, Holm's of all rows compared. A table of predictions is as in `utils.scoring.intervals`.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataset import DATASETS
from dataset.annotations import read_annotations
from dataset.text_prompt import PromptTable
from scripts.reproduce.plan import Planned, Row, Table
from utils.errors import UserError
from utils.files import write_bytes
from utils.scoring.intervals import compare, holm, intervals_of
from utils.scoring.metrics import Columns, accuracy_row

Line = dict[str, Any]
Predictions = Sequence[pd.DataFrame]  # a table for each seed


def differences(predictions: Mapping[str, Predictions], reference: str, columns: Columns) -> dict[str, Line]:
    """The difference of each row but `reference` to it, given the predictions of each.

    Raises `UserError` where they do not answer the same questions.
    """
    names = {"low": "difference low", "high": "difference high"}
    found = {
        name: compare(predictions[reference], tables, columns).rename(columns=names).to_dict("index")["All"]
        for name, tables in predictions.items()
        if name != reference
    }
    corrected = holm([row["p"] for row in found.values()])
    told = ("difference", *names.values(), "df")
    return {
        name: {column: row[column] for column in told} | {"p": p}
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
    interval = ["All, 95 %"] if any("All low" in line for lines in blocks.values() for line in lines) else []
    against = [f"to {reference}", "95 %", "p"] if reference else []
    for heading, lines in blocks.items():
        cells = [["", "source", "seeds", *columns, *interval, *against]]
        cells.append(["---"] * 3 + ["---:"] * (len(cells[0]) - 3))
        for line in lines:
            means = [f"{line[column]:.2f}" if column in line else "-" for column in columns]
            cells.append([line["row"], line["source"], str(line.get("seeds", "")), *means])
            if interval:
                cells[-1].append(_limits(line, "All", ".2f") if "All low" in line else "")
            if reference:
                cells[-1] += _against(line)
        text.append(f"**{heading}**\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in cells))
    wrapped = textwrap.TextWrapper(150, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    text.append("\n".join(wrapped.fill(f"- {note}") for note in notes))
    write_bytes(path, ("\n\n".join(text) + "\n").encode())


def _limits(line: Line, name: str, form: str) -> str:
    return f"{line[f'{name} low']:{form}} to {line[f'{name} high']:{form}}"


def _against(line: Line) -> list[str]:
    if "p" not in line:
        return [""] * 3
    p = line["p"]
    level = "-" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
    return [f"{line['difference']:+.2f}", _limits(line, "difference", "+.2f"), level]


def write_csv(path: str | Path, head: str, columns: Sequence[str], lines: Sequence[Line]) -> None:
    """Write the lines, of means these columns; `head` is a comment."""
    means = [name for column in columns for name in (column, f"{column} low", f"{column} high")]
    against = ["difference", "difference low", "difference high", "df", "p"]
    table = pd.DataFrame(lines).reindex(columns=["row", "source", "seeds", *means, *against])
    table["seeds"] = table["seeds"].astype("Int64")
    table["p"] = table["p"].map("{:.3g}".format, na_action="ignore")
    written = table.to_csv(index=False, float_format="%.4f", lineterminator="\n")
    write_bytes(path, f"# {head}\n{written}".encode())


def write_table(path: Path, planned: Planned, head: str, failures: dict[Path, str]) -> None:
    """Write a table as Markdown and CSV to `path` with their endings; our rows above the paper's."""
    table, config = planned.table, planned.config
    columns = DATASETS[config.data.dataset].columns
    predictions = {row: held for row in table.rows if (held := _predictions(planned, row))}
    ours = {row: _line(planned, row, held, columns) for row, held in predictions.items()}
    notes = [table.note] if table.note else []
    reference = table.reference if table.reference in ours and len(ours) > 1 else None
    if reference:
        try:
            for row, found in differences(predictions, reference, columns).items():
                ours[row] |= found
        except UserError as error:
            notes.append(f"Not compared with {reference}: {error}")
            reference = None
    comparable = config.data.dataset == table.of
    lines, others = [], dict(table.paper if comparable else {})
    for row in table.rows:
        lines += [ours[row]] if row in ours else []
        lines += [_published(row, "TSPM paper", others.pop(row))] if row in others else []
    name = Path(config.out).name
    on = f"Bandstand ({name}, generated)" if config.data.truth else f"{DATASETS[config.data.dataset].title} ({name})"
    blocks = {f"This project, on {on}": lines}
    if others:
        blocks["Other rows of the paper"] = [_published(row, "TSPM paper", others[row]) for row in others]
    if table.later and comparable:
        blocks["Published later (* second-hand, + tunes encoders or a language model)"] = [
            _published(row, "later", table.later[row]) for row in table.later
        ]
    shown = table.columns or _columns(table, predictions, columns)
    notes += _notes(planned, predictions, reference, failures)
    write_markdown(path.with_suffix(".md"), f"# {table.title}, on {on}\n\n    {head}", shown, blocks, notes, reference)
    write_csv(path.with_suffix(".csv"), head, shown, [line for block in blocks.values() for line in block])


def _published(row: str, source: str, values: Row) -> Line:
    return {"row": row, "source": source, **values}


def _predictions(planned: Planned, row: str) -> Predictions:
    """The predictions of a row of ours, a table for each run that is done; of a baseline one."""
    own, data = planned.table.rows[row], planned.config.data
    if not callable(own):
        return [run.predictions for run in planned.runs[row].values() if run.done]
    prompts = PromptTable.read(data.prompts, data.sheet)
    train, test = (
        pd.concat(read_annotations(path, data.dataset, prompts).questions for path in data.files(split).values())
        for split in ("train", "test")
    )
    return [own(train, test)]


def _line(planned: Planned, row: str, predictions: Predictions, columns: Columns) -> Line:
    """What was measured of a row of ours, the mean of its seeds."""
    runs = [run for run in planned.runs.get(row, {}).values() if run.done]
    measured = [planned.table.measure(run) for run in runs] or [accuracy_row(predictions[0], columns)]
    line: Line = {"row": row, "source": "this project"} | ({"seeds": len(runs)} if runs else {})
    line |= {column: float(np.mean([one[column] for one in measured])) for column in measured[0]}
    if planned.table.intervals:
        for column, (low, high) in intervals_of(predictions, columns).items():
            line |= {f"{column} low": low, f"{column} high": high}
    return line


def _columns(table: Table, ours: dict[str, Predictions], columns: Columns) -> list[str]:
    """The columns of the data set that a table prints."""
    groups = columns.averages.values()
    if groups:
        return [*(column for group in groups for column in (group if table.by_type else group[-1:])), "All"]
    return [*dict.fromkeys(column for asked, *_ in ours.values() for column in columns.masks(asked))]


def _notes(
    planned: Planned, ours: dict[str, Predictions], reference: str | None, failures: dict[Path, str]
) -> list[str]:
    """What a reader of the table must know."""
    notes = []
    if planned.config.data.truth:
        notes.append(
            "Bandstand is a benchmark that this project generates; the paper's rows are for MUSIC-AVQA (AVQA in Table "
            "7), other questions about other videos: their order can be compared with ours, their height cannot."
        )
    if ours and planned.table.intervals:
        asked, videos = max((len(table), table["video_id"].nunique()) for table, *_ in ours.values())
        notes.append(
            f"{asked} test questions about {videos} videos. Intervals are over other videos and other seeds: SE² is "
            "that of the seeds' mean over resampled videos + the seeds' variance / their number, with Student's t."
        )
        if once := [row for row, tables in ours.items() if row in planned.runs and len(tables) == 1]:
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
