"""Features made elsewhere: whole folders get a manifest and train; what is not alike is named."""

import shutil

import numpy as np
import pytest

from scripts import adopt_features
from tests.scoring_run import called
from tests.small_run import make_data
from tests.synthetic import opened
from utils.files import save_npy

T = 6


@pytest.fixture
def features(tmp_path):
    """The features of a small data set, with frames of another encoder instead of ours."""
    make_data(tmp_path)
    folder = tmp_path / "features/clip_frame"
    (folder / "manifest.json").unlink()
    for path in folder.glob("*.npy"):
        save_npy(path, np.random.default_rng(0).standard_normal((T, 20), np.float32))
    return folder


def adopt(folder, *options, **how) -> str:
    options = options or ("--kind", "frame")
    return called(
        adopt_features.main, "--features", folder.parent, "--encoder", "mine", "--segments", T, *options, **how
    )


def test_adopted_frames_train_and_test_beside_ours(features, learn, score, tmp_path):
    assert "10 videos, float32 (6, 20), by mine" in adopt(features)
    learn("--config", tmp_path / "small.yaml", "--out", tmp_path / "run", "--train.epochs", 1)
    assert "18 questions" in score("--run", tmp_path / "run")
    shutil.copytree(features.parent, tmp_path / "other")
    (tmp_path / "other/clip_frame/manifest.json").unlink()
    called(
        adopt_features.main,
        *("--features", tmp_path / "other", "--encoder", "yours", "--segments", T, "--kind", "frame"),
    )
    error = score("--run", tmp_path / "run", "--data.features", tmp_path / "other", fails=True)
    assert "is 'yours', but this run wants 'mine'" in error


def test_adopted_tokens_tell_no_patches(tmp_path):
    make_data(tmp_path)
    folder = tmp_path / "features/clip_token_4"
    assert opened(folder.parent).tells_patches
    (folder / "manifest.json").unlink()
    adopt(folder, "--kind", "token", "--tokens", 4)
    assert not opened(folder.parent).tells_patches


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((T, 21), np.float32), "is float32 (6, 21), not float32 (6, 20)"),
        (np.zeros((T - 1, 20), np.float32), "is float32 (5, 20), not float32 (6, 20)"),
        (np.zeros((T, 20), np.float16), "is float16 (6, 20), not float32 (6, 20)"),
        (np.full((T, 20), np.nan, np.float32), "holds NaN or infinite values"),
    ],
)
def test_a_file_unlike_the_others_is_named(features, array, said):
    save_npy(features / "00000007.npy", array)
    error = adopt(features, fails=True)
    assert "1 of 10 files are not like the others" in error
    assert f"{said}: 00000007" in error
    assert not (features / "manifest.json").exists()


def test_a_folder_of_another_length_or_dtype_a_missing_and_a_made_one_are_refused(features):
    assert "no file is float16 or float32 (9, any); 00000009.npy is float32 (6, 20)" in adopt(
        features, "--kind", "frame", "--segments", 9, fails=True
    )
    for path in features.glob("*.npy"):
        save_npy(path, np.zeros((T, 20)))
    assert "00000009.npy is float64 (6, 20)" in adopt(features, fails=True)
    assert "vggish/manifest.json: is there already" in adopt(features, "--kind", "audio", fails=True)
    assert "clip_token_5: no such folder" in adopt(features, "--kind", "token", "--tokens", 5, fails=True)
