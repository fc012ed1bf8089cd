"""A narrow VGGish that learns who sounds in a second, how loud and how fast, and whether somebody speaks.

N seconds of sound.
"""

import multiprocessing

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.bandstand import lessons as taught
from dataset.bandstand.benchmark import ENCODERS
from dataset.bandstand.scene import INSTRUMENTS, LOUDNESS_DB, NOTES_PER_SECOND, make_scene
from feat_script.vggish import VGGish, examples
from scripts.bandstand.teaching import SECONDS, rms, training
from utils.scoring.grounding import selection_scores

OWN = 5  # features that an instrument has for itself, read the same way for all: easily learnt from, and compared
REST = 128 - OWN * len(INSTRUMENTS)
WEIGHTS = {"sounding": 5.0, "voice": 0.5, "loudness": 0.5, "rate": 0.5}  # of the losses


class Listener(nn.Module):
    """A narrow VGGish and the heads that only training needs."""

    def __init__(self):
        super().__init__()
        self.network = VGGish((16, 32, 48, 48, 64, 64), (256, 256, 128)).to(memory_format=torch.channels_last)
        for layer in self.network.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        self.instrument = nn.Linear(OWN, 1 + len(LOUDNESS_DB) + len(NOTES_PER_SECOND))
        self.voice = nn.Linear(REST, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Log-mel examples (N, 96, 64) -> logits by question: sounding (N, 22), voice (N), and (N, 22, 3) each."""
        own, rest = self.network(x).split([len(INSTRUMENTS) * OWN, REST], dim=1)
        known = self.instrument(own.unflatten(1, (-1, OWN)))  # (N, 22, 1 + 3 + 3)
        sounding, loudness, rate = known.split([1, len(LOUDNESS_DB), len(NOTES_PER_SECOND)], dim=2)
        return {"sounding": sounding[..., 0], "voice": self.voice(rest)[:, 0], "loudness": loudness, "rate": rate}


def hear(job: tuple[int, int]) -> dict[str, np.ndarray]:
    """Log-mel examples of a scene (seed, number) and what sounds in them; loudness and rate as class numbers."""
    torch.set_num_threads(1)
    heard = taught.sounds(make_scene(job[0], ENCODERS, job[1], SECONDS))
    return {
        "x": examples(torch.from_numpy(heard.samples.ravel())).numpy().astype(np.float16),
        "sounding": heard.sounding,
        "voice": heard.voice,
        "loudness": np.searchsorted(sorted(LOUDNESS_DB), heard.loudness),
        "rate": np.searchsorted(NOTES_PER_SECOND, heard.rate),
    }


def hear_all(seed: int, numbers: range) -> dict[str, Tensor]:
    """`hear` of many scenes, by as many processes as there are threads, joined."""
    with multiprocessing.get_context("spawn").Pool(torch.get_num_threads()) as pool:
        heard = pool.map(hear, [(seed, number) for number in numbers], chunksize=8)
    return {key: torch.from_numpy(np.concatenate([one[key] for one in heard])) for key in heard[0]}


def train_vggish(seed: int, steps: int, scenes: int) -> Listener:
    """Train a narrow VGGish."""
    data = hear_all(seed, range(scenes))
    listener = Listener()
    for update in training(listener, 1e-3, steps, "vggish", WEIGHTS):
        rows = torch.randint(len(data["x"]), (128,))
        out, sounding = listener(data["x"][rows].float()), data["sounding"][rows]
        losses = {
            name: F.binary_cross_entropy_with_logits(out[name], data[name][rows].float())
            for name in ("sounding", "voice")
        }
        losses |= {
            name: F.cross_entropy(out[name][sounding], data[name][rows][sounding]) for name in ("loudness", "rate")
        }
        update(losses)
    return listener.eval()


@torch.no_grad()
def scale_features(network: VGGish, data: dict[str, Tensor]) -> None:
    """Divide the features by their root mean square; their last step is a ReLU, so the layer before it does it."""
    last, size = network.embeddings[-2], rms(network(data["x"].float()))
    last.weight /= size
    last.bias /= size


@torch.inference_mode()
def measure_vggish(listener: Listener, data: dict[str, Tensor]) -> None:
    """Print what one second of sound tells."""
    out = {name: logits.numpy() for name, logits in listener(data["x"].float()).items()}
    truth = {name: values.numpy() for name, values in data.items()}
    sounding = truth["sounding"]
    mean = selection_scores(sounding.T, {"vggish": out["sounding"].T}, {})["AP vggish"].mean()  # over instruments
    alone = sounding.sum(axis=1) == 1
    right = out["sounding"][alone].argmax(axis=1) == sounding[alone].argmax(axis=1)
    print(f"vggish: instruments of a second, mean average precision {mean:.3f} (chance {sounding.mean():.3f})")
    print(f"vggish: the instrument of a second with one {right.mean():.3f} (chance {1 / len(INSTRUMENTS):.3f})")
    for name in ("loudness", "rate"):
        right = out[name][sounding].argmax(axis=-1) == truth[name][sounding]
        print(f"vggish: {name} of a sounding instrument {right.mean():.3f} (chance {1 / out[name].shape[-1]:.3f})")
    right = (out["voice"] > 0) == truth["voice"]
    print(f"vggish: whether somebody speaks {right.mean():.3f} (always no: {1 - truth['voice'].mean():.3f})")
