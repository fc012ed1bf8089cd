"""Extraction killed and started again, and extraction by several processes: the same files, byte for byte."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.clips import sine, write_clip
from tests.small_encoders import save_narrow_vggish, save_small_clip

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
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


def command(ground, out, kind, processes=1):
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    weights = ["--clip", ground / "small.pt"] if kind == "visual" else ["--weights", ground / "narrow.pth"]
    options = ["--videos", ground / "videos", "--out", out, "--segments", "4", "--workers", "1", "--device", "cpu"]
    return [str(word) for word in [*start, "-m", f"feat_script.extract_{kind}", *options, *weights]]


def run(*args, **kwargs):
    return subprocess.run(
        command(*args, **kwargs), check=False, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=400
    )


def contents(out):
    """All files but the temporary ones of killed runs."""
    found = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.name.startswith(".tmp-")}


@pytest.mark.slow
def test_killed_ten_times(ground, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(ground, whole, "visual").returncode == 0
    expected = contents(whole)
    assert len(expected) == VIDEOS * 4 + 3  # frame, token, source and status of each; three manifests

    moments, survived = random.Random(0), []
    for _ in range(10):
        process = subprocess.Popen(
            command(ground, killed, "visual"), cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, start_new_session=True
        )
        os.set_blocking(process.stderr.fileno(), False)
        said, deadline = b"", time.monotonic() + 120
        while b"clip_frame:" not in said and process.poll() is None and time.monotonic() < deadline:
            said += process.stderr.read() or b""
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.25))
        survived.append(process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        held = contents(killed)
        assert all(expected[name] == data for name, data in held.items())  # never half a file
    assert not any(survived[:5])  # they were killed while at work
    assert run(ground, killed, "visual").returncode == 0
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
    one, two = run(tmp_path, tmp_path / "one", kind), run(tmp_path, tmp_path / "two", kind, processes=2)
    assert one.returncode == 1
    assert two.returncode == 1, two.stderr
    for done in (one, two):
        assert "12 videos, 0 were whole, 10 extracted" in done.stderr
        assert "2 failed, listed in" in done.stderr
    expected = contents(tmp_path / "one")
    assert contents(tmp_path / "two") == expected
    assert sum(path.name == "failures.csv" for path in expected) == 1
    assert sum(path.name == "manifest.json" for path in expected) == (1 if kind == "audio" else 3)
