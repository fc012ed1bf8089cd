"""Run the tables of the paper; its figure is drawn by scripts.visualize.

    python -m scripts.reproduce table1 table3 --seeds 0 1 2                     on Bandstand
    python -m scripts.reproduce table1 --config configs/music_avqa.yaml --dry-run
    python -m scripts.reproduce prior --config configs/music_avqa.yaml          needs questions only, no video

    python -m scripts.reproduce table1 --row mine "--model.network mine"         a network of your own beside the others

Options of train.py may follow and apply to all runs, such as --train.epochs 5. Writes each table as Markdown and CSV
into results/<name of the data set>. Runs that are finished are reused; killed and repeated, it goes on where it was. A
run is known by its options and data, not by its code: after a change of the code, move its folder away. Exit status: 0
all done, 1 some runs failed or cannot start, 2 wrong options.
"""

import argparse
import dataclasses
import functools
import itertools
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

import pandas as pd

from nets.network import build
from nets.options import FeatureSizes
from scripts.profile_model import profile
from scripts.reproduce.identity import Contents
from scripts.reproduce.plan import Base, Baseline, Planned, Row, Table, choice_of_four, plan, print_plan, split_by_video
from scripts.reproduce.queue import Run, find_workers, resolve, work
from scripts.reproduce.tables import write_table
from utils.checkpoint import load_checkpoint
from utils.cli import PlainParser
from utils.errors import UserError, command
from utils.files import writing
from utils.scoring.metrics import most_frequent, random_choice
from utils.scoring.paper import LATER, LATER_AVQA, TABLE1, TABLE2, TABLE3, TABLE4, TABLE5, TABLE6, TABLE7


