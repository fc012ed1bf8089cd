"""Answers as classes: the fixed 42 of MUSIC-AVQA, and a vocabulary gathered from AVQA's choices."""

from collections.abc import Iterable

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
        """The class of an answer, -1 if it is none."""
        return self._index.get(normalised(answer), -1)

    def words(self, classes: Iterable[int]) -> list[str]:
        """The answer of each class; "", which is no answer, for -1."""
        return [self.answers[i] if i >= 0 else "" for i in classes]


def avqa_vocabulary(choices: Iterable[Iterable[str]]) -> AnswerVocabulary:
    """Every choice offered by AVQA's questions, in alphabetical order, so that the order of rows changes no class."""
    spellings = {choice for offered in choices for choice in offered}
    return AnswerVocabulary(sorted(spellings, key=lambda choice: (normalised(choice), choice)))
