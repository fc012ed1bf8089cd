"""How fast training, reading, evaluation and extraction are here, and how near to what the machine can do.

    python -m scripts.benchmark --json speed.json --png roofline.png
    python -m scripts.benchmark --only peak train                     # minutes on two cores, no files made
    python -m scripts.benchmark --only data --videos 9288             # MUSIC-AVQA's count, 31,927 questions: 69 GB
    python -m scripts.benchmark --only data --videos 9288 --sparse    # the same in files of holes: 0.3 GB
    python -m scripts.benchmark --only peak --videos 9288 --epochs 30 # train.py at these counts: 17 GB

Everything is synthetic, at the shapes of MUSIC-AVQA with ViT-L/14: 60 segments, 14 tokens of 1024, batches of 64.
Our step and our reading are compared, in the same run, with two plain networks and a plain reader of
scripts.benchmark.plain. Other programs disturb: figures are the best of several interleaved rounds, with their
median and worst; compare what was measured in one run.
"""

import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

from feat_script.pipeline import default_workers
from scripts.benchmark import train as benchmark_train
from scripts.benchmark.data import FULL, Shapes, make_features
from scripts.benchmark.epochs import epochs
from scripts.benchmark.extraction import extraction_rates
from scripts.benchmark.measure import (
    COPY_BYTES,
    Product,
    copying,
    interleaved,
    on_device,
    own_products,
    square_products,
)
from scripts.benchmark.memory import peak_memories
from scripts.benchmark.reading import fed_steps, read_rates
from scripts.benchmark.report import scale, tables
from scripts.benchmark.roofline import roofline
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import write_json
from utils.machine import available_memory, usable_cores
from utils.runtime import Runtime, start

SECTIONS = ("peak", "train", "data", "memory", "evaluation", "extraction")
PEAK_ROUNDS = 10  # of products alone, as well: a peak that is too low makes every share of it too high
STAGED = {"cpu": "fp32", "cuda": "tf32"}  # precision of the step that is shown stage by stage, and compiled


