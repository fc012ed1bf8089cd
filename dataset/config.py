"""Options of the data."""

from dataclasses import dataclass
from typing import Literal

from utils.errors import UserError


@dataclass
class DataConfig:
    """Annotations, prompts and features. Paths are relative to the working folder."""

    dataset: Literal["music_avqa", "avqa"] = "music_avqa"
    """Annotation format: MUSIC-AVQA (42 answers) or AVQA (choice among four)."""
    train: str = "data/music_avqa/annotations/train.json"
    """Annotation file of the training questions."""
    val: str = "data/music_avqa/annotations/val.json"
    """Annotation file of the validation questions, which choose the best epoch."""
    test: str = "data/music_avqa/annotations/test.json"
    """Annotation file of the test questions; only test.py opens it."""
    prompts: str = "dataset/TextPrompt.xlsx"
    """Spreadsheet of question templates and their declarative prompts."""
    sheet: str = "MUSIC-AVQA"
    """Sheet of that file."""
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
    residency: Literal["auto", "device", "memory", "disk"] = "auto"
    """Where features stay between batches; auto takes the first of device, memory and disk that they fit.

    Of several processes each holds all of them or, where these do not fit, its share: then it answers what is asked
    about those videos.
    """
    workers: int = 2
    """Threads that read and gather batches ahead, where the features do not stay on the device."""

    def __post_init__(self) -> None:
        """Check what a field's type cannot."""
        for name in ("segments", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} must be at least 1, is {getattr(self, name)}")
        if self.tokens is not None and not 1 <= self.tokens <= 1000:
            raise UserError(f"data.tokens must be between 1 and 1000, is {self.tokens}")
