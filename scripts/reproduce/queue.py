"""Runs of train.py and test.py as a queue: what is finished is kept, what is broken is reported, the rest goes on.

A run's folder is called by the digest of its options and data, so the same run is found again whatever asks for it, and
is another one as soon as any of these changes. The code is not in it: a finished run stays when the code changes, and a
folder that is moved away is trained anew. A folder is locked by the processes at work in it: several queues may share
runs, and a queue that was killed leaves its last run to finish or to be gone on with.
"""

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from configs import schema
from scripts.reproduce.identity import Contents, identity
from utils.cli import Parser
from utils.errors import Interrupted, UserError
from utils.files import sha256, unseal, write_bytes, writing
from utils.machine import usable_cores
from utils.progress import tqdm
from utils.scoring.predictions import read_predictions

TICK = 0.5  # seconds between looks at the processes
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """A training run and its test, by the arguments of train.py without --out."""

    label: str
    arguments: tuple[str, ...]
    config: schema.Config
    folder: Path

    @property
    def done(self) -> bool:
        """Whether the test's results are there; they are written last."""
        return (self.folder / "test/metrics.json").exists()

    @property
    def results(self) -> dict[str, Any]:
        """What test.py wrote of a run that is done: questions, accuracy, ..."""
        with self._to_test_again():
            return unseal(self.folder / "test/metrics.json")

    @property
    def predictions(self) -> pd.DataFrame:
        """The predictions table of a run that is done."""
        path, known = self.folder / "test/predictions.csv", self.results.get("predictions_sha256")
        with self._to_test_again():
            if known and sha256(path) != known:
                raise UserError(f"{path}: holds something else than was written")
            return read_predictions(path)

    @contextlib.contextmanager
    def _to_test_again(self) -> Iterator[None]:
        """Name the remedy where a file of the test's results is broken."""
        try:
            yield
        except UserError as error:
            remedy = f"delete {self.folder / 'test/metrics.json'} and repeat the command, which tests the run again"
            raise UserError(f"{error}; {remedy}") from error

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """What train.py wrote of each epoch so far."""
        path = self.folder / "metrics.jsonl"
        try:
            return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
        except ValueError as error:
            raise UserError(f"{path}: is damaged ({error}); delete it, train.py --resume writes it again") from error

    @property
    def outdated(self) -> bool:
        """Whether files of the code that trains and answers are younger than the results of a run that is done."""
        rooms = (ROOT / room for room in ("configs", "dataset", "nets", "utils"))
        files = [*ROOT.glob("*.py"), *(path for room in rooms for path in room.rglob("*.py"))]
        return max(path.stat().st_mtime for path in files) > (self.folder / "test/metrics.json").stat().st_mtime

    @property
    def commands(self) -> Iterator[list[str]]:
        """What to run, one after the other."""
        yield ["train.py", *self.arguments, "--out", str(self.folder), "--resume"]
        yield ["test.py", "--run", str(self.folder)]


@functools.cache
def resolve(*arguments: str) -> schema.Config:
    """The configuration that train.py would have with these arguments."""
    return schema.parse(Parser(prog="train.py"), arguments)[0]


def find_run(label: str, arguments: Sequence[str], seed: int, root: str | Path, contents: Contents) -> Run:
    """The run with these arguments and this seed, in the folder below `root` that holds it or will.

    Raises `UserError` where an option does not fit or something that the run reads is missing.
    """
    config = resolve(*arguments)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
    return Run(label, (*arguments, "--train.seed", str(seed)), config, Path(root) / identity(config, contents))


def find_workers(device: str) -> list[dict[str, str]]:
    """What each worker adds to its runs' environment: one for every GPU; on the CPU, one for as many cores as a run has
    threads, so that OMP_NUM_THREADS=1 keeps every core busy with a run of its own, which suits narrow models.

    It says how many they are: each run takes its share of the memory. Raises `UserError` where there is no GPU to use.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device is cuda, but PyTorch finds no GPU here; --train.device cpu runs without one")
    if device == "cpu" or not torch.cuda.is_available():
        number = max(1, usable_cores() // torch.get_num_threads())
        return [{"LOCAL_WORLD_SIZE": str(number)}] * number
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = listed.split(",") if listed else [str(i) for i in range(torch.cuda.device_count())]
    return [{"CUDA_VISIBLE_DEVICES": name, "LOCAL_WORLD_SIZE": str(len(names))} for name in names]


def lock(folder: Path) -> int | None:
    """Hold a folder, which is made where there is none: a descriptor; None where others hold it.

    The system frees it when all have ended that have the descriptor, or inherited it. A disk that has no locks is told:
    nothing guards its folders. Raises `UserError` where the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        print(f"{folder}: this disk has no locks; let no other queue work on it", file=sys.stderr)
    return descriptor


class _Job:
    """A run at work: its commands, one after the other, which inherit the lock of its folder."""

    def __init__(self, run: Run, worker: dict[str, str], held: int):
        self.run, self.lock = run, held
        self.environment = os.environ | {"TQDM_DISABLE": "1"} | worker
        self.commands = run.commands
        self.log = run.folder / "log.txt"
        write_bytes(run.folder / "label.txt", f"{run.label}\n".encode())
        self._start(next(self.commands))
        tqdm.write(f"at work: {run.label} ({self.log})", sys.stderr)

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
        """Why the last command failed: the signal, its error message, or the last line that it printed."""
        if self.process.returncode < 0:
            return f"ended by {signal.Signals(-self.process.returncode).name}; repeat the command to go on"
        try:
            text = self.log.read_bytes()[self.began :].decode(errors="replace").strip()
        except OSError as error:  # the folder was taken away
            return f"{self.log}: cannot be read ({error.strerror}); repeat the command"
        said = text[text.rfind("\nerror: ") + 1 :] if "\nerror: " in f"\n{text}" else text.rpartition("\n")[2]
        return said or f"exit status {self.process.returncode}"


def work(runs: Sequence[Run], workers: Sequence[dict[str, str]]) -> dict[Path, str]:
    """Do the runs that are not done, one by each worker at a time.

    Returns the reasons of failures, by folder. Raises `Interrupted` on Ctrl-C or SIGTERM, after the runs at work have
    saved where they are.
    """
    waiting = deque(run for run in runs if not run.done)
    if not waiting:
        return {}
    active: dict[int, _Job] = {}  # by the number of the worker
    failures: dict[Path, str] = {}
    told = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tqdm(total=len(waiting), unit="run") as bar:
            while waiting or active:
                for number, worker in enumerate(workers):
                    if number not in active and (job := _next_job(waiting, worker)):
                        active[number] = job
                time.sleep(TICK)
                for number, job in [*active.items()]:
                    if job.finished():
                        del active[number]
                        os.close(job.lock)
                        if job.process.returncode:
                            failures[job.run.folder] = reason = job.reason()
                            bar.write(f"failed: {job.run.label}: {reason} ({job.run.folder})", sys.stderr)
                bar.update(bar.total - len(waiting) - len(active) - bar.n)
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


def _next_job(waiting: deque[Run], worker: dict[str, str]) -> _Job | None:
    """Start the first waiting run that no other process works on; those that became done meanwhile are left out."""
    for _ in range(len(waiting)):
        run = waiting.popleft()
        held = lock(run.folder)
        if held is None:
            waiting.append(run)
        elif run.done:
            os.close(held)
        else:
            return _Job(run, worker, held)
    return None
