"""Commands that are disturbed, and files that are damaged, at random: a sample of scripts.faults."""

import subprocess
import sys

import pytest

from tests.small_run import ROOT


@pytest.mark.slow
def test_nothing_is_lost():
    """In a process of its own, as it forks: each fault once, of another command each."""
    command = [sys.executable, "-m", "scripts.faults", "--number", "9", "--seed", "7"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 faults, 0 not made good" in done.stdout