def parse(args: list[str] | None = None):
    """Read the options."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what to measure")
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is measured, in turn")
    parser.add_argument("--videos", type=int, default=2048, help="videos that the data part reads; MUSIC-AVQA: 9288")
    parser.add_argument("--sparse", action="store_true", help="make these of holes: no room on disk, and no reading it")
    parser.add_argument("--epochs", type=int, default=0, help="have train.py train for so many on as many videos, too")
    parser.add_argument("--work", help="folder where they are made and stay (default: a temporary one)")
    parser.add_argument("--workers", type=int, default=2, help="threads (plain: processes) that read ahead")
    parser.add_argument("--json", help="write all figures to this file too")
    parser.add_argument("--png", help="draw the roofline of the training step to this file")
    options = parser.parse_args(args)
    if options.rounds < 1 or options.workers < 1:
        raise UserError("--rounds and --workers must be at least 1")
    if options.epochs < 0:
        raise UserError(f"--epochs must be at least 0, is {options.epochs}")
    if options.videos < FULL.batch:
        raise UserError(f"--videos must be at least {FULL.batch}, one batch, is {options.videos}")
    if options.png and "train" not in options.only:
        raise UserError("--png draws the training step: add train to --only")
    return options


def machine(device: torch.device) -> dict[str, Any]:
    """What was measured on."""
    memory, available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), available_memory()
    if device.type == "cuda":
        name, (own_available, own_memory) = torch.cuda.get_device_name(device), torch.cuda.mem_get_info(device)
    else:
        name = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        own_available, own_memory = available, memory
    return {
        "device": name,
        "type": device.type,
        "device_memory": own_memory,
        "available_device_memory": own_available,
        "memory": memory,
        "available_memory": available,
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
    }


def compute(runtime: Runtime, rounds: int, train: bool, shapes: Shapes) -> dict[str, Any]:
    """The machine's peak and, in the same rounds, the training steps and the stages of ours.

    The peak is the best rate of anything that was run, square products, the step's own and the steps: no share of it
    can be more than the whole.
    """
    device, precision = runtime.device, STAGED[runtime.device.type]
    precisions, ours = benchmark_train.PRECISIONS[device.type], f"ours, {precision}"
    staged = f"{ours}, launched" if device.type == "cuda" else ours  # as its stages are
    results: dict[str, Any] = {}
    limits: dict[str, Product] = square_products(device, precisions)
    steps, stages, attentions = {}, {}, {}
    if train:
        steps = benchmark_train.our_steps(device, shapes) | benchmark_train.plain_steps(device, shapes)
        stages = benchmark_train.stages(steps[staged])
        attentions = benchmark_train.attentions(steps[staged], shapes)
        for each in precisions:
            limits |= own_products(steps[f"ours, {each}"], device, each)
        try:
            step, seconds = benchmark_train.compiled_step(device, precision, shapes)
            steps[f"{ours}, compiled"], results["compile"] = step, {"seconds": seconds}
        except UserError as error:  # the machine lacks the compiler
            results["compile"] = {"not_measured": str(error)}

    alone = limits | {"copy": copying(device)}
    timings = interleaved(alone | steps | stages | attentions, device, rounds)
    for name, timing in interleaved(alone, device, PEAK_ROUNDS).items():
        timings[name].seconds += timing.seconds
    precision_of = {name: task.precision for name, task in (limits | steps).items()} | dict.fromkeys(stages, precision)
    rate = {name: timings[name].rate for name in precision_of}
    fastest = {each: max((name for name in rate if precision_of[name] == each), key=rate.get) for each in precisions}
    peak = {each: rate[name] for each, name in fastest.items()}
    results |= {"peak": peak | {"copy": 2 * COPY_BYTES[device.type] / timings["copy"].best}, "fastest": fastest}
    if train:
        results["staged"] = staged
        results["train"] = {name: timings[name].summary(peak[step.precision]) for name, step in steps.items()}
        results["stages"] = {name: timings[name].summary(peak[precision]) for name in stages}
        results["attention"] = {name: timings[name].summary() for name in attentions}
    for name, step in steps.items():
        found = results["train"][name]
        found["questions_per_second"] = shapes.batch / found["seconds"]
        if device.type == "cuda":
            found |= on_device(step, device)
    return results


def data(runtime: Runtime, options: Any, work: Path, shapes: Shapes) -> dict[str, Any]:
    """The ways of reading, alone; then the training step fed from each place that holds the features."""
    features = make_features(work, options.videos, options.sparse, shapes.features)
    step = benchmark_train.our_step(runtime.device, "fp32", shapes)
    return {
        "videos": features.videos,
        "questions": features.questions,
        "sparse": features.sparse,
        "bytes_of_files": features.bytes_apparent,
        "bytes_on_disk": features.bytes_on_disk,
        "workers": options.workers,
        "rates": read_rates(features, shapes.batch, runtime.device, options.workers, options.rounds),
        "fed": fed_steps(features, step, runtime, options.workers, options.rounds),
    }


def evaluation(runtime: Runtime, rounds: int, shapes: Shapes) -> dict[str, Any]:
    """Questions a second of prediction, features in memory."""
    steps = benchmark_train.our_steps(runtime.device, shapes)
    tasks = {name: benchmark_train.evaluation(step, runtime) for name, step in steps.items()}
    questions = benchmark_train.EVALUATED * shapes.batch
    return {
        name: timing.summary() | {"questions_per_second": questions / timing.best}
        for name, timing in interleaved(tasks, runtime.device, rounds).items()
    }


@command
def main(args: list[str] | None = None, shapes: Shapes = FULL) -> None:
    """Measure, print and write, part after part."""
    options = parse(args)
    with start(options.device, "fp32", "device") as runtime, tempfile.TemporaryDirectory() as temporary:
        work, wanted, device = Path(options.work or temporary), set(options.only), runtime.device
        given = options.videos, options.epochs, device.type, STAGED[device.type], options.workers, shapes
        parts = [
            (wanted & {"peak", "train"}, lambda: compute(runtime, options.rounds, "train" in wanted, shapes)),
            (wanted & {"evaluation"}, lambda: {"evaluation": evaluation(runtime, options.rounds, shapes)}),
            (wanted & {"data"}, lambda: {"data": data(runtime, options, work, shapes)}),
            (wanted & {"memory"}, lambda: {"memory": peak_memories(work, device, options.workers, shapes)}),
            (options.epochs, lambda: {"epochs": epochs(work, *given)}),
            (wanted & {"extraction"}, lambda: {"extraction": extraction_rates(runtime, workers=default_workers())}),
        ]
        results: dict[str, Any] = {"batch": shapes.batch}
        for new in [lambda: {"machine": machine(device)}, *(part for asked, part in parts if asked)]:
            found = new()
            results |= found
            print(tables(found), flush=True)
            if options.json:
                write_json(options.json, results)
            if options.png and "stages" in found:
                roofline(results, options.png)
    results["scale"] = scale(results)
    print(tables({"scale": results["scale"]}))
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
