"""How fast training, reading, evaluation and extraction are here, and how near to what the machine can do.

    python scripts/benchmark.py --json speed.json --png roofline.png
    python scripts/benchmark.py --only peak train                     # minutes on two cores, no files made
    python scripts/benchmark.py --only data --videos 9288 --sparse    # MUSIC-AVQA's count, without its 51 GB

Everything is synthetic, at the shapes of MUSIC-AVQA with ViT-L/14: 60 segments, 14 tokens of 1024, batches of 64.
Our step and our reading are compared, in the same run, with two plain networks and a plain reader of
scripts/benchmark_plain.py. Other programs disturb: figures are the best of several interleaved rounds, with their
median and worst; compare what was measured in one run.
"""

import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

from dataset.loader import Loader
from feat_script.pipeline import default_workers
from scripts import benchmark_data, benchmark_train
from scripts.benchmark_data import FULL, Shapes
from scripts.benchmark_extraction import extraction_rates
from scripts.benchmark_measure import interleaved, on_device, peak_tasks, peaks
from scripts.benchmark_report import roofline, scale, tables
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import write_json
from utils.machine import usable_cores
from utils.runtime import Runtime, start

SECTIONS = ("peak", "train", "data", "evaluation", "extraction")
STAGED = {"cpu": "ours, fp32", "cuda": "ours, tf32"}  # the step that is shown stage by stage


def parse(args: list[str] | None = None):
    """Read the options."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="what to measure")
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is measured, in turn")
    parser.add_argument("--videos", type=int, default=512, help="videos of the features that the data part reads")
    parser.add_argument("--sparse", action="store_true", help="make these of holes: no room on disk, and no reading it")
    parser.add_argument("--work", help="folder where they are made and stay (default: a temporary one)")
    parser.add_argument("--workers", type=int, default=2, help="threads (plain: processes) that read ahead")
    parser.add_argument("--json", help="write all figures to this file too")
    parser.add_argument("--png", help="draw the roofline of the training step to this file")
    options = parser.parse_args(args)
    if options.rounds < 1 or options.workers < 1:
        raise UserError("--rounds and --workers must be at least 1")
    if options.videos < FULL.batch:
        raise UserError(f"--videos must be at least {FULL.batch}, one batch, is {options.videos}")
    if options.png and "train" not in options.only:
        raise UserError("--png draws the training step: add train to --only")
    return options


def machine(device: torch.device) -> dict[str, Any]:
    """What was measured on."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if device.type == "cuda":
        name, own_memory = torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
    else:
        name, own_memory = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}", memory
    return {
        "device": name,
        "type": device.type,
        "device_memory": own_memory,
        "memory": memory,
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
    }


def compute(runtime: Runtime, rounds: int, train: bool, shapes: Shapes) -> dict[str, Any]:
    """The machine's peak and, in the same rounds, the training steps and the stages of ours."""
    device = runtime.device
    limits = peak_tasks(device, benchmark_train.PRECISIONS[device.type])
    if not train:
        return {"peak": peaks(interleaved(limits, device, rounds), device)}
    steps = benchmark_train.our_steps(device, shapes) | benchmark_train.plain_steps(device, shapes)
    staged = steps[STAGED[device.type]]
    stages = benchmark_train.stages(staged)
    timings = interleaved(limits | steps | stages, device, rounds)
    peak = peaks(timings, device)
    results: dict[str, Any] = {"peak": peak, "staged": STAGED[device.type]}
    results["train"] = {name: timings[name].summary(peak[step.precision]) for name, step in steps.items()}
    results["stages"] = {name: timings[name].summary(peak[staged.precision]) for name in stages}
    if device.type == "cuda":
        for name, step in steps.items():
            results["train"][name] |= on_device(step, device)
    return results


def data(runtime: Runtime, options: Any, work: Path, shapes: Shapes) -> dict[str, Any]:
    """The ways of reading, alone; then the training step fed by two of them."""
    features = benchmark_data.make_features(work, options.videos, options.sparse, shapes.features)
    results = {
        "videos": features.videos,
        "sparse": features.sparse,
        "bytes_of_files": features.bytes_apparent,
        "bytes_on_disk": features.bytes_on_disk,
        "workers": options.workers,
        "rates": benchmark_data.read_rates(features, shapes.batch, runtime.device, options.workers, options.rounds),
    }
    batches = benchmark_data.scattered(features, shapes.batch, seed=0)[:16]
    step = benchmark_train.our_step(runtime.device, "fp32", shapes)
    loaders = {}
    for name in ("disk", "memory", *(["device"] if runtime.device.type == "cuda" else [])):
        try:
            opened = benchmark_data.open_data(features, "packed")
            loaders[name] = Loader(opened, runtime, name, options.workers)
        except UserError as error:  # larger than the memory, which is one of the results
            results.setdefault("does_not_fit", {})[name] = str(error)
    tasks = {name: benchmark_train.fed(step, loader, batches) for name, loader in loaders.items()}
    timings = interleaved(tasks, runtime.device, options.rounds)
    results["fed_step_seconds"] = {
        name: {key: seconds / len(batches) for key, seconds in timing.summary().items() if key != "parts"}
        for name, timing in timings.items()
    }
    return results


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
        work, wanted = Path(options.work or temporary), set(options.only)
        parts = [
            ({"peak", "train"}, lambda: compute(runtime, options.rounds, "train" in wanted, shapes)),
            ({"evaluation"}, lambda: {"evaluation": evaluation(runtime, options.rounds, shapes)}),
            ({"data"}, lambda: {"data": data(runtime, options, work, shapes)}),
            ({"extraction"}, lambda: {"extraction": extraction_rates(runtime, workers=default_workers())}),
        ]
        results: dict[str, Any] = {"batch": shapes.batch}
        for new in [lambda: {"machine": machine(runtime.device)}, *(part for names, part in parts if names & wanted)]:
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
