"""Commands in processes of their own, to be killed or to work together: forks of one that has imported what they need,
as each start of Python with PyTorch takes seconds."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytest", "train", "torch._dynamo", "feat_script.extract_visual"])


@dataclass
class Begun:
    """The processes of one command and the files of what each prints, by rank."""

    ranks: list[BaseProcess]
    logs: list[Path]

    def end(self) -> str:
        """Wait for all of them; returns what they printed."""
        for process in self.ranks:
            process.join(300)
            assert process.exitcode is not None, "hangs"
        return "".join(log.read_text() for log in self.logs)

    @property
    def statuses(self) -> list[int | None]:
        return [process.exitcode for process in self.ranks]


def begin(main: Callable, *arguments: str | Path | float, logs: Path, processes: int = 1) -> Begun:
    """Start `main(arguments)`, with one thread, in as many processes as torchrun would; what they print goes to
    files in the folder `logs`."""
    logs.mkdir(exist_ok=True)
    with socket.create_server(("localhost", 0)) as free:
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    begun = Begun([], [logs / f"{rank}.txt" for rank in range(processes)])
    for rank, log in enumerate(begun.logs):
        its = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)} | place
        given = {"OMP_NUM_THREADS": "1"} | (its if processes > 1 else {})
        process = CONTEXT.Process(target=_work, args=(main, [*map(str, arguments)], given, log))
        process.start()
        begun.ranks.append(process)
    return begun


def ended(main: Callable, *arguments: str | Path | float, logs: Path, processes: int = 1, expect: int = 0) -> str:
    """As `begin`, to the end; returns what was printed."""
    begun = begin(main, *arguments, logs=logs, processes=processes)
    printed = begun.end()
    assert begun.statuses == [expect] * processes, printed
    return printed


def _work(main: Callable, arguments: list[str], environment: dict[str, str], log: Path) -> None:
    os.environ |= environment
    torch.set_num_threads(1)
    with open(log, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.exit(main(arguments))
