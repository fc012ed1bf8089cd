"""A mutant's trial: the tree is copied, the mistake made in the copy, the test run there."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutants import Mutant
from tests.small_run import ROOT

QUIET = ("-q", "--no-header", "-p", "no:cacheprovider")


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
    """Whether tests, `file::name` below tests/, pass in a tree. Raises `RuntimeError` where one does not run."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # a stale .pyc would be believed
    command = [sys.executable, "-m", "pytest", "-x", *QUIET, *(f"tests/{test}" for test in tests)]
    done = subprocess.run(command, cwd=tree, env=environment, check=False, capture_output=True, text=True, timeout=600)
    if done.returncode not in (0, 1) or (done.returncode == 0 and " passed" not in done.stdout):
        raise RuntimeError(f"{', '.join(tests)}: does not run\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def is_noticed(mutant: Mutant, tree: Path) -> bool:
    """Whether the mutant's test fails where the mistake is made; the tree is put back."""
    path = tree / mutant.file
    source = path.read_text(encoding="utf-8")
    path.write_text(mutated(mutant, source), encoding="utf-8")
    try:
        return not passes(tree, [mutant.test])
    finally:
        path.write_text(source, encoding="utf-8")
