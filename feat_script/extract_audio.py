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

from feat_script.media import read_audio
from feat_script.pipeline import common_options, extract, find_videos
from feat_script.vggish import VGGish, examples, load_vggish
from utils.errors import command
from utils.manifest import make_manifest
from utils.runtime import set_threads, start

FOLDER = "vggish"


def read_examples(path: Path, segments: int, hop: float, start: float = 0.0) -> tuple[np.ndarray, dict[str, Any]]:
    """A video's log-mel examples (segments, 96, 64) from `start` on, the last one of its own repeated; its status."""
    audio = read_audio(path, math.ceil((segments - 1) * hop + 0.975), start)  # an example is 15,600 samples
    batch = examples(torch.from_numpy(audio.samples), hop)[:segments].numpy()
    own = min(segments, max(1, math.ceil(audio.seconds / hop - 0.5)))  # those whose middle lies in the video
    batch[own:] = batch[own - 1]
    return batch, {"padded_segments": segments - own, "audio": audio.state, "problem": audio.problem}


@torch.inference_mode()
def encode_sound(network: VGGish, batch: np.ndarray) -> dict[str, np.ndarray]:
    """The array of one video's examples, by folder."""
    device = network.embeddings[-2].weight.device
    return {FOLDER: network(torch.from_numpy(batch).to(device)).cpu().numpy()}


@command
def main(args: list[str] | None = None) -> int:
    """Extract and return the exit status."""
    parser = common_options(__doc__.split("\n")[0])
    parser.add_argument("--weights", help="VGGish checkpoint (default: that of scripts.download)")
    parser.add_argument(
        "--hop", type=float, choices=[1.0, 0.96], default=1.0, help="seconds between examples of 0.96 s"
    )
    options = parser.parse_args(args)
    videos = find_videos(options.videos)
    read = partial(read_examples, segments=options.segments, hop=options.hop)
    with start(options.device, "fp32", "device") as runtime:
        network, digest = load_vggish(options.weights)
        set_threads(network.to(runtime.device), options.segments)
        shape = (options.segments, network.embeddings[-2].out_features)
        manifest = make_manifest("audio", "vggish", digest, shape, "float32", hop_seconds=options.hop)
        encode = partial(encode_sound, network)
        return int(extract(runtime, videos, options.out, {FOLDER: manifest}, read, encode, options.workers) > 0)


if __name__ == "__main__":
    sys.exit(main())
