"""How fast training, evaluation and extraction are here, and how near to what the machine can do.

    python -m scripts.benchmark --json speed.json
    python -m scripts.benchmark --only train                             # a minute on two cores, no files made
    python -m scripts.benchmark --only epochs --videos 9288 --epochs 30  # train.py at MUSIC-AVQA's count: 17 GB

Features are random, at the shapes of MUSIC-AVQA with ViT-L/14: 60 segments, 14 tokens of 1024, batches of 64. Other
programs disturb: figures are the best of several interleaved rounds; compare what was measured in one run.
"""

import json
import math
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jsonargparse.typing import Path_drw, Path_fr, PositiveInt
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.lr_scheduler import StepLR
from torch.utils.flop_counter import FlopCounterMode

from configs.schema import Config, TrainConfig
from dataset.config import DataConfig
from dataset.kinds import KINDS, TEXT
from dataset.loader import Batch
from dataset.music_avqa import ANSWERS
from dataset.text_prompt import PromptTable
from feat_script.clip_vision import clip, encode_frames, schedules
from feat_script.extract_audio import read_examples
from feat_script.extract_visual import read_squares
from feat_script.vggish import VGGish
from nets.network import build
from nets.options import FeatureSizes
from nets.tspm.options import TSPMOptions
from train import Position, State, make_step
from utils.cli import Parser
from utils.cuda_graph import WARM_UP
from utils.errors import UserError, command
from utils.files import save_npy, write_json
from utils.manifest import make_manifest
from utils.progress import tqdm
from utils.runtime import Runtime, start
from utils.scoring.evaluation import predict

Precision = Literal["fp32", "tf32", "bf16"]
Task = Callable[[], object]
Rows = dict[str, dict[str, Any]]  # figures by name: a table

PARTS = ("train", "evaluation", "epochs", "extraction")
SQUARE = {"cpu": 2048, "cuda": 8192}  # side of the matrices by which the peak is measured
SIZES = FeatureSizes(60, {"audio": (60, 128), "frame": (60, 768), "token": (60, 14, 1024)}, 768)
STORED = {"audio": "float32", "frame": "float16", "token": "float16", "text": "float32"}
OPTIONS, BATCH = TSPMOptions(), 64  # the paper's
ASKED = (1, 1.43, 26)  # questions about a video in evaluation: none share one, MUSIC-AVQA's test file, Bandstand
QUESTION = "Where is the performance?"
DRAWN = 64  # videos whose features are drawn; the others repeat them, as drawing takes longer than writing
WINDOW = 512  # videos asked about at a time: 1 GB at 14 tokens


def parse(args: list[str] | None):
    """Read the options."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32", help="as train.precision")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--rounds", type=PositiveInt, default=5, help="times that everything is measured, in turn")
    parser.add_argument("--videos", type=PositiveInt, default=2048, help="of the part epochs; MUSIC-AVQA: 9288")
    parser.add_argument("--epochs", type=PositiveInt, default=1, help="of the part epochs")
    parser.add_argument(
        "--video", type=Path_fr, default="assets/bandstand/sample.mp4", help="of the part extraction: decoded"
    )
    parser.add_argument("--work", type=Path_drw, help="folder where files are made, and removed at the end")
    parser.add_argument("--json", help="write all figures to this file too")
    return parser.parse_args(args)


def measured(tasks: dict[str, Task], device: torch.device, rounds: int, count: int) -> Rows:
    """Seconds and GFLOP of a run of every task, what it does a second of `count`, and its share of the task "peak".

    Other programs use a machine too: every task is run once a round, so that all see the same company.
    """
    gflop: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for name, task in tasks.items():
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused attention is not counted
            task()
        gflop[name] = counter.get_total_flops() / 1e9
        timed(task, device, WARM_UP + 2 if device.type == "cuda" else 1)  # the first load kernels and record the step
    for _ in tqdm(range(rounds), "measuring", leave=False, delay=1):
        for name, task in tasks.items():
            seconds[name].append(timed(task, device, 10 if device.type == "cuda" else 1))
    rows, peak = {}, gflop["peak"] / min(seconds["peak"])
    for name, each in seconds.items():
        best, rate = min(each), gflop[name] / min(each)
        rows[name] = {"seconds": best, "median": statistics.median(each), "worst": max(each), "gflop": gflop[name]}
        rows[name] |= {"per_second": count / best, "gflop_per_second": rate, "share_of_peak": rate / peak}
    return rows


def timed(task: Task, device: torch.device, runs: int = 1) -> float:
    """Seconds of one of `runs` runs, until the device has done what it was given."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    for _ in range(runs):
        task()
    wait()
    return (time.perf_counter() - began) / runs


