"""Files that are whole or absent, whoever writes at the same time and whatever the disk refuses."""

import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from utils.errors import UserError
from utils.files import atomic_path, create, read_json, save_npy, sha256, write_json
from utils.manifest import claim_manifest

MANIFEST = {"version": 1, "encoder": "é" * 5000}  # more than one write's worth of a slow disk


def at_once(count, task):
    """What went wrong in `count` threads, which share a process id as containers of several hosts do."""
    barrier, wrong = threading.Barrier(count), []

    def run(number):
        barrier.wait()
        try:
            task(number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def test_many_claim_a_manifest_at_once(tmp_path):
    for turn in range(20):
        folder = tmp_path / str(turn)
        assert at_once(16, lambda _: claim_manifest(folder, MANIFEST)) == []  # noqa: B023
        assert [path.name for path in folder.iterdir()] == ["manifest.json"]
        assert read_json(folder / "manifest.json") == MANIFEST


def test_of_many_that_contradict_each_other_one_wins(tmp_path):
    wrong = at_once(16, lambda number: claim_manifest(tmp_path / "kind", MANIFEST | {"version": number}))
    assert len(wrong) == 15
    assert all("field 'version' is" in str(error) for error in wrong)


def test_what_is_there_is_not_created_again(tmp_path):
    assert create(tmp_path / "manifest.json", b"first")
    assert not create(tmp_path / "manifest.json", b"second")
    assert (tmp_path / "manifest.json").read_bytes() == b"first"


def test_a_manifest_that_another_is_writing_is_waited_for(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text('{"version"')
    timer = threading.Timer(0.3, lambda: path.write_text(json.dumps(MANIFEST)))
    timer.start()
    claim_manifest(tmp_path, MANIFEST)
    timer.join()


def test_many_write_a_file_at_once(tmp_path):
    path = tmp_path / f"{'n' * 250}.npy"
    assert at_once(16, lambda number: save_npy(path, np.full(1000, number))) == []
    assert len(set(np.load(path).tolist())) == 1
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("error", [OSError("5 requested and 1 written"), OSError(errno.ENOSPC, "No space left")])
def test_what_the_disk_refuses_is_said_with_path_and_reason(tmp_path, error):
    """Whether the error has a file's name and a number or not, and wherever in the block it comes from."""

    def write():
        with atomic_path(tmp_path / "held.json") as temporary:
            temporary.write_text("half")
            raise error

    write_json(tmp_path / "held.json", "old")
    with pytest.raises(UserError, match=r"held\.json: cannot be written \((5 requested|No space)"):
        write()
    assert read_json(tmp_path / "held.json") == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("write", [lambda path: write_json(path, 1), lambda path: create(path, b"1")])
def test_a_path_below_a_file_is_refused(tmp_path, write):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x/y\.json: cannot be written \(Not a directory\)"):
        write(tmp_path / "file/x/y.json")


def test_what_cannot_be_created_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        create(tmp_path / "manifest.json", b"{}")
    assert list(tmp_path.iterdir()) == []


def test_json_with_a_byte_order_mark_and_with_half_a_character(tmp_path):
    path = tmp_path / "marked.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path) == [1]
    write_json(path, ["caf\udce9", "é"])
    assert read_json(path) == ["caf\udce9", "é"]


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        sha256(Path(tmp_path))
