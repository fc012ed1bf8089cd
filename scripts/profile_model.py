"""Parameters and FLOPs of the default model and of every ablation: python -m scripts.profile_model

True figures are a question's share of the operations of a forward pass over 64 (a multiply-add is two FLOPs). The
paper's Table 6 was made with thop, so its counts stand beside: it counts a multiply-add once, and nothing of the
parameters and products of attention, which are no layers of their own.
"""

import copy
import logging
import sys
from pathlib import Path

import thop
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from configs import schema
from nets.config import FeatureSizes
from nets.tspm.model import build_model, zero_features
from utils.cli import Parser
from utils.errors import command
from utils.scoring.paper import TABLE6

BATCH = 64
WIDTHS = {"ViT-L/14": (768, 1024, 768), "ViT-B/32": (512, 768, 512)}  # frame, token, text


def profile(model: nn.Module, sizes: FeatureSizes) -> dict[str, float]:
    """Parameters (all, trained, thop's) in millions and forward FLOPs (true, thop's) of one question in 10^9."""
    row = torch.zeros(1, dtype=torch.long)
    given = {**zero_features(sizes), "video": row, "question": row, "prompt": row}
    model = model.eval()
    thop_flops, thop_parameters = thop.profile(copy.deepcopy(model), inputs=tuple(given.values()), verbose=False)
    return {
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6,
        "thop parameters": thop_parameters / 1e6,
        "GFLOP": forward_gflop(model, sizes),
        "thop G": thop_flops / 1e9,
    }


def forward_gflop(model: nn.Module, sizes: FeatureSizes) -> float:
    """FLOPs, in 10^9, of a question's share of a forward pass; nothing is computed, and weights may be on "meta"."""
    rows = torch.zeros(BATCH, dtype=torch.long)
    given = {**zero_features(sizes), "video": rows, "question": rows, "prompt": rows}
    abstract = {name: tensor.to("meta") for name, tensor in given.items()}  # shapes without data
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).eval().to("meta")(**abstract)
    return counter.get_total_flops() / BATCH / 1e9


@command
def main() -> None:
    """Profile the configuration given by options, then each file of configs/ablations on top of it."""
    parser = Parser(description=__doc__)
    parser.add_argument("--answers", type=int, default=42, help="size of the answer vocabulary")
    schema.add_config(parser)
    _, options = schema.parse(parser, sys.argv[1:])
    logging.getLogger("thop").setLevel(logging.WARNING)

    print(f"{'':16}{'parameters M':>14}{'trained M':>11}{'GFLOP':>8} |{'thop M':>8}{'thop G':>8}")
    for path in [None, *sorted(Path("configs/ablations").glob("*.yaml"))]:
        config, _ = schema.parse(parser, [*sys.argv[1:], *(["--config", str(path)] if path else [])])
        name = path.stem if path else "default"
        frame, token, text = WIDTHS["ViT-B/32" if name == "vit_b32" else "ViT-L/14"]
        sizes = FeatureSizes(config.data.segments, 128, frame, config.data.tokens, token, text)
        row = profile(build_model(config.model, sizes, options.answers), sizes)
        print(
            f"{name:16}{row['parameters']:14.2f}{row['trained']:11.2f}{row['GFLOP']:8.2f} |"
            f"{row['thop parameters']:8.2f}{row['thop G']:8.2f}"
        )
    paper = TABLE6["TSPM"]
    print(f"{'paper, Table 6':16}{'':33} |{paper['parameters_M']:8.2f}{paper['flops_G']:8.2f}")
    print(__doc__.split("\n\n")[1])


if __name__ == "__main__":
    main()
