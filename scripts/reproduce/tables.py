"""A table's files, made of its runs: Markdown, CSV, and a picture where it has a row to compare with."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from configs.schema import Config
from dataset import DATASETS
from dataset.annotations import read_annotations
from dataset.features import open_features
from dataset.text_prompt import PromptTable
from scripts.reproduce.plan import Base, Planned
from scripts.reproduce.seed_table import Line, Row, differences, draw_bars, mean_line, write_csv, write_markdown
from utils.errors import UserError
from utils.scoring.metrics import accuracy_row


class Measured(NamedTuple):
    """What is known of a row of ours: numbers and predictions, a table for each seed; a baseline has one of each."""

    rows: list[Row]
    predictions: list[pd.DataFrame]
    seeds: int


def write_table(name: str, planned: Planned, base: Base, head: str, failures: dict[Path, str]) -> None:
    """Write a table as Markdown and CSV, with a picture where it has a reference row; our rows above the paper's."""
    table, path, columns = planned.table, base.results / name, DATASETS[planned.config.data.dataset].columns
    measured = {row: found for row in table.rows if (found := _measured(planned, row))}
    notes = [table.note] if table.note else []
    ours = {row: mean_line(row, "this project", *found[:2], columns, found.seeds) for row, found in measured.items()}
    if not table.intervals:
        ours = {row: line._replace(interval={}) for row, line in ours.items()}
    reference = table.reference if table.reference in ours and len(ours) > 1 else None
    if reference:
        try:
            gained = differences({row: found.predictions for row, found in measured.items()}, reference, columns)
            ours |= {row: ours[row]._replace(difference=found) for row, found in gained.items()}
        except UserError as error:
            notes.append(f"Not compared with {reference}: {error}")
            reference = None
    comparable = planned.config.data.dataset == table.of or planned.config.data.truth
    lines, others = [], dict(table.paper if comparable else {})
    for row in table.rows:
        lines += [ours[row]] if row in ours else []
        lines += [Line(row, "TSPM paper", others.pop(row))] if row in others else []
    title = f"{table.title}, on {dataset_name(planned.config)}"
    blocks = {f"This project, on {dataset_name(planned.config)}": lines}
    if others:
        blocks["Other rows of the paper"] = [Line(row, "TSPM paper", others[row]) for row in others]
    if table.later and comparable:
        blocks["Published later (* second-hand)"] = [Line(row, "later", table.later[row]) for row in table.later]
    text = [f"# {title}", f"    {head}"]
    if reference:
        draw_bars(path.with_suffix(".png"), title, list(ours.values()), table.paper if comparable else {}, reference)
        text.append(f"![{table.title}]({name}.png)")
    shown = table.columns or _columns(planned, ours)
    notes += _notes(planned, measured, reference, failures)
    write_markdown(path.with_suffix(".md"), "\n\n".join(text), shown, blocks, notes, reference)
    write_csv(path.with_suffix(".csv"), head, shown, [line for block in blocks.values() for line in block])


def _columns(planned: Planned, ours: dict[str, Line]) -> list[str]:
    """The columns of the data set that a table prints."""
    groups = DATASETS[planned.config.data.dataset].columns.averages.values()
    if groups:
        return [*(column for group in groups for column in (group if planned.table.by_type else group[-1:])), "All"]
    found = {column for line in ours.values() for column in line.mean}
    return [*sorted(found - {"All"}), "All"]


def _measured(planned: Planned, name: str) -> Measured | None:
    """What was measured of a row; None where none of its runs is done."""
    own = planned.table.rows[name]
    if not callable(own):
        runs = [run for run in planned.runs[name].values() if run.done]
        rows = [planned.table.measure(run) for run in runs]
        return Measured(rows, [run.predictions for run in runs], len(runs)) if runs else None
    data = planned.config.data
    prompts = PromptTable.read(data.prompts, data.sheet)
    train, test = (
        pd.concat(read_annotations(path, data.dataset, prompts).questions for path in data.files(split).values())
        for split in ("train", "test")
    )
    predictions = own(train, test)
    return Measured([accuracy_row(predictions, DATASETS[data.dataset].columns)], [predictions], 0)


def _notes(
    planned: Planned, measured: dict[str, Measured], reference: str | None, failures: dict[Path, str]
) -> list[str]:
    """What a reader of the table must know."""
    notes, config = [], planned.config
    if config.data.truth:
        notes.append(
            "Bandstand is a benchmark that this project generates; the paper's rows are for MUSIC-AVQA (AVQA in Table "
            "7), other questions about other videos: their order can be compared with ours, their height cannot."
        )
    runs = [run for by_seed in planned.runs.values() for run in by_seed.values() if run.done]
    if measured:
        tests = [found.predictions[0] for found in measured.values()]
        asked, videos = max((len(test), test["video_id"].nunique()) for test in tests)
        notes.append(
            f"{asked} test questions about {videos} videos. Intervals are over other videos and other seeds: SE² is "
            "the bootstrap's over videos of the seeds' mean + the seeds' variance / their number, with Student's t."
        )
        if once := [row for row, found in measured.items() if found.seeds == 1]:
            notes.append(f"Of one seed, so over other videos alone: {'; '.join(once)}.")
    if reference:
        notes.append(
            f"Differences to {reference} are on the same questions and resamples; p is two-sided, and corrected for "
            f"the number of rows compared, {len(measured) - 1} (Holm)."
        )
    if other := [run for run in runs if run.other_code]:
        notes.append(f"Of other code than today's, {len(other)} of {len(runs)} runs; --rerun trains them anew.")
    notes += [f"Not run: {row}: {reason}" for row, reason in planned.reasons.items()]
    for by_seed in planned.runs.values():
        notes += [f"Failed: {run.label}: {failures[run.folder]}" for run in by_seed.values() if run.folder in failures]
    if config.data.truth and "second_features" in " ".join(map(str, planned.table.rows.values())):
        notes += [f"{row} here: {_encoder(found)}." for row, found in planned.configs.items()]
    return notes


def _encoder(config: Config) -> str:
    data = config.data
    try:
        manifest = open_features(data.features, data.layout, ["frame"], data.segments, data.tokens).manifests["frame"]
    except UserError:
        return f"{data.features}, which is not there"
    return f"{manifest['encoder']}, {manifest['image_size']} px, frame width {manifest['shape'][-1]} ({data.features})"


def dataset_name(config: Config) -> str:
    """What a table calls the data set, plainly where it is generated."""
    run = Path(config.out).name
    return f"Bandstand ({run}, generated)" if config.data.truth else f"{DATASETS[config.data.dataset].title} ({run})"
