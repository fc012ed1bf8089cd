"""The benchmark's training steps: ours, compiled too, the plain ones beside it, and ours stage by stage."""

from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.loader import Batch
from nets.config import ModelConfig
from nets.layers import Dropout, SingleHeadAttention
from nets.tspm.model import build_model
from scripts.benchmark.data import Shapes
from scripts.benchmark.measure import Mark, Task, alone, in_turn, matrix_products, synchronize
from scripts.benchmark.plain import FusedAttention, PlainTSPM, copy_segments, gather_segments
from utils.cuda_graph import Recorded
from utils.runtime import Runtime, autocast, compiled, seed
from utils.scoring.evaluation import predict

ANSWERS = 42
EVALUATED = 4  # batches of a round of evaluation
PRECISIONS = {
    "cpu": ("fp32",),
    "cuda": ("fp32", "tf32", "bf16"),
}
PLAIN = {"plain, segment by segment": copy_segments, "plain, one gather": gather_segments}


class Step:
    """A training step on a batch that is in memory: a task whose parts are forward, backward and optimizer.

    One that is recorded, as `train.py` does on a GPU, has no parts.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        device: torch.device,
        precision: str = "fp32",
        record: bool = False,
    ):
        self.model, self.device, self.precision = model.to(device), device, precision
        self.inputs = {name: x.to(device) for name, x in inputs.items()}
        self.answer = torch.arange(len(inputs["question"]), device=device) % ANSWERS
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=1e-4, fused=True, capturable=record)
        self.recorded = Recorded(lambda **batch: self._learn(lambda part: None), tuple) if record else None

    def forward(self) -> Tensor:
        """The loss."""
        with autocast(self.device, self.precision):
            logits = self.model(**self.inputs).logits
        return F.cross_entropy(logits.float(), self.answer)

    def __call__(self, mark: Mark) -> None:
        """Forward, backward, optimizer."""
        with matrix_products(self.precision):
            if self.recorded:
                self.recorded(answer=self.answer, **self.inputs)
            else:
                self._learn(mark)

    def _learn(self, mark: Mark) -> Tensor:
        loss = self.forward()
        mark("forward")
        self.optimizer.zero_grad()
        loss.backward()
        mark("backward")
        self.optimizer.step()
        mark("optimizer")
        return loss.detach()


def make_inputs(shapes: Shapes) -> dict[str, Tensor]:
    """Random features of a batch, each question about a video of its own, in the dtypes in which they are stored."""
    made, row, sizes = torch.Generator().manual_seed(0), torch.arange(shapes.batch), shapes.features
    videos = (shapes.batch, sizes.segments)
    return {
        "audio": torch.randn(*videos, sizes.audio, generator=made),
        "frame": torch.randn(*videos, sizes.frame, generator=made).half(),
        "token": torch.randn(*videos, sizes.tokens, sizes.token, generator=made).half(),
        "text": torch.randn(2 * shapes.batch, sizes.text, generator=made),
        **{"video": row, "question": row, "prompt": row + shapes.batch},
    }


def plain_inputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same batch as published code holds it: float32, a row of everything for each question."""
    videos = {kind: inputs[kind][inputs["video"]].float() for kind in ("audio", "frame", "token")}
    return videos | {kind: inputs["text"][inputs[kind]] for kind in ("question", "prompt")}


def our_model(shapes: Shapes, top_k: int = 10) -> nn.Module:
    """Ours, with random weights."""
    seed(0)
    config = ModelConfig(hidden=shapes.hidden, top_k=top_k, tokens=shapes.features.tokens)
    return build_model(config, shapes.features, ANSWERS)


def our_step(device: torch.device, precision: str, shapes: Shapes, top_k: int = 10, record: bool | None = None) -> Step:
    """A step of ours, on a GPU recorded unless told otherwise."""
    record = device.type == "cuda" if record is None else record
    return Step(our_model(shapes, top_k), make_inputs(shapes), device, precision, record)


def compiled_step(device: torch.device, precision: str, shapes: Shapes) -> tuple[Step, float]:
    """A step of ours that is compiled, and the seconds of its first run, which compiles it.

    Raises `UserError` where the machine lacks the compiler.
    """
    from torch._inductor.utils import fresh_cache  # seconds and memory, which the other steps should not pay

    step = our_step(device, precision, shapes)
    step.model = compiled(step.model, "default", device, [])
    with fresh_cache():  # else what an earlier run has compiled is only looked up
        started = perf_counter()
        step(lambda part: None)
        synchronize(device)
    return step, perf_counter() - started


def our_steps(device: torch.device, shapes: Shapes) -> dict[str, Step]:
    """Ours in each precision at the given shapes and at AVQA's: ten segments, of which eight are selected.

    On a GPU also with each kernel launched by itself.
    """
    avqa = shapes._replace(features=shapes.features._replace(segments=10))
    made = {}
    for precision in PRECISIONS[device.type]:
        made[f"ours, {precision}"] = our_step(device, precision, shapes)
        if device.type == "cuda":
            made[f"ours, {precision}, launched"] = our_step(device, precision, shapes, record=False)
        made[f"ours, {precision}, AVQA"] = our_step(device, precision, avqa, top_k=8)
    return made


def plain_steps(device: torch.device, shapes: Shapes) -> dict[str, Step]:
    """The two plain ones, in fp32."""
    seed(0)
    inputs = plain_inputs(make_inputs(shapes))
    widths = {kind: getattr(shapes.features, kind) for kind in ("audio", "frame", "token", "text")}
    models = {name: PlainTSPM(select, **widths, dim=shapes.hidden) for name, select in PLAIN.items()}
    return {name: Step(model, inputs, device) for name, model in models.items()}


def stages(step: Step) -> dict[str, Task]:
    """Each stage of the model forward and backward by itself, and all its dropout layers together."""
    parts = alone(dict(step.model.named_children()), step.forward)
    dropouts = {name: module for name, module in step.model.named_modules() if isinstance(module, Dropout)}
    parts["dropout"] = in_turn(alone(dropouts, step.forward).values())

    return {f"stage {name}": _in_precision(step, task) for name, task in parts.items()}


def attentions(step: Step, shapes: Shapes) -> dict[str, Task]:
    """The self-attention of the audio-visual layer, in training, with two ways to its heart; forward and backward."""
    streams = (2 * shapes.batch, shapes.features.segments, shapes.hidden)  # both in one pass
    x = torch.randn(streams, device=step.device, requires_grad=True)
    kinds = {"two products and softmax": SingleHeadAttention, "scaled_dot_product_attention": FusedAttention}
    layers = {name: kind(shapes.hidden, 0.1).to(step.device) for name, kind in kinds.items()}
    tasks = alone(layers, lambda: [layer(x, x) for layer in layers.values()])
    return {f"attention {name}": _in_precision(step, task) for name, task in tasks.items()}


def _in_precision(step: Step, task: Task) -> Task:
    """A task that computes as precisely as the step."""

    def run(mark: Mark) -> None:
        with matrix_products(step.precision), autocast(step.device, step.precision):
            task(mark)

    return run


def evaluation(step: Step, runtime: Runtime) -> Task:
    """Predictions of a step's model for its batch, `EVALUATED` times."""
    batch = len(step.answer)
    made = [Batch(step.inputs, step.answer, None, np.arange(batch) + batch * n) for n in range(EVALUATED)]

    def run(mark: Mark) -> None:
        with matrix_products(step.precision):
            predict(step.model, made, batch * EVALUATED, step.precision, runtime)

    return run
