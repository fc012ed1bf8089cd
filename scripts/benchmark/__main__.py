"""How fast training, reading, evaluation and extraction are here, and how near to what the machine can do.

    python -m scripts.benchmark --json speed.json
    python -m scripts.benchmark --only peak train                        # minutes on two cores, no files made
    python -m scripts.benchmark --only epochs --videos 9288 --epochs 30  # train.py at MUSIC-AVQA's count: 17 GB

Everything is synthetic, at the shapes of MUSIC-AVQA with ViT-L/14: 60 segments, 14 tokens of 1024, batches of 64. Other
programs disturb: figures are the best of several interleaved rounds; compare what was measured in one run.
"""

import os
import platform
import tempfile
from pathlib import Path

import torch

from scripts.benchmark.data import evaluation_reads, fed_step, make_features, read_rates, run_training
from scripts.benchmark.extraction import extraction_rates
from scripts.benchmark.measure import Rows
from scripts.benchmark.step import Shapes, Step, compute
from scripts.benchmark.threads import thread_rates
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import write_json
from utils.machine import usable_cores
from utils.runtime import Runtime, start

COMPUTING = {"peak", "train", "evaluation"}
PARTS = ("peak", "train", "evaluation", "data", "epochs", "extraction", "threads")


def parse(args: list[str] | None, shapes: Shapes):
    """Read the options."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is measured, in turn")
    parser.add_argument("--videos", type=int, default=2048, help="of the parts data and epochs; MUSIC-AVQA: 9288")
    parser.add_argument("--epochs", type=int, default=1, help="of the part epochs")
    parser.add_argument("--work", help="folder in which files are made, and removed at the end (default: the system's)")
    parser.add_argument("--json", help="write all figures to this file too")
    options = parser.parse_args(args)
    for name, least in (("rounds", 1), ("epochs", 1), ("videos", 2 * shapes.batch)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} must be at least {least}, is {getattr(options, name)}")
    if options.work and not Path(options.work).is_dir():
        raise UserError(f"--work {options.work}: no such folder")
    return options


def machine(device: torch.device) -> Rows:
    """What was measured on."""
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    return {name: {"cores": usable_cores(), "threads": threads, "load": load, "torch": torch.__version__}}


def measure(options, runtime: Runtime, shapes: Shapes, work: Path):
    """Yield each part's tables by name."""
    device, rounds, only = runtime.device, options.rounds, set(options.only)
    on_gpu = device.type == "cuda"
    yield {"machine": machine(device)}
    if only & COMPUTING:
        yield compute(shapes, runtime, rounds, only)
    if "data" in only:
        config = make_features(work, options.videos, shapes)
        yield {"reading": read_rates(config, shapes, runtime, rounds)}
        yield {"evaluation reads": evaluation_reads(config, Step(shapes, device), runtime)}
        yield {"step fed from": fed_step(config, Step(shapes, device, record=on_gpu), runtime, rounds)}
    if "epochs" in only:
        config = make_features(work, options.videos, shapes)
        run = run_training(config, shapes, options.epochs, device.type, "tf32" if on_gpu else "fp32")
        yield {"train.py": {f"{options.videos} videos": run}}
    if "extraction" in only:
        yield {"extraction": extraction_rates(device, rounds)}
    if "threads" in only:
        yield {"steps a second on the CPU by threads": thread_rates(rounds)}


def table(title: str, rows: Rows) -> str:
    """Figures as text, a line for each row."""
    heads = list(dict.fromkeys(key for row in rows.values() for key in row))
    shown = [[title, *(key.replace("_per_second", "/s").replace("_", " ") for key in heads)]]
    for name, row in rows.items():
        cells = [row.get(key, "") for key in heads]
        shown.append([name, *(f"{x:,.4g}" if isinstance(x, float) else str(x) for x in cells)])
    widths = [max(map(len, column)) + 2 for column in zip(*shown, strict=True)]
    lines = (line[0].ljust(widths[0]) + "".join(map(str.rjust, line[1:], widths[1:])) for line in shown)
    return "\n".join(["", *lines])


@command
def main(args: list[str] | None = None, shapes: Shapes | None = None) -> None:
    """Measure, print and write, part after part; at the full shapes unless told otherwise."""
    shapes = shapes or Shapes()
    options, results = parse(args, shapes), {}
    with start(options.device, "fp32", "device") as runtime, tempfile.TemporaryDirectory(dir=options.work) as work:
        for found in measure(options, runtime, shapes, Path(work)):
            for name, rows in found.items():
                print(table(name, rows), flush=True)
            results |= found
            if options.json:
                write_json(options.json, results)


if __name__ == "__main__":
    main()
