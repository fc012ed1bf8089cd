"""Every option of training and testing in one place: the rooms' dataclasses, composed."""

import argparse
import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import get_loader

from dataset import DATASETS
from dataset.config import DataConfig
from nets import NETWORKS
from nets.options import ModelOptions
from nets.tspm.options import TSPMOptions
from utils.cli import Parser
from utils.errors import UserError

MAY_CHANGE = {
    *("out", "data.features", "data.layout", "data.residency", "data.workers", "data.test", "data.truth"),
    *("train.device", "train.epochs", "train.graph"),
}
"""Options that a resumed run may change: where things are, and how long to go on."""
SAME_CONTENT = ("data.train", "data.val", "data.prompts")
"""Files of which a resumed run wants the same contents, wherever they are."""
ROOMS = ("data", "model", "train")
OUT_HELP = "Run folder, which receives: config, metrics, checkpoints, and what test.py makes of them."


@dataclass
class TrainConfig:
    """Optimisation (Section 4.2 of the paper) and the machine."""

    epochs: int = 30
    """Epochs; the best by validation accuracy is kept."""
    batch_size: int = 64
    """Questions per step, over all processes together."""
    questions_per_video: int = 1
    """Questions about one video that stay together in a batch and share what depends on it alone; the paper's is 1."""
    lr: float = 1e-4
    """Learning rate of Adam."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Decay rates of Adam's two means."""
    rates: dict[str, float] = field(default_factory=dict)
    """Factors of the learning rate by the network's own parameter groups, such as {deep: 0.03} of TSPM's."""
    lr_step: int = 10
    """Epochs between drops of the learning rate."""
    lr_gamma: float = 0.1
    """Factor of each drop."""
    seed: int = 0
    """Seed of initial weights, order and dropout."""
    device: Literal["cuda", "cpu", "auto"] = "cuda"
    """Where to compute; auto takes a GPU if there is one."""
    threads: int | None = None
    """Threads of the CPU that share an operator; they decide the last bits, so a resumed run keeps its number. Null:
    one where a step is small, else all cores. OMP_NUM_THREADS in the environment wins over this."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Matrix products: exact float32, TF32 on Ampere and later, or bfloat16 autocast."""
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None
    """Mode of torch.compile for the training step; reduce-overhead records CUDA graphs. Null: none."""
    graph: bool = True
    """On one GPU, record the step as a CUDA graph and replay it: the same numbers, without launching each kernel."""

    def __post_init__(self) -> None:
        """Check what a field's type cannot."""
        names = ("epochs", "batch_size", "questions_per_video", "lr", "lr_step", "lr_gamma", "threads")
        positive = {name: getattr(self, name) for name in names}
        positive |= {f"rates.{group}": factor for group, factor in self.rates.items()}
        for name, value in positive.items():
            if value is not None and value <= 0:
                raise UserError(f"train.{name} must be more than 0, is {value}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"train.betas must be two numbers in [0, 1), is {self.betas}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"train.seed must be in [0, 2**32), is {self.seed}")


@dataclass
class Config:
    """The whole run."""

    out: str = "runs/tspm"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelOptions = field(default_factory=TSPMOptions)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        """Settle what one room's options say about another's."""
        self.notes: list[str] = []  # what was left out of the files
        self._tokens_given = self.data.tokens
        if self.data.tokens is None:
            self.data.tokens = self.model.stored_tokens()
        self.model.check(self.data.segments, self.data.tokens)
        if self.data.window and self.train.questions_per_video > 1:
            raise UserError("data.window orders single questions: take it with train.questions_per_video 1")

    def to_dict(self) -> dict[str, Any]:
        """Every option with its value, as plain data. A null `data.tokens` stays null: it follows later overrides."""
        values = dataclasses.asdict(self)
        values["data"]["tokens"] = self._tokens_given
        return values


