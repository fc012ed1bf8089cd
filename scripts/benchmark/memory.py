"""The most memory that training holds, by where its features stay.

A process of its own for each, as memory that one has held would count for the next: it reads what to measure, pickled,
from its input and prints its peaks. It imports no more than training does.
"""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from dataset.loader import Loader, epoch_order
from scripts.benchmark.data import Features, Shapes, make_features, open_data, video_bytes
from scripts.benchmark.reading import PLACES
from scripts.benchmark.train import Step, our_model
from utils.errors import UserError, command
from utils.runtime import PeakMemory, start

VIDEOS = 256  # 0.5 GB at the full shapes: more than what differs between two processes, and soon loaded
STEPS = 6  # a recorded step is recorded at the fourth


def peak_memories(work: Path, device: torch.device, workers: int, shapes: Shapes) -> dict[str, Any]:
    """The bytes of the features, and the peaks in GB of the host and the GPU while training with them in each place."""
    features = make_features(work, VIDEOS, True, shapes.features)  # holes: what they hold in memory is as large
    peaks = {}
    for place in PLACES[device.type]:
        given = pickle.dumps((features, device.type, place, workers, shapes))
        done = subprocess.run([sys.executable, "-m", __name__], input=given, capture_output=True, check=False)
        if done.returncode:
            raise UserError(f"training from {place} to measure its memory failed\n{done.stderr.decode().strip()}")
        peaks[place] = json.loads(done.stdout)
    return {"videos": VIDEOS, "feature_bytes": VIDEOS * video_bytes(shapes.features), "peak_gb": peaks}


def peak_of(features: Features, device: str, place: str, workers: int, shapes: Shapes) -> dict[str, float]:
    """This process's peaks after a few steps of training."""
    with start(device, "fp32", "device") as runtime:
        loader = Loader(open_data(features, "packed"), runtime, place, workers)
        split, memory = loader.data.splits["train"], PeakMemory(runtime.device)
        batches = epoch_order(features.video, shapes.batch, 0, 0, loader.window)[: 1 + STEPS]
        given = next(loader.batches(split, batches[:1])).inputs
        step = Step(our_model(shapes), given, runtime.device, record=runtime.device.type == "cuda")
        del given  # a batch that training would not hold
        for batch in loader.batches(split, batches[1:]):
            step.inputs, step.answer = batch.inputs, batch.answer
            step(lambda part: memory.look())  # after each part: between forward and backward it holds most
            memory.look()  # a recorded step has no parts
        return memory.gb


@command
def main() -> None:
    """Train, and print the peaks."""
    print(json.dumps(peak_of(*pickle.load(sys.stdin.buffer))))


if __name__ == "__main__":
    main()
