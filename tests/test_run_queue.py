"""The queue of runs: what decides a run's folder, and that finished, broken, locked and killed runs are handled."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from scripts.reproduce import queue as run_queue
from scripts.reproduce.queue import Run, find_workers, work
from tests.small_run import ROOT, make_data
from utils.errors import Interrupted, UserError
from utils.files import write_json

STAND_IN = """
import json, os, pathlib, sys, time
folder, epochs, seconds, fails = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
trace, log = folder.parent / "trace.txt", folder / "metrics.jsonl"
device, deadline = os.environ.get("CUDA_VISIBLE_DEVICES"), time.monotonic() + 60
with open(trace, "a") as file: print("begin", folder.name, device, file=file)
if fails: sys.exit("nothing\\nerror: " + fails)
while trace.read_text().count("begin") < int(sys.argv[5]):
    if time.monotonic() > deadline: sys.exit("error: left alone")
    time.sleep(0.01)
for epoch in range(len(log.read_text().splitlines()) if log.exists() else 0, epochs):
    time.sleep(seconds / epochs)
    with open(log, "a") as file: print(json.dumps({"epoch": epoch + 1, "train_seconds": 1.0}), file=file)
with open(trace, "a") as file: print("end", folder.name, device, file=file)
"""
TEST = """
import json, pathlib, sys
(path := pathlib.Path(sys.argv[1]) / "test/metrics.json").parent.mkdir()
path.write_text(json.dumps({"accuracy": {"All": 50.0}}))
"""


class Quick(Run):
    """A run whose training is a stand-in that takes some seconds, fails, or waits until so many have begun."""

    seconds, fails, company = 0.2, "", 1

    @property
    def commands(self):
        options = [self.folder, self.config.train.epochs, self.seconds, self.fails, self.company]
        yield ["-c", STAND_IN, *map(str, options)]
        yield ["-c", TEST, str(self.folder)]


def quick(folder, config, **attributes):
    run = Quick(folder.name, (), config, folder)
    for name, value in attributes.items():
        object.__setattr__(run, name, value)
    return run


@pytest.fixture(autouse=True)
def _short_ticks(monkeypatch):
    monkeypatch.setattr(run_queue, "TICK", 0.02)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The YAML of a small data set."""
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def config(data):
    return run_queue.resolve("--config", str(data))


def trace(root):
    """(begin or end, folder's name, device) of each stand-in, in order."""
    path = root / "trace.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def begun(root):
    return [name for what, name, *_ in trace(root) if what == "begin"]


# The queue


def test_finished_runs_are_kept_and_a_deleted_one_is_done_again_alone(config, tmp_path):
    runs = [quick(tmp_path / name, config, seconds=0) for name in "abc"]
    assert work(runs, [{}]) == {}
    assert all(run.done for run in runs)
    assert begun(tmp_path) == ["a", "b", "c"]
    shutil.rmtree(tmp_path / "b")
    assert work(runs, [{}]) == {}
    assert begun(tmp_path) == ["a", "b", "c", "b"]
    assert runs[1].results == {"accuracy": {"All": 50.0}}


def test_a_broken_run_is_reported_and_the_rest_goes_on(config, tmp_path, capfd):
    runs = [quick(tmp_path / name, config, seconds=0, fails=fails) for name, fails in (("a", "no luck"), ("b", ""))]
    assert work(runs, [{}]) == {tmp_path / "a": "error: no luck"}
    assert [run.done for run in runs] == [False, True]
    assert "failed: a: error: no luck" in capfd.readouterr().err
    object.__setattr__(runs[0], "fails", "")
    assert work(runs, [{}]) == {}
    assert begun(tmp_path) == ["a", "b", "a"]


