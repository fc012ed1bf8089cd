"""A trained model with the configuration it was stored with and the data it is asked about."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from configs import schema
from configs.schema import Config
from dataset.config import DataConfig
from dataset.data import Data, open_data
from nets.config import FeatureSizes
from nets.tspm.model import build_model
from utils.checkpoint import load_checkpoint, load_weights
from utils.errors import UserError
from utils.manifest import compare_manifests
from utils.runtime import Runtime, start


class StoredRun(NamedTuple):
    """What `open_run` opens."""

    config: Config
    data: Data  # with the one split that was asked for
    model: nn.Module  # on the device of `runtime`
    runtime: Runtime


@contextlib.contextmanager
def open_run(path: Path, split: str, overrides: Sequence[str]) -> Iterator[StoredRun]:
    """Open a checkpoint of train.py and a split ("val", "test") of its data, which may lie elsewhere by `overrides`.

    `overrides` are options on top of the stored configuration, such as `["--data.features", "elsewhere"]`. Raises
    `UserError` for a file that is no checkpoint, and for features other than those the model learned from.
    """
    stored = load_checkpoint(path)
    if not isinstance(stored, dict) or "config" not in stored:
        raise UserError(f"{path}: is no checkpoint of train.py; scripts.convert_public converts published weights")
    config = schema.from_dict(stored["config"], overrides)
    with start(config.train.device, config.train.precision) as runtime:
        if runtime.world > 1:
            raise UserError("a stored run is opened by one process; start this without torchrun")
        data = open_data(config.data, config.model.kinds, [split], stored["answers"])
        sizes = FeatureSizes.of(config.data.segments, data.store.shapes, data.store.text_width)
        require_same_features(stored, sizes, data, config.data)
        model = build_model(config.model, sizes, len(data.vocabulary)).to(runtime.device)
        load_weights(model, stored["model"], path)
        yield StoredRun(config, data, model, runtime)


def require_same_features(stored: dict[str, Any], sizes: FeatureSizes, data: Data, config: DataConfig) -> None:
    """Raise `UserError` where the features are of other sizes or another encoder than those the model learned from."""
    for name, size in sizes._asdict().items():
        if size != stored["sizes"][name]:
            raise UserError(
                f"{config.features}: {name} is {size}, but the run was trained with {stored['sizes'][name]}"
            )
    for kind in sorted(stored["manifests"].keys() & data.store.manifests.keys()):
        where = f"{config.features} ({kind})"
        compare_manifests(where, stored["manifests"][kind], data.store.manifests[kind])
