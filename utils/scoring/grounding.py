"""When and where a model looked, against truth files. Q questions, T segments, K selected, S tokens, P patches.

A truth file `<video_id>.json` holds `frame` [width, height]; for each of `performers` its `box` [x0, y0, x1, y1] in
pixels (null off screen) and `sounding_segments`; and in `questions`, by question id, the `segments` in which the
question's prompt is true (null where that is undefined).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.errors import UserError
from utils.files import read_json
from utils.scoring.geometry import patch_centres
from utils.scoring.metrics import Columns

Truth = dict[str, dict[str, Any]]


def truth_of(folder: str | Path, questions: pd.DataFrame) -> Truth:
    """Read the truth file of each question's video. Raises `UserError` for one that is missing or lacks a question."""
    truth = {}
    for video, asked in questions.groupby("video_id")["question_id"]:
        path = Path(folder) / f"{video}.json"
        truth[video] = read_json(path)
        if absent := set(asked) - truth[video]["questions"].keys():
            raise UserError(
                f"{path}: lacks question {min(absent)}; make truth and annotations together, by their --preset: "
                f"python -m scripts.render_bandstand --out {Path(folder).parent}"
            )
    return truth


def true_segments(questions: pd.DataFrame, truth: Truth, segments: int) -> np.ndarray:
    """(Q, T) bool: the segments in which each question's prompt is true; a row is all False where that is undefined."""
    true = np.zeros((len(questions), segments), dtype=bool)
    for row, (video, question) in enumerate(zip(questions["video_id"], questions["question_id"], strict=True)):
        true[row, truth[video]["questions"][question]["segments"] or []] = True
    return true


def selection(
    questions: pd.DataFrame,
    columns: Columns,
    truth: Truth,
    looked: dict[str, np.ndarray],
    frames: np.ndarray,
    prompts: np.ndarray,
) -> pd.DataFrame:
    """`selection_table` of what a model looked at; beside it what CLIP's own similarity would select ("zero-shot").

    looked: `segment_weights` (Q, T) and `selected` (Q, K); frames (Q, T, D) and prompts (Q, D) as CLIP gives them.
    """
    frames = frames.astype(np.float32)
    cosine = np.einsum("qtd,qd->qt", frames, prompts) / np.linalg.norm(frames, axis=-1)
    top_k = looked["selected"].shape[1]
    weights = {"zero-shot": cosine, "model": looked["segment_weights"]}
    selected = {"zero-shot": np.argsort(-cosine, axis=1)[:, :top_k], "model": looked["selected"]}
    return selection_table(questions, columns, true_segments(questions, truth, cosine.shape[1]), weights, selected)


def pointing(
    questions: pd.DataFrame,
    columns: Columns,
    truth: Truth,
    looked: dict[str, np.ndarray],
    stored: Iterable[np.ndarray],
    fit: str,
) -> pd.DataFrame:
    """`pointing_table` of a model's attention; "chance" gives every token the same weight, so that small ones peak.

    looked: `token_weights` (Q, K, S), `token_source` (Q, K, M), `token_segments` (Q, K); stored: as `heat_maps` takes.
    """
    stored = list(stored)
    weights = looked["token_weights"]
    heat = {
        name: heat_maps(held, looked["token_source"], looked["token_segments"], stored)
        for name, held in {"model": weights, "chance": np.ones_like(weights)}.items()
    }
    return pointing_table(questions, columns, truth, looked["token_segments"], heat, fit)


def selection_table(
    questions: pd.DataFrame,
    columns: Columns,
    true: np.ndarray,
    weights: dict[str, np.ndarray],
    selected: dict[str, np.ndarray],
) -> pd.DataFrame:
    """How well segments are ranked and selected, by column, in per cent, chance beside it.

    "AP <name>" is the mean average precision of `weights[name]` (Q, T); "R@K <name>" is the share of the true segments
    among `selected[name]` (Q, K), and "R@K best" what is within reach where more than K are true. Questions whose true
    segments are none or all are left out: every ranking is as good there. Empty if no question is left.
    """
    rankable = true.any(axis=1) & ~true.all(axis=1)
    true, asked = true[rankable], questions[rankable]
    positives, segments = true.sum(axis=1), true.shape[1]
    scores = {}
    for name, values in weights.items():
        hits = np.take_along_axis(true, _ranking(values[rankable]), axis=1)
        precision = hits.cumsum(axis=1) / np.arange(1, segments + 1)
        scores[f"AP {name}"] = (hits * precision).sum(axis=1) / positives
    scores["AP chance"] = chance_precision(positives, segments)
    for name, indices in selected.items():
        found = np.take_along_axis(true, indices[rankable], axis=1)
        scores[f"R@{indices.shape[1]} {name}"] = found.sum(axis=1) / positives
        scores[f"R@{indices.shape[1]} chance"] = np.full(len(asked), indices.shape[1] / segments)
        scores[f"R@{indices.shape[1]} best"] = np.minimum(indices.shape[1], positives) / positives
    return _by_column(asked, columns, scores)