def chance(_train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Any of the answers offered."""
    return test.assign(correct=random_choice(test) / 100)


def perceived(run: Run) -> Row:
    """Accuracy, and how well the run knew when and where: of the true segments and of the pointing game."""
    row = dict(run.results["accuracy"])
    for told in (run.results.get("segment selection", {}), run.results.get("pointing game", {})):
        for name, value in told.get("All", {}).items():
            if name.endswith("model") or name == "model":
                row[{"AP": "AP", "R@": "R@K"}.get(name[:2], "pointing")] = value
    return row


def validated(run: Run) -> Row:
    """Accuracy on validation questions in the epoch that was kept."""
    return max((epoch["val"] for epoch in run.epochs), key=lambda row: row["All"])


def cost(run: Run) -> Row:
    """The columns of Table 6: FLOPs for one question, and what an epoch of training took."""
    stored = load_checkpoint(run.folder / "best.pt")
    sizes = FeatureSizes(**stored["sizes"])
    counts = profile(build(run.config.model, sizes, len(stored["answers"])), sizes)
    seconds = statistics.median(epoch["train_seconds"] for epoch in run.epochs)
    return counts | {"s/epoch": seconds, "All": run.results["accuracy"]["All"]}


COST = ("parameters", "trained", "GFLOP", "thop parameters", "thop G", "s/epoch", "All")

WITHOUT: dict[str, str | Baseline] = {
    "w/o all": "--model.network means",
    "w/o TPM": "--model.temporal even",
    "w/o SPM": "--model.spatial frames",
    "w/o TPC": "--model.temporal all",
    "w/ QPrompt": "--data.query question",
    "w/o Merge": "--model.tokens {unmerged}",
}
BLIND: dict[str, str | Baseline] = {
    "question only": "--model.network means --model.means_of []",
    "most frequent answer of each template": functools.partial(most_frequent, by=("template",)),
    "most frequent answer": most_frequent,
}
LESS: dict[str, str | Baseline] = {
    "w/o all": WITHOUT["w/o all"],
    "visual only": "--model.network means --model.means_of [frame]",
    "audio only": "--model.network means --model.means_of [audio]",
    **BLIND,
}

LEARNED = "--config configs/models/tspm_learned_bandstand.yaml"
PUBLISHED = "--train.epochs 5 --train.lr_gamma 0.5"  # chosen on validation, as the learned recipe
PEER = "--config configs/models/peers_bandstand.yaml --model.network"
PARTS = {
    "w/o sounds in keys and fit": "wo_sounds",
    "w/o order in time": "wo_order",
    "w/o the loss for where": "wo_where",
    "w/o the loss for what": "wo_what",
    "w/o the question's fit": "wo_fit",
    "published fusion": "product_fusion",
    "CLIP's own selection, frozen": "frozen",
    "random start": "random",
    "perturbed top-k": "perturbed",
    "evenly spaced segments": "even",
    "soft attention over all segments": "soft",
    "true segments given (an upper bound)": "oracle",
}

TABLES = {
    "table1": Table("Table 1: question types", {"TSPM": "", **LESS}, TABLE1, later=LATER, by_type=True),
    "table2": Table(
        "Table 2: split by video",
        {"TSPM": "", **BLIND},
        TABLE2,
        questions=split_by_video,
        note="No video is in two splits.",
    ),
    "table3": Table("Table 3: modules", WITHOUT | {"TSPM": ""}, TABLE3, reference="TSPM"),
    "table4": Table(
        "Table 4: selected segments and merged tokens",
        {f"top_k {k}, {s} tokens": f"--model.top_k {k} --model.tokens {s}" for k, s in TABLE4},
        {f"top_k {k}, {s} tokens": row for (k, s), row in TABLE4.items()},
        reference="top_k 10, 14 tokens",
    ),
    "table5": Table(
        "Table 5: visual encoders",
        {"TSPM, ViT-B/32": "--data.features {second_features}", "TSPM, ViT-L/14": ""},
        {f"{method}, {encoder}": row for (method, encoder), row in TABLE5.items()},
        note="On Bandstand the encoders are two small CLIPs of this project's own.",
    ),
    "table6": Table(
        "Table 6: parameters (M), FLOPs of a question (G), training",
        {"TSPM": "", "w/o all": WITHOUT["w/o all"], "question only": BLIND["question only"]},
        TABLE6,
        COST,
        measure=cost,
        note="GFLOP is true, a multiply-add is two; thop counts it once, and nothing of attention. s/epoch: the median "
        "of a training epoch on the machine that ran it.",
    ),
    "table7": Table(
        "Table 7: choice among four",
        {
            **{f"TSPM {name}": WITHOUT[name] for name in ("w/o all", "w/o TPM", "w/o SPM")},
            "TSPM": "",
            **BLIND,
            "random choice": chance,
        },
        TABLE7,
        ("All",),
        later=LATER_AVQA,
        of="avqa",
        questions=choice_of_four,
    ),
    "learned": Table(
        "Perception that learns",
        {
            "TSPM, learned": LEARNED,
            "TSPM, published": PUBLISHED,
            **{name: LESS[name] for name in ("w/o all", "visual only", "audio only", "question only")},
        },
        columns=("A", "V", "AV", "All", "R@K", "AP", "pointing"),
        measure=perceived,
        reference="TSPM, learned",
    ),
    "learned_parts": Table(
        "What each part of perception that learns is worth, on validation",
        {"TSPM, learned": LEARNED}
        | {name: f"{LEARNED} --config configs/ablations/learned_{file}.yaml" for name, file in PARTS.items()}
        | {"TSPM, published": PUBLISHED, "TSPM, as printed": f"--config configs/models/tspm_printed.yaml {PUBLISHED}"},
        columns=("A", "V", "AV", "All"),
        measure=validated,
        intervals=False,
        note="Validation questions, in the epoch that was kept; the test split is not looked at.",
    ),
    "peers": Table(
        "Networks of the field on the same features",
        {
            "TSPM, learned": LEARNED,
            "TSPM, published": PUBLISHED,
            "ST-AVQA": f"{PEER} st_avqa --model.seconds null",
            "QA-TIGER": f"{PEER} qa_tiger",
            "PSTP-Net": f"{PEER} pstp_net",
            "w/o all": WITHOUT["w/o all"],
        },
        {
            "TSPM, published": TABLE1["TSPM"] | TABLE6["TSPM"],
            "PSTP-Net": TABLE1["PSTP-Net"] | TABLE6["PSTP-Net"],
            "ST-AVQA": TABLE1["ST-AVQA"] | TABLE6["ST-AVQA"],
            "w/o all": TABLE3["w/o all"],
        },
        ("A", "V", "AV", "All", "R@K", "AP", "pointing", *COST[:-1]),
        later={"QA-TIGER (CVPR 2025)": LATER["QA-TIGER (CVPR 2025)"]},
        measure=lambda run: {**cost(run), **perceived(run)},
        reference="TSPM, learned",
        note="PSTP-Net and QA-TIGER need words: extract_text --words. As published they take --row, with --model.fused "
        "projections and --model.ranking mixed. PSTP-Net's 12 spans do not divide 20 s; there it takes --row with "
        "--config configs/models/pstp_net_bandstand.yaml. The paper's networks are 512 wide.",
    ),
    "prior": Table("What the questions give away", BLIND, {"TSPM": TABLE1["TSPM"]}, by_type=True),
    "shuffled": Table(
        "What sound and picture are worth",
        {
            "TSPM": "",
            "sound of another video": "--data.shuffle audio",
            "picture of another video": "--data.shuffle visual",
            "question only": BLIND["question only"],
        },
        note="Trained and tested with the sound, or the picture, of another video of the same split.",
    ),
}


def parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read the options, and those that are train.py's."""
    parser = PlainParser(__doc__)
    parser.add_argument("tables", nargs="+", choices=list(TABLES), metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--config", action="append", help="YAML file of the data set (default configs/bandstand.yaml)")
    parser.add_argument(
        "--row",
        action="append",
        nargs=2,
        default=[],
        metavar=("NAME", "OPTIONS"),
        help="a row more in each table; OPTIONS in quotes",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a run for each row and seed")
    parser.add_argument("--dry-run", action="store_true", help="print runs, cost and what is missing; run none")
    parser.add_argument("--runs", type=Path, default="runs/tables", help="folder of the runs")
    parser.add_argument("--results", type=Path, default="results", help="folder of the tables")
    return parser.parse_known_args(args)


@command
def main(args: list[str] | None = None) -> int:
    """Plan, run, write; return the exit status."""
    args = sys.argv[1:] if args is None else args
    options, overrides = parse(args)
    if len(set(options.seeds)) < len(options.seeds):
        raise UserError("--seeds must be different numbers")
    files = options.config or ["configs/bandstand.yaml"]
    arguments = [*(part for file in files for part in ("--config", file)), *overrides]
    config = resolve(*arguments)
    name, dry = Path(config.out).name, options.dry_run
    results, contents = options.results / name, Contents(keep=not dry)
    base = Base(arguments, options.seeds, options.runs / name, contents)
    known: dict[Path, Run] = {}
    plans: dict[str, Planned] = {}
    for chosen in options.tables:
        rows = {**TABLES[chosen].rows, **dict(options.row)}
        plans[chosen] = plan(dataclasses.replace(TABLES[chosen], rows=rows), base, known)
    if old := sum(run.done and run.outdated for run in known.values()):
        print(f"{old} finished runs are older than files of the code; one is trained anew if its folder is moved away")
    if dry:
        return 0 if print_plan(list(plans.values()), base) else 1
    faults = [f"{row}: {why}" for planned in plans.values() for row, why in planned.reasons.items()]
    for fault in dict.fromkeys(faults):
        print(f"cannot start: {fault}", file=sys.stderr)
    if not known:
        raise UserError("none of the runs can start; --dry-run lists what is missing and how to make it")

    with writing(results):  # before hours are spent on what goes there
        results.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=results).close()
    failures = work(list(known.values()), find_workers(config.train.device))
    own = shlex.join(arg for before, arg in itertools.pairwise(["", *args]) if before == "--row" or arg not in TABLES)
    for table, planned in plans.items():
        head = f"python -m scripts.reproduce {table} {own}".strip()
        write_table(results / table, planned, head, failures)
        print(f"wrote {results / table}.md")
    return int(bool(faults or failures))


if __name__ == "__main__":
    sys.exit(main())
