"""A table's files, made of its runs: Markdown, CSV, and a picture where it has a row to compare with."""

from pathlib import Path

import pandas as pd

from configs.schema import Config
from dataset import DATASETS
from dataset.annotations import read_annotations
from dataset.features import open_features
from dataset.text_prompt import PromptTable
from scripts.reproduce.plan import Base, Planned
from scripts.reproduce.seed_table import Line, Row, draw_bars, write_csv, write_markdown
from utils.errors import UserError


def write_table(name: str, planned: Planned, base: Base, head: str, failures: dict[Path, str]) -> None:
    """Write a table as Markdown and CSV, with a picture where it has a reference row; our rows above the paper's."""
    table, path = planned.table, base.results / name
    ours = {row: _measured(planned, row) for row in table.rows}
    comparable = planned.config.data.dataset == table.of or planned.config.data.truth
    lines, others = [], dict(table.paper if comparable else {})
    for row, by_seed in ours.items():
        if by_seed:
            lines.append(Line(row, "this project", list(by_seed.values())))
        if row in others:
            lines.append(Line(row, "TSPM paper", [others.pop(row)]))
    blocks = {f"This project, on {dataset_name(planned.config)}": lines}
    if others:
        blocks["Other rows of the paper"] = [Line(row, "TSPM paper", [others[row]]) for row in others]
    if table.later and comparable:
        blocks["Published later (* second-hand)"] = [Line(row, "later", [table.later[row]]) for row in table.later]
    notes = _notes(planned, base, failures)
    text = [f"# {table.title}, on {dataset_name(planned.config)}", f"    {head}"]
    if table.reference and (reference := ours[table.reference]):
        drawn = {row: by_seed for row, by_seed in ours.items() if by_seed.keys() & reference.keys()}
        title = f"{table.title}, on {dataset_name(planned.config)}"
        draw_bars(path.with_suffix(".png"), title, drawn, table.paper if comparable else {}, table.reference)
        text.append(f"![{table.title}]({name}.png)")
    columns = table.columns or _columns(planned, ours)
    write_markdown(path.with_suffix(".md"), "\n\n".join(text), columns, blocks, notes)
    write_csv(path.with_suffix(".csv"), head, columns, [line for block in blocks.values() for line in block])


def _columns(planned: Planned, ours: dict[str, dict[int, Row]]) -> list[str]:
    """The columns of the data set that a table prints."""
    groups = DATASETS[planned.config.data.dataset].columns.averages.values()
    if groups:
        return [*(column for group in groups for column in (group if planned.table.by_type else group[-1:])), "All"]
    found = {column for by_seed in ours.values() for row in by_seed.values() for column in row}
    return [*sorted(found - {"All"}), "All"]


def _measured(planned: Planned, name: str) -> dict[int, Row]:
    """What was measured of a row, by seed; a baseline depends on none and stands under one."""
    own = planned.table.rows[name]
    if not callable(own):
        runs = planned.runs[name]
        return {seed: planned.table.measure(run) for seed, run in runs.items() if run.done}
    data = planned.config.data
    prompts = PromptTable.read(data.prompts, data.sheet)
    train, *tests = (
        pd.concat(read_annotations(path, data.dataset, prompts).questions for path in data.files(split).values())
        for split in ("train", "test")
    )
    return {0: own(train, *tests, DATASETS[data.dataset].columns)}


def _notes(planned: Planned, base: Base, failures: dict[Path, str]) -> list[str]:
    """What a reader of the table must know."""
    notes, config = [planned.table.note] if planned.table.note else [], planned.config
    if config.data.truth:
        notes.append(
            "Bandstand is a benchmark that this project generates; the paper's rows are for MUSIC-AVQA (AVQA in Table "
            "7), other questions about other videos: their order can be compared with ours, their height cannot."
        )
    if len(base.seeds) > 1:
        notes.append("± is half the 95 % interval of the mean over seeds (Student's t).")
    runs = [run for by_seed in planned.runs.values() for run in by_seed.values() if run.done]
    if runs:
        reach = max((high - low) / 2 for low, high in (run.results["interval95"]["All"] for run in runs))
        asked = runs[0].results["questions"]
        notes.append(
            f"{asked} test questions; drawing other test videos would move the total of one run by ± {reach:.2f} "
            "(95 %, bootstrap over videos)."
        )
    notes += [
        f"Of other code than today's, which differs in {run.other_code}: {run.label}; --rerun trains it anew."
        for run in runs
        if run.other_code
    ]
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
