"""A table of the paper as rows of options: its runs, what they would cost, and what they wait for."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from configs.schema import Config
from dataset import DATASETS
from dataset.annotations import annotated_videos
from dataset.feature_folder import describe_faults
from dataset.features import open_features
from nets.network import Network, build
from nets.options import FeatureSizes
from scripts.profile_model import WIDTHS, feature_sizes, forward_gflop
from scripts.reproduce.identity import Contents
from scripts.reproduce.queue import Run, find_run, find_workers, resolve
from train import rate_groups
from utils.errors import UserError
from utils.files import read_json
from utils.manifest import read_manifest

SPLITS = ("train", "val", "test")
ANSWERS = 100  # about; the classifier is a small part of what a run costs

Row = Mapping[str, float]
Baseline = Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]
"""Of training and test questions, the test questions with `correct`: a share of 1."""


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    title: str
    rows: Mapping[str, str | Baseline]  # by name, the options of train.py that make the row, or a baseline
    paper: Mapping[str, Row] = field(default_factory=dict)  # rows as published; one named as ours stands below it
    columns: Sequence[str] | None = None  # those that are printed; None: averages of the data set, all if it has none
    by_type: bool = False  # print all columns of the data set
    of: str = "music_avqa"  # the data set that the published rows are for
    later: Mapping[str, Row] | None = None  # rows published after the paper
    questions: Callable[[Config], None] = lambda config: None  # raises `UserError` where it is not of these questions
    measure: Callable[[Run], Row] = lambda run: run.results["accuracy"]  # what is printed of a run
    intervals: bool = True  # print those of the test predictions beside it
    note: str = ""  # what a reader must know of it
    reference: str | None = None  # the row that the others are compared with


class Base(NamedTuple):
    """What the tables of one command have in common."""

    arguments: list[str]  # of train.py: configuration files and options on top
    seeds: list[int]
    runs: Path  # folder of run folders
    contents: Contents  # of what the runs read


@dataclass
class Planned:
    """A table's rows: arguments of train.py, configuration, runs by seed, and the reason where they cannot start."""

    table: Table
    config: Config
    arguments: dict[str, list[str]]
    configs: dict[str, Config]
    runs: dict[str, dict[int, Run]]
    reasons: dict[str, str]


def split_by_video(config: Config) -> None:
    """Raise `UserError` where a recording is in two splits."""
    recording = DATASETS[config.data.dataset].recording
    split_of: dict[str, str] = {}
    for split in SPLITS:
        there = [path for path in config.data.files(split).values() if Path(path).exists()]
        for video in map(recording, annotated_videos(there, config.data.dataset)):
            if split_of.setdefault(video, split) != split:
                raise UserError(
                    f"table2 is of a split by video, but {video} is in {split_of[video]} and {split}; for MUSIC-AVQA "
                    "there is --config configs/music_avqa_video_split.yaml"
                )


def choice_of_four(config: Config) -> None:
    """Raise `UserError` where questions come without answers to choose from."""
    if config.data.dataset != "avqa":
        raise UserError("table7 is of AVQA; give it with --config configs/avqa.yaml")


def plan(table: Table, base: Base, known: dict[Path, Run]) -> Planned:
    """Resolve every row and find its runs, those of other tables among them by folder (`known`, which is added to).

    Raises `UserError` for options that do not fit the table.
    """
    config = resolve(*base.arguments)
    table.questions(config)
    planned = Planned(table, config, {}, {}, {}, {})
    for name, own in table.rows.items():
        if callable(own):
            continue
        runs = planned.runs[name] = {}
        try:
            planned.arguments[name] = row = [*base.arguments, *_words(own, config.data.features)]
            planned.configs[name] = resolve(*row)
            for seed in base.seeds:
                found = find_run(f"{name}, seed {seed}", row, seed, base.runs, base.contents)
                runs[seed] = known.setdefault(found.folder, found)
        except UserError as error:
            planned.reasons[name] = str(error)
    return planned


def _words(options: str, features: str) -> list[str]:
    """A row's options as words, with what stands for {second_features} and {unmerged} where these are `features`."""
    options = options.replace("{second_features}", shlex.quote(f"{features}_b32"))
    if "{unmerged}" in options:
        options = options.replace("{unmerged}", str(unmerged(features)))
    try:
        return shlex.split(options)
    except ValueError as error:
        raise UserError(f"options {options!r}: {error}") from error


