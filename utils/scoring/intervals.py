"""How sure a score is: intervals, paired differences and their p-values, by resampling videos; Holm's correction.

One method for every score of a question: accuracy, average precision, recall, pointing. A *side* is one table or
several, a run's each: the runs of one model from several seeds. A table holds a row per question with question_id,
video_id, modality, type and the score, a share of 1 (`correct` of a predictions table; NaN where the question does not
count). The questions of all runs are pooled, so that the score of a side is the mean over its seeds.

Videos are resampled, not questions: those about one video share its features and stand or fall together. What an
interval tells is how the score of *these* runs would vary with other videos of the same kind; the spread of further
seeds is not in it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from utils.errors import UserError
from utils.scoring.metrics import Columns
from utils.text import normalised

RESAMPLES = 10_000
LEVELS = (0.025, 0.975)


def bootstrap_interval(
    tables: Sequence[pd.DataFrame],
    columns: Columns,
    score: str = "correct",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """95 % percentile interval (low, high), in per cent, of a side's mean score in each column.

    Raises `UserError` unless all tables hold the same questions. Empty if no question counts.
    """
    questions, (scores,) = _aligned([tables], score)
    if questions.empty:
        return {}
    masks = columns.masks(questions)
    low, high = _quantiles(_means(questions["video_id"], [scores], masks, resamples, seed)[0, 1:])
    return {column: (float(a), float(b)) for column, a, b in zip(masks, low, high, strict=True)}


def compare(
    a: Sequence[pd.DataFrame],
    b: Sequence[pd.DataFrame],
    columns: Columns,
    score: str = "correct",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """What the side `b` gains over the side `a` on the same questions, by column.

    Returns a table indexed by column: n, a and b (mean scores, %), difference (b - a, percentage points), the limits
    low and high of its 95 % percentile interval, from resamples of the videos that hold all answers to each question
    together, and p, two-sided: the level at which the interval would touch 0. It is of that column alone: correct
    what stands for one question among several with `holm`. Of a single video there is no p: nothing can be resampled.
    Raises `UserError` unless all answer the same questions with the same annotated answers.
    """
    questions, sides = _aligned([a, b], score)
    if questions.empty:
        raise UserError(f"no question has a {score} on both sides; there is nothing to compare")
    masks = columns.masks(questions)
    means = _means(questions["video_id"], sides, masks, resamples, seed)
    difference = means[1] - means[0]
    low, high = _quantiles(difference[1:])
    videos = np.array([questions["video_id"][mask].nunique() for mask in masks.values()])
    return pd.DataFrame(
        {
            "n": [int(mask.sum()) for mask in masks.values()],
            "a": means[0, 0],
            "b": means[1, 0],
            "difference": difference[0],
            "low": low,
            "high": high,
            "p": np.where(videos > 1, _p_values(difference[1:]), np.nan),
        },
        index=list(masks),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons with one reference, corrected so that all hold together (Holm 1979).

    In the order given; NaN is no comparison and stays.
    """
    p = np.asarray(p_values, dtype=float)
    order = [i for i in np.argsort(p) if not np.isnan(p[i])]
    corrected, largest = p.copy(), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, p[i] * (len(order) - place)))
        corrected[i] = largest
    return corrected.tolist()


def _aligned(sides: Sequence[Sequence[pd.DataFrame]], score: str) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """The questions that count on every side, and each side's scores (runs, Q) of them; NaN where one does not count.

    Videos and types are those of the first table.
    """
    first = sides[0][0]
    scores = []
    for side in sides:
        for table in side:
            _require_same_questions(first, table)
        rows = [table.set_index("question_id")[score].loc[first["question_id"]] for table in side]
        scores.append(np.stack([row.to_numpy(dtype=float) for row in rows]))
    counted = np.logical_and.reduce([~np.isnan(side).all(axis=0) for side in scores])
    return first[counted], [side[:, counted] for side in scores]


def _require_same_questions(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Raise `UserError` unless two tables hold the same questions and, where they tell, the same answers to them."""
    only_a = set(a["question_id"]) - set(b["question_id"])
    only_b = set(b["question_id"]) - set(a["question_id"])
    if only_a or only_b:
        example = min(only_a or only_b)
        raise UserError(
            f"two predictions answer different questions: {len(only_a)} are only in the first and {len(only_b)} "
            f"only in the second, e.g. question {example}; compare predictions for one split"
        )
    if "answer" not in a or "answer" not in b:
        return
    both = a.merge(b, on="question_id", validate="one_to_one")
    differ = both[both["answer_x"].map(normalised) != both["answer_y"].map(normalised)]
    if len(differ):
        one = differ.iloc[0]
        raise UserError(
            f"the annotated answers of {len(differ)} questions differ between the predictions, e.g. question "
            f"{one['question_id']}: {one['answer_x']!r} and {one['answer_y']!r}; score all by one annotation"
        )


def _means(
    videos: pd.Series, sides: Sequence[np.ndarray], masks: dict[str, np.ndarray], resamples: int, seed: int
) -> np.ndarray:
    """100 * mean score, (sides, 1 + resamples, columns): of the videos as they are, then of each resample of them.

    All sides are given the same resamples. One that holds no question of a column says nothing of it: NaN.
    """
    member = np.stack(list(masks.values()), axis=1)  # (questions, columns)
    video, names = pd.factorize(videos)
    n = len(names)
    parts = []  # by side: sums of the scores, then counts, over all runs; (videos, columns)
    for scores in sides:
        for value in (np.nansum(scores, axis=0), (~np.isnan(scores)).sum(axis=0)):
            parts.append(np.zeros((n, len(masks)), dtype=np.float32))
            np.add.at(parts[-1], video, member * value[:, None])
    sums = np.concatenate(parts, axis=1)  # whole numbers, as of answers, stay exact in float32 below 2^24

    rng = np.random.default_rng(seed)
    chunk = max(1, 2**18 // n)  # resamples at a time, so that their counts stay in the processor's cache
    totals = np.empty((1 + resamples, sums.shape[1]), dtype=np.float64)
    totals[0] = sums.sum(axis=0, dtype=np.float64)
    for start in range(1, 1 + resamples, chunk):
        rows = min(chunk, 1 + resamples - start)
        drawn = rng.integers(n, size=(rows, n), dtype=np.int32) + n * np.arange(rows, dtype=np.int32)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)  # how often each video was drawn
        totals[start : start + rows] = times.astype(np.float32) @ sums
    value, count = totals.reshape(len(totals), len(sides), 2, len(masks)).transpose(2, 1, 0, 3)
    return 100.0 * np.where(count > 0, value / np.maximum(count, 1), np.nan)


def _quantiles(means: np.ndarray) -> np.ndarray:
    """The limits (2, columns) of the percentile interval; resamples without a question of a column are left out."""
    return np.nanquantile(means, LEVELS, axis=0)


def _p_values(differences: np.ndarray) -> np.ndarray:
    """Two-sided p of each column: twice the share of resamples on the rarer side of 0, which is on both."""
    drawn = (~np.isnan(differences)).sum(axis=0)
    rarer = np.minimum((differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0))
    return np.minimum(1.0, 2 * (1 + rarer) / (1 + drawn))
