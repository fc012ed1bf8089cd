"""The benchmark's training steps: ours, compiled on request, and the plain ones beside it, all of the same weights."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.loader import Batch
from dataset.music_avqa import ANSWERS as MUSIC_AVQA_ANSWERS
from nets.network import build
from nets.options import FeatureSizes
from nets.tspm.options import TSPMOptions
from scripts.benchmark.measure import Rows, interleaved, limits, peaks, profile, set_products, timed
from scripts.benchmark.plain import PlainTSPM, copy_segments, gather_segments
from scripts.convert_public import convert
from utils.compiling import compiled
from utils.cuda_graph import Recorded
from utils.numerics import autocast, seed
from utils.runtime import Runtime
from utils.scoring.evaluation import predict

PRECISIONS = {"cpu": ("fp32",), "cuda": ("fp32", "tf32", "bf16")}
PLAIN = {"plain, segment by segment": copy_segments, "plain, one gather": gather_segments}
ANSWERS = len(MUSIC_AVQA_ANSWERS)
ASKED = (1, 1.43, 26)  # questions about a video in evaluation: none share one, MUSIC-AVQA's test file, Bandstand


class Shapes(NamedTuple):
    """Segments, widths and tokens of the features, hidden width, questions of a batch: MUSIC-AVQA's with ViT-L/14."""

    segments: int = 60
    audio: int = 128
    frame: int = 768
    tokens: int = 14
    token: int = 1024
    text: int = 768
    hidden: int = 512
    batch: int = 64
    top_k: int = 10

    @property
    def kinds(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of one video's array of each kind, as extraction writes it."""
        shapes = {"audio": (self.audio,), "frame": (self.frame,), "token": (self.tokens, self.token)}
        dtypes = {"audio": "float32", "frame": "float16", "token": "float16"}
        return {kind: ((self.segments, *shape), dtypes[kind]) for kind, shape in shapes.items()}


def make_model(shapes: Shapes, name: str = "ours") -> nn.Module:
    """Ours or a plain one, with the same random weights; no bias is zero, so that equal logits say something."""
    seed(0)
    sizes = (shapes.audio, shapes.frame, shapes.token, shapes.text, shapes.hidden, shapes.top_k, ANSWERS)
    plain = PlainTSPM(PLAIN.get(name, gather_segments), *sizes)
    for parameter, weight in plain.state_dict().items():
        if parameter.endswith("bias"):
            nn.init.normal_(weight, std=0.1)
    if name in PLAIN:
        return plain
    options = TSPMOptions(hidden=shapes.hidden, top_k=shapes.top_k, tokens=shapes.tokens)
    kinds = {kind: shape for kind, (shape, _) in shapes.kinds.items()}
    ours = build(options, FeatureSizes(shapes.segments, kinds, shapes.text), ANSWERS)
    ours.load_state_dict(convert(plain.state_dict())[0])
    return ours


def make_inputs(shapes: Shapes, plain: bool, per_video: float = 1) -> dict[str, Tensor]:
    """Random features of a batch as stored, `per_video` questions about a video; plain: float32, no text bank."""
    made, row, inputs = torch.Generator().manual_seed(0), torch.arange(shapes.batch), {}
    asked = (row / per_video).long()
    for kind, (shape, dtype) in shapes.kinds.items():
        x = torch.randn(int(asked[-1]) + 1, *shape, generator=made).to(getattr(torch, dtype))
        inputs[kind] = x.float() if plain else x
    text = torch.randn(2 * shapes.batch, shapes.text, generator=made)
    if plain:
        return inputs | {"question": text[: shapes.batch], "prompt": text[shapes.batch :]}
    return inputs | {"text": text, "video": asked.unique(), "asked": asked, "question": row, "prompt": row + len(row)}


class Step:
    """A training step as `train.py` takes it, on a batch that is there already."""

    def __init__(
        self,
        shapes: Shapes,
        device: torch.device,
        name: str = "ours",
        precision: str = "fp32",
        record: bool = False,
        per_video: float = 1,
    ):
        self.model = self.network = make_model(shapes, name).to(device)
        self.inputs = {kind: x.to(device) for kind, x in make_inputs(shapes, name in PLAIN, per_video).items()}
        self.answer = torch.arange(shapes.batch, device=device) % ANSWERS
        self.device, self.precision = device, precision
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=1e-4, fused=True, capturable=record)
        self.learn = Recorded(self._learn, tuple) if record else self._learn

    def __call__(self) -> None:
        """Forward, backward, optimizer."""
        set_products(self.precision)
        self.learn(answer=self.answer, **self.inputs)

    def _learn(self, answer: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        with autocast(self.device, self.precision):
            logits = self.network(**inputs).logits
        loss = F.cross_entropy(logits.float(), answer)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"answer": loss.detach()}

    def evaluate(self, runtime: Runtime) -> None:
        """Answer the batch's questions."""
        set_products(self.precision)
        rows = np.arange(len(self.answer))
        predict(self.model, [Batch(self.inputs, self.answer, None, rows)], len(rows), self.precision, runtime)
        self.model.train()