def products(dtype: torch.dtype, device: torch.device) -> Task:
    """A product of large square matrices: what the machine can do at most."""
    a = torch.randn(SQUARE[device.type], SQUARE[device.type], device=device).to(dtype)
    return partial(torch.mm, a, a, out=torch.empty_like(a))


def computing(runtime: Runtime, precision: Precision, rounds: int, only: set[str]) -> Rows:
    """The peak, a training step and evaluation, measured in the same rounds; questions a second."""
    tasks = {"peak": products(torch.bfloat16 if precision == "bf16" else torch.float32, runtime.device)}
    if "train" in only:
        tasks["training step"] = step(runtime, precision)
    for asked in ASKED if "evaluation" in only else ():
        tasks[f"evaluation, {asked} questions a video"] = evaluation(runtime, precision, asked)
    return measured(tasks, runtime.device, rounds, BATCH)


def step(runtime: Runtime, precision: Precision) -> Task:
    """A training step as `train.py` takes it, on a GPU recorded."""
    config = Config(train=TrainConfig(precision=precision), model=OPTIONS)
    model = build(OPTIONS, SIZES, len(ANSWERS)).to(runtime.device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-4, fused=True, capturable=runtime.device.type == "cuda")
    state = State(model, optimizer, StepLR(optimizer, 10), Position(), {})
    loader: Any = SimpleNamespace(resident=[])
    learn = make_step(config, state, loader, runtime)
    return partial(learn, BATCH, **inputs(runtime.device))


def evaluation(runtime: Runtime, precision: str, per_video: float) -> Task:
    """Answers to the questions of a batch, `per_video` of them about a video."""
    model = build(OPTIONS, SIZES, len(ANSWERS)).to(runtime.device)
    given = inputs(runtime.device, per_video)
    batch = Batch(given, given.pop("answer"), None, np.arange(BATCH))
    return partial(predict, model, [batch], BATCH, precision, runtime)


def inputs(device: torch.device, per_video: float = 1) -> dict[str, Tensor]:
    """Random features of a batch as stored, `per_video` questions about a video, and answers."""
    made, row = torch.Generator().manual_seed(0), torch.arange(BATCH)
    asked = (row / per_video).long()
    given = {
        kind: torch.randn(int(asked[-1]) + 1, *shape, generator=made).to(getattr(torch, STORED[kind]))
        for kind, shape in SIZES.shapes.items()
    }
    given |= {"text": torch.randn(2 * BATCH, SIZES.text, generator=made), "video": asked.unique(), "asked": asked}
    given |= {"question": row, "prompt": row + BATCH, "answer": row % len(ANSWERS)}
    return {kind: x.to(device) for kind, x in given.items()}


def epochs(work: Path, videos: int, number: int, device: str, precision: str) -> dict[str, Any]:
    """Have `train.py` train: seconds of all, and of an epoch's steps. Raises `UserError` if it fails."""
    data, out = make_features(work, videos), work / "out"
    options = {"out": str(out), "data": asdict(data) | {"window": WINDOW, "tokens": None}, "model": asdict(OPTIONS)}
    options["train"] = {"epochs": number, "device": device, "precision": precision}
    write_json(work / "config.yaml", options)  # JSON is YAML
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "train.py", "--config", str(work / "config.yaml")], check=False, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise UserError(f"train.py failed\n{done.stdout}{done.stderr}")
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = statistics.median(epoch["train_seconds"] for epoch in logged)
    return {"epochs": number, "seconds": seconds, "steps_of_an_epoch": steps}


