"""How sure a score is: intervals, paired differences and their p-values over other videos and seeds; Holm's correction.

One method for every score of a question: accuracy, average precision, recall, pointing. A *side* is one table or
several, a run's each: the runs of one model from several seeds. A table holds a row per question with question_id,
video_id, modality, type and the score, a share of 1 (`correct` of a predictions table; NaN where the question does not
count). The score of a side is the mean over its seeds.

The squared standard error adds up what would vary: the variance of that mean, or of the difference of two, when videos
are drawn again, as a bootstrap does, in closed form (videos and not questions: those about one video share its features
and stand or fall together), and for each side of several seeds their variance / their number. A seed's luck with single
questions is in both, so that p is rather too large than too small. What further seeds would change is not known of a
side of one. Limits and p are Student's t's, whose degrees of freedom are Satterthwaite's: of the videos one less than
there are, likewise of seeds.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from utils.errors import UserError
from utils.scoring.metrics import Columns

LEVEL = 0.05  # of the intervals, which are of 95 %
NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)


def intervals_of(
    tables: Sequence[pd.DataFrame], columns: Columns, score: str = "correct"
) -> dict[str, tuple[float, float]]:
    """95 % interval (low, high), in per cent, of a side's mean score in each column.

    Raises `UserError` unless all tables hold the same questions. Empty if no question counts.
    """
    questions, sides = _aligned([tables], score)
    if questions.empty:
        return {}
    limits = _judged(questions, sides, columns)[["low", "high"]].clip(0, 100)
    return {column: (low, high) for column, low, high in limits.itertuples()}


def compare(a: Sequence[pd.DataFrame], b: Sequence[pd.DataFrame], columns: Columns) -> pd.DataFrame:
    """What the side `b` answers more than the side `a` of the same questions, by column.

    Returns a table indexed by column: n, a and b (mean scores, %), difference (b - a, percentage points), the limits
    low and high of its 95 % interval, the degrees of freedom df, and p, two-sided. That is of the column alone: correct
    what stands for one question among several with `holm`. It is NaN of a single video, and where all videos gain as
    much: there nothing is known of what varies.
    Raises `UserError` unless all answer the same questions.
    """
    return _judged(*_aligned([a, b], "correct"), columns)


def _judged(questions: pd.DataFrame, sides: Sequence[np.ndarray], columns: Columns) -> pd.DataFrame:
    """The table of `compare`; of a single side, the difference is to nothing."""
    masks = columns.masks(questions)
    member = np.stack(list(masks.values()), axis=1)  # (questions, columns)
    videos = np.array([questions["video_id"][mask].nunique() for mask in masks.values()])
    means, pulls = zip(*(_mean(questions["video_id"], runs, member) for runs in sides), strict=True)
    difference, pull = (means[1] - means[0], pulls[1] - pulls[0]) if len(sides) > 1 else (means[0], pulls[0])
    parts = [((pull**2).sum(axis=0), np.maximum(videos - 1, 1))]  # of the squared error, each with its freedom
    for runs in sides:
        if len(runs) > 1:
            by_seed = 100 * np.stack([np.nanmean(runs[:, mask], axis=1) for mask in masks.values()])
            parts.append((by_seed.var(axis=1, ddof=1) / len(runs), len(runs) - 1))
    square = sum(part for part, _ in parts)
    with np.errstate(divide="ignore", invalid="ignore"):  # where nothing varies
        df = np.where(square > 0, square**2 / sum(part**2 / free for part, free in parts), parts[0][1])
        t = np.where(difference == 0, 0, difference / np.sqrt(square))
    reach = np.sqrt(square) * student_limit(df)
    return pd.DataFrame(
        {
            "n": member.sum(axis=0),
            "a": means[0],
            "b": means[-1],
            "difference": difference,
            "low": difference - reach,
            "high": difference + reach,
            "df": df,
            "p": np.where((videos > 1) & np.isfinite(t), student_p(t, df), np.nan),
        },
        index=list(masks),
    )


def _mean(videos: pd.Series, runs: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """100 * mean score of all runs (runs, Q) by column, and by how much each video pulls it, (videos, columns).

    A bootstrap over videos has the sum of these squares as its variance, as the number of resamples grows.
    """
    value, count = np.nansum(runs, axis=0), (~np.isnan(runs)).sum(axis=0)  # of each question
    total = count @ member
    mean = value @ member / total
    video, names = pd.factorize(videos)
    pull = np.zeros((len(names), member.shape[1]))
    np.add.at(pull, video, member * (value[:, None] - count[:, None] * mean) / total)
    return 100 * mean, 100 * pull


def student_p(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """The chance of a Student's t beyond t on either side, with df >= 1 degrees of freedom.

    Where t = sqrt(df) tan(angle), its density is as cos(angle)^(df - 1), which is integrated by Gauss and Legendre.
    """

    def beyond(angle: np.ndarray) -> np.ndarray:
        half = (np.pi / 2 - angle) / 2
        return half * (np.cos(angle + half * (1 + NODES)) ** (df - 1) @ WEIGHTS)[..., None]

    t, df = np.abs(t)[..., None], np.asarray(df)[..., None]
    return (beyond(np.arctan(t / np.sqrt(df))) / beyond(np.zeros_like(t)))[..., 0]


def student_limit(df: np.ndarray) -> np.ndarray:
    """The t that a Student's t goes beyond, on either side, with a chance of 5 %; by bisection."""
    low, high = np.full_like(df, 1.9), np.full_like(df, 13.0)  # around a normal distribution's and one of df = 1
    for _ in range(40):
        middle = (low + high) / 2
        inside = student_p(middle, df) > LEVEL
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return low


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

    Videos and types are those of the first table. Raises `UserError` where another holds other questions.
    """
    first = sides[0][0]
    scores = []
    for side in sides:
        for table in side:
            if differ := set(first["question_id"]) ^ set(table["question_id"]):
                raise UserError(
                    f"two predictions answer different questions: {len(differ)} are in one of them alone, e.g. "
                    f"question {min(differ)}; compare predictions for one split"
                )
        rows = [table.set_index("question_id")[score].loc[first["question_id"]] for table in side]
        scores.append(np.stack([row.to_numpy(dtype=float) for row in rows]))
    counted = np.logical_and.reduce([~np.isnan(side).all(axis=0) for side in scores])
    return first[counted], [side[:, counted] for side in scores]
