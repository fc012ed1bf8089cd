"""Convert a checkpoint of a published implementation, of TSPM unless told otherwise.

    python -m scripts.convert_public PUBLIC.pt --out runs/x
    python -m scripts.convert_public --network qa_tiger PUBLIC.pt --out runs/x

The result is a run folder whose best.pt test.py reads like any other. The model is wired as the published one is
(configs/models/*_published.yaml). Every key is used or named as unused; QA-TIGER's hold CLIP's text encoder too
(`quest_encoder.*`), whose features are extracted here beforehand.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from configs import schema
from dataset.music_avqa import ANSWERS
from nets.network import build
from scripts.profile_model import feature_sizes
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
SELECTION = "TemporalPerception.attn_qst_query"  # only its averaged weights are used: no values, no output

TIGER_LAYERS = {
    "audio_proj.proj": "audio",
    "video_proj.proj": "frame",
    "patch_proj.proj": "token",
    "words_proj.proj": "words",
    "quest_proj.proj": "question",
    "crs_attn.linear1": "context.ffn.0",
    "crs_attn.linear2": "context.ffn.3",
    "crs_attn.norm1": "context.norm1",
    "crs_attn.norm2": "context.norm2",
    "patch_selecter.mlp.0": "patches.mlp.0",
    "patch_selecter.mlp.2": "patches.mlp.2",
    "patch_selecter.anorm": "patches.norms.0",
    "patch_selecter.vnorm": "patches.norms.1",
    "at_aggregator.router.0": "heard.router",
    "at_aggregator.gauss_pred.0": "heard.gaussian",
    "at_aggregator.norm": "heard.norms.0",
    "vt_aggregator.router.0": "seen.router",
    "vt_aggregator.gauss_pred.0": "seen.gaussian",
    "vt_aggregator.anorm": "seen.norms.0",
    "vt_aggregator.vnorm": "seen.norms.1",
    "quest_grounding.mlp.0": "grounding.mlp.0",
    "quest_grounding.mlp.2": "grounding.mlp.2",
    "quest_grounding.norm": "grounding.norm",
    "head": "head",
}
TIGER_ATTENTIONS = {
    "crs_attn.slf_attn": "context.own",
    "crs_attn.crs_attn": "context.other",
    "crs_attn.qst_attn": "context.words",
    "patch_selecter.slf_attn": "patches.tokens",
    "patch_selecter.crs_attn": "patches.query",
    "at_aggregator.qst_attn": "heard.query",
    "vt_aggregator.qst_attn": "seen.query",
    "quest_grounding.attn": "grounding.query",
}
TIGER_EXPERTS = {"at_aggregator.experts": "heard", "vt_aggregator.experts": "seen"}
PROJECTIONS = {kind: kind for kind in ("audio", "frame", "token", "words")}  # our layer -> what it projects
PROJECTIONS |= {"spatial.token": "token", "question": "text"}
Weights = dict[str, Tensor]


def convert(public: Weights, network: str) -> tuple[Weights, list[str]]:
    """A public state_dict by our names, and its keys that never reach the output. Raises `UserError` if one lacks."""
    left = {key.removeprefix("module."): value for key, value in public.items()}
    try:
        ours = PUBLISHED[network](left)
    except KeyError as key:
        raise UserError(f"the checkpoint has no key {key}; is it one of the published {network}?") from key
    return {name: value.clone() for name, value in ours.items()}, sorted(left)


def take_tspm(left: Weights) -> Weights:
    """Take what TSPM's output depends on out of `left`, by our names."""
    ours = take(left, LAYERS, ATTENTIONS)
    weight, bias = left.pop(f"{SELECTION}.in_proj_weight"), left.pop(f"{SELECTION}.in_proj_bias")
    query, key, value = weight.chunk(3)
    left |= {f"{SELECTION}.in_proj_weight (values)": value, f"{SELECTION}.in_proj_bias (keys, values)": bias}
    return ours | {"temporal.query.weight": query, "temporal.query.bias": bias.chunk(3)[0], "temporal.key.weight": key}


def take_qa_tiger(left: Weights) -> Weights:
    """As `take_tspm`, of QA-TIGER. The two layers of its experts become two of all of them."""
    for key in [key for key in left if "quest_encoder." in key]:
        del left[key]
    ours = take(left, TIGER_LAYERS, TIGER_ATTENTIONS)
    for key, to in TIGER_EXPERTS.items():
        experts = range(len(ours[f"{to}.router.bias"]))
        inner, outer = ([f"{key}.{expert}.{layer}" for expert in experts] for layer in (0, 2))
        ours[f"{to}.inner.weight"] = torch.cat([left.pop(f"{name}.weight") for name in inner])
        ours[f"{to}.inner.bias"] = torch.cat([left.pop(f"{name}.bias") for name in inner])
        ours[f"{to}.outer"] = torch.stack([left.pop(f"{name}.weight").T for name in outer])
        ours[f"{to}.bias"] = torch.stack([left.pop(f"{name}.bias") for name in outer])
    return ours


def take(left: Weights, layers: dict[str, str], attentions: dict[str, str]) -> Weights:
    """Take layers and attentions out of `left`, by our names."""
    parts = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    names = {f"{to}.{part}": f"{key}.{part}" for key, to in layers.items() for part in ("weight", "bias")}
    names |= {f"{to}.{part}": f"{key}.{part}" for key, to in attentions.items() for part in parts}
    return {ours: left.pop(key) for ours, key in names.items()}


PUBLISHED = {"tspm": take_tspm, "qa_tiger": take_qa_tiger}


@command
def main() -> None:
    """Read the command line, convert, save, and say what was not used."""
    parser = Parser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", help="state_dict of the published implementation")
    for each in (first := argparse.ArgumentParser(add_help=False, allow_abbrev=False), parser):
        each.add_argument("--network", default="tspm", help=f"which network it is of: {', '.join(PUBLISHED)}")
    network = first.parse_known_args()[0].network  # which says what other options there are
    if network not in PUBLISHED:
        raise UserError(f"--network must be one of {', '.join(PUBLISHED)}, is {network!r}")
    wiring = f"configs/models/{network}_published.yaml"
    config, options = schema.parse(parser, ["--config", wiring, *sys.argv[1:]])
    if not options.checkpoint:  # the parser also reads files of options, where none is
        raise UserError("name the checkpoint that is to be converted")
    out = Path(config.out)
    if (out / "best.pt").exists():
        raise UserError(f"{out}: already holds a run; choose another folder with --out")
    ours, unused = convert(load_checkpoint(options.checkpoint), network)
    model: Any = config.model  # which has a width, as both have
    model.hidden = len(ours["audio.weight"])
    width = {kind: ours[f"{layer}.weight"].shape[1] for layer, kind in PROJECTIONS.items() if f"{layer}.weight" in ours}
    sizes = feature_sizes(model.kinds, config.data.segments, config.data.tokens, width)
    load_weights(build(config.model, sizes, len(ANSWERS)), ours, options.checkpoint)
    stored = {"version": VERSION, "config": config.to_dict(), "sizes": sizes._asdict(), "manifests": {}}
    save_checkpoint(out / "best.pt", stored | {"answers": list(ANSWERS), "model": ours})
    write_bytes(out / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False).encode())
    print(f"{len(ours)} tensors, {sum(map(torch.numel, ours.values())):,} parameters converted to {out / 'best.pt'}")
    print(f"unused, since they never reach the output ({len(unused)}):", *unused, sep="\n  ")


if __name__ == "__main__":
    main()
