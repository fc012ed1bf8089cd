"""Options of the data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dataset import DATASETS
from utils.errors import UserError


@dataclass
class DataConfig:
    """Annotations, prompts and features. Paths are relative to the working folder."""

    dataset: str = "music_avqa"
    """The data set, by its name in dataset/__init__.py: format of the annotations, answers, columns of its table."""
    train: str = "data/music_avqa/annotations/train.json"
    """Annotation file of the training questions."""
    val: str | None = "data/music_avqa/annotations/val.json"
    """Annotation file of the validation questions, which choose the best epoch; null holds out a tenth of training."""
    test: str | dict[str, str] = "data/music_avqa/annotations/test.json"
    """Annotation file of the test questions, or several by name; only test.py opens them."""
    prompts: str = "dataset/TextPrompt.xlsx"
    """Spreadsheet of question templates and their declarative prompts."""
    sheet: str = "MUSIC-AVQA"
    """Sheet of that file."""
    spelling: Literal["words", "published"] = "words"
    """How questions are spelt: in words, or as published networks read them: `acoustic_guitar`, no final mark."""
    query: Literal["prompt", "question"] = "prompt"
    """What the temporal selection asks with: the prompt (TPC), or the question itself (w/ QPrompt of Table 3)."""
    truth: str | None = None
    """Folder of truth files, which generated benchmarks have: where and when the answers are. Null if there is none."""
    features: str = "data/music_avqa/features"
    """Folder of the feature kinds: vggish, clip_frame, clip_token_<tokens>, text."""
    layout: Literal["files", "packed", "public"] = "files"
    """A file per video, arrays made by scripts.pack_features, or the folders of the published implementation."""
    segments: int = 60
    """Segments T of a video: 60 for MUSIC-AVQA, 10 for AVQA."""
    tokens: int | None = None
    """Tokens M per frame as stored; null means as many as the model merges to (model.tokens)."""
    missing: Literal["error", "skip"] = "error"
    """Videos whose features are missing or broken: refuse to start, or list them and leave their questions out."""
    shuffle: Literal["audio", "visual"] | None = None
    """A diagnostic: every video gets the sound, or the picture, of another one of its split, which tells nothing."""
    residency: Literal["auto", "device", "disk"] = "auto"
    """Where features stay between batches; auto takes the device if they fit in its free memory."""
    window: int = 0
    """Videos that are asked about at a time in training, so that a disk reads each once an epoch; 0 shuffles all."""
    workers: int = 2
    """Threads that read and gather batches ahead, where the features do not stay on the device."""

    def __post_init__(self) -> None:
        """Check what a field's type cannot."""
        for name in ("segments", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} must be at least 1, is {getattr(self, name)}")
        DATASETS.require(self.dataset)
        for name in self.files("test"):  # each gets a folder; of training, questions with unknown answers are left out
            if name in ("", "..", "train") or Path(name).name != name:
                raise UserError(f"data.test: {name!r} must be a folder's name, and another than 'train'")
        if self.window < 0:
            raise UserError(f"data.window must be 0 or more, is {self.window}")
        if self.tokens is not None and not 1 <= self.tokens <= 1000:
            raise UserError(f"data.tokens must be between 1 and 1000, is {self.tokens}")

    def files(self, split: str) -> dict[str, str]:
        """The annotation files of "train", "val" or "test", by the split that each makes; none for what is held out."""
        held = getattr(self, split)
        if held is None:
            return {}
        return held if isinstance(held, dict) else {split: held}
