"""CLIP features of the videos in a folder: frames, and tokens merged to the counts wanted, from one decode.

    python -m feat_script.extract_visual --videos data/videos --out data/features --clip ViT-L/14@336px --tokens 8 14 27
    torchrun --nproc_per_node 4 -m feat_script.extract_visual --videos data/videos --out data/features

Writes `clip_frame/`, `clip_token_<S>/` and `clip_token_<S>_source/`, a file per video in each. Run again, it goes on
where it stopped. Exit status: 0 all done, 1 some videos failed (listed), 2 a wrong option.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feat_script.clip_vision import encode_frames, fit_image, load_clip, schedules
from feat_script.media import read_frames
from feat_script.pipeline import common_options, extract, find_videos
from utils.errors import command
from utils.manifest import make_manifest
from utils.runtime import set_threads, start


def read_squares(path: Path, segments: int, size: int, fit: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Read a video's frames, square (segments, size, size, 3) uint8, and its status."""
    frames = read_frames(path, segments, partial(fit_image, size=size, fit=fit))
    status = {"padded_segments": segments - frames.own, "problem": frames.problem}
    return np.stack(frames.images), status


def kinds(
    model, name: str, digest: str, merging: dict[int, tuple[int, ...]], segments: int, fit: str
) -> dict[str, Any]:
    """The manifest of each folder that a run with these settings writes."""
    visual = model.visual
    m, width = visual.positional_embedding.shape
    seen = {"image_size": visual.input_resolution, "fit": fit}
    found = {"clip_frame": make_manifest("frame", name, digest, (segments, visual.output_dim), "float16", **seen)}
    for s, schedule in merging.items():
        merged = seen | {"merge_schedule": list(schedule)}
        found[f"clip_token_{s}"] = make_manifest("token", name, digest, (segments, s, width), "float16", **merged)
        if any(schedule):
            source = make_manifest("token_source", name, digest, (segments, m), "uint8", **merged)
            found[f"clip_token_{s}_source"] = source
    return found


def encode_video(model, images: np.ndarray, merging: dict[int, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The arrays of one video's frames, by folder."""
    features = encode_frames(model, torch.from_numpy(images), merging)
    arrays = {"clip_frame": features.frame.half()}
    arrays |= {f"clip_token_{s}": tokens.half() for s, tokens in features.tokens.items()}
    arrays |= {f"clip_token_{s}_source": source.byte() for s, source in features.source.items()}
    return {folder: array.cpu().numpy() for folder, array in arrays.items()}


@command
def main(args: list[str] | None = None) -> int:
    """Extract and return the exit status."""
    parser = common_options(__doc__.split("\n")[0])
    parser.add_argument(
        "--clip", default="ViT-L/14@336px", help="name of a public CLIP with a ViT, or a checkpoint file"
    )
    parser.add_argument(
        "--tokens", type=int, nargs="*", default=[14], help="merged tokens of a frame; several are possible, or none"
    )
    parser.add_argument(
        "--fit",
        choices=["crop", "squash"],
        default="crop",
        help="crop: CLIP's own centre square, which cuts 7/16 off a 16:9 frame; squash: the whole frame, out of shape",
    )
    options = parser.parse_args(args)
    videos = find_videos(options.videos)
    with start(options.device, "fp32", "device") as runtime:
        with runtime.main_first():  # one process downloads
            model, name, digest = load_clip(options.clip, runtime.device)
        set_threads(model, options.segments * len(model.visual.positional_embedding))
        merging = schedules(model.visual, options.tokens)
        manifests = kinds(model, name, digest, merging, options.segments, options.fit)
        read = partial(read_squares, segments=options.segments, size=model.visual.input_resolution, fit=options.fit)
        encode = partial(encode_video, model, merging=merging)
        return int(extract(runtime, videos, options.out, manifests, read, encode, options.workers) > 0)


if __name__ == "__main__":
    sys.exit(main())
