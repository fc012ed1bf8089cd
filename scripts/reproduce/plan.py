"""A table of the paper as rows of options: its runs, what they would cost, and what they wait for."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from configs.schema import Config
from dataset.config import DataConfig
from scripts.reproduce.cost import lacking, training_flop, unmerged
from scripts.reproduce.derived import Derived
from scripts.reproduce.identity import Contents
from scripts.reproduce.queue import Run, find_run, find_workers, resolve
from scripts.reproduce.seed_table import Row
from utils.errors import UserError

Baseline = Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]
"""Of training and test questions, the test questions with `correct`: a share of 1."""


def accuracy(run: Run) -> Row:
    """The row that test.py wrote: accuracy by question type."""
    return run.results["accuracy"]


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    rows: by name, the options of train.py that make the row, or a baseline
    paper: rows as published for the data set `of`; one that has the name of ours stands below it
    of: the data set that the paper's rows are for
    columns: those that are printed; None: the averages of the data set, or all where it has none
    by_type: print all columns of the data set
    later: rows published after the paper
    questions: which questions, where they are not the configuration's
    measure: what is printed of a run
    intervals: print those of the test predictions beside it
    seeds: how many of the seeds, where not all
    note: what a reader must know of it
    reference: the row that the others are compared with, in a picture too
    """

    title: str
    rows: dict[str, str | Baseline]
    paper: dict[str, Row]
    columns: Sequence[str] | None = None
    by_type: bool = False
    of: str = "music_avqa"
    later: dict[str, Row] | None = None
    questions: Callable[[Config], Derived | None] | None = None
    measure: Callable[[Run], Row] = accuracy
    intervals: bool = True
    seeds: int | None = None
    note: str = ""
    reference: str | None = None


class Base(NamedTuple):
    """What the tables of one command have in common."""

    arguments: list[str]  # of train.py: configuration files and options on top
    seeds: list[int]
    runs: Path  # folder of run folders
    results: Path  # folder of the files made
    videos: Path
    contents: Contents  # of what the runs read
    dry: bool  # whether nothing may be written
    values: dict[str, Any]  # what `{names}` in a row's options stand for


@dataclass
class Planned:
    """A table's rows: arguments of train.py, configuration, runs by seed, and the reason where they cannot start."""

    table: Table
    config: Config
    asked: DataConfig  # whose annotations name the questions and videos, also before others are made of them
    due: Derived | None  # annotations that are still to be made
    arguments: dict[str, list[str]]
    configs: dict[str, Config]
    runs: dict[str, dict[int, Run]]
    reasons: dict[str, str]

    def seeds(self, base: Base) -> list[int]:
        """The seeds of each row."""
        return base.seeds[: self.table.seeds]


def plan(table: Table, base: Base, known: dict[Path, Run]) -> Planned:
    """Resolve every row and find its runs, those of other tables among them by folder (`known`, which is added to).

    Makes the annotations that the table derives, unless `base.dry`, where nothing at all is written. Raises `UserError`
    for options that do not fit the table.
    """
    config = resolve(base.arguments)
    derived = table.questions(config) if table.questions else None
    due = None
    if derived and (base.dry or derived.absent):
        due = derived if derived.due() else None
    elif derived:
        derived.make()
    arguments = [*base.arguments, *(derived.arguments if derived else ())]
    final = resolve(arguments)
    planned = Planned(table, final, config.data if due else final.data, due, {}, {}, {}, {})
    for name, own in table.rows.items():
        if callable(own):
            continue
        runs = planned.runs[name] = {}
        try:
            values = base.values | ({"unmerged": unmerged(config.data.features)} if "{unmerged}" in own else {})
            planned.arguments[name] = row = [*arguments, *_words(own, values)]
            planned.configs[name] = resolve(row)
            if due and due.absent:
                raise UserError(lacking(planned.configs[name], planned.asked))
            for seed in () if due else planned.seeds(base):
                found = find_run(f"{name}, seed {seed}", row, seed, base.runs, base.contents)
                runs[seed] = known.setdefault(found.folder, found)
        except UserError as error:
            planned.reasons[name] = " ".join(str(error).split())
    return planned


def _words(options: str, values: dict[str, Any]) -> list[str]:
    """A row's options as words, with `values` for the names in braces that are known."""
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise UserError(f"options {options!r}: {error}") from error
    for name, value in values.items():
        words = [word.replace(f"{{{name}}}", str(value)) for word in words]
    return words


def print_plan(plans: Sequence[Planned], base: Base) -> bool:
    """Print each table's runs with their cost, and what is missing. Returns whether nothing is."""
    seen, waits, flops = set(), [], []
    for planned in plans:
        print(f"\n{planned.table.title}")
        if planned.due:
            print(f"  first its annotations are made: {planned.due.folder}")
        for name, own in planned.table.rows.items():
            if callable(own):
                print(f"  {name}: no training")
                continue
            if name not in planned.configs:
                print(f"  {name}: cannot be run: {planned.reasons[name]}")
                continue
            config, runs = planned.configs[name], planned.runs[name]
            if name in planned.reasons:
                if planned.reasons[name] not in waits:
                    waits.append(planned.reasons[name])
                states = f"waits, see ({waits.index(planned.reasons[name]) + 1})"
            else:
                states = ", ".join(f"seed {seed} {_state(runs.get(seed))}" for seed in planned.seeds(base))
            flop = training_flop(config, planned.asked) or 0.0
            new = {(repr(config), seed): runs.get(seed) for seed in planned.seeds(base)}
            new = {key: run for key, run in new.items() if key not in seen}
            seen |= new.keys()
            left = [1 - len(run.epochs) / run.config.train.epochs if run else 1 for run in new.values()]
            flops += [flop * share for share, run in zip(left, new.values(), strict=True) if not (run and run.done)]
            print(f"  {name}: {states}; {_readable(flop)} each" + ("" if new else ", counted above"))
            if not (runs and all(run.done for run in runs.values())):
                print(f"      python train.py {shlex.join(planned.arguments[name])} --train.seed SEED")
    problems, at_once = [], 1
    try:
        at_once = len(find_workers(plans[0].config.train.device))
    except UserError as error:
        problems = [str(error)]
    print(f"\n{len(flops)} runs to do, {_readable(sum(flops))}, {at_once} at a time")
    problems += [f"({number}) {reason}" for number, reason in enumerate(waits, start=1)]
    lacks = (lacking(config, planned.asked) for planned in plans for config in planned.configs.values())
    problems += dict.fromkeys(reason for reason in lacks if reason and " ".join(reason.split()) not in waits)
    whole = not problems and not any(planned.reasons for planned in plans)
    print("\n" + "\n".join(["nothing is missing"] if whole else problems))
    return whole


def _state(run: Run | None) -> str:
    if run is None or not (run.done or run.epochs):
        return "to do"
    state = "done" if run.done else f"at epoch {len(run.epochs)} of {run.config.train.epochs}"
    return f"{state} by other code" if run.other_code else state


def _readable(flop: float) -> str:
    if not flop:
        return "cost not known yet"
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12)):
        if flop >= size:
            return f"{flop / size:.3g} {unit}"
    return f"{flop / 1e9:.3g} GFLOP"
