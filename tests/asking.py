"""A run that was trained on features of small clips, with small encoders of random weights, to be asked."""

from pathlib import Path

import numpy as np

from feat_script import extract_audio, extract_text, extract_visual
from tests.clips import sine, write_clip
from tests.small_encoders import save_narrow_vggish, save_small_clip
from tests.small_run import make_data, trained

T = 4  # segments


def make_asked_run(home: Path) -> Path:
    """A run folder; beside it `videos`, `encoders`, `features` and the annotations of train, val and test."""
    options = make_data(home, segments=T)
    for number in range(10):
        (home / "videos").mkdir(exist_ok=True)
        times = np.arange(T * 5) / 5 + 0.001 * number
        sound = sine(T, 220 * (1 + number)) * np.linspace(0, 1, T * 16000, dtype=np.float32)
        write_clip(home / f"videos/{number:08d}.mp4", times, sound, size=(96, 64))
    extract_features(home, home / "features_of_videos")
    return trained("--config", options, "--data.features", home / "features_of_videos", "--model.tokens", 14,
                   "--train.epochs", 1, "--out", home / "run")  # fmt: skip


def extract_features(home: Path, out: Path) -> None:
    (home / "encoders").mkdir(exist_ok=True)
    clip = str(save_small_clip(home / "encoders/clip.pt"))
    vggish = str(save_narrow_vggish(home / "encoders/vggish.pth"))
    common = ["--out", str(out), "--device", "cpu"]
    videos = ["--videos", str(home / "videos"), "--segments", str(T), "--workers", "1"]
    assert extract_audio.main([*common, *videos, "--weights", vggish]) == 0
    assert extract_visual.main([*common, *videos, "--clip", clip, "--tokens", "14"]) == 0
    asked = [str(home / f"{split}.json") for split in ("train", "val", "test")]
    assert extract_text.main([*common, "--clip", clip, "--annotations", *asked]) == 0
