"""What decides a run's numbers, by contents and not by the spelling of a path: its options and data."""

import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from configs import schema
from dataset.annotations import read_annotations
from dataset.config import DataConfig
from dataset.features import FeatureStore, open_features
from dataset.kinds import KINDS, TRUTH, WORDS
from dataset.text_prompt import PromptTable
from utils.errors import UserError
from utils.files import sha256
from utils.scoring.grounding import truth_of

DIGITS = 12
ELSEWHERE = {*schema.MAY_CHANGE, *schema.SAME_CONTENT} - {"train.epochs"}
"""Options that decide nothing, or that say where something is whose contents decide."""
Where = tuple[str, str, int, int | None]  # options of `data`: features, layout, segments, tokens


def identity(config: schema.Config, contents: "Contents") -> str:
    """Digest of the options and the data of a run. Raises `UserError` where something that it reads is missing."""
    rooms = {"data": config.data, "model": config.model, "train": config.train}
    options = {f"{room}.{name}": value for room, held in rooms.items() for name, value in vars(held).items()}
    decide = {name: value for name, value in options.items() if name not in ELSEWHERE}
    return _digest({"options": decide, "data": contents.digest(config.data, config.model.kinds)})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:DIGITS]


class Contents:
    """Digests of what runs read: questions, prompts and features. Whatever several runs read is read once.

    Where `keep`, the digests of features are noted beside them, so that other commands need not read them again.
    """

    def __init__(self, keep: bool = True):
        self._questions = functools.cache(_questions)
        self._text = functools.cache(_text)
        self._videos = functools.cache(functools.partial(_videos, keep))

    def digest(self, data: DataConfig, kinds: Sequence[str]) -> str:
        """Of what a network reads that wants these kinds of features. Raises `UserError` where something is missing."""
        files = tuple(path for split in ("train", "val", "test") for path in data.files(split).values())
        if len(files) != 3:
            raise UserError("data.test names several files; a table is of one")
        where = (data.features, data.layout, data.segments, data.tokens)
        manifests = _opened(where, kinds).manifests
        prompts, asked = self._questions(files, data.dataset, data.prompts, data.sheet, data.spelling)
        videos = tuple(sorted(set(asked["video_id"])))
        found = {kind: self._videos(kind, videos, where) for kind in kinds if kind in KINDS}
        if data.missing == "skip":
            absent = {video for digests in found.values() for video, digest in digests.items() if digest is None}
            asked = asked[~asked["video_id"].isin(absent)]
        told = {}
        if TRUTH in kinds and data.truth:
            truth = truth_of(data.truth, asked)
            rows = zip(asked["video_id"], asked["question_id"], strict=True)
            told["truth"] = [truth[video]["questions"][question]["segments"] for video, question in rows]
        sentences = [tuple(asked[column]) for column in ("question_id", "question", "prompt")]
        text = self._text(*sentences, WORDS in kinds, where)
        read = {"annotations": [sha256(path) for path in files], "prompts": prompts, "manifests": manifests}
        return _digest(told | read | {"features": found, "text": text})


def _opened(where: Where, kinds: Sequence[str], text: bool = True) -> FeatureStore:
    features, layout, segments, tokens = where
    return open_features(features, layout, kinds, segments, tokens, text)


def _questions(
    files: Sequence[str], dataset: str, prompts: str, sheet: str, spelling: str
) -> tuple[dict[str, str], pd.DataFrame]:
    """The prompts by template, and the questions of all files."""
    table = PromptTable.read(prompts, sheet, spelling)
    return table.templates, pd.concat(read_annotations(path, dataset, table).questions for path in files)


def _text(ids: Sequence[str], questions: Sequence[str], prompts: Sequence[str], words: bool, where: Where) -> str:
    """Digest of the text rows of the questions, and of their words."""
    text = _opened(where, (WORDS,) if words else ()).read_text(ids, questions, prompts)
    digest = hashlib.sha256()
    for array in text[:-1] if text.words is None else text:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _videos(keep: bool, kind: str, videos: Sequence[str], where: Where) -> dict[str, str | None]:
    """SHA-256 of each video's data; None where they are missing or broken."""
    digests, _ = _opened(where, (kind,), text=False).folders[kind].examine(videos, keep)
    return {video: digests.get(video) for video in videos}
