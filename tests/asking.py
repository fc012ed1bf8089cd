"""A run that was trained on features of small clips, with small encoders of random weights, to be asked."""

from pathlib import Path

import numpy as np
import pytest

from feat_script import extract_audio, extract_text, extract_visual
from scripts.answer import Answerer
from tests.clips import sine, write_clip
from tests.small_encoders import save_narrow_vggish, save_small_clip
from tests.small_run import make_data, trained

T = 4  # segments


@pytest.fixture(scope="session")
def asked_run(tmp_path_factory) -> Path:
    """A run folder; beside it `videos`, `encoders`, `features_of_videos` and the annotations of train, val, test."""
    home = tmp_path_factory.mktemp("asked")
    make_data(home, segments=T)
    (home / "videos").mkdir()
    (home / "encoders").mkdir()
    for number in range(10):
        sound = sine(T, 220 * (1 + number)) * np.linspace(0, 1, T * 16000, dtype=np.float32)
        write_clip(home / f"videos/{number:08d}.mp4", np.arange(T * 5) / 5, sound, size=(96, 64))
    clip = str(save_small_clip(home / "encoders/clip.pt"))
    vggish = str(save_narrow_vggish(home / "encoders/vggish.pth"))
    common = ["--out", str(home / "features_of_videos"), "--device", "cpu"]
    videos = ["--videos", str(home / "videos"), "--segments", str(T), "--workers", "1"]
    assert extract_audio.main([*common, *videos, "--weights", vggish]) == 0
    assert extract_visual.main([*common, *videos, "--clip", clip, "--tokens", "14"]) == 0
    annotations = [str(home / f"{split}.json") for split in ("train", "val", "test")]
    assert extract_text.main([*common, "--clip", clip, "--annotations", *annotations, "--words"]) == 0
    return train_asked(home, "run", "--model.tokens", 14)


def train_asked(home: Path, name: str, *options) -> Path:
    """Train for an epoch beside the run of `asked_run`, whose parent is `home`."""
    features = home / "features_of_videos"
    given = "--config", home / "small.yaml", "--data.features", features, "--train.epochs", 1, "--out", home / name
    return trained(*given, *options)


@pytest.fixture(scope="session")
def answerer(asked_run) -> Answerer:
    return Answerer(asked_run, "cpu", encoders=[asked_run.parent / "encoders"])
