"""A released model: a folder that holds all that asking a trained model needs, and the digest of each of its files.

model.safetensors   weights; matrices may be float16, which are opened as float32
config.yaml         the run's options
answers.json        the answers that are its classes, in their order
prompts.json        its question templates with their prompts, and the words that their slots took in training
run.json            sizes and manifests of its features, which name the encoders; digests of what it learned from
metrics.json        what test.py measured, with intervals
README.md           the model card
SHA256SUMS          the digests of these, as `sha256sum` writes them
"""

from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load, save

from utils.checkpoint import VERSION
from utils.errors import UserError
from utils.files import json_bytes, read_json, sha256, write_bytes

WEIGHTS, SUMS = "model.safetensors", "SHA256SUMS"
FILES = (WEIGHTS, "config.yaml", "answers.json", "prompts.json", "run.json", "metrics.json", "README.md")
RUN = ("version", "sizes", "manifests", "contents", "questions")  # what run.json holds of a checkpoint


def write_release(folder: Path, stored: dict[str, Any], metrics: bytes, card: str, half: bool) -> None:
    """Write the files of a checkpoint's contents (`utils.checkpoint.load_run`), its measures and its card.

    `half` rounds matrices to float16. Raises `UserError` where the disk refuses.
    """
    weights = {
        name: x.half() if half and x.dim() > 1 and x.is_floating_point() else x for name, x in stored["model"].items()
    }
    contents = {
        WEIGHTS: save({name: x.contiguous() for name, x in weights.items()}, {"format": "pt"}),
        "config.yaml": yaml.safe_dump(stored["config"], sort_keys=False).encode(),
        "answers.json": json_bytes(stored["answers"]),
        "prompts.json": json_bytes({"prompts": stored["prompts"], "slots": stored["slots"]}),
        "run.json": json_bytes({name: stored[name] for name in RUN}),
        "metrics.json": metrics,
        "README.md": card.encode(),
    }
    for name in FILES:
        write_bytes(folder / name, contents[name])
    write_bytes(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in FILES).encode())


def read_release(folder: Path) -> dict[str, Any]:
    """What `utils.checkpoint.load_run` gives, from a released folder. Raises `UserError` naming a file that changed."""
    sums = folder / SUMS
    try:
        lines = sums.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{sums}: cannot be read ({error}); fetch the released model anew") from error
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in FILES:
        if sha256(folder / name) != listed.get(name):
            raise UserError(f"{folder / name}: is not as {SUMS} lists it; fetch the released model anew")
    prompts, run = read_json(folder / "prompts.json"), read_json(folder / "run.json")
    if run["version"] != VERSION:
        raise UserError(f"{folder}: was released by version {run['version']}, this one reads {VERSION}; fetch it anew")
    weights = load((folder / WEIGHTS).read_bytes())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    model = {name: x.float() if x.dtype == torch.float16 else x for name, x in weights.items()}
    run["sizes"]["shapes"] = {kind: tuple(shape) for kind, shape in run["sizes"]["shapes"].items()}
    return run | prompts | {"config": config, "answers": read_json(folder / "answers.json"), "model": model}
