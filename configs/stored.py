"""A trained model with the configuration it was stored with and the data it is asked about."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs import schema
from configs.schema import Config
from dataset.config import DataConfig
from dataset.data import Data, open_data
from dataset.question import slot_values
from nets.network import Network, build
from nets.options import FeatureSizes
from utils.checkpoint import VERSION, load_run, load_weights
from utils.errors import UserError
from utils.files import sha256
from utils.machine import own_cores
from utils.manifest import compare_manifests
from utils.release import SUMS, WEIGHTS, read_release
from utils.runtime import Runtime, set_threads, start


def model_file(run: Path) -> Path:
    """The trained model in a run folder of train.py or in a released one (utils/release.py)."""
    return run / WEIGHTS if (run / SUMS).exists() else run / "best.pt"


def read_stored(path: Path) -> dict[str, Any]:
    """What is stored with a model, a checkpoint or a released one's weights. Raises `UserError` where it is damaged."""
    return read_release(path.parent) if path.name == WEIGHTS else load_run(path)


class StoredRun(NamedTuple):
    """What `open_run` opens."""

    config: Config
    data: Data  # with the split that was asked for, or each of several test files
    model: Network  # on the device of `runtime`
    runtime: Runtime


@contextlib.contextmanager
def open_run(path: Path, split: str, overrides: Sequence[str]) -> Iterator[StoredRun]:
    """Open a model, as `model_file` finds it, and a split ("val", "test") of its data.

    `overrides` are options on top of the stored configuration, such as `["--data.features", "elsewhere"]`. Raises
    `UserError` for a file that is no checkpoint, and for features other than those the model learned from.
    """
    stored = read_stored(path)
    config = schema.from_dict(stored["config"], overrides)
    with start(config.train.device, config.train.precision) as runtime:
        if runtime.world > 1:
            raise UserError("a stored run is opened by one process; start this without torchrun")
        data = open_data(config.data, config.model.kinds, [split], stored["answers"])
        sizes = FeatureSizes(config.data.segments, data.store.shapes, data.store.text_width)
        require_same_features(stored, sizes, data, config.data)
        model = build(config.model, sizes, len(data.vocabulary)).to(runtime.device)
        set_stored_threads(model, config)
        load_weights(model, stored["model"], path)
        yield StoredRun(config, data, model, runtime)


def set_stored_threads(model: Network, config: Config) -> None:
    """Let as many threads share an operator as in training, where this machine has them."""
    threads = config.train.threads and min(config.train.threads, own_cores())
    set_threads(model, config.train.batch_size * config.data.segments, threads)


def describe_run(config: Config, data: Data, sizes: FeatureSizes) -> dict[str, Any]:
    """What a checkpoint tells beside its states, so that it can be opened and gone on with elsewhere."""
    files = {f"data.{split}": path for split in ("train", "val") for path in config.data.files(split).values()}
    return {
        "version": VERSION,
        "config": config.to_dict(),
        "sizes": sizes._asdict(),
        "manifests": data.store.manifests,
        "answers": list(data.vocabulary.answers),
        "prompts": data.prompts.templates,
        "slots": slot_values(data.splits["train"].questions),
        "contents": {name: sha256(path) for name, path in files.items()} | {"data.prompts": data.prompts.digest},
        "questions": {split: len(asked) for split, asked in data.splits.items()},
    }


def require_same_contents(stored: dict[str, Any], now: dict[str, Any], config: Config) -> None:
    """Raise `UserError` where a file that decides a run's numbers holds something else than when it was stored."""
    for name, digest in now["contents"].items():
        if stored["contents"].get(name) != digest:
            path = getattr(config.data, name.removeprefix("data."))
            raise UserError(
                f"{path} ({name}): holds something else than when the run began; restore it, or start another run with "
                "--out"
            )
    for split, questions in now["questions"].items():
        if stored["questions"][split] != questions:  # the epoch's order would be another
            raise UserError(
                f"{config.data.features}: gives features to {questions} {split} questions, but gave them to "
                f"{stored['questions'][split]} when the run began; restore them, or start another run with --out"
            )


def require_same_features(stored: dict[str, Any], sizes: FeatureSizes, data: Data, config: DataConfig) -> None:
    """Raise `UserError` where the features are of other sizes or another encoder than those the model learned from."""
    both = (sizes, FeatureSizes(**stored["sizes"]))
    now, then = ({"segments": s.segments, "text": (s.text,)} | s.shapes for s in both)
    for name in now | then:
        if (size := now.get(name)) != (trained := then.get(name)):
            raise UserError(f"{config.features}: {name} is {size}, but the run was trained with {trained}")
    for kind in sorted(stored["manifests"].keys() & data.store.manifests.keys()):
        where = f"{config.features} ({kind})"
        compare_manifests(where, stored["manifests"][kind], data.store.manifests[kind], "or extract again as then")
