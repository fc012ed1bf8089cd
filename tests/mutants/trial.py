"""A mutant's trial: the tree is copied, the mistake made in the copy, the test run there."""

import contextlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import hypothesis  # noqa: F401 - these are loaded once, and each trial is a fork that has them
import jsonargparse  # noqa: F401
import openpyxl  # noqa: F401
import pandas  # noqa: F401
import pytest
import torch.utils.tensorboard

from tests.mutants import Mutant

ROOT = Path(__file__).parents[2]  # a trial must find no module of ours loaded, so that of tests.small_run won't do


@contextlib.contextmanager
def copied_tree() -> Iterator[Path]:
    """A copy of all files that git would keep, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():  # not deleted
                place = Path(folder, name)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, place)
        yield Path(folder)


def mutated(mutant: Mutant, source: str) -> str:
    """The source with the mistake in it. Raises `ValueError` unless the text stands in it once."""
    if (count := source.count(mutant.text)) != 1:
        raise ValueError(f"{mutant.name}: {mutant.file} holds {mutant.text!r} {count} times, not once")
    return source.replace(mutant.text, mutant.instead)


def passes(tree: Path, tests: Sequence[str]) -> bool:
    """Whether tests, `file::name` below tests/, pass in a tree. Raises `RuntimeError` where they do not run."""
    with tempfile.NamedTemporaryFile("r") as printed:
        trial = multiprocessing.get_context("fork").Process(target=_run, args=(tree, tests, printed.name))
        trial.start()
        trial.join()
        said = printed.read()
    if trial.exitcode not in (0, 1) or (trial.exitcode == 0 and " passed" not in said):
        raise RuntimeError(f"{', '.join(tests)}: did not run, exit status {trial.exitcode}\n{said}")
    return trial.exitcode == 0


def _run(tree: Path, tests: Sequence[str], printed: str) -> None:
    """Run tests in a tree, with one thread, in a process that ends with the exit status of pytest."""
    file = os.open(printed, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # a stale .pyc would be believed
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    sys.path[0] = str(tree)
    os.chdir(tree)
    options = ("-x", "-q", "--no-header", "-p", "no:cacheprovider")
    sys.exit(pytest.main([*options, *(str(tree / "tests" / test) for test in tests)]))


def is_noticed(mutant: Mutant, tree: Path) -> bool:
    """Whether the mutant's test fails where the mistake is made; the tree is put back."""
    path = tree / mutant.file
    source = path.read_text(encoding="utf-8")
    path.write_text(mutated(mutant, source), encoding="utf-8")
    try:
        return not passes(tree, [mutant.test])
    finally:
        path.write_text(source, encoding="utf-8")
