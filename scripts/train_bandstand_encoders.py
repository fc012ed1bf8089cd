"""Train Bandstand's small encoders, CLIP and VGGish in their checkpoint formats, on scenes outside the benchmark.

    python -m scripts.train_bandstand_encoders --out assets/bandstand

Writes two CLIPs of different patch size, one that was taught no prompts, and a VGGish (float16 state_dicts). Feature
extraction reads them as it reads the public weights. Prints what they know of scenes that they never saw.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import nn

from dataset.bandstand.lessons import lessons
from dataset.text_prompt import PromptTable
from scripts.bandstand.clip import WORDS, measure_clip, train_clip
from scripts.bandstand.teaching import HELD_OUT, SECONDS
from scripts.bandstand.vggish import hear_all, measure_vggish, scale_features, train_vggish
from utils.cli import Parser
from utils.errors import command
from utils.files import atomic_path


def save(network: nn.Module, path: Path) -> None:
    """Write a float16 state_dict, atomically."""
    state = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def make_clip(file: str, args: Namespace, patch: int, taught_prompts: bool = True) -> None:
    """Train a CLIP of this patch size, measure it, save it."""
    prompts = PromptTable.read("dataset/TextPrompt.xlsx", "MUSIC-AVQA")
    teacher, seen = train_clip(args.seed, patch, args.clip_steps, args.scenes, prompts, taught_prompts)
    unseen = torch.tensor(sorted(set(range(WORDS)) - seen))
    teacher.clip.token_embedding.weight.data[unseen] = 0  # words that nobody taught say nothing, and compress well
    held_out = lessons(args.seed, HELD_OUT, SECONDS, prompts)
    measure_clip(teacher, held_out, np.random.default_rng((args.seed, 2)))
    save(teacher.clip, args.out / file)


def make_vggish(file: str, args: Namespace) -> None:
    """Train a VGGish, measure it, save it."""
    listener = train_vggish(args.seed, args.vggish_steps, args.scenes)
    held_out = hear_all(args.seed, HELD_OUT)
    measure_vggish(listener, held_out)
    scale_features(listener.network, held_out)
    save(listener.network, args.out / file)


ENCODERS: dict[str, Callable[[str, Namespace], None]] = {
    "clip.pt": partial(make_clip, patch=16),
    "clip_second.pt": partial(make_clip, patch=28),  # Table 5 compares two
    "clip_captions.pt": partial(make_clip, patch=16, taught_prompts=False),  # what a CLIP finds by itself
    "vggish.pth": make_vggish,
}


@command
def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, train, measure, save."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, default="assets/bandstand", help="folder of the files")
    parser.add_argument("--only", nargs="+", choices=list(ENCODERS), default=list(ENCODERS), help="which to train")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="of scenes, weights and order")
    parser.add_argument("--clip_steps", type=PositiveInt, default=2500, help="of training")
    parser.add_argument("--vggish_steps", type=PositiveInt, default=1500, help="of training")
    parser.add_argument("--scenes", type=PositiveInt, default=2000, help="of either, of 20 seconds each")
    args = parser.parse_args(arguments)

    for file in args.only:
        start = time.perf_counter()
        torch.manual_seed(args.seed)
        ENCODERS[file](file, args)
        print(f"{file}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
