"""Annotations that a table needs and that are made of those at hand, once: Table 2's split and Table 7's choices."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from configs.schema import Config
from dataset import DATASETS
from scripts.check_features import annotated_videos
from scripts.offer_choices import offer_choices
from scripts.split_by_video import split_by_video
from utils.errors import UserError
from utils.files import read_json, sha256, write_json

MADE_OF = "made_of.json"  # digests of the sources
SPLITS = ("train", "val", "test")


class Derived(NamedTuple):
    """Annotations in a folder of their own."""

    folder: Path
    options: tuple[str, ...]  # of train.py, beside the files
    sources: list[str]
    write: Callable[[Path], object]  # into a folder

    @property
    def arguments(self) -> list[str]:
        """The options of train.py that read them."""
        files = ((f"--data.{split}", str(self.folder / f"{split}.json")) for split in SPLITS)
        return [*(part for pair in files for part in pair), *self.options]

    def make(self) -> None:
        """Write them if they are not there, or were written here from other sources; somebody else's are left alone."""
        stamp, made_of = self.folder / MADE_OF, {source: sha256(source) for source in self.sources}
        whole = all((self.folder / f"{split}.json").exists() for split in SPLITS)
        if whole and (not stamp.exists() or read_json(stamp) == made_of):
            return
        new = self.folder.with_name(f".tmp-{os.getpid()}-{self.folder.name}")
        self.write(new)
        write_json(new / MADE_OF, made_of)
        if self.folder.exists():
            shutil.rmtree(self.folder)
        new.rename(self.folder)
        print(f"wrote the annotations {self.folder}")


def own_questions(config: Config) -> None:
    """The questions as they are."""


def split_by_videos(config: Config) -> Derived | None:
    """A split in which no recording is in two parts; None where that is so already."""
    dataset, files = config.data.dataset, [path for split in SPLITS for path in config.data.files(split).values()]
    folder = Path(files[0]).parent
    folder = folder.with_name(f"{folder.name}_video_split")
    if all(Path(file).exists() for file in files):
        recording = DATASETS[dataset].recording
        parts = [{recording(video) for video in annotated_videos([file], dataset)} for file in files]
        if len(set().union(*parts)) == sum(map(len, parts)):
            return None
    return Derived(folder, (), files, partial(split_by_video, files, dataset=dataset))


def choice_of_four(config: Config) -> Derived | None:
    """Questions with four answers offered: AVQA's own, or on Bandstand its questions with choices added."""
    if config.data.dataset == "avqa":
        return None
    if config.data.truth is None:
        raise UserError("table7 is of AVQA; give it with --config configs/avqa.yaml")
    folder = Path(config.data.train).parent
    files = [str(folder / f"{split}.json") for split in SPLITS]
    made = folder.with_name(f"{folder.name}_choice")
    return Derived(made, ("--data.dataset", "avqa"), files, partial(offer_choices, folder))