@torch.no_grad()
def parity(ours: Step, plain: Step) -> dict[str, Any]:
    """How far the logits are from each other, and whether the same segments are selected."""
    seen = [step.model.eval()(**step.inputs) for step in (ours, plain)]
    for step in (ours, plain):
        step.model.train()
    difference = (seen[0].logits - seen[1].logits).abs().max().item()
    return {"logit_difference": difference, "same_selections": torch.equal(seen[0].selected, seen[1].selected)}


@torch.no_grad()
def apart(step: Step) -> dict[str, Any]:
    """How far logits are from those of the same questions, each with a copy of its video, and whether answers are."""
    given, model, row = step.inputs, step.model.eval(), torch.arange(len(step.answer), device=step.device)
    copies = {kind: given[kind][given["asked"]] for kind in ("audio", "frame", "token")}
    shared, alone = (model(**given | more).logits for more in ({}, copies | {"video": row, "asked": row}))
    model.train()
    same = torch.equal(shared.argmax(dim=1), alone.argmax(dim=1))
    return {"logit_difference": (shared - alone).abs().max().item(), "same_answers": same}


def compute(shapes: Shapes, runtime: Runtime, rounds: int, parts: set[str], compiling: bool) -> dict[str, Rows]:
    """The machine's peak and, in the same rounds, training steps (on a GPU recorded, and launched), and evaluation."""
    device, precisions, recording = runtime.device, PRECISIONS[runtime.device.type], runtime.device.type == "cuda"
    tasks, steps, known = limits(device, precisions), {}, {}
    for precision in precisions:
        name, make = f"ours, {precision}", partial(Step, shapes, device, precision=precision)
        if "train" in parts:
            steps[name] = make(record=recording)
        if "train" in parts and recording:
            steps[f"{name}, launched"] = make()
        if "train" in parts and compiling:
            steps[f"{name}, compiled"] = step = make(record=recording)
            step.network = compiled(step.model, "default", device, [])
            known[f"{name}, compiled"] = {"compiling_seconds": timed(step, device)}
        for per_video in ASKED if "evaluation" in parts else ():
            step, name = make(per_video=per_video), f"evaluation, {precision}, {per_video} a video"
            tasks[name], known[name] = partial(step.evaluate, runtime), apart(step)
    for name in PLAIN if "train" in parts else ():
        steps[name] = Step(shapes, device, name)
        known[name] = parity(steps["ours, fp32"], steps[name])  # before either learns
    timings = interleaved(tasks | steps, device, rounds)
    results = {"peak": peaks(timings, precisions)}
    for name, row in timings.items():
        row["questions_per_second"] = shapes.batch / row["seconds"]
        if name.startswith("evaluation"):
            alone = timings[f"{name.rpartition(', ')[0]}, 1 a video"]["seconds"]
            results.setdefault("evaluation", {})[name] = row | known[name] | {"times_faster": alone / row["seconds"]}
        elif name in steps:
            peak = results["peak"][steps[name].precision]["gflop_per_second"]
            row.update({"share_of_peak": row["gflop"] / row["seconds"] / peak}, **known.get(name, {}))
            row["times_ours"] = row["seconds"] / timings["ours, fp32"]["seconds"]
            results.setdefault("train", {})[name] = row
            if recording and name not in PLAIN:
                results[f"kernels of {name}"] = profile(steps[name], device)
    return results
