"""Mistakes that somebody might make, each with the one test that must notice it.

A test is worth what it catches: `python -m tests.mutants` makes each mistake in a copy of the tree and runs its test.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A mistake: `text`, which stands once in `file`, becomes `instead`."""

    name: str  # what is wrong
    file: str
    text: str
    instead: str
    test: str  # below tests/
    harmless: str = ""  # why no test can notice it, where none can
