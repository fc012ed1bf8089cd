"""What test.py refuses: other features than the run learned from, input that is none, options at odds."""

import contextlib
import shutil
from pathlib import Path

import pytest
import torch

from configs import stored
from tests.small_run import make_data
from utils.files import read_json, write_json
from utils.runtime import Runtime


@pytest.fixture
def features(tested, tmp_path) -> Path:
    """A copy of the features that a test may change."""
    return shutil.copytree(tested[0].parent / "features", tmp_path / "features")


def change_manifests(features: Path, kinds: list[str], **fields) -> None:
    for kind in kinds:
        path = features / kind / "manifest.json"
        write_json(path, read_json(path) | fields)


def test_features_of_another_encoder_are_refused(tested, score, features):
    clip = ["clip_frame", "clip_token_4", "text"]
    for kinds, encoder in ((["vggish"], "another VGGish"), (clip, "another CLIP")):
        change_manifests(features, kinds, weights_sha256=f"sha of {encoder}")
        error = score("--run", tested[0], "--data.features", features, fails=True)
        assert error.count("\n") == 1
        assert f"{features} (" in error
        assert f"field 'weights_sha256' is 'sha of {encoder}'" in error
        change_manifests(features, kinds, weights_sha256="sha of vggish")


def test_a_run_is_not_resumed_with_features_of_another_encoder(tested, learn, features):
    """Of the same widths, so that nothing else would tell."""
    change_manifests(features, ["clip_frame", "clip_token_4", "text"], weights_sha256="sha of another CLIP")
    resume = ["--config", tested[0] / "config.yaml", "--data.features", features, "--resume", "--train.epochs", 99]
    assert "(frame): field 'weights_sha256' is 'sha of another CLIP'" in learn(*resume, fails=True)


def test_frames_fitted_otherwise_are_refused(tested, score, features):
    change_manifests(features, ["clip_frame", "clip_token_4"], fit="squash")
    error = score("--run", tested[0], "--data.features", features, fails=True)
    assert "(frame): field 'fit' is 'squash', but this run wants 'crop'" in error


def test_features_of_other_sizes_are_refused(tested, score, tmp_path):
    for name, width, shape in (("frame", 20, "6, 20"), ("token", 12, "6, 4, 12"), ("text", 20, "20,")):
        root = tmp_path / name
        make_data(root, videos=16, widths={name: width})
        error = score("--run", tested[0], "--data.features", root / "features", fails=True)
        assert error.count("\n") == 1
        assert f"{name} is ({shape}), but the run was trained with" in error
    make_data(tmp_path / "short", videos=16, segments=5)
    error = score("--run", tested[0], "--data.features", tmp_path / "short/features", fails=True)
    assert "field 'shape' is [5, 128]" in error


def test_testing_in_several_processes_is_refused(tested, score, monkeypatch):
    @contextlib.contextmanager
    def two_processes(*_):
        yield Runtime(torch.device("cpu"), rank=0, world=2)

    monkeypatch.setattr(stored, "start", two_processes)
    assert "start this without torchrun" in score("--run", tested[0], fails=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--run", "nowhere"], "nowhere/best.pt: no such file"),
        (["--checkpoint", "{data}/test.json"], "test.json: not a readable checkpoint"),
        (["--checkpoint", "{data}"], "not a readable checkpoint"),
        (["--checkpoint", "{tmp}/empty.pt"], "empty.pt: not a readable checkpoint"),
        (["--checkpoint", "{tmp}/weights.pt"], "weights.pt: is no checkpoint of train.py"),
        (["--checkpoint", "{tmp}/list.pt"], "list.pt: is no checkpoint of train.py"),
        (["--run", "{data}/run", "--data.feature", "x"], "no option data.feature; did you mean data.features"),
        (["--run", "{data}/run", "--model.hidden", "32"], "has shape"),
        (["--run", "{data}/run", "--data.missing", "never"], "data.missing"),
        (["--run", "{data}/run", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--run", "{data}/run", "stray"], "stray"),
    ],
)
def test_what_cannot_be_scored_is_named_in_a_line(tested, score, tmp_path, arguments, said):
    data = tested[0].parent
    (tmp_path / "empty.pt").touch()
    torch.save({"module.input_a.weight": torch.zeros(2)}, tmp_path / "weights.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    error = score(*(argument.format(data=data, tmp=tmp_path) for argument in arguments), fails=True)
    assert said in error.splitlines()[-1]
    assert "Traceback" not in error
