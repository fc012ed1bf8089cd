"""Annotations that a table needs and that are made of those at hand, once: Table 2's split and Table 7's choices."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from configs.schema import Config
from dataset import DATASETS
from dataset.annotations import annotated_videos
from scripts.reproduce.choices import offer_choices
from scripts.reproduce.split import split_by_video
from utils.errors import UserError
from utils.files import read_json, sha256, write_json

STAMP = "made_of.json"  # SHA-256 of the sources, and of each file that was made of them
SPLITS = ("train", "val", "test")
FILES = {f"{split}.json" for split in SPLITS}


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

    @property
    def absent(self) -> list[str]:
        """The sources that are not there."""
        return [source for source in self.sources if not Path(source).exists()]

    def due(self) -> bool:
        """Whether they are to be made: there are none, or they were made here of other sources.

        Raises `UserError` where the folder has something that was not made here, and that would be in the way.
        """
        if not self.folder.exists():
            return True
        held = {path.name for path in self.folder.iterdir()}
        if STAMP not in held:
            if held >= FILES:
                return False  # somebody else's, such as the published split
            lacks = ", ".join(sorted(FILES - held))
            raise UserError(f"{self.folder}: lacks {lacks}, and was not made here; complete it, or move it away")
        stamp = read_json(self.folder / STAMP)
        made = stamp.get("files", {})
        strange = {name for name in held - {STAMP} if name not in made or sha256(self.folder / name) != made[name]}
        same = self.absent or stamp.get("sources") == [sha256(source) for source in self.sources]
        if same and held >= FILES and not strange & FILES:
            return False
        if strange:
            raise UserError(
                f"{self.folder}: is to be made anew, but its {min(strange)} is not as it was made here; move that away"
            )
        return True

    def make(self) -> None:
        """Write them where they are due, in place of those that were made here before.

        Raises `UserError` as `due`, and where they cannot be written.
        """
        if not self.due():
            return
        new, old = (self.folder.with_name(f".tmp-{os.getpid()}-{when}-{self.folder.name}") for when in ("new", "old"))
        self.write(new)
        stamp = {"sources": [sha256(source) for source in self.sources]}
        write_json(new / STAMP, stamp | {"files": {name: sha256(new / name) for name in sorted(FILES)}})
        try:
            if self.folder.exists():
                self.folder.rename(old)
            new.rename(self.folder)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror})") from error
        shutil.rmtree(old, ignore_errors=True)
        print(f"wrote the annotations {self.folder}")


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
