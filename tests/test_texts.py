"""Texts: what they link to is there, and lines end where a reader's window does."""

import re
import subprocess

import pytest

from tests.small_run import ROOT

TEXTS = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.split()


@pytest.mark.skipif(not TEXTS, reason="not a git repository")
def test_relative_links_lead_somewhere():
    broken = []
    for text in TEXTS:
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / text).read_text(encoding="utf-8")):
            if "://" not in target and not ((ROOT / text).parent / target).exists():
                broken.append(f"{text}: {target}")
    assert not broken


@pytest.mark.skipif(not TEXTS, reason="not a git repository")
def test_lines_of_prose_end_before_column_160():
    long = [
        f"{text}:{number}"
        for text in TEXTS
        if not text.startswith("assets/")  # written by a command, for a page that wraps lines
        for number, line in enumerate((ROOT / text).read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) > 160 and not line.startswith(("|", "    "))
    ]
    assert not long
