"""Runs of train.py and test.py as a queue: what is finished is kept, what is broken is reported, the rest goes on.

A run's folder carries the digest of everything that decides its numbers: its resolved options, the contents of its
annotation files, its prompts, and the manifests of its features. So the same run is found again whatever asks for it,
and is another one as soon as any of these changes. A folder is locked by the processes at work in it: several queues
may share runs, and a queue that was killed leaves its last run to finish or to be gone on with.
"""

import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from configs import schema
from dataset.features import open_features
from dataset.text_prompt import PromptTable
from utils.cli import Parser
from utils.errors import Interrupted, UserError
from utils.files import read_json, sha256
from utils.machine import usable_cores
from utils.progress import tqdm

TICK = 0.5  # seconds between looks at the processes
FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"


@dataclass(frozen=True)
class Run:
    """A training run and its test, by the arguments of train.py without --out."""

    label: str
    arguments: tuple[str, ...]
    config: schema.Config
    folder: Path

    @property
    def digest(self) -> str:
        """Of everything that decides the run's numbers."""
        return self.folder.name.rpartition("-")[2]

    @property
    def done(self) -> bool:
        """Whether the test's results are there; they are written last."""
        return (self.folder / "test/metrics.json").exists()

    @property
    def results(self) -> dict[str, Any]:
        """What test.py wrote of a run that is done: questions, accuracy, interval95, ..."""
        return read_json(self.folder / "test/metrics.json")

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """What train.py wrote of each epoch so far."""
        path = self.folder / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def commands(self) -> Iterator[list[str]]:
        """What to run, one after the other."""
        yield ["train.py", *self.arguments, "--out", str(self.folder), "--resume"]
        yield ["test.py", "--run", str(self.folder)]


def resolve(arguments: Sequence[str]) -> schema.Config:
    """The configuration that train.py would have with these arguments; a file is read once."""
    return _resolve(tuple(arguments))


@functools.cache
def _resolve(arguments: tuple[str, ...]) -> schema.Config:
    return schema.parse(Parser(prog="train.py"), arguments)[0]


def find_run(label: str, arguments: Sequence[str], seed: int, root: str | Path) -> Run:
    """The run with these arguments and this seed, in the folder below `root` that holds it or will.

    Raises `UserError` where an option does not fit or something that the run reads is missing.
    """
    config = resolve(arguments)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
    name = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
    digest = hashlib.sha256(json.dumps(_identity(config), sort_keys=True).encode()).hexdigest()[:12]
    folder = next(Path(root).glob(f"*-{digest}"), Path(root) / f"{name}-{digest}")
    return Run(label, (*arguments, "--train.seed", str(seed)), config, folder)


def _identity(config: schema.Config) -> dict[str, Any]:
    """Everything that decides a run's numbers."""
    data = config.data
    rooms = {"data": data, "model": config.model, "train": config.train}
    options = {f"{room}.{name}": value for room, held in rooms.items() for name, value in vars(held).items()}
    may_change = schema.MAY_CHANGE - {"train.epochs"}
    return {
        "options": {name: value for name, value in options.items() if name not in may_change},
        "annotations": [_digest(path) for split in ("train", "val", "test") for path in data.files(split).values()],
        "prompts": PromptTable.read(data.prompts, data.sheet).templates,
        "manifests": open_features(
            data.features, data.layout, config.model.kinds, data.segments, data.tokens
        ).manifests,
    }


