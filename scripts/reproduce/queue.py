"""Runs of train.py and test.py as a queue: what is finished is kept, what is broken is reported, the rest goes on.

A run's folder is called by the digest of its options and data, so the same run is found again whatever asks for it, and
is another one as soon as any of these changes. What code it began with is noted in it: what is finished stays when the
code changes, and is said to be of other code; it is trained again if that is asked for. A folder is locked by the
processes at work in it: several queues may share runs, and a queue that was killed leaves its last run to finish or to
be gone on with.
"""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from configs import schema
from scripts.reproduce.identity import Contents, code_of, identity
from scripts.reproduce.lock import Lock, lock
from utils.cli import Parser
from utils.errors import Interrupted, UserError
from utils.files import read_json, sha256, unseal, write_bytes, write_json
from utils.machine import usable_cores
from utils.progress import tqdm
from utils.scoring.predictions import read_predictions

TICK = 0.5  # seconds between looks at the processes
FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
CODE = "code.json"  # in a run's folder: the code it began with, as `code_of` gives it


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
        return _whole(unseal, self.folder / "test/metrics.json")

    @property
    def predictions(self) -> pd.DataFrame:
        """The predictions table of a run that is done."""
        path, known = self.folder / "test/predictions.csv", self.results.get("predictions_sha256")
        if known and _whole(sha256, path) != known:
            raise UserError(f"{path}: holds something else than was written; {_test_again(path)}")
        return _whole(read_predictions, path)

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """What train.py wrote of each epoch so far."""
        path = self.folder / "metrics.jsonl"
        try:
            return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
        except ValueError as error:
            raise UserError(f"{path}: is damaged ({error}); delete it, train.py --resume writes it again") from error

    @property
    def other_code(self) -> str:
        """The modules in which today's code differs from that which the run began with; "" where it is the same."""
        if not (self.done or self.epochs or (self.folder / "last.pt").exists()):
            return ""  # not begun
        try:
            then, now = read_json(self.folder / CODE), code_of(self.config)
        except UserError:  # lost, or damaged
            return "not known"
        return ", ".join(name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name))

    @property
    def commands(self) -> Iterator[list[str]]:
        """What to run, one after the other."""
        yield ["train.py", *self.arguments, "--out", str(self.folder), "--resume"]
        yield ["test.py", "--run", str(self.folder)]


def _whole(read: Callable, path: Path) -> Any:
    """What `read` makes of a file of results."""
    try:
        return read(path)
    except UserError as error:
        raise UserError(f"{error}; {_test_again(path)}") from error


def _test_again(path: Path) -> str:
    return f"delete {path.with_name('metrics.json')} and repeat the command, which tests the run again"


def resolve(arguments: Sequence[str]) -> schema.Config:
    """The configuration that train.py would have with these arguments; a file is read once."""
    return _resolve(tuple(arguments))


@functools.cache
def _resolve(arguments: tuple[str, ...]) -> schema.Config:
    return schema.parse(Parser(prog="train.py"), arguments)[0]


def find_run(label: str, arguments: Sequence[str], seed: int, root: str | Path, contents: Contents) -> Run:
    """The run with these arguments and this seed, in the folder below `root` that holds it or will.

    Raises `UserError` where an option does not fit or something that the run reads is missing.
    """
    config = resolve(arguments)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
    return Run(label, (*arguments, "--train.seed", str(seed)), config, Path(root) / identity(config, contents))


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

    def __init__(self, run: Run, worker: dict[str, str], held: Lock):
        self.run, self.lock = run, held
        self.environment = os.environ | {"TQDM_DISABLE": "1"} | worker
        self.commands = run.commands
        self.log = run.folder / "log.txt"
        write_bytes(run.folder / "label.txt", f"{run.label}\n".encode())
        write_json(run.folder / CODE, code_of(run.config))
        self._start(next(self.commands))

    def _start(self, command: list[str]) -> None:
        with open(self.log, "ab") as log:
            self.began = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                pass_fds=self.lock.descriptors,
                start_new_session=True,  # Ctrl-C is for the queue, which ends its jobs itself
            )
        self.lock.share(self.process.pid)

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


def work(runs: Sequence[Run], workers: Sequence[dict[str, str]], rerun: bool = False) -> dict[Path, str]:
    """Do the runs that are not done, one by each worker at a time; `rerun`: those of other code anew too.

    Returns the reasons of failures, by folder. Raises `Interrupted` on Ctrl-C or SIGTERM, after the runs at work have
    saved where they are.
    """
    todo = [run for run in runs if not run.done or (rerun and run.other_code)]
    if not todo:
        return {}
    waiting, active, failures = deque(todo), {}, {}
    told = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tqdm(total=sum(run.config.train.epochs for run in todo), bar_format=FORMAT) as bar:

            def fail(run: Run, reason: str, where: object) -> None:
                failures[run.folder] = reason
                bar.write(f"failed: {run.label}: {reason} ({where})", sys.stderr)

            bar.initial = _epochs_done(todo)
            while waiting or active:
                for number, worker in enumerate(workers):
                    if number not in active and (job := _next_job(waiting, worker, rerun, fail)):
                        active[number] = job
                _show(bar, todo, active, failures)
                time.sleep(TICK)
                for number, job in list(active.items()):
                    if job.finished():
                        job.lock.release()
                        del active[number]
                        if job.process.returncode:
                            fail(job.run, job.reason(), job.log)
            _show(bar, todo, active, failures)
    except KeyboardInterrupt:
        raise Interrupted("what was at work is saved; repeat the command to go on") from None
    finally:
        for job in active.values():  # none, unless something went wrong
            job.process.terminate()
        for job in active.values():
            job.process.wait()
            job.lock.release()
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


def _next_job(waiting: deque[Run], worker: dict[str, str], rerun: bool, fail: Callable) -> _Job | None:
    """Start the first waiting run that no other process works on; those that became done meanwhile are dropped."""
    for _ in range(len(waiting)):
        run = waiting.popleft()
        held = lock(run.folder)
        if held is None:
            waiting.append(run)
            continue
        differs = run.other_code
        if differs and rerun:
            _put_aside(run.folder)
        if run.done:
            held.release()
        elif differs and not rerun:
            fail(run, f"begun by other code ({differs}); --rerun starts it anew", run.folder)
            held.release()
        else:
            return _Job(run, worker, held)
    return None


def _put_aside(folder: Path) -> None:
    """Keep what other code made of a run under a name of its own."""
    kept = folder.with_name(f"{folder.name}-until-{time.strftime('%Y%m%d-%H%M%S')}")
    kept.mkdir()
    for path in folder.iterdir():
        if not path.name.startswith(".lock"):
            path.rename(kept / path.name)
