"""What a run lacks before it can start, and what it costs."""

import functools
import json
from dataclasses import asdict
from pathlib import Path

import torch

from configs.schema import Config
from dataset import DATASETS
from dataset.annotations import annotated_videos
from dataset.config import DataConfig
from dataset.features import describe_faults, open_features
from nets import NETWORKS
from nets.network import build
from nets.options import FeatureSizes
from scripts.profile_model import forward_gflop, public_sizes
from utils.errors import UserError
from utils.files import read_json
from utils.manifest import read_manifest


def lacking(config: Config, asked: DataConfig) -> str | None:
    """Why a run with this configuration cannot start, and how to mend it; None where it can. Writes nothing.

    `asked` says where the questions are, or those that others will be made of.
    """
    data = config.data
    files = [path for split in ("train", "val", "test") for path in asked.files(split).values()]
    for path in files:
        if not Path(path).exists():
            made = "python -m scripts.render_bandstand" if data.truth else "python -m scripts.download"
            return f"{path}: no such file; {made} makes it or says where it is"
    try:
        store = open_features(data.features, data.layout, config.model.kinds, data.segments, data.tokens)
    except UserError as error:
        return str(error)
    videos = annotated_videos(dict.fromkeys(files), asked.dataset)
    if faults := store.check(videos):
        listed = describe_faults(faults)
        return (
            f"{data.features}: {len(faults)} of {len(videos)} videos lack whole features; extract them again\n{listed}"
        )
    return None


def unmerged(features: str) -> int:
    """Tokens of a frame before merging: those that the features on disk were merged from.

    Raises `UserError` where there are none yet.
    """
    for path in sorted(Path(features).glob("clip_token_*_source")):
        return read_manifest(path)["shape"][1]
    raise UserError(f"{features}: how many tokens a frame has unmerged is known once merged ones are extracted")


def training_flop(config: Config, asked: DataConfig) -> float | None:
    """Floating-point operations of a whole training run: forward, and twice as many backward.

    None where the questions of `asked` are not there yet; of features that are not, the sizes of a public CLIP's are
    taken.
    """
    train = Path(asked.train)
    if not train.exists():
        return None
    data, kinds = config.data, config.model.kinds
    try:
        store = open_features(data.features, data.layout, kinds, data.segments, data.tokens)
        sizes = FeatureSizes(data.segments, store.shapes, store.text_width)
    except UserError:
        sizes = public_sizes(kinds, data.segments, data.tokens, "ViT-L/14")
    model, shapes = json.dumps(asdict(config.model)), json.dumps(sizes._asdict())
    return 3e9 * len(read_json(train)) * config.train.epochs * _gflop(model, shapes, _answers(data.dataset))


def _answers(dataset: str) -> int:
    """About as many answers as there are classes: the classifier is a small part of all."""
    try:
        return len(DATASETS[dataset].vocabulary({}))
    except UserError:
        return 300


@functools.cache
def _gflop(model: str, sizes: str, answers: int) -> float:
    options, held = json.loads(model), json.loads(sizes)
    with torch.device("meta"):  # shapes without data
        return forward_gflop(
            build(NETWORKS[options["network"]](**options), FeatureSizes(**held), answers), FeatureSizes(**held)
        )