def parse(parser: Parser, arguments: Sequence[str], stored: dict[str, Any] | None = None) -> tuple[Config, Any]:
    """Parse a command line: the config, and the namespace with what else `parser` defines.

    `--config FILE` may be repeated; later files win, options on the command line win over files wherever they stand,
    and all win over the `stored` config. `--help` shows the options of the network that is chosen. Raises `UserError`
    or exits with status 2.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # what decides which options there are
    first.add_argument("--config", nargs="?", const="", action="append", default=[])
    first.add_argument("--model.network", nargs="?", const="", dest="network")
    chosen, rest = first.parse_known_args(arguments)
    layers = [("", stored or {}), *(layer for path in chosen.config for layer in _read(path, parser))]
    named = [layer["model"]["network"] for _, layer in layers if "network" in layer.get("model", {})]
    network = [TSPMOptions.network, *named][-1] if chosen.network is None else chosen.network
    NETWORKS.require(network)
    _add_options(parser, network)
    of_files = Parser(prog="")  # which hold none of the command's own options
    _add_options(of_files, network)
    notes: list[str] = []
    merged: dict[str, Any] = {}
    for source, layer in layers:
        if source:
            of_files.source = source
            notes += _drop_options_of_others(source, layer, network)
            for name in _flat(layer):
                _require_known(of_files, name, network)
            of_files.parse_object(layer)  # its types
        for name, value in layer.items():
            merged[name] = merged.get(name, {}) | value if name in ROOMS else value
    merged["model"] = merged.get("model", {}) | {"network": network}
    for word in rest:
        if word.startswith("--"):
            _require_known(parser, word.partition("=")[0].removeprefix("--"), network)
    held = parser.parse_object(merged, _skip_required=True)  # what is required may stand in the command line
    namespace = parser.parse_args(rest, namespace=held)
    built = parser.instantiate(namespace)
    config = Config(built.out, built.data, built.model, built.train)
    config.notes = notes
    if config.data.val == config.data.test:
        config.notes.append("data.val is data.test: the best epoch is chosen on the questions that are reported")
    return config, namespace


def from_dict(values: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """The config of a stored run, with options such as `["--data.features", "elsewhere"]` on top."""
    return parse(Parser(prog=""), overrides, values)[0]


def require_same_training(config: Config, stored: dict[str, Any], path: Path) -> None:
    """Raise `UserError` naming the first option by which `config` would train otherwise than the run at `path`."""
    ours, theirs = (_flat(dataclasses.asdict(made)) for made in (config, from_dict(stored)))  # data.tokens as a number
    for name in [*ours, *(theirs.keys() - ours.keys())]:
        if name not in (*MAY_CHANGE, *SAME_CONTENT) and ours.get(name) != theirs.get(name):
            raise UserError(
                f"{path}: {name} is {theirs.get(name)!r} there, but {ours.get(name)!r} now; "
                "resume with the options of the run, or start another with --out"
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _add_options(parser: Parser, network: str) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML file of options that differ; may be repeated")
    parser.add_argument("--out", type=str, default=Config.out, help=OUT_HELP)
    for room, options in (("data", DataConfig), ("model", NETWORKS[network]), ("train", TrainConfig)):
        parser.add_class_arguments(options, room)
    for option, register in (("--data.dataset", DATASETS), ("--model.network", NETWORKS)):
        action = parser._option_string_actions[option]
        action.help = f"{action.help} [{', '.join(register)}]"


def _read(path: str, parser: Parser) -> list[tuple[str, dict[str, Any]]]:
    """The options of a YAML file, after those of the files that it includes, each with its source."""
    source = f"--config={path}"
    try:
        held = get_loader("yaml")(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        parser.error(f"{source}: cannot be read ({error})")
    if not isinstance(held, dict):
        parser.error(f"{source}: must hold options by name, is {held!r}")
    for room in ROOMS:
        if not isinstance(held.get(room, {}), dict):
            parser.error(f"{source}: {room} must hold options by name, is {held[room]!r}")
    included = held.pop("include", [])
    if not isinstance(included, list) or not all(isinstance(name, str) for name in included):
        parser.error(f"{source}: include must be a list of files, from this one's folder on, is {included!r}")
    return [*(layer for name in included for layer in _read(str(Path(path).parent / name), parser)), (source, held)]


def _fields(network: str) -> set[str]:
    return {each.name for each in dataclasses.fields(NETWORKS[network])}


def _drop_options_of_others(source: str, layer: dict[str, Any], network: str) -> list[str]:
    """Drop from a file what is another network's option, and say so; what is nobody's stays, to be refused."""
    held = layer.get("model", {})
    strange = {name: owner for name in held.keys() - _fields(network) if (owner := _owner(name))}
    layer["model"] = {name: value for name, value in held.items() if name not in strange}
    return [
        f"{source}: model.{name} is an option of the network {owner}, not of {network}: left out"
        for name, owner in sorted(strange.items())
    ]


def _owner(option: str) -> str | None:
    """A registered network that has this option."""
    return next((network for network in NETWORKS if option in _fields(network)), None)


def _require_known(parser: Parser, name: str, network: str) -> None:
    """Exit with a line that names an option that there is not, and what may have been meant."""
    known = [option.removeprefix("--") for option in parser._option_string_actions if option[2:] not in ROOMS]
    if any(name == option or name.startswith(f"{option}.") for option in known):  # an entry of a dict, or an option
        return
    hint = ""
    if owner := _owner(name.removeprefix("model.")):
        hint = f"; it is one of the network {owner}, and the network is {network}"
    elif near := difflib.get_close_matches(name, known, n=1):
        hint = f"; did you mean {near[0]}?"
    parser.error(f"no option {name}{hint}")
