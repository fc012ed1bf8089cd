"""VGGish features of the videos in a folder: `vggish/<video_id>.npy`, (segments, 128) float32.

    python -m feat_script.extract_audio --videos data/videos --out data/features
    torchrun --nproc_per_node 4 -m feat_script.extract_audio --videos data/videos --out data/features

Run again, it goes on where it stopped. Exit status: 0 all done, 1 some videos failed (listed), 2 a wrong option.
"""

import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feat_script.media import read_audio
from feat_script.pipeline import extract, find_videos
from feat_script.vggish import examples, load_vggish
from utils.cli import Parser
from utils.errors import UserError, command
from utils.machine import own_cores
from utils.runtime import set_threads, start

FOLDER = "vggish"


def parse(args: list[str] | None = None):
    """Read the options."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", required=True, help="folder of videos; what lies below it counts too")
    parser.add_argument("--out", default="data/features", help="folder of features")
    parser.add_argument("--weights", help="VGGish checkpoint (default: that of scripts.download)")
    parser.add_argument("--hop", type=float, default=1.0, help="seconds between examples of 0.96 s: 1.0 or 0.96")
    parser.add_argument("--segments", type=int, default=60, help="examples of a video: 60 for MUSIC-AVQA, 10 for AVQA")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where VGGish runs")
    parser.add_argument("--workers", type=int, default=own_cores(), help="processes that decode")
    return parser.parse_args(args)


def read_examples(path: Path, segments: int, hop: float, start: float = 0.0) -> tuple[Tensor, dict[str, Any]]:
    """A video's log-mel examples (segments, 96, 64) from `start` on, the last one of its own repeated; its status."""
    audio = read_audio(path, math.ceil((segments - 1) * hop + 0.975), start)  # an example is 15,600 samples
    batch = examples(torch.from_numpy(audio.samples), hop)[:segments]
    own = min(segments, max(1, math.ceil(audio.seconds / hop - 0.5)))  # those whose middle lies in the video
    batch[own:] = batch[own - 1].clone()
    return batch, {"padded_segments": segments - own, "audio": audio.state, "problem": audio.problem}


@command
def main(args: list[str] | None = None) -> int:
    """Extract and return the exit status."""
    options = parse(args)
    if options.segments < 1:
        raise UserError(f"--segments {options.segments}: must be positive")
    if options.hop > 1:
        raise UserError(f"--hop {options.hop}: must be at most 1 s, a segment")
    examples(torch.zeros(0), options.hop)  # complains about an impossible hop
    videos = find_videos(options.videos)
    read = partial(read_examples, segments=options.segments, hop=options.hop)
    with start(options.device, "fp32", "device") as runtime:
        network, digest = load_vggish(options.weights)
        set_threads(network.to(runtime.device), options.segments)
        manifest = {
            "version": 1,
            "kind": "audio",
            "encoder": "vggish",
            "weights_sha256": digest,
            "shape": [options.segments, network.embeddings[-2].out_features],
            "dtype": "float32",
            "hop_seconds": options.hop,
        }

        @torch.inference_mode()
        def encode(batch: Tensor) -> dict[str, np.ndarray]:
            return {FOLDER: network(batch.to(runtime.device)).cpu().numpy()}

        return int(extract(runtime, videos, options.out, {FOLDER: manifest}, read, encode, options.workers) > 0)


if __name__ == "__main__":
    sys.exit(main())