@functools.cache
def _digest(path: str) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def find_workers(device: str) -> list[dict[str, str]]:
    """What each worker adds to its runs' environment: one for every GPU; on the CPU, one for as many cores as a run has
    threads, so that OMP_NUM_THREADS=1 keeps every core busy with a run of its own, which suits narrow models.

    As torchrun does, it says how many they are: each run takes its share of the machine's memory.

    Raises `UserError` where a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device is cuda, but PyTorch finds no GPU here; --train.device cpu runs without one")
    if device == "cpu" or not torch.cuda.is_available():
        number = max(1, usable_cores() // torch.get_num_threads())
        return [{"LOCAL_WORLD_SIZE": str(number)}] * number
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = listed.split(",") if listed else [str(i) for i in range(torch.cuda.device_count())]
    return [{"CUDA_VISIBLE_DEVICES": name, "LOCAL_WORLD_SIZE": str(len(names))} for name in names]


class _Job:
    """A run at work: its commands, one after the other, and the lock that they inherit."""

    def __init__(self, run: Run, worker: dict[str, str], lock: int):
        self.run, self.lock = run, lock
        self.environment = os.environ | {"TQDM_DISABLE": "1"} | worker
        self.commands = run.commands
        self.log = run.folder / "log.txt"
        self._start(next(self.commands))

    def _start(self, command: list[str]) -> None:
        with open(self.log, "ab") as log:
            self.began = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                pass_fds=[self.lock],
                start_new_session=True,  # Ctrl-C is for the queue, which ends its jobs itself
            )

    def finished(self) -> bool:
        """Whether there is nothing left to wait for; starts the next command where the last one went well."""
        if self.process.poll() is None:
            return False
        if self.process.returncode == 0 and (command := next(self.commands, None)):
            self._start(command)
            return False
        return True

    def reason(self) -> str:
        """Why the last command failed: its error message, or the last line that it printed."""
        text = self.log.read_bytes()[self.began :].decode(errors="replace").strip()
        said = text[text.rfind("\nerror: ") + 1 :] if "\nerror: " in f"\n{text}" else text.rpartition("\n")[2]
        return said or f"exit status {self.process.returncode}"


def work(runs: Sequence[Run], workers: Sequence[dict[str, str]]) -> dict[Path, str]:
    """Do the runs that are not done, one by each worker at a time. Returns the reasons of failures, by folder.

    Raises `Interrupted` on Ctrl-C or SIGTERM, after the runs at work have saved where they are.
    """
    todo = [run for run in runs if not run.done]
    if not todo:
        return {}
    waiting, active, failures = deque(todo), {}, {}
    told = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tqdm(total=sum(run.config.train.epochs for run in todo), bar_format=FORMAT) as bar:
            bar.initial = _epochs_done(todo)
            while waiting or active:
                for number, worker in enumerate(workers):
                    if number not in active and (job := _next_job(waiting, worker)):
                        active[number] = job
                _show(bar, todo, active, failures)
                time.sleep(TICK)
                for number, job in list(active.items()):
                    if job.finished():
                        os.close(job.lock)
                        del active[number]
                        if job.process.returncode:
                            failures[job.run.folder] = job.reason()
                            bar.write(f"failed: {job.run.label}: {job.reason()} ({job.log})", sys.stderr)
            _show(bar, todo, active, failures)
    except KeyboardInterrupt:
        raise Interrupted("what was at work is saved; repeat the command to go on") from None
    finally:
        for job in active.values():  # none, unless something went wrong
            job.process.terminate()
        for job in active.values():
            job.process.wait()
            os.close(job.lock)
        signal.signal(signal.SIGTERM, told)
    return failures


def _epochs_done(runs: Sequence[Run]) -> int:
    return sum(run.config.train.epochs if run.done else len(run.epochs) for run in runs)


def _show(bar: tqdm, todo: Sequence[Run], active: dict[int, _Job], failures: dict[Path, str]) -> None:
    """Bring the bar, which counts epochs, up to date; silent while nothing moves, so that a log of it stays short."""
    ended = sum(run.done for run in todo) + len(failures)
    now = ", ".join(job.run.label for job in active.values()) or "none at work here"
    description, done = f"{ended}/{len(todo)} runs ({now})", _epochs_done(todo)
    if not bar.disable and (description, done) != (bar.desc, bar.n):  # a disabled bar has no desc
        bar.set_description_str(description, refresh=False)
        bar.n = done
        bar.refresh()


def _next_job(waiting: deque[Run], worker: dict[str, str]) -> _Job | None:
    """Start the first waiting run that no other process works on; those that became done meanwhile are dropped."""
    for _ in range(len(waiting)):
        run = waiting.popleft()
        lock = _lock(run.folder)
        if lock is None:
            waiting.append(run)
        elif run.done:
            os.close(lock)
        else:
            return _Job(run, worker, lock)
    return None


def _lock(folder: Path) -> int | None:
    """Lock a folder until the descriptor returned is closed, here and in all who inherited it; None if it is locked."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
