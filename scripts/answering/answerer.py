"""A trained model that is asked about videos: loaded once, asked many times.

B questions, T segments, K selected segments, M tokens of a frame as extracted, P patches of a frame.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from configs import schema
from configs.stored import model_file, read_stored, set_stored_threads
from dataset.kinds import TRUTH, WORDS
from dataset.question import Wording
from dataset.text_prompt import PromptTable
from feat_script.clip_vision import encode_words
from nets.network import Perception, build
from nets.options import FeatureSizes
from scripts.answering.answers import Answer
from scripts.answering.encoders import Encoders, Progress, Seen
from utils.checkpoint import load_weights
from utils.errors import UserError
from utils.numerics import autocast
from utils.runtime import start
from utils.scoring.evaluation import looked_at
from utils.scoring.geometry import Look
from utils.scoring.grounding import patches_of

BEST = 5  # answers that are told: the first, and the next four
LONGEST = 1000  # characters of a question


class Answerer:
    """A model with its prompts and encoders, ready to be asked.

    run: a run folder of train.py, or a folder that scripts.release made.
    device: "auto", "cpu" or "cuda".
    cache: a folder that keeps features of videos by their digests and the encoders'; None keeps none.
    encoders: folders to search for weights of encoders, beside those of the repository and of scripts.download.

    `wording` has the templates of questions and the words for their slots; `seconds` is T. Raises `UserError` where
    anything is missing or is not what the model was trained with.
    """

    def __init__(
        self, run: str | Path, device: str = "auto", cache: str | Path | None = None, encoders: Sequence[Path] = ()
    ):
        path = model_file(Path(run))
        stored = read_stored(path)
        if "prompts" not in stored or not stored["manifests"]:
            raise UserError(
                f"{path}: tells no prompts or encoders: it is converted, or of an older release; train anew"
            )
        self.config, self.cache = schema.from_dict(stored["config"]), None if cache is None else Path(cache)
        if TRUTH in self.config.model.kinds:
            raise UserError(f"{path}: an oracle, which must be told what is true; of any other video nobody knows")
        self.answers, sizes = stored["answers"], FeatureSizes(**stored["sizes"])
        self.wording = Wording(PromptTable(stored["prompts"], str(path), self.config.data.spelling), stored["slots"])
        with start(device, self.config.train.precision, "device") as runtime:  # of one process: nothing is to be ended
            self.device = runtime.device
        self.seconds = self.config.data.segments
        self._asks_by_prompt = self.config.data.query == "prompt"
        self._encoders = Encoders(stored["manifests"], encoders, self.device)
        self._model = build(self.config.model, sizes, len(self.answers)).to(self.device)
        load_weights(self._model, stored["model"], path)
        self._model.eval()

    def ask(
        self,
        video: str | Path,
        questions: Sequence[str],
        start: float = 0.0,
        progress: Progress = lambda stage, share: None,
    ) -> list[Answer]:
        """Answer questions about the T seconds of a video from `start` on; it is read once for all of them.

        `progress` is told what is being done, and how much of that is done (0 to 1). Raises `UserError` for a video
        that cannot be used, and for a question that fits no prompt or has a word that the model never met.
        """
        if not questions:
            return []
        if not 0 <= start < math.inf:
            raise UserError(f"start {start:g}: must be a second of the video, 0 or more")
        start = float(start)
        if (longest := max(map(len, questions))) > LONGEST:
            raise UserError(f"the question has {longest} characters; at most {LONGEST} are read")
        filled = [self.wording.fill(question) for question in questions]
        progress("reading the question", 0.0)
        selecting = [each.prompt if self._asks_by_prompt else each.question for each in filled]
        text = self._encoders.encode([each.question for each in filled] + selecting)
        seen = self._encoders.look(Path(video), start, self.seconds, self.cache, progress)
        progress("answering", 0.0)
        found = self._perceive(text, seen, [each.question for each in filled])
        best = found.logits.float().softmax(dim=-1).topk(min(BEST, len(self.answers)))
        looked = looked_at(found)
        selected = looked.get("selected", np.empty((len(filled), 0)))
        looks = self._looks(looked, seen, start) if selected.size and "jpeg" in seen.arrays else [[] for _ in filled]
        answers = []
        for row, (question, fitting) in enumerate(zip(questions, filled, strict=True)):
            words = [self.answers[i] for i in best.indices[row].tolist()]
            (answer, probability), *others = zip(words, best.values[row].tolist(), strict=True)
            answers.append(
                Answer(
                    video=Path(video).name,
                    question=question,
                    template=fitting.template,
                    prompt=fitting.prompt if self._asks_by_prompt else "(the question itself)",
                    answer=answer,
                    probability=probability,
                    others=others,
                    selected=[start + segment for segment in selected[row].tolist()],
                    segment_weights=looked["segment_weights"][row] if "segment_weights" in looked else None,
                    looks=looks[row],
                    seconds=self.seconds,
                    own=seen.own,
                    start=start,
                    note="; ".join(seen.notes),
                    mel=seen.spectrogram,
                )
            )
        progress("answering", 1.0)
        return answers

    @torch.no_grad()
    def _perceive(self, text: np.ndarray, seen: Seen, questions: Sequence[str]) -> Perception:
        """What the model makes of B questions about one video; text (2B, Dq): questions, then prompts."""
        rows = torch.arange(len(questions), device=self.device)
        kinds = self.config.model.kinds
        inputs = {kind: torch.from_numpy(seen.arrays[kind])[None] for kind in kinds if kind != WORDS}
        inputs |= {"text": torch.from_numpy(text), "video": rows[:1] * 0, "asked": rows * 0}
        if WORDS in kinds:
            inputs[WORDS] = torch.from_numpy(encode_words(self._encoders.clip, [*questions]))
        inputs = {name: x.to(self.device) for name, x in inputs.items()}
        set_stored_threads(self._model, self.config)  # the encoders had as many as they need
        with autocast(self.device, self.config.train.precision):
            return self._model(**inputs, question=rows, prompt=rows + len(rows))

    def _looks(self, looked: dict[str, np.ndarray], seen: Seen, start: float) -> list[list[Look]]:
        """The seconds that were looked at for each question."""
        stored = [seen.arrays["source"]] * len(looked["selected"]) if "source" in seen.arrays else None
        return [
            [
                Look(start + min(segment, seen.own - 1), seen.picture(segment), patches, self._encoders.fit)
                for segment, patches in zip(segments.tolist(), maps, strict=True)
            ]
            for segments, maps in patches_of(looked, stored)
        ]