def test_an_error_of_the_queue_itself_leaves_no_run_at_work(config, tmp_path, monkeypatch):
    monkeypatch.setattr(run_queue.time, "sleep", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        work([quick(tmp_path / "a", config, seconds=60)], [{}])
    assert run_queue.lock(tmp_path / "a") is not None  # nobody holds the folder any more


def test_each_device_works_on_a_run_of_its_own(config, tmp_path):
    runs = [quick(tmp_path / name, config, company=2) for name in "abcd"]
    assert work(runs, [{"CUDA_VISIBLE_DEVICES": name} for name in "47"]) == {}
    assert {device for _, _, device in trace(tmp_path)} == {"4", "7"}
    for device in ("4", "7"):  # one at a time on each
        states = [what for what, _, where in trace(tmp_path) if where == device]
        assert states == ["begin", "end"] * (len(states) // 2)


def test_a_run_that_another_queue_works_on_is_waited_for_and_not_done_twice(config, tmp_path):
    runs = [quick(tmp_path / name, config, seconds=0) for name in "ab"]
    held = run_queue.lock(tmp_path / "a")

    def finish():
        write_json(tmp_path / "a/test/metrics.json", {})
        os.close(held)

    threading.Timer(0.5, finish).start()
    assert work(runs, [{}]) == {}
    assert begun(tmp_path) == ["b"]


# Code and disks


def test_a_finished_run_is_kept_when_the_code_changes_and_said_to_be_older(config, tmp_path):
    run = quick(tmp_path / "a", config, seconds=0)
    assert work([run], [{}]) == {}
    assert not run.outdated
    os.utime(tmp_path / "a/test/metrics.json", (1, 1))
    assert run.outdated
    assert work([run], [{}]) == {}
    assert begun(tmp_path) == ["a"]


def test_a_disk_without_locks_is_told(config, tmp_path, monkeypatch, capfd):
    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(run_queue.fcntl, "flock", refuse)
    run = quick(tmp_path / "a", config, seconds=0)
    assert work([run], [{}]) == {}
    assert run.done
    assert f"{tmp_path}/a: this disk has no locks; let no other queue work on it" in capfd.readouterr().err


def test_a_folder_is_held_as_long_as_who_inherited_it_lives(tmp_path):
    held = run_queue.lock(tmp_path / "a")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[held])
    os.close(held)
    assert run_queue.lock(tmp_path / "a") is None
    child.kill()
    child.communicate()
    again = run_queue.lock(tmp_path / "a")
    assert again is not None
    os.close(again)


def test_runs_where_nothing_can_be_written_are_a_line(config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x/a: cannot be written \(Not a directory\)"):
        work([quick(tmp_path / "file/x/a", config)], [{}])


# Killed


DRIVER = """
import sys
from pathlib import Path
from scripts.reproduce import queue as run_queue
from tests.test_run_queue import quick
config = run_queue.resolve("--config", sys.argv[1], "--train.epochs", "8")
root = Path(sys.argv[2])
print("ready", flush=True)
try:
    run_queue.work([quick(root / name, config, seconds=4) for name in "ab"], [{}])
except run_queue.Interrupted as interrupted:
    sys.exit(str(interrupted))
"""


def drive(data, root):
    """Start a queue of two slow runs in a process of its own; return when the first is at work."""
    process = subprocess.Popen([sys.executable, "-c", DRIVER, data, root], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (root / "a/metrics.jsonl").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_a_killed_queue_goes_on_where_it_was(data, tmp_path):
    process = drive(data, tmp_path)
    process.kill()
    process.wait()
    process.stderr.close()
    config = run_queue.resolve("--config", str(data), "--train.epochs", "8")
    runs = [quick(tmp_path / name, config, seconds=0) for name in "ab"]
    assert work(runs, [{}]) == {}
    lines = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 9))  # by one process at a time
    assert [(what, name) for what, name, _ in trace(tmp_path) if name == "a"] == [("begin", "a"), ("end", "a")] * 2
    assert all(run.done for run in runs)


def test_a_queue_that_is_told_to_stop_stops_its_runs(data, tmp_path):
    process = drive(data, tmp_path)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[1]
    assert "repeat the command to go on" in said
    assert process.returncode == 1
    epochs = len((tmp_path / "a/metrics.jsonl").read_text().splitlines())
    time.sleep(1)
    assert len((tmp_path / "a/metrics.jsonl").read_text().splitlines()) == epochs < 8
    assert begun(tmp_path) == ["a"]


def test_ctrl_c_is_the_queue_s_and_its_handler_is_put_back(config, tmp_path):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    before = signal.getsignal(signal.SIGTERM)

    def press():
        while not begun(tmp_path):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(Interrupted):
        work([quick(tmp_path / "a", config, seconds=60)], [{}])
    assert signal.getsignal(signal.SIGTERM) == before


def test_workers_are_the_visible_gpus_or_share_the_cores(monkeypatch):
    def names():
        return [worker["CUDA_VISIBLE_DEVICES"] for worker in find_workers("auto")]

    monkeypatch.setattr(run_queue, "usable_cores", lambda: 6)
    for threads, expected in ((1, 6), (2, 3), (4, 1), (12, 1)):
        monkeypatch.setattr(run_queue.torch, "get_num_threads", lambda threads=threads: threads)
        assert find_workers("cpu") == [{"LOCAL_WORLD_SIZE": str(expected)}] * expected
    monkeypatch.setattr(run_queue.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(run_queue.torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert names() == ["0", "1", "2"]
    assert {worker["LOCAL_WORLD_SIZE"] for worker in find_workers("auto")} == {"3"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8932f937")
    assert names() == ["5", "GPU-8932f937"]
    monkeypatch.setattr(run_queue.torch.cuda, "is_available", lambda: False)
    assert find_workers("auto") == find_workers("cpu")
    with pytest.raises(UserError, match=r"--train\.device cpu runs without one"):
        find_workers("cuda")