def make_features(work: Path, videos: int) -> DataConfig:
    """Packed features of so many videos and, in MUSIC-AVQA's proportion, questions about them: nothing to learn from.

    Raises `UserError` where they do not fit.
    """
    questions = {"train": videos * 31_927 // 9_288, "val": videos * 4_568 // 9_288}
    config = DataConfig(features=str(work), layout="packed", segments=SIZES.segments)
    config.train, config.val = (str(work / f"{split}.json") for split in questions)
    needed = videos * sum(math.prod(shape) * np.dtype(STORED[kind]).itemsize for kind, shape in SIZES.shapes.items())
    if needed > (free := shutil.disk_usage(work).free):
        raise UserError(
            f"{needed / 1e9:.1f} GB of features do not fit {work}, {free / 1e9:.1f} GB are free; take fewer --videos, "
            "or another --work"
        )
    names, random = [f"{n:08d}" for n in range(videos)], np.random.default_rng(0)

    for kind, shape in {**SIZES.shapes, "text": (SIZES.text,)}.items():
        folder = work / (KINDS | {"text": TEXT})[kind].folder.format(tokens=SIZES.shapes["token"][1])
        manifest = make_manifest(kind, "synthetic", "0" * 64, shape, STORED[kind])
        write_json(folder / "manifest.json", manifest)
        drawn = random.standard_normal((DRAWN, *shape), np.float32).astype(STORED[kind])
        if kind == "text":
            filled = PromptTable.read(config.prompts, config.sheet).fill(QUESTION, [])
            save_npy(folder / "features.npy", drawn)
            write_json(folder / "sentences.json", [filled.question, filled.prompt])
            continue
        (folder / "packed").mkdir()
        pack = np.lib.format.open_memmap(folder / "packed/features.npy", "w+", STORED[kind], (videos, *shape))
        for n in tqdm(range(videos), f"making {kind}", delay=1, leave=False):
            pack[n] = drawn[n % DRAWN]
        write_json(folder / "packed/index.json", {"manifest": manifest, "videos": dict.fromkeys(names, (0, 0))})
    asked = {"type": '["Audio-Visual", "Location"]', "question_content": QUESTION}
    for split, count in questions.items():
        chosen = enumerate(random.choice(ANSWERS, count).tolist())
        rows = [asked | {"question_id": n, "video_id": names[n % videos], "anser": answer} for n, answer in chosen]
        write_json(work / f"{split}.json", rows)
    return config


def extraction(runtime: Runtime, rounds: int, video: Path, visual: Any = None) -> Rows:
    """Decoding in times real time; encoders in frames (examples) a second.

    A network's speed does not depend on its weights: random ones are measured, and nothing is downloaded. The encoder
    is CLIP's `visual` transformer, of ViT-L/14@336px unless given, alone and with merging to 14 tokens beside it.
    """
    device = runtime.device
    frames, seconds = (60 if device.type == "cuda" else 4), 10
    model: Any = torch.nn.Module()
    model.visual = visual or clip.model.VisionTransformer(336, 14, 1024, 24, 16, 768)
    if device.type == "cuda":
        clip.model.convert_weights(model)
    model.to(device).eval()
    size, vggish = model.visual.input_resolution, VGGish().eval().to(device)
    read = read_squares(video, frames, size, "crop")[0], read_examples(video, frames, 1.0)[0]
    images, sound = (torch.from_numpy(array).to(device) for array in read)
    tasks: dict[str, Task] = {
        "peak": products(model.visual.conv1.weight.dtype, device),
        "decoding frames": lambda: read_squares(video, seconds, size, "crop"),
        "decoding sound": lambda: read_examples(video, seconds, 1.0),
        "VGGish": partial(vggish, sound),
        "CLIP": partial(encode_frames, model, images, {}),
        "CLIP, merging": partial(encode_frames, model, images, schedules(model.visual, [14])),
    }
    with torch.inference_mode():
        rows = measured(tasks, device, rounds, frames)
    for name in ("decoding frames", "decoding sound"):
        rows[name]["times_real_time"] = seconds / rows[name]["seconds"]
    return rows


@command
def main(args: list[str] | None = None) -> None:
    """Measure, print and write, part after part."""
    options = parse(args)
    with (
        start(options.device, options.precision, "device") as runtime,
        tempfile.TemporaryDirectory(dir=options.work) as work,
    ):
        device, only = runtime.device, {*options.only}
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        found = {"machine": {name: {"threads": torch.get_num_threads(), "torch": torch.__version__}}}
        if only & {"train", "evaluation"}:
            found["computing"] = computing(runtime, options.precision, options.rounds, only)
        if "epochs" in only:
            run = epochs(Path(work), options.videos, options.epochs, device.type, options.precision)
            found["train.py"] = {f"{options.videos} videos": run}
        if "extraction" in only:
            found["extraction"] = extraction(runtime, options.rounds, Path(options.video))
    for title, rows in found.items():
        figures = pd.DataFrame.from_dict(rows, orient="index")
        print(f"\n{title}\n{figures.to_string(float_format='{:,.4g}'.format, na_rep='')}")
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
