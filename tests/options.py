"""Options as a command line gives them."""

from configs import schema
from configs.schema import Config
from tests.small_run import ROOT
from utils.cli import Parser

MUSIC = ROOT / "configs/music_avqa.yaml"


def parse(*arguments) -> Config:
    return schema.parse(Parser(), [str(argument) for argument in arguments])[0]


def flat(values: dict, prefix: str = "") -> dict:
    """Nested options by their dotted names."""
    options = {}
    for name, value in values.items():
        options |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return options
