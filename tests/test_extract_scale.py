"""Extraction killed and started again, and extraction by several processes: the same files, byte for byte."""

import random
import shutil
import time

import numpy as np
import pytest

from feat_script import extract_audio, extract_visual
from tests.clips import sine, write_clip
from tests.processes import Begun, begin
from tests.small_encoders import save_narrow_vggish, save_small_clip

VIDEOS = 40


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ground")
    (folder / "videos").mkdir()
    for n in range(VIDEOS):
        sound = sine(3, hertz=200 + 10 * n) if n % 4 else None
        write_clip(folder / "videos" / f"{n:03}.mp4", np.arange(n % 7, 15 + n % 7) / 5, sound, size=(320, 240))
    save_small_clip(folder / "small.pt")
    save_narrow_vggish(folder / "narrow.pth")
    return folder


def start(ground, out, kind, processes=1) -> Begun:
    main, weights = {
        "visual": (extract_visual.main, ["--clip", ground / "small.pt"]),
        "audio": (extract_audio.main, ["--weights", ground / "narrow.pth"]),
    }[kind]
    options = ["--videos", ground / "videos", "--out", out, "--segments", 4, "--workers", 1, "--device", "cpu"]
    return begin(main, *options, *weights, logs=out.with_suffix(".logs"), processes=processes)


def contents(out):
    """All files but the temporary ones of killed runs."""
    found = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.name.startswith(".tmp-")}


def done(out) -> int:
    """How many videos are whole: their status is written last."""
    return len(list(out.glob("clip_frame/status/[0-9]*.json")))


@pytest.mark.slow
def test_killed_ten_times(ground, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start(ground, whole, "visual").end()
    expected = contents(whole)
    assert len(expected) == VIDEOS * 4 + 3  # frame, token, source and status of each; three manifests

    moments = random.Random(0)
    for number in range(10):
        begun, before, deadline = start(ground, killed, "visual"), done(killed), time.monotonic() + 300
        while done(killed) == before and begun.ranks[0].is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1))
        begun.ranks[0].kill()
        begun.end()
        held = contents(killed)
        assert all(expected[name] == data for name, data in held.items())  # never half a file
        assert before < done(killed) < VIDEOS or number >= 5  # it was killed while at work
    last = start(ground, killed, "visual")
    last.end()
    assert last.statuses == [0]
    assert contents(killed) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["audio", "visual"])
def test_two_processes_equal_one(ground, tmp_path, kind):
    """With a failure in each share, so that failures are gathered and both processes end at the same time."""
    videos = shutil.copytree(ground / "videos", tmp_path / "videos")
    for n in range(12, VIDEOS):
        (videos / f"{n:03}.mp4").unlink()
    for name in ("003.mp4", "006.mp4"):
        (videos / name).write_text("not a video")
    for name in ("small.pt", "narrow.pth"):
        shutil.copy(ground / name, tmp_path / name)
    for out, processes in (("one", 1), ("two", 2)):
        begun = start(tmp_path, tmp_path / out, kind, processes)
        printed = begun.end()
        assert begun.statuses == [1] * processes, printed
        assert "12 videos, 0 were whole, 10 extracted" in printed
        assert "2 failed, listed in" in printed
    expected = contents(tmp_path / "one")
    assert contents(tmp_path / "two") == expected
    assert sum(path.name == "failures.csv" for path in expected) == 1
    assert sum(path.name == "manifest.json" for path in expected) == (1 if kind == "audio" else 3)
