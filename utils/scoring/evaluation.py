"""Answers of a trained model to the questions of a split."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from utils.numerics import autocast
from utils.runtime import Runtime

LOOKED = ("segment_weights", "selected", "token_segments", "token_weights", "token_source")  # fields of `Perception`


class Answers(NamedTuple):
    """The answers to the questions of a split, in order, and what was looked at for each."""

    classes: list[int]  # Q
    probability: np.ndarray  # (Q,) of that answer among those it was chosen from; NaN where none of them is known
    looked: dict[str, np.ndarray]  # the fields of `Perception` that are there, (Q, ...)


def choose(logits: Tensor, choices: Tensor | None) -> Tensor:
    """The predicted class (B,): the best of all (B, C), or of the choices offered (B, 4).

    A choice of -1 is no class of the model and never the best, unless all four are.
    """
    if choices is None:
        return logits.argmax(dim=-1)
    return choices.gather(1, _offered(logits, choices).argmax(dim=-1, keepdim=True))[:, 0]


def _offered(logits: Tensor, choices: Tensor) -> Tensor:
    """The logits (B, 4) of the choices, minus infinity for those that are no class."""
    return logits.gather(1, choices.clamp(min=0)).masked_fill(choices < 0, -torch.inf)


def at_once(batch_size: int, device: torch.device) -> int:
    """Questions to answer together, by a network that is trained in batches of `batch_size`.

    A GPU is given so many that launching their kernels takes less than computing; the memory that training needs for
    gradients is room enough. On a CPU more than 64 fit no cache, and fewer are slower too (results/benchmark).
    """
    return 4 * batch_size if device.type == "cuda" else 64


def predict(model: nn.Module, batches: Iterable[Any], questions: int, precision: str, runtime: Runtime) -> np.ndarray:
    """Predicted class (Q,) of each question of a split; every process gives its own batches and gets all answers."""
    chosen = [
        (batch.rows, choose(seen.logits.float(), batch.choices))
        for batch, seen in perceive(model, batches, precision, runtime.device)
    ]
    predicted = torch.zeros(questions, dtype=torch.long)
    for rows, classes in chosen:  # only now: to read a class is to wait for the device
        predicted[torch.from_numpy(rows)] = classes.cpu()
    return runtime.sum(predicted).numpy()


def answer(model: nn.Module, batches: Iterable[Any], precision: str, device: torch.device, looks: bool) -> Answers:
    """Answer the questions of a split, in whatever order batches hold them.

    The segments selected are kept, and where `looks` all that was looked at.
    """
    rows: list[int] = []
    classes: list[int] = []
    probability: list[float] = []
    looked = defaultdict(list)
    for batch, seen in perceive(model, batches, precision, device):
        logits = seen.logits.float()
        rows += batch.rows.tolist()
        classes += choose(logits, batch.choices).tolist()
        among = logits if batch.choices is None else _offered(logits, batch.choices)
        probability += among.softmax(dim=-1).amax(dim=-1).tolist()
        for name, value in looked_at(seen, LOOKED if looks else ("selected",)).items():
            looked[name].append(value)
    order = np.argsort(rows)
    arrays = {name: np.concatenate(parts)[order] for name, parts in looked.items()}
    return Answers(np.array(classes)[order].tolist(), np.array(probability)[order], arrays)


def looked_at(seen: Any, fields: Iterable[str] = LOOKED) -> dict[str, np.ndarray]:
    """What was looked at: the fields of a `Perception` that are there, (B, ...), on the host."""
    held = {name: getattr(seen, name) for name in fields if getattr(seen, name) is not None}
    return {name: (x.float() if x.is_floating_point() else x).cpu().numpy() for name, x in held.items()}


@torch.no_grad()
def perceive(model: nn.Module, batches: Iterable[Any], precision: str, device: torch.device) -> Iterator[tuple]:
    """Yield (batch, what the model saw in it) with dropout off."""
    model.eval()
    for batch in batches:
        with autocast(device, precision):
            seen = model(**batch.inputs)
        yield batch, seen
