"""Parameters and FLOPs of the default model and of every ablation of it: python -m scripts.profile_model

True figures are a question's share of the operations of a forward pass over 64 (a multiply-add is two FLOPs). The
paper's Table 6 was made with thop, so its counts stand beside: it counts a multiply-add once, and nothing of the
parameters and products of attention, which are no layers of their own.
"""

import copy
import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import thop
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from configs import schema
from dataset.music_avqa import ANSWERS
from nets.network import build, zero_inputs
from nets.options import FeatureSizes
from utils.cli import Parser
from utils.errors import command
from utils.scoring.paper import TABLE6

logging.getLogger("thop").setLevel(logging.WARNING)  # it names every layer that it counts
BATCH = 64
WIDTHS = {  # of VGGish's features, and a public CLIP's
    "ViT-L/14": {"audio": 128, "frame": 768, "token": 1024, "words": 768, "text": 768},
    "ViT-B/32": {"audio": 128, "frame": 512, "token": 768, "words": 512, "text": 512},
}


class _InOrder(nn.Module):
    """A network called by position, as thop calls it."""

    def __init__(self, model: nn.Module, names: Iterable[str]):
        super().__init__()
        self.model, self.names = model, list(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, tensors, strict=True))).logits


def profile(model: nn.Module, sizes: FeatureSizes) -> dict[str, float]:
    """Parameters (all, trained, thop's) in millions and forward FLOPs (true, thop's) of one question in 10^9."""
    given = zero_inputs(sizes, 1)
    copied = _InOrder(copy.deepcopy(model.eval()), given)  # thop leaves its counters in what it profiles
    thop_flops, thop_parameters = thop.profile(copied, inputs=tuple(given.values()), verbose=False)
    return {
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6,
        "thop parameters": thop_parameters / 1e6,
        "GFLOP": forward_gflop(model, sizes),
        "thop G": thop_flops / 1e9,
    }


def forward_gflop(model: nn.Module, sizes: FeatureSizes) -> float:
    """FLOPs, in 10^9, of a question's share of a forward pass; nothing is computed, and weights may be on "meta"."""
    given = {name: tensor.to("meta") for name, tensor in zero_inputs(sizes, BATCH, videos=1).items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).train().to("meta")(**given)  # in evaluation the shapes depend on what is selected
    return counter.get_total_flops() / BATCH / 1e9


def feature_sizes(kinds: Iterable[str], segments: int, tokens: int | None, width: Mapping[str, int]) -> FeatureSizes:
    """The sizes of features of so many segments and tokens, given the width of each kind and of text."""
    rows: dict[str, tuple[Any, ...]] = {"audio": (segments,), "frame": (segments,), "token": (segments, tokens)}
    rows["words"] = (77,)  # that CLIP reads of a sentence
    shapes = {kind: (*rows[kind], width[kind]) for kind in kinds if kind in rows}
    return FeatureSizes(segments, shapes, width["text"])


@command
def main() -> None:
    """Profile the configuration given by options, then on top of it each ablation but the learned model's."""
    rows = {}
    for path in [None, *sorted(Path("configs/ablations").glob("[!l]*.yaml"))]:
        ablation = ["--config", str(path)] if path else []
        config, _ = schema.parse(Parser(description=__doc__), [*sys.argv[1:], *ablation])
        name = path.stem if path else "default"
        width = WIDTHS["ViT-B/32" if name == "vit_b32" else "ViT-L/14"]
        sizes = feature_sizes(config.model.kinds, config.data.segments, config.data.tokens, width)
        rows[name] = profile(build(config.model, sizes, len(ANSWERS)), sizes)
    columns = list(rows["default"])
    rows["paper, Table 6"] = TABLE6["TSPM"]
    table = pd.DataFrame.from_dict(rows, orient="index")[columns]
    print(table.to_string(float_format="{:.2f}".format, na_rep=""), "parameters in millions", sep="\n")
    print(__doc__.split("\n\n")[1])


if __name__ == "__main__":
    main()
