"""What runs need and cost: the folders that are missing, how to make each and how large it will be; training FLOPs.

Sizes are those of the arrays; where features or annotations are not there yet, of the public encoders and data sets.
"""

import functools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from configs.schema import Config
from dataset.answers import MUSIC_AVQA_ANSWERS
from dataset.bandstand.benchmark import PRESETS
from dataset.config import DataConfig
from dataset.features import FOLDERS, MAKERS, PUBLIC_FOLDERS, describe_faults, open_features
from dataset.text_prompt import PromptTable
from feat_script.extract_text import read_sentences
from nets.config import FeatureSizes, ModelConfig
from nets.tspm.model import build_model
from scripts.check_features import annotated_videos
from scripts.profile_model import forward_gflop
from utils.errors import UserError
from utils.files import read_json
from utils.manifest import read_manifest

AUDIO = 128  # width
PUBLIC_VIDEOS = {"music_avqa": 9_288, "avqa": 57_015}
PUBLIC_QUESTIONS = {"music_avqa": 31_927, "avqa": 40_425}  # in training
PUBLIC_CLIPS = ("ViT-L/14@336px", "ViT-B/32")
BANDSTAND_CLIPS = ("assets/bandstand/clip.pt", "assets/bandstand/clip_second.pt")
BANDSTAND_VGGISH = "assets/bandstand/vggish.pth"


class Clip(NamedTuple):
    """Widths of what a CLIP gives, and its tokens of a frame before merging."""

    frame: int
    token: int
    text: int
    tokens: int


WIDTHS = {"ViT-L/14@336px": Clip(768, 1024, 768, 577), "ViT-B/32": Clip(512, 768, 512, 50)}


def clip_of(data: DataConfig, first_features: str) -> str:
    """The CLIP, name or file, that makes `data.features`: the second one's where they are not `first_features`."""
    clips = PUBLIC_CLIPS if data.truth is None else BANDSTAND_CLIPS
    return clips[data.features != first_features]


def widths(clip: str) -> Clip | None:
    """Widths of a public CLIP or of a checkpoint; None where there is no such file yet."""
    if clip in WIDTHS or not Path(clip).exists():
        return WIDTHS.get(clip)
    state = torch.load(clip, map_location="cpu", weights_only=True)
    tokens, width = state["visual.positional_embedding"].shape
    return Clip(state["visual.proj"].shape[1], width, state["text_projection"].shape[1], tokens)


def unmerged(data: DataConfig) -> int:
    """Tokens of a frame before merging: those that the features on disk were merged from, else the first CLIP's."""
    for path in sorted(Path(data.features).glob("clip_token_*_source")):
        return read_manifest(path)["shape"][1]
    return (widths(clip_of(data, data.features)) or WIDTHS["ViT-L/14@336px"]).tokens


def annotation_files(data: DataConfig) -> list[str]:
    """The annotation files of all splits, each once."""
    return list(dict.fromkeys((data.train, data.val, data.test)))


def _annotated(data: DataConfig) -> bool:
    return all(Path(path).exists() for path in annotation_files(data))


# What is missing


@dataclass
class _Root:
    """A folder of features, and what some runs want of it."""

    data: DataConfig
    first_features: str
    videos: Path
    kinds: set[str] = field(default_factory=set)
    tokens: set[int] = field(default_factory=set)

    def folders(self) -> dict[str, dict[Path, int | None]]:
        """By the kind whose command makes them: each folder wanted, with its bytes (None where not known yet)."""
        data, clip = self.data, widths(clip_of(self.data, self.first_features))
        root = Path(data.features)
        if _annotated(data):
            segments = data.segments * len(annotated_videos(annotation_files(data), data.dataset))
        else:
            segments = data.segments * PUBLIC_VIDEOS[data.dataset]
        made: dict[str, dict[Path, int | None]] = {"audio": {}, "frame": {}, "text": {}}
        if "audio" in self.kinds:
            made["audio"][root / FOLDERS["audio"]] = segments * AUDIO * 4
        if "frame" in self.kinds:
            made["frame"][root / FOLDERS["frame"]] = clip and segments * clip.frame * 2
        for count in sorted(self.tokens):
            source = clip and count < clip.tokens and segments * clip.tokens  # which patches are in which token
            made["frame"][root / FOLDERS["token"].format(tokens=count)] = (
                clip and segments * count * clip.token * 2 + source
            )
        made["text"][root / FOLDERS["text"]] = clip and self._text_bytes(clip.text)
        return made

    def _text_bytes(self, width: int) -> int | None:
        if not _annotated(self.data):
            return None
        prompts = PromptTable.read(self.data.prompts, self.data.sheet)
        return 4 * width * len(read_sentences(annotation_files(self.data), prompts)[0])

    def missing(self) -> Iterator[str]:
        """Lines: each command that is needed, and below it the folders that it makes."""
        if self.data.layout == "public":
            yield from self._missing_public()
            return
        complete = True
        for kind, folders in self.folders().items():
            if lacking := {path: size for path, size in folders.items() if not path.is_dir()}:
                complete = False
                yield f"missing, made by: {self._command(kind, lacking)}"
                yield from (f"    {path}  {_readable(size)}" for path, size in lacking.items())
        if complete and _annotated(self.data):
            yield from self._faults()

    def _missing_public(self) -> Iterator[str]:
        names = [PUBLIC_FOLDERS[kind] for kind in ("question", "prompt", *sorted(self.kinds - {"token"}))]
        names += [PUBLIC_FOLDERS["token"].format(tokens=count) for count in sorted(self.tokens)]
        for path in (Path(self.data.features) / name for name in names):
            if not path.is_dir():
                yield f"{path}: no such folder; it is published, no command of ours makes it"

    def _command(self, kind: str, lacking: dict[Path, int | None]) -> str:
        data = self.data
        if kind == "audio" and data.features != self.first_features:  # the sound is the same, whatever CLIP
            source = os.path.relpath(Path(self.first_features) / FOLDERS["audio"], data.features)
            return f"mkdir -p {data.features} && ln -s {source} {data.features}/"
        parts = [MAKERS[kind]]
        if kind == "text":
            parts += ["--annotations", *annotation_files(data), "--prompts", data.prompts, "--sheet", data.sheet]
        else:
            parts += ["--videos", str(self.videos), "--segments", str(data.segments)]
        if kind != "audio":
            parts += ["--clip", clip_of(data, self.first_features)]
        elif data.truth:
            parts += ["--weights", BANDSTAND_VGGISH]
        if kind == "frame":
            names = {path.name for path in lacking}
            parts += ["--tokens", *(str(n) for n in sorted(self.tokens) if FOLDERS["token"].format(tokens=n) in names)]
        return " ".join([*parts, "--out", data.features])

    def _faults(self) -> Iterator[str]:
        """Lines for the videos that lack whole features where all folders are there; told by headers alone."""
        data, videos = self.data, annotated_videos(annotation_files(self.data), self.data.dataset)
        for count in sorted(self.tokens) or [data.tokens]:
            try:
                faults = open_features(data.features, data.layout, self.kinds, data.segments, count).check(videos)
            except UserError as error:
                yield str(error)
                continue
            if faults:
                yield f"{data.features}: {len(faults)} of {len(videos)} videos lack whole features; extract them again"
                yield from (f"    {line}" for line in describe_faults(faults).splitlines())


