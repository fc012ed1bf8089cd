"""A trained model that is asked about videos: loaded once, asked many times.

B questions, T segments, K selected segments, M tokens of a frame as extracted, P patches of a frame.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from configs import schema
from configs.stored import model_file, read_stored
from dataset.question import Wording
from dataset.text_prompt import FilledPrompt, PromptTable
from nets.network import Perception, build
from nets.options import FeatureSizes
from scripts.answering.encoders import Encoders, Seen
from utils.checkpoint import load_weights
from utils.errors import UserError
from utils.machine import own_cores
from utils.numerics import autocast
from utils.runtime import set_threads, start
from utils.scoring.geometry import patch_centres, seen_box
from utils.scoring.grounding import heat_maps

BEST = 5  # answers that are told: the first, and the next four
LONGEST = 1000  # characters of a question
ACROSS, DOWN = ("left", "middle", "right"), ("top", "centre", "bottom")


class Look(NamedTuple):
    """A selected second: what was on the screen, and where on it the sound was sought."""

    second: float  # of the video
    picture: np.ndarray  # (H, W, 3) uint8
    heat: np.ndarray | None  # (H, W) the audio's weight on the patch there; None where the network has no such stage
    box: tuple[int, int, int, int] | None  # x0, y0, x1, y1 of the patches with the largest weight, in pixels
    place: str  # where these are, in words: "left, centre"; "" where there are none
    patches: np.ndarray | None  # (P,) the weights themselves, row by row
    fit: str  # the part of the picture that CLIP saw: its centred square ("crop") or all of it ("squash")

    def as_dict(self) -> dict[str, Any]:
        """Everything but the picture as plain data; `box` is in pixels of a picture of `size` (width, height)."""
        height, width = self.picture.shape[:2]
        told = {"second": self.second, "place": self.place, "box": self.box, "size": [width, height], "fit": self.fit}
        return told | {"patches": None if self.patches is None else self.patches.tolist()}


@dataclass(frozen=True)
class Answer:
    """The answer to one question, and what the model looked at."""

    video: str  # the file's name
    question: str  # as it was asked
    template: str  # of the prompt sheet; "*" where no other fits
    prompt: str  # filled in: what the segments were selected by
    answer: str
    probability: float
    others: list[tuple[str, float]]  # the next four answers with their probabilities
    selected: list[float]  # seconds of the video, ascending; each is the beginning of one
    segment_weights: np.ndarray | None  # (T,) of the seconds from `start` on; None where the network weighs none
    looks: list[Look]  # of the seconds whose patches were looked at
    seconds: int  # T
    start: float
    note: str  # what is odd about the video, "; " between; "" where nothing is
    mel: np.ndarray | None  # (64, frames) log-mel of these seconds; None where the network does not hear

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """The answer and the next four, each with its probability."""
        return [(self.answer, self.probability), *self.others]

    def as_dict(self) -> dict[str, Any]:
        """Everything but pictures and sound as plain data."""
        names = (
            "video",
            "question",
            "template",
            "prompt",
            "answer",
            "probability",
            "others",
            "selected",
            "seconds",
            "start",
        )
        weights = self.segment_weights
        return {name: getattr(self, name) for name in names} | {
            "note": self.note,
            "segment_weights": None if weights is None else weights.tolist(),
            "looks": [look.as_dict() for look in self.looks],
        }


class Answerer:
    """A model with its prompts and encoders, ready to be asked.

    run: a run folder of train.py, or a folder that scripts.release made.
    device: "auto", "cpu" or "cuda".
    cache: a folder that keeps features of videos by their digests and the encoders'; None keeps none.
    encoders: folders to search for weights of encoders, beside those of the repository and of scripts.download.

    Raises `UserError` where anything of it is missing or is not what the model was trained with.
    """

    def __init__(
        self, run: str | Path, device: str = "auto", cache: str | Path | None = None, encoders: Sequence[Path] = ()
    ):
        path = model_file(Path(run))
        stored = read_stored(path)
        if "prompts" not in stored or not stored["manifests"]:
            raise UserError(f"{path}: does not tell its prompts or encoders: it is converted or of an old release")
        self.config, self.cache = schema.from_dict(stored["config"]), cache and Path(cache)
        self.answers, sizes = stored["answers"], FeatureSizes(**stored["sizes"])
        self._wording = Wording(PromptTable(stored["prompts"], str(path)), stored["slots"])
        with start(device, self.config.train.precision, "device") as runtime:  # of one process: nothing is to be ended
            self.device = runtime.device
        self._encoders = Encoders(stored["manifests"], encoders, self.device)
        self._model = build(self.config.model, sizes, len(self.answers)).to(self.device)
        load_weights(self._model, stored["model"], path)
        self._model.eval()

    @property
    def seconds(self) -> int:
        """How many seconds of a video the model sees, T."""
        return self.config.data.segments

    @property
    def templates(self) -> dict[str, list[str]]:
        """The question templates of the prompt sheet, each with the names of its slots in their order."""
        return self._wording.templates

    def slots(self, name: str) -> list[str]:
        """The words that a slot, such as "Object", may be filled with: those of training."""
        return list(self._wording.slots.get(name.lower(), []))

    def ask(
        self,
        video: str | Path,
        questions: Sequence[str],
        start: float = 0.0,
        progress: Callable[[str, float], None] | None = None,
    ) -> list[Answer]:
        """Answer questions about the T seconds of a video from `start` on; it is read once for all of them.

        `progress` is told what is being done, and how much of that is done (0 to 1). Raises `UserError` for a video
        that cannot be used, and for a question that fits no prompt or has a word that the model never met.
        """
        told = progress or (lambda stage, share: None)
        if not 0 <= start < math.inf:
            raise UserError(f"start {start:g}: must be a second of the video, 0 or more")
        filled = [self._fill(question) for question in questions]
        told("reading the question", 0.0)
        asks_by_prompt = self.config.data.query == "prompt"
        sentences = [f.question for f in filled] + [f.prompt if asks_by_prompt else f.question for f in filled]
        text = self._encoders.encode(sentences)
        seen = self._encoders.look(Path(video), float(start), self.seconds, self.cache, told)
        told("answering", 0.0)
        found = self._perceive(text, seen, len(filled))
        answers = self._tell(Path(video).name, questions, filled, seen, found, float(start))
        told("answering", 1.0)
        return answers

    def _fill(self, question: str) -> FilledPrompt:
        if len(question) > LONGEST:
            raise UserError(f"the question has {len(question)} characters; at most {LONGEST} are read")
        return self._wording.fill(question)

    @torch.no_grad()
    def _perceive(self, text: np.ndarray, seen: Seen, questions: int) -> Perception:
        """What the model makes of `questions` questions about one video; text (2B, Dq): questions, then prompts."""
        rows = torch.arange(questions, device=self.device)
        features = {kind: torch.from_numpy(seen.features[kind])[None] for kind in self.config.model.kinds}
        inputs = features | {"text": torch.from_numpy(text), "video": rows[:1] * 0, "asked": rows * 0}
        inputs = {name: x.to(self.device) for name, x in inputs.items()}
        threads = self.config.train.threads and min(self.config.train.threads, own_cores())
        set_threads(self._model, self.config.train.batch_size * self.seconds, threads)
        with autocast(self.device, self.config.train.precision):
            return self._model(**inputs, question=rows, prompt=rows + questions)

    def _tell(
        self,
        video: str,
        questions: Sequence[str],
        filled: Sequence[FilledPrompt],
        seen: Seen,
        found: Perception,
        start: float,
    ) -> list[Answer]:
        probability, classes = found.logits.float().softmax(dim=-1).topk(min(BEST, len(self.answers)))
        looked = found.selected if found.token_segments is None else found.token_segments
        heat = [None] * len(filled)
        if found.token_weights is not None:
            arrays = (found.token_weights.float(), found.token_source, looked)
            heat = heat_maps(*(x.cpu().numpy() for x in arrays), [seen.source] * len(filled))
        mel = None if seen.mel is None else seen.mel.reshape(-1, seen.mel.shape[-1]).T.astype(np.float32)
        answers = []
        for row, (question, prompt, maps) in enumerate(zip(questions, filled, heat, strict=True)):
            ranked = [
                (self.answers[i], p) for i, p in zip(classes[row].tolist(), probability[row].tolist(), strict=True)
            ]
            segments = [] if looked is None or not seen.jpegs else looked[row].tolist()
            answers.append(
                Answer(
                    video=video,
                    question=question,
                    template=prompt.template,
                    prompt=prompt.prompt if self.config.data.query == "prompt" else "(the question itself)",
                    answer=ranked[0][0],
                    probability=ranked[0][1],
                    others=ranked[1:],
                    selected=[] if found.selected is None else [start + i for i in found.selected[row].tolist()],
                    segment_weights=None
                    if found.segment_weights is None
                    else found.segment_weights[row].float().cpu().numpy(),
                    looks=[
                        self._look(start + segment, seen.picture(segment), None if maps is None else maps[k])
                        for k, segment in enumerate(segments)
                    ],
                    seconds=self.seconds,
                    start=start,
                    note="; ".join(seen.notes),
                    mel=mel,
                )
            )
        return answers

    def _look(self, second: float, picture: np.ndarray, patches: np.ndarray | None) -> Look:
        """A selected second with its weights on patches (P,), laid over the picture."""
        fit = self._encoders.manifests["frame"]["fit"]
        if patches is None:
            return Look(second, picture, None, None, "", None, fit)
        (height, width), grid = picture.shape[:2], math.isqrt(len(patches))
        left, top, right, bottom = (round(edge) for edge in seen_box(width, height, fit))
        row, column = (np.arange(side) * grid // side for side in (bottom - top, right - left))
        heat = np.zeros((height, width))
        heat[top:bottom, left:right] = patches.reshape(grid, grid)[row][:, column]
        if not patches.any():  # all on the class token, which has no place
            return Look(second, picture, heat, None, "", patches, fit)
        rows, columns = np.nonzero(heat == heat.max())
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        x, y = patch_centres(width, height, fit, len(patches))[patches == patches.max()].mean(axis=0)
        place = f"{ACROSS[int(3 * x / width)]}, {DOWN[int(3 * y / height)]}"
        return Look(second, picture, heat, box, place, patches, fit)
