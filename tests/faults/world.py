"""A world small enough to be broken hundreds of times: every long command, on ten videos of a few seconds.

Commands run as forks of this process, which has imported everything: an import of PyTorch takes longer than they do.
"""

import contextlib
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from torch import Tensor

import test
import train
from dataset.bandstand.benchmark import Preset
from feat_script import extract_audio, extract_text, extract_visual
from scripts import pack_features, render_bandstand
from scripts.reproduce import __main__ as reproduce
from scripts.reproduce import queue
from utils.checkpoint import load_checkpoint
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
SECONDS = 11  # of a video; Bandstand's scenes need as many
PATIENCE = 300  # s, after which a command hangs; other programs may be at work
# Notes for the next run, logs, a copy that a whole run no longer needs.
PASSING = re.compile(r"(^|/)(\.[^/]*|events[^/]*|log\.txt|label\.txt|failures\.csv|last\.before\.pt)$")
TIMES = re.compile(rb'"train_seconds": [\d.e-]+|\b1\d{18}\b')  # the latter in ns


class World:
    """The folder of a world, and copies of it before and after each command that nothing disturbed."""

    def __init__(self, work: Path):
        self.here, self.stages, self.log = work / "world", work / "stages", work / "log.txt"
        self.seconds: dict[str, float] = {}
        world, bandstand, features = str(self.here), f"{self.here}/bandstand", f"{self.here}/features"
        annotations = {split: f"{bandstand}/annotations/{split}.json" for split in ("train", "val", "test")}
        sheet, config, run = f"{world}/prompts.xlsx", f"{world}/small.yaml", f"{world}/runs/one"
        videos = ["--videos", f"{bandstand}/videos", "--out", features, "--segments", str(SECONDS), "--workers", "1"]
        cpu, assets = ["--device", "cpu"], ROOT / "assets/bandstand"
        asked = ["--annotations", *annotations.values(), "--prompts", sheet, "--clip", f"{assets}/clip.pt"]
        kept = ["--runs", f"{world}/tables/runs", "--results", f"{world}/tables/results"]
        self.commands: dict[str, tuple[Callable, list[str]]] = {
            "render": (render_bandstand.main, ["--out", bandstand, "--workers", "1"]),
            "audio": (extract_audio.main, [*videos, *cpu, "--weights", f"{assets}/vggish.pth"]),
            "visual": (extract_visual.main, [*videos, *cpu, "--clip", f"{assets}/clip.pt"]),
            "text": (extract_text.main, [*asked, *cpu, "--out", features]),
            "pack": (pack_features.main, ["--features", features, "--segments", str(SECONDS)]),
            "train": (train.main, ["--config", config, "--out", run]),
            "test": (test.main, ["--run", run, "--data.layout", "packed"]),
            "reproduce": (reproduce.main, ["prior", "--config", config, *kept, "--seeds", "0", "--row", "TSPM", ""]),
        }
        options = {
            "data": annotations
            | {"truth": f"{bandstand}/truth", "features": features, "segments": SECONDS, "prompts": sheet},
            "model": {"hidden": 16, "top_k": 2},
            "train": {"epochs": 4, "batch_size": 16, "lr": 1e-3, "device": "cpu"},
        }
        render_bandstand.PRESETS = {"demo": Preset(10, SECONDS)}
        queue.subprocess, queue.TICK = SimpleNamespace(Popen=Forked, STDOUT=None), 0.02
        self.here.mkdir(parents=True)
        Path(config).write_text(yaml.safe_dump(options))
        shutil.copyfile(ROOT / "dataset/TextPrompt.xlsx", sheet)
        shutil.copytree(self.here, self.stages / "before render")
        names = list(self.commands)
        for name, following in zip(names, [*names[1:], "end"], strict=True):
            began = time.monotonic()
            code, said = self.run(name)
            assert code == 0, said
            self.seconds[name] = time.monotonic() - began
            shutil.copytree(self.here, self.stages / f"before {following}")
        self.following = dict(zip(names, [*names[1:], "end"], strict=True))

    def before(self, name: str) -> Path:
        """The world before a command."""
        return self.stages / f"before {name}"

    def after(self, name: str) -> Path:
        """The world after a command."""
        return self.stages / f"before {self.following[name]}"

    def restore(self, stage: Path) -> None:
        """Bring the world back to a stage."""
        shutil.rmtree(self.here)
        shutil.copytree(stage, self.here)

    def start(self, name: str, *options: str, begin: Callable[[], None] = lambda: None) -> int:
        """Start a command, after `begin`, and return its process."""
        main, arguments = self.commands[name]
        self.log.unlink(missing_ok=True)  # what a killed command started may still print to the last one
        with open(self.log, "wb") as log:
            return fork(main, [*arguments, *options], log.fileno(), begin)

    def end(self, process: int) -> tuple[int | None, str]:
        """Wait for a command; its exit status (None: it hung, and was killed) and what it said."""
        code, deadline = None, time.monotonic() + PATIENCE
        while code is None and time.monotonic() < deadline:
            code = ended(process)
            time.sleep(0.01)
        if code is None:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        return code, self.log.read_text(errors="replace")

    def run(self, name: str, *options: str) -> tuple[int | None, str]:
        """Run a command to its end."""
        return self.end(self.start(name, *options))

    def outputs(self, name: str) -> dict[str, bytes]:
        """What a command makes that nothing disturbs: contents by path."""
        before, after = contents(self.before(name)), contents(self.after(name))
        return {path: data for path, data in after.items() if before.get(path) != data}

    def differences(self, name: str) -> list[str]:
        """Which of a command's files are not as they would be had nothing disturbed it."""
        here = contents(self.here)
        return [path for path, data in self.outputs(name).items() if here.get(path) != data]


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder that a run is judged by, without times."""
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: held(path) for name, path in paths.items() if not PASSING.search(name)}


def held(path: Path) -> bytes:
    """What a file holds, without times; of a checkpoint what is loaded, as zip archives differ in what nobody reads."""
    if path.suffix == ".pt":
        with contextlib.suppress(UserError):
            return TIMES.sub(b"time", plain(load_checkpoint(path)).encode())
    return TIMES.sub(b"time", path.read_bytes())


def plain(value: Any) -> str:
    """A value as text, tensors with all their numbers."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {plain(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    return f"{value.dtype}{value.tolist()}" if isinstance(value, Tensor) else repr(value)


def fork(main: Callable, arguments: list[str], log: int, begin: Callable[[], None] = lambda: None) -> int:
    """Run a command's `main` in a process of its own that prints to `log`."""
    if process := os.fork():
        return process
    code = 1
    try:
        os.setsid()
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        begin()
        code = main(arguments) or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(process: int) -> int | None:
    """A child's exit status, None while it runs."""
    found, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


class Forked:
    """Stands in for the `subprocess.Popen` of a queue's jobs."""

    def __init__(self, command: list[str], *, stdout, env, pass_fds, **_):
        main = {"train.py": train.main, "test.py": test.main}[command[1]]

        def begin() -> None:
            os.environ.update(env)
            for number in map(int, os.listdir("/proc/self/fd")):
                if number > 2 and number not in pass_fds:
                    with contextlib.suppress(OSError):
                        os.close(number)

        self.pid, self.returncode = fork(main, command[2:], stdout.fileno(), begin), None

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        self.returncode = ended(self.pid) if self.returncode is None else self.returncode
        return self.returncode

    def terminate(self) -> None:
        """Ask it to stop."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> None:
        """Wait for its end."""
        while self.poll() is None:
            time.sleep(0.01)
