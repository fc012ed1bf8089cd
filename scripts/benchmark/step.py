"""The benchmark's training step and its evaluation, on random features that are there already."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.loader import Batch
from dataset.music_avqa import ANSWERS
from nets.network import build
from nets.options import FeatureSizes
from nets.tspm.options import TSPMOptions
from scripts.benchmark.measure import Rows, interleaved, limits, peaks, set_products
from utils.cuda_graph import Recorded
from utils.numerics import autocast, seed
from utils.runtime import Runtime
from utils.scoring.evaluation import predict

PRECISIONS = {"cpu": ("fp32",), "cuda": ("fp32", "tf32", "bf16")}
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


def make_inputs(shapes: Shapes, per_video: float = 1) -> dict[str, Tensor]:
    """Random features of a batch as stored, `per_video` questions about a video."""
    made, row, inputs = torch.Generator().manual_seed(0), torch.arange(shapes.batch), {}
    asked = (row / per_video).long()
    for kind, (shape, dtype) in shapes.kinds.items():
        inputs[kind] = torch.randn(int(asked[-1]) + 1, *shape, generator=made).to(getattr(torch, dtype))
    text = torch.randn(2 * shapes.batch, shapes.text, generator=made)
    return inputs | {"text": text, "video": asked.unique(), "asked": asked, "question": row, "prompt": row + len(row)}


class Step:
    """A training step as `train.py` takes it; `record`: as a CUDA graph."""

    def __init__(
        self,
        shapes: Shapes,
        device: torch.device,
        precision: str = "fp32",
        record: bool = False,
        per_video: float = 1,
    ):
        seed(0)
        options = TSPMOptions(hidden=shapes.hidden, top_k=shapes.top_k, tokens=shapes.tokens)
        kinds = {kind: shape for kind, (shape, _) in shapes.kinds.items()}
        self.model = build(options, FeatureSizes(shapes.segments, kinds, shapes.text), len(ANSWERS)).to(device)
        self.inputs = {kind: x.to(device) for kind, x in make_inputs(shapes, per_video).items()}
        self.answer = torch.arange(shapes.batch, device=device) % len(ANSWERS)
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
            logits = self.model(**inputs).logits
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


@torch.no_grad()
def apart(step: Step) -> dict[str, Any]:
    """How far logits are from those of the same questions, each with a copy of its video, and whether answers are."""
    given, model, row = step.inputs, step.model.eval(), torch.arange(len(step.answer), device=step.device)
    copies = {kind: given[kind][given["asked"]] for kind in ("audio", "frame", "token")}
    shared, alone = (model(**given | more).logits for more in ({}, copies | {"video": row, "asked": row}))
    same = torch.equal(shared.argmax(dim=1), alone.argmax(dim=1))
    return {"logit_difference": (shared - alone).abs().max().item(), "same_answers": same}


def compute(shapes: Shapes, runtime: Runtime, rounds: int, parts: set[str]) -> dict[str, Rows]:
    """The machine's peak and, in the same rounds, training steps (on a GPU recorded, and launched), and evaluation."""
    device, precisions, recording = runtime.device, PRECISIONS[runtime.device.type], runtime.device.type == "cuda"
    tasks, steps, known = limits(device, precisions), {}, {}
    for precision in precisions if "train" in parts else ():
        steps[f"ours, {precision}"] = Step(shapes, device, precision, recording)
        if recording:
            steps[f"ours, {precision}, launched"] = Step(shapes, device, precision)
    for precision in precisions if "evaluation" in parts else ():
        for per_video in ASKED:
            name = f"evaluation, {precision}, {per_video} a video"
            step = Step(shapes, device, precision, per_video=per_video)
            tasks[name], known[name] = partial(step.evaluate, runtime), apart(step)
    timings = interleaved(tasks | steps, device, rounds)
    results = {"peak": peaks(timings, device, precisions)}
    for name, row in timings.items():
        row["questions_per_second"] = shapes.batch / row["seconds"]
        if name in known:
            alone = timings[f"{name.rpartition(', ')[0]}, 1 a video"]["seconds"]
            more = known[name] | {"times_faster": alone / row["seconds"]}
            results.setdefault("evaluation", {})[name] = row | more
        elif name in steps:
            peak = results["peak"][steps[name].precision]["gflop_per_second"]
            results.setdefault("train", {})[name] = row | {"share_of_peak": row["gflop"] / row["seconds"] / peak}
    return results
