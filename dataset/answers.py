"""Answers as classes: the fixed 42 of MUSIC-AVQA, and a vocabulary gathered from AVQA's choices."""

from collections.abc import Iterable
from typing import Any

from utils.text import normalised

MUSIC_AVQA_ANSWERS = (
    *("two", "cello", "congas", "zero", "no", "pipa", "six", "yes", "one", "four", "three", "seven", "five"),
    *("ukulele", "right", "piano", "left", "accordion", "clarinet", "guzheng", "more than ten", "nine", "indoor"),
    *("saxophone", "drum", "violin", "middle", "outdoor", "bagpipe", "bassoon", "acoustic_guitar", "banjo"),
    *("electric_bass", "ten", "eight", "flute", "simultaneously", "trumpet", "erhu", "xylophone", "tuba", "suona"),
)
"""The 42 answers in the index order of the public predictions files and checkpoints."""


class AnswerVocabulary:
    """Answer strings <-> class indices; spellings that differ in case or white space are one answer.

    `answers` holds the first spelling of each, in the order given: `answers[i]` is the answer of class i.
    """

    def __init__(self, answers: Iterable[str]):
        spelling: dict[str, str] = {}
        for answer in answers:
            spelling.setdefault(normalised(answer), answer)
        self.answers = tuple(spelling.values())
        self._index = {form: i for i, form in enumerate(spelling)}

    def __len__(self) -> int:
        return len(self.answers)

    def index(self, answer: str) -> int:
        """The class of an answer, -1 if it is none (never index `answers` with that: it would give the last one)."""
        return self._index.get(normalised(answer), -1)


def avqa_vocabulary(rows: Iterable[dict[str, Any]]) -> AnswerVocabulary:
    """Every choice string of AVQA annotation rows (field `multi_choice`), in alphabetical order.

    Sorted, so that the classes do not depend on the order of rows or files.
    """
    choices = (choice.strip() for row in rows for choice in row["multi_choice"])
    return AnswerVocabulary(sorted(choices, key=normalised))