def describe_missing(configs: Iterable[Config], first_features: str, videos: Path) -> list[str]:
    """Lines that say what these runs lack: annotations, videos, features; how to make each, and its size."""
    roots: dict[str, _Root] = {}
    lines: dict[str, None] = {}
    for config in configs:
        data = config.data
        for path in annotation_files(data):
            if not Path(path).exists():
                lines[f"{path}: no such file; {_annotations_from(data, path, first_features)}"] = None
        root = roots.setdefault(data.features, _Root(data, first_features, videos))
        root.kinds |= set(config.model.kinds)
        root.tokens |= {data.tokens} if "token" in config.model.kinds else set()
    for root in roots.values():
        found = list(root.missing())
        if found and root.kinds and root.data.layout != "public" and not videos.is_dir():
            by_hand = "fetch the videos by hand (python -m scripts.download says where)"
            source = f"made by: {_render(root.data, first_features)}" if root.data.truth else by_hand
            lines[f"{videos}: no such folder; {source}"] = None
        lines |= dict.fromkeys(found)
    return list(lines)


def _annotations_from(data: DataConfig, path: str, first_features: str) -> str:
    if data.truth:
        return f"made by: {_render(data, first_features)}"
    if data.dataset != "music_avqa":
        return "fetch it by hand (python -m scripts.download says where)"
    name = "music_avqa_video_split" if Path(path).parent.name.endswith("_video_split") else "music_avqa"
    return f"python -m scripts.download {name} fetches it"


def _render(data: DataConfig, first_features: str) -> str:
    preset = next((name for name, size in PRESETS.items() if size.seconds == data.segments), "full")
    return f"python -m scripts.render_bandstand --preset {preset} --out {Path(first_features).parent}"


def _readable(size: int | None) -> str:
    if size is None:
        return "size not known yet"
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


# What it costs


def training_flop(config: Config, first_features: str) -> float:
    """Floating-point operations of a whole training run: forward, and twice as many backward."""
    train = config.data.train
    questions = len(read_json(train)) if Path(train).exists() else PUBLIC_QUESTIONS[config.data.dataset]
    model = json.dumps(asdict(config.model))
    return 3e9 * questions * config.train.epochs * _gflop(model, _sizes(config, first_features))


def _sizes(config: Config, first_features: str) -> FeatureSizes:
    """Sizes of the features on disk; where they are not there yet, of those to come."""
    data, kinds = config.data, config.model.kinds
    try:
        store = open_features(data.features, data.layout, kinds, data.segments, data.tokens)
        return FeatureSizes.of(data.segments, store.shapes, store.text_width)
    except UserError:
        clip = widths(clip_of(data, first_features)) or WIDTHS["ViT-B/32"]
        shapes = {"audio": (AUDIO,), "frame": (clip.frame,), "token": (data.tokens, clip.token)}
        return FeatureSizes.of(data.segments, {kind: shapes[kind] for kind in kinds}, clip.text)


@functools.cache
def _gflop(model: str, sizes: FeatureSizes) -> float:
    with torch.device("meta"):  # shapes without data
        return forward_gflop(build_model(ModelConfig(**json.loads(model)), sizes, len(MUSIC_AVQA_ANSWERS)), sizes)
