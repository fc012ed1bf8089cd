"""Extraction run again: what is whole stays, what is not, or is of a video that has changed, is made anew."""

import errno
import itertools
import json
import os
import shutil
import threading

import numpy as np
import pytest

from feat_script import extract_audio, pipeline
from feat_script.media import read_audio
from tests.clips import write_clip
from tests.extraction import T, changed, snapshot

pytest_plugins = ["tests.extraction_fixtures"]


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
    (first / "status" / "mute.json").write_bytes(b"")  # as a loss of power leaves it
    assert run() == 0
    after = snapshot(out)
    assert all(before[path][1] == after[path][1] for path in before)
    touched = {path for path in before if before[path] != after[path]}
    assert {path.stem for path in touched} == {"whole", "short", "mute"}
    assert "1 were whole, 3 extracted" in capfd.readouterr().err


def test_leftovers_of_killed_runs_are_swept_once_they_are_old(audio, tmp_path):
    folder = tmp_path / "features" / "vggish"
    folder.mkdir(parents=True)
    for name in (".tmp-1-old.npy", ".tmp-2-new.npy"):
        (folder / name).write_bytes(b"half")
    os.utime(folder / ".tmp-1-old.npy", (0, 0))
    assert audio() == 0
    assert [path.name for path in folder.glob(".tmp-*")] == [".tmp-2-new.npy"]


@pytest.mark.parametrize("script", ["audio", "visual"])
def test_a_video_that_was_replaced_is_extracted_again_and_a_copy_is_not(script, request, videos, tmp_path, capfd):
    run, out = request.getfixturevalue(script), tmp_path / "features"
    assert run() == 0
    before = snapshot(out)
    shutil.copyfile(videos / "short.mkv", tmp_path / "copy.mkv")
    os.replace(tmp_path / "copy.mkv", videos / "short.mkv")  # another time, the same contents
    whole = bytearray((videos / "whole.mp4").read_bytes())
    stamp = (videos / "silent.mp4").stat()
    (videos / "silent.mp4").write_bytes(whole)
    os.utime(videos / "silent.mp4", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # another size at the same time
    whole[-1] ^= 1
    (videos / "whole.mp4").write_bytes(whole)  # the same size, other contents
    capfd.readouterr()
    assert run() == 0
    assert "3 were whole" not in capfd.readouterr().err
    touched = {path.stem for path, held in snapshot(out).items() if held != before.get(path)}
    assert touched == {"short", "whole", "silent"}
    assert {
        path.parent.name for path, held in snapshot(out).items() if path.stem == "short" and held != before[path]
    } == {"status"}
    settled = snapshot(out)
    assert run() == 0
    assert changed(settled, snapshot(out)) == set()


def test_kinds_of_the_old_video_are_not_taken_for_those_of_the_new(visual, videos, tmp_path):
    """Tokens 8 are made of the new video, so the status is of the new one; tokens 14 are still of the old."""
    features = tmp_path / "features"
    for name in ("below/mute.mp4", "short.mkv", "silent.mp4"):
        (videos / name).unlink()
    assert visual("--tokens", 14) == 0
    assert visual("--tokens", 8) == 0
    status = json.loads((features / "clip_frame/status/whole.json").read_text())
    assert {"clip_token_8", "clip_token_14"} < status["features"].keys()
    stale = (features / "clip_token_14/whole.npy").read_bytes()
    write_clip(videos / "whole.mp4", np.arange(24) / 6)
    assert visual("--tokens", 8) == 0
    assert (features / "clip_token_14/whole.npy").read_bytes() == stale
    assert visual("--tokens", 14) == 0
    assert (features / "clip_token_14/whole.npy").read_bytes() != stale


def test_what_was_noted_of_a_video_is_told_again(audio, capfd):
    assert audio() == 0
    first = capfd.readouterr().err
    assert audio() == 0
    again = capfd.readouterr().err
    notes = [line for line in first.splitlines() if line.startswith("  1 ")]
    assert len(notes) == 3
    assert [line for line in again.splitlines() if line.startswith("  1 ")] == notes


def test_a_video_that_changes_while_it_is_read_is_not_kept(audio, tmp_path, monkeypatch):
    def read(path, seconds):
        if path.stem == "whole":
            path.write_bytes(path.read_bytes() + b"more")
        return read_audio(path, seconds)

    monkeypatch.setattr(extract_audio, "read_audio", read)
    assert audio() == 1
    assert "whole" in (tmp_path / "features/vggish/failures.csv").read_text()
    assert not (tmp_path / "features/vggish/whole.npy").exists()


def test_nothing_to_write_needs_no_disk_that_can_be_written(audio, monkeypatch, capfd):
    assert audio() == 0

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("unlink", "replace", "link", "rename"):
        monkeypatch.setattr(os, name, refuse)
    assert audio() == 0
    assert "4 were whole, 0 extracted" in capfd.readouterr().err


def test_several_are_looked_at_at_once(tmp_path, monkeypatch):
    """Disks on a network answer slowly: the first four to be asked wait for each other, or time out."""
    together, calls = threading.Barrier(4, timeout=30), itertools.count()
    monkeypatch.setattr(pipeline, "read_status", lambda *_: (next(calls) < 4 and together.wait() and {}) or {})
    videos = {str(number): tmp_path / f"{number}.mp4" for number in range(128)}
    held = list(pipeline._held(videos, tmp_path, {"kind": {"shape": [T], "dtype": "float32"}}, quiet=True))
    assert [name for name, _ in held] == list(videos)
