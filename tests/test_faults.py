"""Commands that are disturbed, and files that are damaged, at random: a sample of tests.faults, and its verdicts."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.small_run import ROOT


@pytest.mark.slow
def test_nothing_is_lost():
    """In a process of its own, as it forks: each fault once, of another command each."""
    command = [sys.executable, "-m", "tests.faults", "--number", "9", "--seed", "7"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 faults, 0 not made good" in done.stdout


@pytest.mark.parametrize(
    ("said", "differs", "verdict"),
    [
        (["", ""], [False], "same"),  # the damaged input was read; restored, it leads to the same files
        (["", "", ""], [True, False], "other input"),
        (["", "", ""], [True, True], "silently different: made/file"),
        (["", "error: train.json: start another with --out", ""], [False], "one line"),
        (["", "error: train.json: start another with --out", ""], [True], "silently different: made/file"),
        (["error: train.json: is broken, restore it", ""], [True], "silently different: made/file"),
        (["error: train.json: is broken, restore it"] * 4, [], "the remedies do not help"),
        (["error: is broken, restore it"], [], "does not name the file"),
        (["error: train.json: is broken"] * 2, [], "names no remedy"),
    ],
)
def test_a_verdict_is_of_what_the_remedies_lead_to(tmp_path, monkeypatch, said, differs, verdict):
    monkeypatch.setenv("TQDM_DISABLE", "1")  # as the import leaves it, for this test alone
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from tests.faults.__main__ import RESULTS, Wrong, settled

    hit, said, differs = "bandstand/annotations/train.json", iter(said), iter(differs)
    for folder in ("before", "world"):
        (tmp_path / folder / hit).parent.mkdir(parents=True)
        (tmp_path / folder / hit).touch()
    world = SimpleNamespace(
        here=tmp_path / "world",
        before=lambda name: tmp_path / "before",
        outputs=lambda name: {"made/file": b""},
        run=lambda name, *options: (int(bool(line := next(said))), line),
        differences=lambda name: ["made/file"] if next(differs) else [],
    )
    if verdict in RESULTS:
        assert settled(world, "train", hit) == verdict
    else:
        with pytest.raises(Wrong, match=verdict):
            settled(world, "train", hit)
    assert not list(said)
    assert not list(differs)
