"""Convert a checkpoint of the published TSPM implementation: python -m scripts.convert_public PUBLIC.pt --out runs/x

The result is a run folder whose best.pt test.py reads like any other. The model is wired as the published one is: the
tokens of segments 0..K-1 (configs/models/tspm_published.yaml). Every key is used or named as unused.
"""

import sys
from pathlib import Path

import torch
import yaml
from torch import Tensor

from configs import schema
from dataset.music_avqa import ANSWERS
from nets.network import build
from nets.options import FeatureSizes
from utils.checkpoint import VERSION, load_checkpoint, load_weights, save_checkpoint
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import write_bytes

LAYERS = {  # public prefix -> ours; a weight and a bias each
    "input_a": "audio",
    "input_v": "frame",
    "input_v_patch": "spatial.token",
    "input_qst": "question",
    "input_qst_prompt": "temporal.prompt",
    "AV_Attn.layers.0.linear1": "context.ffn.0",
    "AV_Attn.layers.0.linear2": "context.ffn.3",
    "AV_Attn.layers.0.norm1": "context.norm1",
    "AV_Attn.layers.0.norm2": "context.norm2",
    "SpatioPerception.TokensAttn.linear1": "spatial.blocks.0.ffn.0",
    "SpatioPerception.TokensAttn.linear2": "spatial.blocks.0.ffn.3",
    "SpatioPerception.TokensAttn.norm1": "spatial.blocks.0.norm1",
    "SpatioPerception.TokensAttn.norm2": "spatial.blocks.0.norm2",
    "SpatioPerception.qst_query_linear1": "spatial.audio_query.ffn.0",
    "SpatioPerception.qst_query_linear2": "spatial.audio_query.ffn.3",
    "SpatioPerception.qst_query_visual_norm": "spatial.audio_query.norm",
    "QstTempGrd_Module.qst_query_linear1": "grounding.question_query.ffn.0",
    "QstTempGrd_Module.qst_query_linear2": "grounding.question_query.ffn.3",
    "QstTempGrd_Module.qst_query_visual_norm": "grounding.question_query.norm",
    "av_fusion_fc": "fusion.fuse",
    "answer_pred_fc": "fusion.classifier",
}
ATTENTIONS = {  # nn.MultiheadAttention, whose parameters ours are
    "AV_Attn.layers.0.self_attn": "context.self_attention",
    "AV_Attn.layers.0.cm_attn": "context.cross_attention",
    "SpatioPerception.TokensAttn.self_attn": "spatial.blocks.0.attention",
    "SpatioPerception.attn_qst_query": "spatial.audio_query.attention",
    "QstTempGrd_Module.attn_qst_query": "grounding.question_query.attention",
}
WIRING = "configs/models/tspm_published.yaml"
PROJECTIONS = ("audio", "frame", "spatial.token", "question")
SELECTION = "TemporalPerception.attn_qst_query"  # only its averaged weights are used: no values, no output


def convert(public: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Our names for the weights of a public state_dict, and the keys that never reach its output.

    Raises `UserError` for a key that is missing.
    """
    left = {key.removeprefix("module."): value for key, value in public.items()}

    def take(key: str) -> Tensor:
        if key not in left:
            raise UserError(f"the checkpoint has no key {key!r}; is it one of the published TSPM implementation?")
        return left.pop(key)

    ours = {f"{to}.{part}": take(f"{key}.{part}") for key, to in LAYERS.items() for part in ("weight", "bias")}
    attention_parts = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    ours |= {f"{to}.{part}": take(f"{key}.{part}") for key, to in ATTENTIONS.items() for part in attention_parts}
    weight, bias = take(f"{SELECTION}.in_proj_weight"), take(f"{SELECTION}.in_proj_bias")
    query, key, value = weight.chunk(3)
    left |= {f"{SELECTION}.in_proj_weight (values)": value, f"{SELECTION}.in_proj_bias (keys, values)": bias}
    ours |= {"temporal.query.weight": query, "temporal.query.bias": bias.chunk(3)[0], "temporal.key.weight": key}
    return {key: value.clone() for key, value in ours.items()}, sorted(left)


@command
def main() -> None:
    """Read the command line, convert, save, and say what was not used."""
    parser = Parser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", help="state_dict of the published implementation")
    config, options = schema.parse(parser, ["--config", WIRING, *sys.argv[1:]])
    if not options.checkpoint:  # the parser also reads files of options, where none is
        raise UserError("name the checkpoint that is to be converted")
    out = Path(config.out)
    if (out / "best.pt").exists():
        raise UserError(f"{out}: already holds a run; choose another folder with --out")
    ours, unused = convert(load_checkpoint(options.checkpoint))
    config.model.hidden = len(ours["audio.weight"])
    segments, width = config.data.segments, {name: ours[f"{name}.weight"].shape[1] for name in PROJECTIONS}
    shapes = {"audio": (segments, width["audio"]), "frame": (segments, width["frame"])}
    shapes["token"] = (segments, config.data.tokens, width["spatial.token"])
    sizes = FeatureSizes(segments, shapes, width["question"])
    load_weights(build(config.model, sizes, len(ANSWERS)), ours, options.checkpoint)
    stored = {
        "version": VERSION,
        "config": config.to_dict(),
        "sizes": sizes._asdict(),
        "manifests": {},
        "answers": list(ANSWERS),
    }
    save_checkpoint(out / "best.pt", stored | {"model": ours})
    write_bytes(out / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False).encode())
    print(f"{len(ours)} tensors, {sum(map(torch.numel, ours.values())):,} parameters converted to {out / 'best.pt'}")
    print(f"unused, since they never reach the output ({len(unused)}):", *unused, sep="\n  ")


if __name__ == "__main__":
    main()