def chance_precision(positives: np.ndarray, segments: int) -> np.ndarray:
    """Expected average precision of a random ranking of `segments`, `positives` of which are true."""
    place = np.arange(1, segments + 1)
    others = (positives[:, None] - 1) / max(segments - 1, 1)  # chance that another given place holds a true one
    return ((1 + (place - 1) * others) / place).mean(axis=1)


def pointing_table(
    questions: pd.DataFrame,
    columns: Columns,
    truth: Truth,
    selected: np.ndarray,
    heat: dict[str, Iterable[np.ndarray]],
    fit: str,
) -> pd.DataFrame:
    """The pointing game: does the peak patch of a selected segment lie in the box of a performer sounding then?

    `heat[name]` yields (K, P) for each question: the audio's weight on each patch of its selected segments. A merged
    token's patches share their peak: the share of them inside counts. Segments in which nobody in the picture sounds
    are left out. By column, in per cent; "area" is the share of all patches that lie inside. Empty if no
    question is left.
    """
    names = [*heat, "area"]
    scores = np.full((len(questions), len(names)), np.nan)
    for row, (video, *maps) in enumerate(zip(questions["video_id"], *heat.values(), strict=True)):
        x, y = patch_centres(*truth[video]["frame"], fit, maps[0].shape[1]).T
        by_segment = []
        for segment, *patches in zip(selected[row], *maps, strict=True):
            inside = np.zeros(len(x), dtype=bool)
            for left, top, right, bottom in sounding_boxes(truth[video], segment):
                inside |= (left <= x) & (x < right) & (top <= y) & (y < bottom)
            if inside.any():
                by_segment.append([*(inside[weights == weights.max()].mean() for weights in patches), inside.mean()])
        if by_segment:
            scores[row] = np.mean(by_segment, axis=0)
    counted = ~np.isnan(scores[:, 0])
    return _by_column(questions[counted], columns, dict(zip(names, scores[counted].T, strict=True)))


def sounding_boxes(video: dict[str, Any], segment: int) -> list[list[float]]:
    """Boxes [x0, y0, x1, y1] of the performers in the picture that sound in a segment, from a video's truth file."""
    return [p["box"] for p in video["performers"] if p["box"] and segment in p["sounding_segments"]]


def heat_maps(
    weights: np.ndarray, merged: np.ndarray, selected: np.ndarray, stored: Iterable[np.ndarray]
) -> Iterator[np.ndarray]:
    """Yield each question's weights on the patches of its selected segments, (K, P).

    weights: (Q, K, S) of the audio on the tokens; merged: (Q, K, M) the token in which each stored token ended;
    selected: (Q, K); stored: for each question (T, 1 + P), the stored token in which class token and patches ended.
    """
    for tokens, ends, segments, patches in zip(weights, merged, selected, stored, strict=True):
        yield spread(tokens, np.take_along_axis(ends, patches[segments].astype(int), axis=1))


def spread(weights: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Token weights (K, S) spread evenly over each token's patches: (K, P).

    `source` (K, 1 + P) maps the class token and the patches to tokens. No patch merges into the class token, so what
    the audio gives to it is on no patch.
    """
    heat = np.zeros((len(source), source.shape[1] - 1))
    for k, tokens in enumerate(source):
        patches = np.bincount(tokens[1:], minlength=weights.shape[1])  # of each token
        heat[k] = (weights[k] / np.maximum(patches, 1))[tokens[1:]]
    return heat


def _ranking(weights: np.ndarray) -> np.ndarray:
    """Segments by falling weight, (Q, T); equal weights in a random, seeded order, so that they rank as chance does."""
    return np.lexsort((np.random.default_rng(0).random(weights.shape), -weights), axis=-1)


def _by_column(questions: pd.DataFrame, columns: Columns, scores: dict[str, np.ndarray]) -> pd.DataFrame:
    if questions.empty:
        return pd.DataFrame()
    masks = columns.masks(questions)
    table = {
        name: {column: 100 * values[mask].mean() for column, mask in masks.items()} for name, values in scores.items()
    }
    return pd.DataFrame({"n": {column: int(mask.sum()) for column, mask in masks.items()}} | table)
