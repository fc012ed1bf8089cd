"""The extraction scripts from videos to files: shapes, resume, failures, manifests."""

import csv
import errno
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch

from feat_script import extract_audio, extract_visual, pipeline
from feat_script.clip_vision import load_clip, schedules
from feat_script.media import read_audio
from feat_script.vggish import examples, load_vggish
from tests.clips import sine, write_clip
from tests.small_encoders import save_narrow_vggish, save_small_clip
from utils.errors import UserError
from utils.runtime import Runtime

T = 4


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


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def changed(before, after):
    return {path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


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
    status = json.loads((out / "clip_frame" / "status" / "short.json").read_text())
    assert status == {"file": "short.mkv", "padded_segments": 2, "problem": None}


def test_no_tokens(visual, tmp_path):
    assert visual("--tokens") == 0
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["clip_frame"]


@pytest.mark.parametrize("script", ["audio", "visual"])
def test_resume_redoes_what_is_not_whole_and_touches_nothing_else(script, request, tmp_path, capfd):
    run, out = request.getfixturevalue(script), tmp_path / "features"
    assert run() == 0
    capfd.readouterr()
    before = snapshot(out)
    assert run() == 0
    assert changed(before, snapshot(out)) == set()
    assert "4 were whole, 0 extracted" in capfd.readouterr().err

    kind = out / ("vggish" if script == "audio" else "clip_token_14")
    first = out / ("vggish" if script == "audio" else "clip_frame")
    cut = kind / "whole.npy"
    cut.write_bytes(cut.read_bytes()[:-1])
    np.save(kind / "short.npy", np.zeros((T, 3), np.float32))
    (first / "status" / "mute.json").unlink()
    assert run() == 0
    after = snapshot(out)
    assert all(before[path][1] == after[path][1] for path in before)
    touched = {path for path in before if before[path] != after[path]}
    assert {path.stem for path in touched} == {"whole", "short", "mute"}
    assert "1 were whole, 3 extracted" in capfd.readouterr().err


@pytest.mark.parametrize("script", ["audio", "visual"])
def test_workers_do_not_change_the_numbers(script, request, tmp_path):
    run = request.getfixturevalue(script)
    assert run(out=tmp_path / "one") == 0
    assert run("--workers", 3, out=tmp_path / "three") == 0
    one, three = snapshot(tmp_path / "one"), snapshot(tmp_path / "three")
    assert {path.relative_to(tmp_path / "one"): held[1] for path, held in one.items()} == {
        path.relative_to(tmp_path / "three"): held[1] for path, held in three.items()
    }


@pytest.mark.parametrize("script", ["audio", "visual"])
def test_failures_are_listed_and_the_rest_is_kept(script, request, videos, tmp_path, capfd):
    run = request.getfixturevalue(script)
    folder = tmp_path / "features" / ("vggish" if script == "audio" else "clip_frame")
    (videos / "empty.mp4").touch()
    (videos / "text.webm").write_text("no video")
    assert run() == 1
    listed = list(csv.reader((folder / "failures.csv").open()))
    assert [row[0] for row in listed] == ["video_id", "empty", "text"]
    assert all("cannot be opened" in row[2] for row in listed[1:])
    assert "text: cannot be opened" in capfd.readouterr().err
    assert {path.stem for path in folder.glob("*.npy")} == {"whole", "short", "mute", "silent"}
    (videos / "text.webm").unlink()
    shutil.copy(videos / "whole.mp4", videos / "empty.mp4")
    assert run() == 0
    assert not (folder / "failures.csv").exists()
    assert np.array_equal(np.load(folder / "empty.npy"), np.load(folder / "whole.npy"))


def test_a_damaged_video_is_kept_and_counted(visual, videos, tmp_path, capfd):
    whole = write_clip(tmp_path / "long.mkv", np.arange(200) / 25, sine(8)).read_bytes()
    (videos / "long.mkv").write_bytes(whole[: len(whole) // 4])
    assert visual() == 0
    assert "1 damaged" in capfd.readouterr().err
    status = json.loads((tmp_path / "features" / "clip_frame" / "status" / "long.json").read_text())
    assert 0 < status["padded_segments"] < T
    assert status["problem"].startswith("ends at")


def test_numbers_that_are_not_finite_fail_the_video(visual, weights, tmp_path):
    state = torch.load(weights["clip"])
    state["visual.proj"][0, 0] = torch.nan
    torch.save(state, tmp_path / "nan.pt")
    assert visual("--clip", tmp_path / "nan.pt") == 1
    rows = list(csv.reader((tmp_path / "features" / "clip_frame" / "failures.csv").open()))
    assert rows[1][2] == "numbers that are not finite in clip_frame"
    assert not list((tmp_path / "features").rglob("*.npy"))


def read_or_die(path):
    """As extract's `read`: a video's number. "bad" kills the process that reads it, "once" does so the first time."""
    once = path.stem.endswith("once") and not path.exists()
    if once:
        path.touch()
    if once or path.stem.endswith("bad"):
        os.kill(os.getpid(), signal.SIGKILL)
    return torch.full((T,), float(path.stem[:2])), {"padded_segments": 0, "problem": None}


@pytest.mark.parametrize("workers", [1, 3])
def test_videos_that_kill_their_reader_are_listed_and_the_rest_is_kept(tmp_path, capfd, workers):
    names = ["00", "01_once", "02_bad", *(f"{n:02}" for n in range(3, 12)), "12_bad", "13_bad"]
    videos = {name: tmp_path / f"{name}.mp4" for name in names}
    manifest = {"version": 1, "shape": [T], "dtype": "float32"}
    runtime, encode = Runtime(torch.device("cpu"), rank=0, world=1), lambda data: {"kind": data.numpy()}
    assert pipeline.extract(runtime, videos, tmp_path, {"kind": manifest}, read_or_die, encode, workers) == 3
    _, *listed = csv.reader((tmp_path / "kind/failures.csv").open())
    assert [name for name, _, _ in listed] == ["02_bad", "12_bad", "13_bad"]
    assert {reason for _, _, reason in listed} == {"ends the process that decodes it: a crash, or short memory"}
    made = {path.stem: np.load(path) for path in (tmp_path / "kind").glob("*.npy")}
    assert made.keys() == {name for name in names if "bad" not in name}
    assert all((array == float(name[:2])).all() for name, array in made.items())
    said = capfd.readouterr().err
    assert "14 videos, 0 were whole, 11 extracted" in said
    assert "Traceback" not in said


class TooLarge:
    """As a tensor is where /dev/shm is full: torch raises this when one process hands it to another."""

    def __reduce__(self):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def read_too_large(path):
    return (TooLarge() if path.stem == "02" else torch.zeros(T)), {"padded_segments": 0, "problem": None}


def test_full_shared_memory_is_said_and_what_is_done_is_kept(tmp_path):
    videos = {name: tmp_path / f"{name}.mp4" for name in ("00", "01", "02", "03")}
    manifest = {"version": 1, "shape": [T], "dtype": "float32"}
    runtime, encode = Runtime(torch.device("cpu"), rank=0, world=1), lambda data: {"kind": data.numpy()}
    with pytest.raises(UserError, match=r"No space left on device.*--shm-size.*--workers"):
        pipeline.extract(runtime, videos, tmp_path, {"kind": manifest}, read_too_large, encode, workers=1)
    assert {path.stem for path in (tmp_path / "kind").glob("*.npy")} == {"00", "01"}


def says(capfd, run, *options):
    """The one line with which a run ends that its user can mend."""
    with pytest.raises(SystemExit) as end:
        run(*options)
    assert end.value.code == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


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
    assert "--workers 0" in says(capfd, audio, "--workers", 0)
    assert "--segments 0" in says(capfd, visual, "--segments", 0)
    assert "--hop 2.0: must be at most 1 s" in says(capfd, audio, "--hop", 2.0)
    assert "--hop 0.955" in says(capfd, audio, "--hop", 0.955)
    assert "--tokens 2: 2 of 50 tokens cannot be reached" in says(capfd, visual, "--tokens", 2)
    assert "neither a file nor one of" in says(capfd, visual, "--clip", "ViT-Z/1")
    if not torch.cuda.is_available():
        assert "device is cuda" in says(capfd, audio, "--device", "cuda")
    shutil.copy(videos / "whole.mp4", videos / "whole.mkv")
    assert "both have the id 'whole'" in says(capfd, audio)


def test_a_full_disk_is_said_and_leaves_nothing_half(audio, tmp_path, capfd, monkeypatch):
    def full(path, array):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(pipeline, "save_npy", full)
    assert "No space left on device" in says(capfd, audio)
    assert not list((tmp_path / "features" / "vggish").glob("*.npy"))
    assert not (tmp_path / "features" / "vggish" / "status").exists()


def test_leftovers_of_killed_runs_are_swept_once_they_are_old(audio, tmp_path):
    folder = tmp_path / "features" / "vggish"
    folder.mkdir(parents=True)
    for name in (".tmp-1-old.npy", ".tmp-2-new.npy"):
        (folder / name).write_bytes(b"half")
    os.utime(folder / ".tmp-1-old.npy", (0, 0))
    assert audio() == 0
    assert [path.name for path in folder.glob(".tmp-*")] == [".tmp-2-new.npy"]


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
