"""Everything a run reads: questions, prompts, answers and features, checked before the first step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dataset import DATASETS
from dataset.annotations import describe, read_annotations
from dataset.answers import AnswerVocabulary
from dataset.config import DataConfig
from dataset.feature_folder import describe_faults
from dataset.features import FeatureStore, open_features
from dataset.kinds import TRUTH
from dataset.text_prompt import PromptTable
from utils.errors import UserError
from utils.scoring.grounding import true_segments, truth_of

SHUFFLED = {"audio": ("audio",), "visual": ("frame", "token")}  # kinds of features that go together


@dataclass
class Split:
    """The questions of one annotation file as indices; Q questions."""

    questions: pd.DataFrame
    video: np.ndarray  # (Q,) rows of Data.videos
    question: np.ndarray  # (Q,) rows of Data.text
    prompt: np.ndarray  # (Q,) rows of Data.text
    answer: np.ndarray  # (Q,) classes, -1 where the vocabulary has not the answer: no prediction is right
    choices: np.ndarray | None  # (Q, 4) classes offered, -1 where the vocabulary has not the choice; None: all classes
    true: np.ndarray | None  # (Q, T) bool, whether the prompt is true there; None where no network is told

    def __len__(self) -> int:
        return len(self.questions)


@dataclass
class Data:
    """Splits, and the features that they draw from; V videos, N sentences."""

    splits: dict[str, Split]
    vocabulary: AnswerVocabulary
    store: FeatureStore
    videos: list[str]
    text: np.ndarray  # (N, Dq) features of the sentences in use
    words: np.ndarray | None  # (Nq, 77, Dw) of the questions in use, where they are wanted
    prompts: PromptTable
    notes: list[str]  # what was left out, and why


def open_data(
    config: DataConfig, kinds: tuple[str, ...], splits: Sequence[str], answers: Sequence[str] | None = None
) -> Data:
    """Open the given splits ("train", "val", "test") and check every feature of the given kinds that they need.

    Where `config.test` names several files, each is a split of its own, called by its name. `answers` is the vocabulary
    of a stored run; without it the data set's. Raises `UserError` for anything that would stop a run later.
    """
    notes = []
    prompts = PromptTable.read(config.prompts, config.sheet, config.spelling)
    tables = {}
    held_out = "val" in splits and config.val is None
    opened = dict.fromkeys([*splits, *(["train"] if held_out else [])])
    files = {name: path for split in opened for name, path in config.files(split).items()}
    for split, path in files.items():
        tables[split], malformed = annotations = read_annotations(path, config.dataset, prompts)
        if malformed:
            notes.append(f"{split}: {describe(malformed)}")
        if annotations.fallbacks:
            notes.append(f"{split}: {annotations.fallbacks} of {len(tables[split])} questions took the prompt of row *")

    if held_out:
        recording = DATASETS[config.dataset].recording
        tables["train"], tables["val"] = _hold_out(tables["train"], recording, notes)
        files["val"] = config.train
        tables = {split: table for split, table in tables.items() if split in splits}
    vocabulary = AnswerVocabulary(answers or DATASETS[config.dataset].vocabulary(tables))
    if "train" in tables:
        tables["train"] = _known_answers(tables["train"], vocabulary, notes)

    store = open_features(config.features, config.layout, kinds, config.segments, config.tokens)
    videos = sorted(set().union(*(table["video_id"] for table in tables.values())))
    faults = store.verify(videos)
    if faults:
        if config.missing == "error":
            raise UserError(
                f"{config.features}: {len(faults)} of {len(videos)} videos lack whole features\n"
                f"{describe_faults(faults)}\nextract them again, or leave their questions out with --data.missing skip"
            )
        videos = [video for video in videos if video not in faults]
        for split, table in tables.items():
            tables[split] = kept = table[~table["video_id"].isin(faults)].reset_index(drop=True)
            notes.append(f"{split}: {len(table) - len(kept)} questions left out, their videos lack whole features")
            if kept.empty:
                raise UserError(f"{config.features}: no video of {files[split]} has whole features")
        notes.append(describe_faults(faults))

    if config.shuffle:
        for table in tables.values():
            store.shuffle(SHUFFLED[config.shuffle], table["video_id"].unique().tolist())
        notes.append(f"data.shuffle {config.shuffle}: every video has that of another one of its split")

    everything = pd.concat(tables.values())
    text = store.read_text(*(list(everything[column]) for column in ("question_id", "question", "prompt")))
    row = {video: i for i, video in enumerate(videos)}
    made, end = {}, 0
    for split, table in tables.items():
        begin, end = end, end + len(table)
        question = text.question[begin:end]
        prompt = text.prompt[begin:end] if config.query == "prompt" else question  # w/ QPrompt of Table 3
        answer, choices = _classes(table, vocabulary)
        true = _true(table, config) if TRUTH in kinds else None
        made[split] = Split(table, table["video_id"].map(row).to_numpy(), question, prompt, answer, choices, true)
        if unknown := int((answer < 0).sum()):
            first = table["answer"][answer < 0].iloc[0]
            notes.append(
                f"{split}: {unknown} questions have an answer outside the vocabulary, such as {first!r}: wrong"
            )
    return Data(made, vocabulary, store, videos, text.bank, text.words, prompts, notes)


def _true(table: pd.DataFrame, config: DataConfig) -> np.ndarray:
    """(Q, T) the segments in which each question's prompt is true. Raises `UserError` where nobody knows."""
    if config.truth is None:
        raise UserError("model.temporal oracle selects the true segments; let data.truth be the folder that tells them")
    return true_segments(table, truth_of(config.truth, table), config.segments)


def _hold_out(
    train: pd.DataFrame, recording: Callable[[str], str], notes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part training questions by recording, always the same ones: nine tenths to learn from, a tenth to validate on."""
    of = train["video_id"].map(recording)
    names = sorted(of.unique())
    if len(names) < 2:
        raise UserError("data.val is null, but all training questions are about one recording; let data.val be a file")
    chosen = np.random.default_rng(0).permutation(names)[: max(1, len(names) // 10)]
    validation = of.isin(chosen)
    notes.append(
        f"val: {validation.sum()} of {len(train)} training questions, those about {len(chosen)} of {len(names)} "
        "recordings, are held out of training to choose the best epoch (data.val is null)"
    )
    return train[~validation].reset_index(drop=True), train[validation].reset_index(drop=True)


def _known_answers(train: pd.DataFrame, vocabulary: AnswerVocabulary, notes: list[str]) -> pd.DataFrame:
    """The training questions without those whose answer is no class: there is nothing to learn from them."""
    known = np.array([vocabulary.index(answer) >= 0 for answer in train["answer"]])
    if not known.any():
        raise UserError(f"no training question has an answer of the vocabulary ({len(vocabulary)} answers)")
    if not known.all():
        listed = ", ".join(f"question {row.question_id}: {row.answer!r}" for row in train[~known].head(3).itertuples())
        notes.append(f"train: {(~known).sum()} questions left out, their answers are outside the vocabulary ({listed})")
    return train[known].reset_index(drop=True)


def _classes(table: pd.DataFrame, vocabulary: AnswerVocabulary) -> tuple[np.ndarray, np.ndarray | None]:
    answer = np.array([vocabulary.index(answer) for answer in table["answer"]])
    if "choices" not in table:
        return answer, None
    return answer, np.array([[vocabulary.index(choice) for choice in offered] for offered in table["choices"]])
