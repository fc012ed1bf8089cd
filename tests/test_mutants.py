"""The list of mistakes is up to date, and tests notice two of them; `python -m tests.mutants` makes all."""

import datetime
import random
import re

import pytest

from tests.mutants.__main__ import MUTANTS, report
from tests.mutants.trial import mutated
from tests.small_run import ROOT, run

TODAY = datetime.date.today().toordinal()  # in time all of them come


def test_every_mistake_can_still_be_made():
    names = [mutant.name for mutant in MUTANTS]
    assert all(sum(name in other for other in names) == 1 for name in names)  # so that each can be called alone
    for mutant in MUTANTS:
        source = (ROOT / mutant.file).read_text(encoding="utf-8")
        assert mutated(mutant, source) != source
        file, name = mutant.test.split("::")
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_a_text_that_does_not_stand_there_once_is_named():
    for text, count in (("x", 2), ("y", 0)):
        with pytest.raises(ValueError, match=f"holds {text!r} {count} times, not once"):
            mutated(MUTANTS[0]._replace(text=text), "x = 1 + x")


def test_the_report_counts_and_names_survivors():
    killed, harmless, missed = MUTANTS[0], MUTANTS[1]._replace(harmless="it is so"), MUTANTS[2]
    said = report({killed: True, harmless: False, missed: False})
    assert "**1 of 3 were noticed.**" in said
    assert f"| {harmless.name} | `{harmless.file}` | no: it is so |" in said
    assert f"| {missed.name} | `{missed.file}` | no: a test is missing |" in said


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the files are those that git lists")
def test_two_mistakes_are_noticed():
    names = [mutant.name for mutant in MUTANTS if not mutant.harmless]
    assert "2 of 2 were noticed" in run("-m", "tests.mutants", *random.Random(TODAY).sample(names, 2))
