"""When and where a model looked, against truth files. Q questions, T segments, K selected, S tokens, P patches.

A truth file `<video_id>.json` holds `frame` [width, height]; for each of `performers` its `box` [x0, y0, x1, y1] in
pixels (null off screen) and `sounding_segments`; and in `questions`, by question id, the `segments` in which the
question's prompt is true (null where that is undefined).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.errors import UserError
from utils.files import read_json, write_bytes
from utils.scoring.geometry import patch_centres
from utils.scoring.metrics import Columns

Truth = dict[str, dict[str, Any]]  # by video
Scores = dict[str, np.ndarray]  # by name, one per question (Q,): shares of 1, NaN where the question does not count
MODEL = "model"  # whose scores those are, beside chance and others


def truth_of(folder: str | Path, questions: pd.DataFrame) -> Truth:
    """Read the truth file of each question's video. Raises `UserError` for one that is missing or not whole."""
    truth: Truth = {}
    for video, asked in questions.groupby("video_id")["question_id"]:
        path = Path(folder) / f"{video}.json"
        remedy = (
            "make truth and annotations together, by their --preset: "
            f"python -m scripts.render_bandstand --out {Path(folder).parent}"
        )
        held = read_json(path)
        if not _is_truth(held):
            raise UserError(f"{path}: is not as a truth file is written; {remedy}")
        if absent := set(asked) - held["questions"].keys():
            raise UserError(f"{path}: lacks question {min(absent)}; {remedy}")
        truth[str(video)] = held
    return truth


def _is_truth(held: Any) -> bool:
    """Whether a truth file holds what is described above."""

    def numbers(values: Any, count: int) -> bool:
        return len(values) == count and all(type(n) in (int, float) for n in values)

    try:
        performers, questions = held["performers"], held["questions"].values()
        boxes = [performer["box"] for performer in performers if performer["box"] is not None]
        segments = [s for performer in performers for s in performer["sounding_segments"]]
        segments += [s for question in questions for s in question["segments"] or []]
        placed = numbers(held["frame"], 2) and all(numbers(box, 4) for box in boxes)
        return placed and all(type(segment) is int and segment >= 0 for segment in segments)
    except (AttributeError, KeyError, TypeError):
        return False


def true_segments(questions: pd.DataFrame, truth: Truth, segments: int) -> np.ndarray:
    """(Q, T) bool: the segments in which each question's prompt is true; a row is all False where that is undefined.

    Raises `UserError` where the truth has more than T segments.
    """
    true = np.zeros((len(questions), segments), dtype=bool)
    for row, (video, question) in enumerate(zip(questions["video_id"], questions["question_id"], strict=True)):
        told = truth[video]["questions"][question]["segments"] or []
        if max(told, default=0) >= segments:
            raise UserError(
                f"the truth of video {video}, question {question}, names segment {max(told)}, but data.segments is "
                f"{segments}; are the truth files those of these features?"
            )
        true[row, told] = True
    return true


def selection(true: np.ndarray, looked: Mapping[str, np.ndarray], frames: np.ndarray, prompts: np.ndarray) -> Scores:
    """`selection_scores` of what a model looked at; beside it what CLIP's own similarity would select ("zero-shot").

    true: of `true_segments`; looked: `segment_weights` (Q, T) and `selected` (Q, K); frames (Q, T, D) and prompts
    (Q, D) as CLIP gives them.
    """
    frames = frames.astype(np.float32)
    cosine = np.einsum("qtd,qd->qt", frames, prompts) / np.linalg.norm(frames, axis=-1)
    top_k = looked["selected"].shape[1]
    weights = {"zero-shot": cosine, MODEL: looked["segment_weights"]}
    return selection_scores(
        true, weights, {"zero-shot": np.argsort(-cosine, axis=1)[:, :top_k], MODEL: looked["selected"]}
    )


def pointing(
    videos: Sequence[str], truth: Truth, looked: Mapping[str, np.ndarray], stored: Iterable[np.ndarray], fit: str
) -> Scores:
    """`pointing_scores` of a model's attention; "chance" gives every token the same weight, so that small ones peak.

    looked, stored: as `heat_maps` takes them.
    """
    stored = list(stored)
    equal = {**looked, "token_weights": np.ones_like(looked["token_weights"])}
    heat = {MODEL: heat_maps(looked, stored), "chance": heat_maps(equal, stored)}
    return pointing_scores(videos, truth, looked["token_segments"], heat, fit)


def by_column(questions: pd.DataFrame, columns: Columns, scores: Scores) -> pd.DataFrame:
    """Mean of each score over the questions that count, in per cent, and their number n, by column; empty if none."""
    counted = ~np.isnan(np.stack(list(scores.values()))).any(axis=0)
    if not counted.any():
        return pd.DataFrame()
    masks = columns.masks(questions[counted])
    table = {
        name: {column: 100 * values[counted][mask].mean() for column, mask in masks.items()}
        for name, values in scores.items()
    }
    return pd.DataFrame({"n": {column: int(mask.sum()) for column, mask in masks.items()}} | table)


