"""Small videos, small encoders and the scripts run on them: fixtures, as a plugin of the tests that use them."""

import shutil

import numpy as np
import pytest

from feat_script import extract_audio, extract_visual
from tests.clips import sine, write_clip
from tests.extraction import T
from tests.small_encoders import save_narrow_vggish, save_small_clip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return {"clip": save_small_clip(folder / "small.pt"), "vggish": save_narrow_vggish(folder / "narrow.pth")}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_clip(folder / "whole.mp4", np.arange(24) / 5, sine(4.8))
    write_clip(folder / "short.mkv", np.arange(10) / 5, sine(2))
    (folder / "below").mkdir()
    write_clip(folder / "below" / "mute.mp4", np.arange(24) / 5)
    write_clip(folder / "silent.mp4", np.arange(24) / 5, sine(4.8, amplitude=0))
    (folder / "notes.txt").write_text("not a video, and not named like one")
    return folder


@pytest.fixture
def videos(originals, tmp_path):
    return shutil.copytree(originals, tmp_path / "videos")


@pytest.fixture
def audio(videos, weights, tmp_path):
    def run(*options, out=tmp_path / "features"):
        base = ["--videos", videos, "--out", out, "--weights", weights["vggish"], "--segments", T, "--workers", 1]
        return extract_audio.main([str(option) for option in [*base, "--device", "cpu", *options]])

    return run


@pytest.fixture
def visual(videos, weights, tmp_path):
    def run(*options, out=tmp_path / "features"):
        base = ["--videos", videos, "--out", out, "--clip", weights["clip"], "--segments", T, "--workers", 1]
        return extract_visual.main([str(option) for option in [*base, "--device", "cpu", *options]])

    return run
