"""Accuracy by question type as the papers report it, and baselines.

A *questions* table holds a row per question with the columns question_id, video_id, modality, type and answer; where
answers are chosen among a few, `choices` (the strings offered). A *predictions* table adds prediction and correct
(bool). A *row* is a dict column -> accuracy in per cent, the columns being those of a data set's `Columns`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from utils.errors import UserError
from utils.text import normalised


@dataclass(frozen=True)
class Columns:
    """How the questions of a data set fall into the columns of a results row; by default one for each type there is."""

    # Column -> (modality, type) of its questions, in print order; empty: a column for each type, sorted.
    types: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    # Modality -> its columns, the last of which is their average.
    averages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def masks(self, questions: pd.DataFrame) -> dict[str, np.ndarray]:
        """The questions (boolean, one per question) that each column is computed over; "All" is the last.

        A column without questions is left out. Raises `UserError` if there is no question at all, or one of a
        modality and type that no column has.
        """
        if questions.empty:
            raise UserError("there are no questions to score; is the split or the predictions file empty?")
        modality, kind = questions["modality"].to_numpy(), questions["type"].to_numpy()
        everything = np.ones(len(questions), dtype=bool)
        if not self.types:
            return {name: kind == name for name in sorted(set(kind))} | {"All": everything}
        masks = {column: (modality == m) & (kind == k) for column, (m, k) in self.types.items()}
        if (typeless := ~np.logical_or.reduce(list(masks.values()))).any():
            first = questions[typeless].iloc[0]
            raise UserError(
                f"question {first['question_id']}: {first['modality']} {first['type']} is no question type of this "
                f"data set ({', '.join(self.types)})"
            )
        masks |= {columns[-1]: modality == name for name, columns in self.averages.items()} | {"All": everything}
        order = [column for columns in self.averages.values() for column in columns] or list(self.types)
        return {column: masks[column] for column in [*order, "All"] if masks[column].any()}

    def layout(self, shown: Iterable[str]) -> dict[str, dict[str, str]]:
        """Header -> column -> its label, for those of the columns `shown` that stand under each header."""
        shown, averages = list(shown), {columns[-1] for columns in self.averages.values()}
        groups = self.averages or {"Question type": tuple(column for column in shown if column != "All")}
        labelled = {
            header: {c: "Avg" if c in averages else c.split("-")[-1] for c in columns if c in shown}
            for header, columns in groups.items()
        }
        return {header: labels for header, labels in labelled.items() if labels} | {"": {"All": "All"}}


def judge(questions: pd.DataFrame, prediction: Sequence[str]) -> pd.DataFrame:
    """The predictions table of one predicted answer per question; spellings are compared as `normalised`."""
    correct = [normalised(a) == normalised(p) for a, p in zip(questions["answer"], prediction, strict=True)]
    return questions.assign(prediction=list(prediction), correct=np.array(correct, dtype=bool))


def accuracy_row(predictions: pd.DataFrame, columns: Columns) -> dict[str, float]:
    """Accuracy in per cent of each column: for MUSIC-AVQA, a row of the paper's Table 1.

    Averages are correct / all over the questions of a modality or of the split, so frequent types weigh more.
    """
    correct = predictions["correct"].to_numpy()
    return {column: 100.0 * float(correct[mask].mean()) for column, mask in columns.masks(predictions).items()}


def most_frequent(train: pd.DataFrame, test: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Baseline that looks at nothing: predictions of the answer most frequent in `train`, as a predictions table.

    With `by` (columns, e.g. ["modality", "type"] or ["template"]) it is the most frequent among the train questions
    that agree in them, or overall if none does. Where `test` has a `choices` column, the answer is the choice offered
    that was the most frequent in train. Ties go to the first in train order, or in the order offered.
    """
    overall = Counter(train["answer"].map(normalised))
    groups = {key: Counter(answers.map(normalised)) for key, answers in train.groupby(list(by))["answer"]} if by else {}
    keys = list(test[list(by)].itertuples(index=False, name=None)) if by else [()] * len(test)
    offered = test["choices"] if "choices" in test else [None] * len(test)

    def best(counter: Counter[str], choices: Sequence[str] | None) -> str:
        if choices is None:
            return counter.most_common(1)[0][0]
        return max(choices, key=lambda choice: (counter[normalised(choice)], overall[normalised(choice)]))

    return judge(test, [best(groups.get(key, overall), choices) for key, choices in zip(keys, offered, strict=True)])


def random_choice(questions: pd.DataFrame) -> float:
    """Expected accuracy in per cent of picking uniformly among the distinct strings of each question's `choices`.

    A question whose answer is not among its choices counts as wrong.
    """
    chances = []
    for answer, choices in zip(questions["answer"], questions["choices"], strict=True):
        distinct = {normalised(choice) for choice in choices}
        chances.append((normalised(answer) in distinct) / len(distinct))
    return 100.0 * float(np.mean(chances))
