"""Every option of training and testing in one place: the rooms' dataclasses, composed."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from dataset.config import DataConfig
from nets.config import ModelConfig
from utils.cli import Parser
from utils.errors import UserError

MAY_CHANGE = {
    *("out", "data.features", "data.layout", "data.residency", "data.workers", "data.test", "data.truth"),
    *("train.device", "train.epochs", "train.graph"),
}
"""Options that a resumed run may change: where things are, and how long to go on."""


@dataclass
class TrainConfig:
    """Optimisation (Section 4.2 of the paper) and the machine."""

    epochs: int = 30
    """Epochs; the best by validation accuracy is kept."""
    batch_size: int = 64
    """Questions per step, over all processes together."""
    lr: float = 1e-4
    """Learning rate of Adam."""
    deep_lr: float = 1.0
    """Factor of the learning rate between the input projections and the classifier: attention, feed-forward, fusion."""
    lr_step: int = 10
    """Epochs between drops of the learning rate."""
    lr_gamma: float = 0.1
    """Factor of each drop."""
    seed: int = 0
    """Seed of initial weights, order and dropout."""
    device: Literal["cuda", "cpu", "auto"] = "cuda"
    """Where to compute; auto takes a GPU if there is one."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Matrix products: exact float32, TF32 on Ampere and later, or bfloat16 autocast."""

    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None
    """Mode of torch.compile for the training step; reduce-overhead records CUDA graphs. Null: none."""

    graph: bool = True
    """On one GPU, record the step as a CUDA graph and replay it: the same numbers, without launching each kernel."""

    def __post_init__(self) -> None:
        """Check what a field's type cannot."""
        for name in ("epochs", "batch_size", "lr", "deep_lr", "lr_step", "lr_gamma"):
            if getattr(self, name) <= 0:
                raise UserError(f"train.{name} must be more than 0, is {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"train.seed must be in [0, 2**32), is {self.seed}")


@dataclass
class Config:
    """The whole run."""

    out: str = "runs/tspm"
    """Run folder, which receives: config, metrics, checkpoints, and what test.py makes of them."""
    data: DataConfig = field(default_factory=DataConfig)
    """Annotations, prompts and features."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Optimisation and the machine."""

    def __post_init__(self) -> None:
        """Settle what one room's options say about another's."""
        self._tokens_given = self.data.tokens
        if self.data.tokens is None:
            self.data.tokens = self.model.tokens
        if self.model.tokens > self.data.tokens:
            raise UserError(
                f"model.tokens {self.model.tokens} is more than the {self.data.tokens} stored (data.tokens)"
            )
        if self.model.network == "tspm" and self.model.temporal != "all" and self.model.top_k > self.data.segments:
            raise UserError(f"model.top_k {self.model.top_k} is more than the {self.data.segments} data.segments")

    def to_dict(self) -> dict[str, Any]:
        """Every option with its value, as plain data. A null `data.tokens` stays null: it follows later overrides."""
        values = dataclasses.asdict(self)
        values["data"]["tokens"] = self._tokens_given
        return values


def add_config(parser: Parser) -> None:
    """Add `--config FILE` (may be repeated, later files win) and every option of `Config` to a command line."""
    parser.add_argument("--config", action="config", help="YAML file of options that differ from the defaults")
    parser.add_class_arguments(Config)


def parse(parser: Parser, arguments: Sequence[str]) -> tuple[Config, Any]:
    """Parse a command line with `add_config`'s options: the config and the namespace with everything else.

    Options on the command line win over files wherever they stand. Raises `UserError` or exits with status 2.
    """
    files, rest = _files_and_rest(arguments)
    return _build(parser, parser.parse_args([*files, *rest]))


def from_dict(values: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """The config of a stored run, with options such as `["--data.features", "elsewhere"]` on top."""
    parser = Parser(prog="")
    add_config(parser)
    files, rest = _files_and_rest(overrides)
    return _build(parser, parser.parse_args([*files, *rest], namespace=parser.parse_object(values)))[0]


def require_same_training(config: Config, stored: dict[str, Any], path: Path) -> None:
    """Raise `UserError` naming the first option by which `config` would train otherwise than the run at `path`."""
    ours, theirs = (_flat(dataclasses.asdict(made)) for made in (config, from_dict(stored)))  # data.tokens as a number
    for name in ours:
        if name not in MAY_CHANGE and ours[name] != theirs[name]:
            raise UserError(
                f"{path}: {name} is {theirs[name]!r} there, but {ours[name]!r} now; "
                "resume with the options of the run, or start another with --out"
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _build(parser: Parser, namespace: Any) -> tuple[Config, Any]:
    built = parser.instantiate(namespace)
    return Config(built.out, built.data, built.model, built.train), namespace


def _files_and_rest(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part `--config FILE` and `--config=FILE` from the rest, in their order. What is wrong in a file names it."""
    files, rest = [], []
    left = iter(arguments)
    for argument in left:
        if argument == "--config" or argument.startswith("--config="):
            files.append(argument if "=" in argument else f"--config={next(left, '')}")
            _check_file(files[-1])
        else:
            rest.append(argument)
    return files, rest


def _check_file(argument: str) -> None:
    parser = Parser(prog="")
    parser.source = argument
    add_config(parser)
    options = parser.parse_args([argument])
    for room in ("data", "model", "train"):
        if not isinstance(options[room], Namespace):
            parser.error(f"{room} must hold options by name, is {options[room]!r}")
