"""A folder is one queue's at a time, with `flock` and on disks that have none; what the dead held is free."""

import errno
import os
import subprocess
import sys

import pytest

from scripts.reproduce import lock as module
from scripts.reproduce.lock import lock
from tests.synthetic import edit_json
from utils.errors import UserError


@pytest.fixture(params=["flock", "file"])
def kind(request, monkeypatch):
    """Disks with and without flock."""
    if request.param == "file":

        def refuse(*_):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(module.fcntl, "flock", refuse)
    return request.param


def sleeper(*descriptors):
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=descriptors)


def end(process):
    process.kill()
    process.communicate()


def test_it_is_held_once_and_free_again(kind, tmp_path):
    for _ in range(2):
        held = lock(tmp_path / "a")
        assert held
        assert lock(tmp_path / "a") is None
        assert lock(tmp_path / "b")
        held.release()
        (tmp_path / "b").rename(tmp_path / f"b{_}")


def test_a_child_holds_it_as_long_as_it_lives(kind, tmp_path, monkeypatch):
    held = lock(tmp_path)
    child = sleeper(*held.descriptors)
    held.share(child.pid)
    if kind == "flock":
        held.release()
    else:  # this process would be dead, and its number another's
        began = module._began
        monkeypatch.setattr(module, "_began", lambda process: "later" if process == os.getpid() else began(process))
    assert lock(tmp_path) is None
    end(child)
    assert lock(tmp_path)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The file that holds a folder where there is no flock."""
    monkeypatch.setattr(module.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks")))
    assert lock(tmp_path)
    return tmp_path / ".lock-1"


def test_the_dead_hold_nothing_and_the_next_number_has_one_owner(file):
    child = sleeper()
    edit_json(file, processes=[[child.pid, module._began(child.pid)]])
    assert lock(file.parent) is None
    end(child)
    assert lock(file.parent)
    assert lock(file.parent) is None
    assert file.with_name(".lock-2").exists()


def test_a_number_that_another_process_has_got_since_holds_nothing(file):
    edit_json(file, processes=[[os.getpid(), "1"]])
    assert lock(file.parent)


def test_other_machines_are_believed(file):
    edit_json(file, host="elsewhere", processes=[[1 << 22, None]])
    assert lock(file.parent) is None


def test_a_file_that_is_being_written_holds_for_a_while(file):
    file.write_text("")
    assert lock(file.parent) is None
    os.utime(file, (1, 1))
    assert lock(file.parent)


def test_a_folder_that_cannot_be_made_is_a_line(kind, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run: cannot be written \(Not a directory\)"):
        lock(tmp_path / "file/run")
