"""The extraction scripts from videos to files: shapes, numbers, manifests, wrong options."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch

from feat_script import extract_audio, extract_visual
from feat_script.clip_vision import load_clip, schedules
from feat_script.media import read_audio
from feat_script.vggish import examples, load_vggish
from tests.extraction import T, changed, says, snapshot
from utils.files import unseal

pytest_plugins = ["tests.extraction_fixtures"]


def test_audio_features(audio, videos, weights, tmp_path):
    assert audio() == 0
    folder = tmp_path / "features" / "vggish"
    assert {path.stem for path in folder.glob("*.npy")} == {"whole", "short", "mute", "silent"}
    network, digest = load_vggish(weights["vggish"])
    assert json.loads((folder / "manifest.json").read_text()) == {
        **{"version": 1, "kind": "audio", "encoder": "vggish", "weights_sha256": digest},
        **{"shape": [T, 128], "dtype": "float32", "hop_seconds": 1.0},
    }
    status = {path.stem: json.loads(path.read_text()) for path in (folder / "status").iterdir()}
    assert {name: (held["padded_segments"], held["audio"]) for name, held in status.items()} == {
        "whole": (0, "sound"),
        "short": (2, "sound"),
        "mute": (0, "absent"),
        "silent": (0, "silent"),
    }
    with torch.inference_mode():
        seconds = torch.from_numpy(read_audio(videos / "whole.mp4", T).samples).split(16000)
        expected = network(torch.cat([examples(second) for second in seconds])).numpy()
        silence = network(examples(torch.zeros(16000))).numpy()
    whole, short, mute, silent = (np.load(folder / f"{name}.npy") for name in ("whole", "short", "mute", "silent"))
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-7)
    assert np.array_equal(short[2], short[1])
    assert np.array_equal(short[3], short[1])
    np.testing.assert_allclose(mute, np.repeat(silence, T, 0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(silent, mute, rtol=1e-5, atol=1e-7)


def test_hop_of_an_example(audio, tmp_path):
    assert audio("--hop", 0.96) == 0
    assert np.load(tmp_path / "features" / "vggish" / "whole.npy").shape == (T, 128)
    assert json.loads((tmp_path / "features" / "vggish" / "manifest.json").read_text())["hop_seconds"] == 0.96


def test_visual_features(visual, videos, weights, tmp_path):
    assert visual("--tokens", 8, 14, 50) == 0
    out = tmp_path / "features"
    model, name, digest = load_clip(str(weights["clip"]), "cpu")
    merging = schedules(model.visual, [8, 14, 50])
    shapes = {
        "clip_frame": ("frame", (T, 64), "float16"),
        "clip_token_8": ("token", (T, 8, 128), "float16"),
        "clip_token_14": ("token", (T, 14, 128), "float16"),
        "clip_token_50": ("token", (T, 50, 128), "float16"),  # unmerged tokens have no source map
        "clip_token_8_source": ("token_source", (T, 50), "uint8"),
        "clip_token_14_source": ("token_source", (T, 50), "uint8"),
    }
    assert {path.name for path in out.iterdir()} == shapes.keys()
    images, _ = extract_visual.read_squares(videos / "whole.mp4", T, 112, "crop")
    expected = extract_visual.encode_video(model, images, merging)
    for folder, (kind, shape, dtype) in shapes.items():
        assert {path.stem for path in (out / folder).glob("*.npy")} == {"whole", "short", "mute", "silent"}
        manifest = json.loads((out / folder / "manifest.json").read_text())
        assert (manifest["kind"], tuple(manifest["shape"]), manifest["dtype"]) == (kind, shape, dtype)
        assert (manifest["encoder"], manifest["weights_sha256"]) == (name, digest)
        assert (manifest["image_size"], manifest["fit"]) == (112, "crop")
        assert manifest.get("merge_schedule") == (None if kind == "frame" else list(merging[int(folder.split("_")[2])]))
        array = np.load(out / folder / "whole.npy")
        assert (array.shape, array.dtype.name) == (shape, dtype)
        np.testing.assert_allclose(array.astype(float), expected[folder].astype(float), atol=2e-3)
    status = unseal(out / "clip_frame" / "status" / "short.json")
    short = (videos / "short.mkv").stat()
    assert status == {
        "file": "short.mkv",
        "source": {
            "size": short.st_size,
            "mtime_ns": short.st_mtime_ns,
            "sha256": hashlib.sha256((videos / "short.mkv").read_bytes()).hexdigest(),
        },
        "features": {
            folder: hashlib.sha256(np.load(out / folder / "short.npy").tobytes()).hexdigest() for folder in shapes
        },
        "padded_segments": 2,
        "problem": None,
    }


def test_no_tokens(visual, tmp_path):
    assert visual("--tokens") == 0
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["clip_frame"]


@pytest.mark.parametrize("script", ["audio", "visual"])
def test_workers_do_not_change_the_numbers(script, request, tmp_path):
    run = request.getfixturevalue(script)
    assert run(out=tmp_path / "one") == 0
    assert run("--workers", 3, out=tmp_path / "three") == 0
    one, three = snapshot(tmp_path / "one"), snapshot(tmp_path / "three")
    assert {path.relative_to(tmp_path / "one"): held[1] for path, held in one.items()} == {
        path.relative_to(tmp_path / "three"): held[1] for path, held in three.items()
    }


def test_contradicting_settings_are_refused(visual, audio, tmp_path, capfd):
    assert visual() == 0
    assert audio() == 0
    before = snapshot(tmp_path / "features")
    assert "clip_frame/manifest.json: field 'fit' is 'crop'" in says(capfd, visual, "--fit", "squash")
    assert "field 'shape' is [4, 64]" in says(capfd, visual, "--segments", 5)
    assert "field 'hop_seconds' is 1.0" in says(capfd, audio, "--hop", 0.96)
    assert changed(before, snapshot(tmp_path / "features")) == set()


def test_wrong_options(visual, audio, videos, tmp_path, capfd):
    assert "--videos nowhere: no such folder" in says(capfd, audio, "--videos", "nowhere")
    (tmp_path / "none").mkdir()
    assert "holds no video" in says(capfd, visual, "--videos", tmp_path / "none")
    assert '"workers": Not of type PositiveInt: 0' in says(capfd, audio, "--workers", 0)
    assert '"segments": Not of type PositiveInt: 0' in says(capfd, visual, "--segments", 0)
    assert "--hop: invalid choice: 2.0 (choose from 1.0, 0.96)" in says(capfd, audio, "--hop", 2.0)
    assert "--tokens 2: 2 of 50 tokens cannot be reached" in says(capfd, visual, "--tokens", 2)
    assert "neither a file nor one of" in says(capfd, visual, "--clip", "ViT-Z/1")
    if not torch.cuda.is_available():
        assert "device is cuda" in says(capfd, audio, "--device", "cuda")
    shutil.copy(videos / "whole.mp4", videos / "whole.mkv")
    assert "both have the id 'whole'" in says(capfd, audio)


def test_every_real_clip_gives_features(shared, weights, tmp_path):
    """The shapes stated, for rotated, odd, tiny, damaged and mute clips alike."""
    clips = [path for path in (shared / "media").iterdir() if path.suffix != ".md"]
    common = ["--videos", str(shared / "media"), "--out", str(tmp_path), "--segments", "10", "--workers", "2"]
    assert extract_audio.main([*common, "--weights", str(weights["vggish"])]) == 0
    assert extract_visual.main([*common, "--clip", str(weights["clip"]), "--fit", "squash"]) == 0
    sounds = {}
    for clip in clips:
        assert np.load(tmp_path / "vggish" / f"{clip.stem}.npy").shape == (10, 128)
        assert np.load(tmp_path / "clip_frame" / f"{clip.stem}.npy").shape == (10, 64)
        assert np.load(tmp_path / "clip_token_14" / f"{clip.stem}.npy").shape == (10, 14, 128)
        source = np.load(tmp_path / "clip_token_14_source" / f"{clip.stem}.npy")
        assert source.shape == (10, 50)
        assert source.max() == 13
        sounds[clip.stem] = json.loads((tmp_path / "vggish" / "status" / f"{clip.stem}.json").read_text())["audio"]
    assert sounds["alpha_vp9_silent"] == sounds["no_duration_silent"] == "silent"
    assert {name for name, sound in sounds.items() if sound == "absent"} == {n for n in sounds if n.endswith("noaudio")}
    damaged = json.loads((tmp_path / "clip_frame" / "status" / "corrupted_noaudio.json").read_text())
    assert damaged["padded_segments"] == 5
    assert damaged["problem"]