def selection_scores(true: np.ndarray, weights: Mapping[str, np.ndarray], selected: Mapping[str, np.ndarray]) -> Scores:
    """How well the segments of each question are ranked and selected, chance beside it.

    "AP <name>" is the average precision of `weights[name]` (Q, T); "R@K <name>" is the share of the true segments
    (Q, T) among `selected[name]` (Q, K), and "R@K best" what is within reach where more than K are true. Questions
    whose true segments are none or all do not count: every ranking is as good there.
    """
    rankable = true.any(axis=1) & ~true.all(axis=1)
    true, segments = true[rankable], true.shape[1]
    positives = true.sum(axis=1)
    scores = {}
    for name, values in weights.items():
        hits = np.take_along_axis(true, _ranking(values[rankable]), axis=1)
        precision = hits.cumsum(axis=1) / np.arange(1, segments + 1)
        scores[f"AP {name}"] = (hits * precision).sum(axis=1) / positives
    scores["AP chance"] = chance_precision(positives, segments)
    for name, indices in selected.items():
        top_k = indices.shape[1]
        scores[f"R@{top_k} {name}"] = np.take_along_axis(true, indices[rankable], axis=1).sum(axis=1) / positives
        scores[f"R@{top_k} chance"] = np.full(len(positives), top_k / segments)
        scores[f"R@{top_k} best"] = np.minimum(top_k, positives) / positives
    everywhere = {name: np.full(rankable.shape, np.nan) for name in scores}
    for name, values in scores.items():
        everywhere[name][rankable] = values
    return everywhere


def chance_precision(positives: np.ndarray, segments: int) -> np.ndarray:
    """Expected average precision of a random ranking of `segments`, `positives` of which are true."""
    place = np.arange(1, segments + 1)
    others = (positives[:, None] - 1) / max(segments - 1, 1)  # chance that another given place holds a true one
    return ((1 + (place - 1) * others) / place).mean(axis=1)


def pointing_scores(
    videos: Sequence[str], truth: Truth, selected: np.ndarray, heat: Mapping[str, Iterable[np.ndarray]], fit: str
) -> Scores:
    """The pointing game: does the peak patch of a selected segment lie in the box of a performer sounding then?

    `heat[name]` yields (K, P) for each question: the audio's weight on each patch of its selected segments. A merged
    token's patches share their peak: the share of them inside counts. Segments in which nobody in the picture sounds
    are left out, and a question that has no other does not count. "area" is the share of all patches that lie inside.
    """
    names = [*heat, "area"]
    scores = np.full((len(videos), len(names)), np.nan)
    for row, (video, *maps) in enumerate(zip(videos, *heat.values(), strict=True)):
        width, height = truth[video]["frame"]
        x, y = patch_centres(width, height, fit, maps[0].shape[1]).T
        by_segment = []
        for segment, *patches in zip(selected[row], *maps, strict=True):
            inside = np.zeros(len(x), dtype=bool)
            for left, top, right, bottom in sounding_boxes(truth[video], segment):
                inside |= (left <= x) & (x < right) & (top <= y) & (y < bottom)
            if inside.any():
                by_segment.append([*(inside[weights == weights.max()].mean() for weights in patches), inside.mean()])
        if by_segment:
            scores[row] = np.mean(by_segment, axis=0)
    return dict(zip(names, scores.T, strict=True))


def write_grounding(path: str | Path, questions: pd.DataFrame, measures: Mapping[str, Scores]) -> None:
    """Write each question's scores of the model as CSV: id, video and types, then AP, R@K, pointing where measured."""
    table = questions[["question_id", "video_id", "modality", "type"]].reset_index(drop=True)
    for scores in measures.values():
        own = {name.removesuffix(MODEL).strip() or "pointing": scores[name] for name in scores if name.endswith(MODEL)}
        table = table.assign(**{name: values.round(6) for name, values in own.items()})
    write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def sounding_boxes(video: dict[str, Any], segment: int) -> list[list[float]]:
    """Boxes [x0, y0, x1, y1] of the performers in the picture that sound in a segment, from a video's truth file."""
    return [p["box"] for p in video["performers"] if p["box"] and segment in p["sounding_segments"]]


def heat_maps(looked: Mapping[str, np.ndarray], stored: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield each question's weights on the patches of its selected segments, (K, P).

    looked: `token_weights` (Q, K, S) of the audio; `token_source` (Q, K, M), the token in which each stored token
    ended; `token_segments` (Q, K). stored: for each question (T, 1 + P), the stored token in which class token and
    patches ended.
    """
    fields = (looked[name] for name in ("token_weights", "token_source", "token_segments"))
    for tokens, ends, segments, patches in zip(*fields, stored, strict=True):
        yield spread(tokens, np.take_along_axis(ends, patches[segments].astype(int), axis=1))


def patches_of(
    looked: Mapping[str, np.ndarray], stored: Iterable[np.ndarray] | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each question the segments (K,) whose frames were looked at, and the weights on their patches (K, P).

    Instead of weights (K,) None where the network has none, or `stored`, as `heat_maps` takes it, is not known.
    """
    segments = looked.get("token_segments", looked["selected"])
    heat: Iterable[np.ndarray] = np.full(segments.shape, None)
    if stored is not None and "token_weights" in looked:
        heat = heat_maps(looked, stored)
    return zip(segments, heat, strict=True)


def spread(weights: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Token weights (K, S) spread evenly over each token's patches: (K, P).

    `source` (K, 1 + P) maps the class token and the patches to tokens. No patch merges into the class token, so what
    the audio gives to it is on no patch.
    """
    tokens = source[:, 1:]
    patches = np.stack([np.bincount(each, minlength=weights.shape[1]) for each in tokens])  # (K, S), of each token
    return np.take_along_axis(weights / np.maximum(patches, 1), tokens, axis=1)


def _ranking(weights: np.ndarray) -> np.ndarray:
    """Segments by falling weight, (Q, T); equal weights in a random, seeded order, so that they rank as chance does."""
    return np.lexsort((np.random.default_rng(0).random(weights.shape), -weights), axis=-1)
