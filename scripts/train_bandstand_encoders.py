"""Train Bandstand's small encoders, CLIP and VGGish in their checkpoint formats, on scenes outside the benchmark.

    python scripts/train_bandstand_encoders.py --out assets/bandstand

Writes clip.pt and vggish.pth (float16 state_dicts), which feature extraction reads as it reads the public weights, and
prints what they know of scenes that they never saw.
"""

import time
from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import nn

from dataset.bandstand.lessons import lessons
from dataset.text_prompt import PromptTable
from scripts.bandstand_clip import WORDS, measure_clip, train_clip
from scripts.bandstand_teaching import HELD_OUT, SECONDS
from scripts.bandstand_vggish import hear_all, measure_vggish, train_vggish
from utils.cli import Parser
from utils.errors import command
from utils.files import atomic_path


def save(network: nn.Module, path: Path) -> None:
    """Write a float16 state_dict, atomically."""
    state = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@command
def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, train, measure, save."""
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, default="assets/bandstand", help="folder of clip.pt and vggish.pth")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="of scenes, weights and order")
    parser.add_argument("--clip_steps", type=NonNegativeInt, default=2500, help="of training; 0 leaves CLIP as it is")
    parser.add_argument(
        "--vggish_steps", type=NonNegativeInt, default=800, help="of training; 0 leaves VGGish as it is"
    )
    parser.add_argument("--scenes", type=PositiveInt, default=2000, help="of either, of 20 seconds each")
    parser.add_argument("--prompts", default="dataset/TextPrompt.xlsx", help="the workbook")
    args = parser.parse_args(arguments)

    prompts = PromptTable.read(args.prompts, "MUSIC-AVQA")
    start = time.perf_counter()
    if args.clip_steps:
        torch.manual_seed(args.seed)
        teacher, seen = train_clip(args.seed, args.clip_steps, args.scenes, prompts)
        unseen = torch.tensor(sorted(set(range(WORDS)) - seen))
        teacher.clip.token_embedding.weight.data[unseen] = 0  # words that nobody taught say nothing, and compress well
        held_out = lessons(args.seed, HELD_OUT, SECONDS, prompts)
        measure_clip(teacher, held_out, np.random.default_rng((args.seed, 2)))
        save(teacher.clip, args.out / "clip.pt")
    if args.vggish_steps:
        torch.manual_seed(args.seed)
        listener = train_vggish(args.seed, args.vggish_steps, args.scenes)
        measure_vggish(listener, hear_all(args.seed, HELD_OUT))
        save(listener.network, args.out / "vggish.pth")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
