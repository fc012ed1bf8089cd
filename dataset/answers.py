"""Answers as classes, and the vocabularies that there are: fixed, gathered from choices, the most frequent."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd

from utils.errors import UserError
from utils.text import normalised

Tables = Mapping[str, pd.DataFrame]  # the questions of each split


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


def all_choices(tables: Tables) -> Sequence[str]:
    """Every choice that is offered, in alphabetical order, so that the order of rows changes no class."""
    spellings = {choice for table in tables.values() for offered in table["choices"] for choice in offered}
    return sorted(spellings, key=lambda choice: (normalised(choice), choice))


def most_frequent_answers(number: int) -> Callable[[Tables], Sequence[str]]:
    """The `number` answers most frequent in training, of equals the alphabetically first; any other answer is wrong."""

    def answers(tables: Tables) -> Sequence[str]:
        if "train" not in tables:
            raise UserError("the answers of this data set are those frequent in training: open its data.train too")
        spelling = {normalised(answer): answer for answer in reversed(tables["train"]["answer"])}
        counts = Counter(tables["train"]["answer"].map(normalised))
        return [spelling[form] for form in sorted(counts, key=lambda form: (-counts[form], form))[:number]]

    return answers
