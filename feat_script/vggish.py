"""VGGish (Hershey et al., ICASSP 2017): log-mel front end and network, with the public checkpoint's keys.

N examples of 96 frames; a frame is 400 samples at 16 kHz, its hop 160; an example is 0.96 s, its hop 1.00 s by
default, so that example i is what second i would give alone.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.files import sha256

RATE = 16000  # Hz
WINDOW, HOP, FFT = 400, 160, 512  # samples
FRAMES, BANDS = 96, 64  # of one example
LOW, HIGH = 125.0, 7500.0  # Hz
URL = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"
PUBLIC = "10086976"  # the start of its SHA-256

CONV_KEYS = (0, 3, 6, 8, 11, 13)  # of the six convolutions in the public checkpoint's `features`


def mel_matrix() -> Tensor:
    """Weights (257, 64), float64, from FFT magnitudes to HTK mel bands: triangles linear in mel, not normalised."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    bins = mel(torch.linspace(0, RATE / 2, FFT // 2 + 1, dtype=torch.float64))[:, None]
    low, high = mel(torch.tensor([LOW, HIGH], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, BANDS + 2, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    return torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)


def log_mel(samples: Tensor) -> Tensor:
    """Log-mel spectrogram (frames, 64) of mono samples at 16 kHz in [-1, 1]; no padding at either end.

    Computed in float64, as the original does: in float32 the quiet bands are off in the fifth digit.
    """
    windows = samples.double().unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW, dtype=torch.float64)
    return torch.log(torch.fft.rfft(windows, FFT).abs() @ mel_matrix() + 0.01).float()


def examples(samples: Tensor, hop_seconds: float = 1.0) -> Tensor:
    """Cut mono samples at 16 kHz into log-mel examples (N, 96, 64), one each `hop_seconds`; the rest is dropped."""
    if len(samples) < WINDOW + (FRAMES - 1) * HOP:
        return torch.empty(0, FRAMES, BANDS)
    return log_mel(samples).unfold(0, FRAMES, round(hop_seconds * RATE / HOP)).transpose(1, 2).contiguous()


class VGGish(nn.Module):
    """The network: log-mel examples (N, 96, 64) -> features (N, 128), a ReLU on the last layer, no PCA.

    `conv` and `fc` are the widths of the six convolutions and the three linear layers; narrow ones make small models.
    """

    def __init__(self, conv=(64, 128, 256, 256, 512, 512), fc=(4096, 4096, 128)):
        super().__init__()
        self.features = nn.Sequential()
        channels = 1
        for layer, width in enumerate(conv):
            self.features.extend([nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()])
            if layer in (0, 1, 3, 5):
                self.features.append(nn.MaxPool2d(2))
            channels = width
        inputs = channels * (FRAMES // 16) * (BANDS // 16)
        self.embeddings = nn.Sequential()
        for width in fc:
            self.embeddings.extend([nn.Linear(inputs, width), nn.ReLU()])
            inputs = width

    def forward(self, x: Tensor) -> Tensor:
        """(N, 96, 64) -> (N, 128)."""
        x = self.features(x[:, None])  # (N, 512, 6, 4)
        return self.embeddings(x.permute(0, 2, 3, 1).flatten(1))  # channels last, as the original TensorFlow model


def bare_state(state: Any) -> dict[str, Tensor]:
    """A checkpoint's weights without what trainers put around them: {"state_dict": ...}, "module." before each key."""
    state = state.get("state_dict", state)
    return {key.removeprefix("module."): value for key, value in state.items()}


def load_vggish(weights: str | Path | None = None) -> tuple[VGGish, str]:
    """Build VGGish from a checkpoint and return it, in evaluation mode, with the checkpoint's SHA-256.

    `weights` is a state_dict file, wrapped or not, from whose shapes the widths are read; None is the public one, which
    scripts.download leaves in torch.hub's cache. Raises `UserError` for a file that is missing, unreadable, changed or
    of another network.
    """
    path = Path(weights) if weights else public_weights()
    try:
        state = bare_state(torch.load(path, map_location="cpu", weights_only=True))
        conv = [state[f"features.{key}.weight"].shape[0] for key in CONV_KEYS]
        fc = [state[f"embeddings.{key}.weight"].shape[0] for key in (0, 2, 4)]
        network = VGGish(conv, fc)
        network.load_state_dict(state)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; give --weights a VGGish checkpoint, or fetch the public one with: "
            "python -m scripts.download vggish"
        ) from None
    except Exception as error:  # torch.load raises whatever its reader trips over
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            f"{path}: not a VGGish checkpoint with the keys features.* and embeddings.* ({reason})"
        ) from error
    digest = sha256(path)
    if not weights and not digest.startswith(PUBLIC):
        raise UserError(f"{path}: its SHA-256 is {digest}, not {PUBLIC}...; delete it, and download it again")
    return network.eval(), digest


def public_weights() -> Path:
    """Where the public checkpoint lies."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(URL).name