def print_plan(plans: Sequence[Planned], base: Base) -> bool:
    """Print each table's runs with their cost, and what is missing. Returns whether nothing is."""
    problems: list[str] = []
    costs: dict[tuple[str, int], float] = {}  # of what is to do; while something is missing a run has no folder yet
    for planned in plans:
        print(f"\n{planned.table.title}")
        for name, own in planned.table.rows.items():
            if callable(own):
                print(f"  {name}: no training")
                continue
            if name not in planned.configs:
                print(f"  {name}: cannot be run: {planned.reasons[name]}")
                problems.append(planned.reasons[name])
                continue
            reason = planned.reasons.get(name)
            config, runs = planned.configs[name], planned.runs[name]
            flop = training_flop(config)
            for seed in base.seeds:
                run = runs.get(seed)
                if not (run and run.done):
                    costs[repr(config), seed] = flop * (1 - len(run.epochs) / config.train.epochs if run else 1)
            states = ", ".join(f"seed {seed} {_state(runs.get(seed))}" for seed in base.seeds)
            print(f"  {name}: {'waits, see below' if reason else states}; {_readable(flop)} each")
            if reason or not all(run.done for run in runs.values()):
                print(f"      python train.py {shlex.join(planned.arguments[name])} --train.seed SEED")
            if problem := lacking(config) or reason:
                problems.append(problem)
    at_once = 1
    try:
        at_once = len(find_workers(plans[0].config.train.device))
    except UserError as error:
        problems.append(str(error))
    print(f"\n{len(costs)} runs to do" + (f", {_readable(sum(costs.values()))}, {at_once} at a time" if costs else ""))
    print("\n" + "\n".join(dict.fromkeys(problems) or ["nothing is missing"]))
    return not problems


def _state(run: Run | None) -> str:
    if run is None or not (run.done or run.epochs):
        return "to do"
    return "done" if run.done else f"at epoch {len(run.epochs)} of {run.config.train.epochs}"


def _readable(flop: float) -> str:
    return f"{flop / 1e12:,.2f} TFLOP" if flop else "cost not known yet"


def lacking(config: Config) -> str | None:
    """Why a run with this configuration cannot start, and how to mend it; None where it can. Writes nothing."""
    data = config.data
    files = [path for split in SPLITS for path in data.files(split).values()]
    for path in files:
        if not Path(path).exists():
            made = "python -m scripts.render_bandstand" if data.truth else "python -m scripts.download"
            return f"{path}: no such file; {made} makes it or says where it is"
    try:
        store = open_features(data.features, data.layout, config.model.kinds, data.segments, data.tokens)
        rate_groups(shapes_of(config, FeatureSizes(data.segments, store.shapes, store.text_width)), config.train)
    except UserError as error:
        return str(error)
    videos = annotated_videos(dict.fromkeys(files), data.dataset)
    if faults := store.check(videos):
        lacked = f"{len(faults)} of {len(videos)} videos lack whole features; extract them again"
        return f"{data.features}: {lacked}\n{describe_faults(faults)}"
    return None


def shapes_of(config: Config, sizes: FeatureSizes) -> Network:
    """The network without data: its parameters have shapes alone."""
    with torch.device("meta"):
        return build(config.model, sizes, ANSWERS)


def unmerged(features: str) -> int:
    """Tokens of a frame before the features on disk were merged. Raises `UserError` where there are none yet."""
    for path in sorted(Path(features).glob("clip_token_*_source")):
        return read_manifest(path)["shape"][1]
    raise UserError(f"{features}: how many tokens a frame has unmerged is known once merged ones are extracted")


def training_flop(config: Config) -> float:
    """Floating-point operations of a whole training run: forward, and twice as many backward.

    0 where there are no questions yet; of features that are not there, the sizes of a public CLIP's are taken.
    """
    data, kinds = config.data, config.model.kinds
    train = Path(data.train)
    if not train.exists():
        return 0.0
    try:
        store = open_features(data.features, data.layout, kinds, data.segments, data.tokens)
        sizes = FeatureSizes(data.segments, store.shapes, store.text_width)
    except UserError:
        sizes = feature_sizes(kinds, data.segments, data.tokens, WIDTHS["ViT-L/14"])
    gflop = forward_gflop(shapes_of(config, sizes), sizes)
    return 3e9 * len(read_json(train)) * config.train.epochs * gflop
