"""What goes wrong with single videos, with the disk and with processes: said in a line, and the rest is kept."""

import csv
import errno
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from feat_script import pipeline
from tests.clips import sine, write_clip
from tests.extraction import T, says
from utils.runtime import Runtime

pytest_plugins = ["tests.extraction_fixtures"]


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


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite_fail_the_video(visual, weights, tmp_path, value):
    state = torch.load(weights["clip"])
    state["visual.proj"][0, 0] = value
    torch.save(state, tmp_path / "nan.pt")
    assert visual("--clip", tmp_path / "nan.pt") == 1
    rows = list(csv.reader((tmp_path / "features" / "clip_frame" / "failures.csv").open()))
    assert rows[1][2] == "numbers that are not finite in clip_frame"
    assert not list((tmp_path / "features").rglob("*.npy"))


def touched(folder, names):
    """Files that are not read as videos."""
    videos = {name: folder / f"{name}.mp4" for name in names}
    for path in videos.values():
        path.touch()
    return videos


def read_or_die(path):
    """As extract's `read`: a video's number. "bad" kills the process that reads it, "once" does so the first time."""
    before = path.with_suffix(".read")
    once = path.stem.endswith("once") and not before.exists()
    before.touch()
    if once or path.stem.endswith("bad"):
        os.kill(os.getpid(), signal.SIGKILL)
    return np.full(T, float(path.stem[:2]), np.float32), {"padded_segments": 0, "problem": None}


@pytest.mark.parametrize("workers", [1, 3])
def test_videos_that_kill_their_reader_are_listed_and_the_rest_is_kept(tmp_path, capfd, workers):
    names = ["00", "01_once", "02_bad", *(f"{n:02}" for n in range(3, 12)), "12_bad", "13_bad"]
    videos = touched(tmp_path, names)
    manifest = {"version": 1, "shape": [T], "dtype": "float32"}
    runtime, encode = Runtime(torch.device("cpu"), rank=0, world=1), lambda data: {"kind": data}
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


@pytest.mark.parametrize("script", ["audio", "visual"])
def test_a_full_disk_is_said_and_leaves_nothing_half(script, request, tmp_path, capfd, monkeypatch):
    """A write that fails has an error without the file's name."""
    run = request.getfixturevalue(script)
    real = Path.write_bytes

    def full(path, data):
        if path.suffix == ".npy":
            real(path, data[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    said = says(capfd, run)
    assert ".npy: cannot be written (No space left on device)" in said
    assert str(tmp_path / "features") in said
    assert not list((tmp_path / "features").rglob("*.npy"))
    assert not list((tmp_path / "features").rglob("status"))


@pytest.mark.parametrize("script", ["audio", "visual"])
def test_an_out_that_cannot_be_made_is_said(script, request, tmp_path, capfd):
    (tmp_path / "file").touch()
    said = says(capfd, request.getfixturevalue(script), "--out", tmp_path / "file/x")
    assert f"{tmp_path}/file/x/" in said
    assert "cannot be written (Not a directory)" in said


def test_without_hard_links(audio, visual, monkeypatch):
    """As on exFAT and some network disks."""

    def link(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert audio() == visual() == 0


def test_strange_names_are_listed_and_the_rest_is_done(audio, videos, tmp_path, capfd):
    latin, long, longest = "caf\udce9", "b" * 250, "c" * 251
    for name in (latin, long, longest, "-xyz_dB0"):
        shutil.copy(videos / "whole.mp4", videos / f"{name}.mp4")
    assert audio() == 1
    folder = tmp_path / "features/vggish"
    assert {path.stem for path in folder.glob("*.npy")} == {"whole", "short", "mute", "silent", long, "-xyz_dB0"}
    rows = {name: reason for name, _, reason in csv.reader((folder / "failures.csv").open(encoding="utf-8"))}
    assert "not UTF-8" in rows["caf\\udce9"]
    assert "has 251 bytes" in rows[longest]
    assert "6 extracted" in capfd.readouterr().err
    assert audio() == 1
    assert "6 were whole, 0 extracted" in capfd.readouterr().err


def test_links_are_followed_once_each_and_what_is_not_entered_is_named(tmp_path, capfd, monkeypatch):
    """Two linked folders, a link round in a circle, one into nowhere, and a folder of somebody else."""
    for name in ("here", "real", "other/deep", "private"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("here/a", "real/r", "other/deep/o", "private/p"):
        (tmp_path / f"{name}.mp4").touch()
    (tmp_path / "here/Real").symlink_to("../real")
    (tmp_path / "here/Other").symlink_to(tmp_path / "other")
    (tmp_path / "other/again").symlink_to("../here")
    (tmp_path / "other/deep/self").symlink_to(".")
    (tmp_path / "here/Private").symlink_to("../private")
    (tmp_path / "here/gone.mp4").symlink_to("nowhere.mp4")
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("Private"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    found = pipeline.find_videos(tmp_path / "here")
    assert {name: str(path.relative_to(tmp_path / "here")) for name, path in found.items()} == {
        "a": "a.mp4",
        "gone": "gone.mp4",  # fails when it is read, and is listed then
        "o": "Other/deep/o.mp4",
        "r": "Real/r.mp4",
    }
    said = capfd.readouterr().err
    assert said.startswith("1 folders could not be entered:")
    assert f"{tmp_path}/here/Private (Permission denied)" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_folder_that_may_be_listed_but_not_entered(tmp_path, monkeypatch, capfd):
    """Mode 0744 of somebody else: its names can be read, nothing more. What lies beside it is found."""
    (tmp_path / "v/half/deep").mkdir(parents=True)
    (tmp_path / "v/half/link").symlink_to("deep")
    for name in ("v/a.mp4", "v/half/h.mp4", "v/half/deep/d.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "v/half").chmod(0o744)
    monkeypatch.chdir(tmp_path / "v")  # so that the folders above need not be his
    os.seteuid(65534)
    try:
        found = pipeline.find_videos(".")
    finally:
        os.seteuid(0)
    assert {"a", "h"} <= found.keys()
    assert "half/deep (Permission denied)" in capfd.readouterr().err
