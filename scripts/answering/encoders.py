"""The encoders that a run's features were made with, found by their digests, at work on one video at a time.

T segments, M input tokens of a frame (the class token and the patches).
"""

import contextlib
import hashlib
import io
import itertools
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from feat_script.clip_vision import count_tokens, encode_sentences, fit_image, load_clip
from feat_script.extract_audio import FOLDER, encode_sound, read_examples
from feat_script.extract_visual import encode_video
from feat_script.media import MediaError, read_duration, read_frames
from feat_script.vggish import load_vggish
from scripts.download import CATALOGUE
from utils.errors import UserError
from utils.files import atomic_path, json_bytes, sha256
from utils.runtime import set_threads
from utils.scoring.geometry import thumbnail

Progress = Callable[[str, float], None]

SMALL = Path("assets/bandstand")  # where the repository keeps encoders of its own
KNOWN = {"audio", "frame", "token", "text"}  # kinds of features that are made here
KEPT = 100  # videos in a cache; beyond it the oldest go


@dataclass
class Seen:
    """What the encoders make of T seconds of a video.

    arrays: features by kind, (T, ...), as extraction stores them; "source": (T, M) in which stored token each input
    token ended; "jpeg": (T,) frames, as large as they are shown; "mel": (T, 96, 64) float16, log-mel of 96 frames of a
    second.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what is odd about the video, in words
    own: int = 1  # how many of the T seconds the video has; those after them repeat its last

    @property
    def spectrogram(self) -> np.ndarray | None:
        """All of "mel" as one picture, (64, 96 T) float32; None where nothing was heard."""
        return np.concatenate(self.arrays["mel"]).T.astype(np.float32) if "mel" in self.arrays else None

    def picture(self, segment: int) -> np.ndarray:
        """The frame of a segment, (H, W, 3) uint8."""
        return np.asarray(Image.open(io.BytesIO(self.arrays["jpeg"][segment])))


class Encoders:
    """VGGish and CLIP as the manifests of a run name them.

    Their weights are searched among what scripts.download fetches, in `assets/bandstand` and in `folders`. Raises
    `UserError` where they are not there, saying how to get them.
    """

    def __init__(self, manifests: dict[str, dict[str, Any]], folders: Sequence[Path], device: torch.device):
        if strange := manifests.keys() - KNOWN:
            raise UserError(f"the model reads features of the kind {min(strange)!r}, which no encoder here makes")
        for kind in manifests.keys() & {"frame", "token"}:
            if manifests[kind]["weights_sha256"] != manifests["text"]["weights_sha256"]:
                raise UserError(
                    f"the model reads {kind} features by {manifests[kind]['encoder']!r}, not by the CLIP of its "
                    "questions; no encoder here makes them of a video"
                )
        self.manifests = manifests
        self.fit: str = manifests.get("token", manifests.get("frame", {})).get("fit") or ""  # where pictures are seen
        beside = {"audio": {"mel"}, "frame": {"jpeg"}, "token": {"source"}}  # see `Seen`
        self._kept = set().union(*({kind} | names for kind, names in beside.items() if kind in manifests))
        self.clip, *_ = load_clip(str(_find(manifests["text"], folders)), device)
        if "audio" in manifests:
            self.vggish, _ = load_vggish(_find(manifests["audio"], folders))
            self.vggish.to(device)

    def encode(self, sentences: list[str]) -> np.ndarray:
        """Features (N, Dq) float32 of N sentences. Raises `UserError` for one that is too long for CLIP."""
        most = self.clip.context_length
        for sentence in sentences:
            if (held := count_tokens(sentence)) > most:
                raise UserError(f"'{sentence[:60]}...': has {held} tokens, but CLIP reads at most {most}; shorten it")
        return encode_sentences(self.clip, sentences)

    def look(self, video: Path, start: float, segments: int, cache: Path | None, progress: Progress) -> Seen:
        """The features of `segments` seconds of a video from `start` on; `cache` is a folder of those made before.

        Raises `UserError` for a video that is missing, or of which nothing can be used.
        """
        if not video.is_file():
            raise UserError(f"{video}: no such file")
        if cache is None:
            return self._look(video, start, segments, progress)
        key = hashlib.sha256(json_bytes([sha256(video), self.manifests, start, segments])).hexdigest()
        held = cache / f"{key[:32]}.npz"
        if (seen := _load(held)) and self._kept <= seen.arrays.keys():  # an older version kept others
            return seen
        seen = self._look(video, start, segments, progress)
        _save(held, seen)
        return seen

    def _look(self, video: Path, start: float, segments: int, progress: Progress) -> Seen:
        if self.manifests.keys() == {"text"}:  # of a network that neither sees nor hears
            return Seen(own=segments)
        seen = Seen()
        try:
            duration = read_duration(video)
            if duration and start >= duration:
                raise UserError(f"{video}: lasts {duration:.1f} s, nothing is left from {start:g} s on")
            if self.fit:
                self._see(video, start, segments, progress, seen)
            if "audio" in self.manifests:
                progress("listening", 0.0)
                self._hear(video, start, segments, seen)
        except MediaError as error:
            raise UserError(f"{video}: {error}") from error
        if seen.own < segments:
            end = start + seen.own
            seen.notes.append(f"the model sees {segments} s: from {end:g} s on it saw the last second again and again")
        elif duration is None or duration - start > segments + 0.5:
            lasts = "does not say how long it lasts" if duration is None else f"lasts {duration:.1f} s"
            seen.notes.append(f"{lasts}: the model saw {segments} s from {start:g} s on; --start S has it see others")
        return seen

    def _see(self, video: Path, start: float, segments: int, progress: Progress, seen: Seen) -> None:
        """Read and encode the picture."""
        size, number = self.clip.visual.input_resolution, itertools.count(1)

        def prepare(image: np.ndarray) -> tuple[np.ndarray, bytes]:
            progress("reading the picture", next(number) / segments)
            return fit_image(image, size, self.fit), _jpeg(image)

        frames = read_frames(video, segments, prepare, start)
        squares, jpegs = zip(*frames.images, strict=True)
        seen.arrays["jpeg"] = np.array(jpegs)
        if frames.problem:
            seen.notes.append(f"its picture is damaged ({frames.problem}): seen as far as it decodes")
        progress("seeing", 0.0)
        token = self.manifests.get("token")
        merging = {token["shape"][1]: tuple(token["merge_schedule"])} if token else {}
        set_threads(self.clip, segments * len(self.clip.visual.positional_embedding))
        made = encode_video(self.clip, np.stack(squares), merging)
        seen.arrays["frame"] = made["clip_frame"]
        for tokens in merging:
            seen.arrays["token"] = made[f"clip_token_{tokens}"]
            unmerged = np.tile(np.arange(tokens), (segments, 1))
            seen.arrays["source"] = made.get(f"clip_token_{tokens}_source", unmerged)
        seen.own = max(seen.own, frames.own)

    def _hear(self, video: Path, start: float, segments: int, seen: Seen) -> None:
        """Read and encode the sound."""
        batch, status = read_examples(video, segments, self.manifests["audio"]["hop_seconds"], start)
        silence = {"absent": "has no sound: heard as silence", "silent": "its sound is silence"}
        if status["audio"] in silence:
            seen.notes.append(silence[status["audio"]])
        if status["problem"]:
            seen.notes.append(f"its sound is damaged ({status['problem']}): heard as far as it decodes")
        set_threads(self.vggish, segments)
        seen.arrays["audio"] = encode_sound(self.vggish, batch)[FOLDER]
        seen.arrays["mel"] = batch.astype(np.float16)
        seen.own = max(seen.own, segments - status["padded_segments"])


def _find(manifest: dict[str, Any], folders: Sequence[Path]) -> Path:
    """The file with the weights that a manifest names. Raises `UserError` where it is not there."""
    digest, searched = manifest["weights_sha256"], [SMALL, *folders]
    paths = [path for folder in searched for path in sorted(folder.glob("*.pt*"))]
    remedy = "give its folder with --encoders DIR"
    for name, files in CATALOGUE.items():
        for file in files:
            if file.sha256 and digest.startswith(file.sha256):
                paths.insert(0, Path(file.path))
                remedy = f"fetch it with: python -m scripts.download {name}"
    for path in paths:
        if path.exists() and sha256(path) == digest:
            return path
    raise UserError(
        f"{', '.join(map(str, searched))}: no file there has the SHA-256 {digest} of the encoder "
        f"{manifest['encoder']!r} that the model was trained with; {remedy}"
    )


def _jpeg(image: np.ndarray) -> bytes:
    written = io.BytesIO()
    thumbnail(image).save(written, "jpeg", quality=90)
    return written.getvalue()


def _save(path: Path, seen: Seen) -> None:
    """Keep what was seen, and drop the oldest of the folder beyond `KEPT`."""
    with atomic_path(path) as temporary:
        np.savez(temporary, allow_pickle=False, told=np.array(json.dumps([seen.notes, seen.own])), **seen.arrays)
    with contextlib.suppress(FileNotFoundError):  # another process drops them just now
        for old in sorted(path.parent.glob("*.npz"), key=lambda held: held.stat().st_mtime)[:-KEPT]:
            old.unlink()


def _load(path: Path) -> Seen | None:
    """What `_save` kept; None where nothing was, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {**held}
        notes, own = json.loads(str(arrays.pop("told")))
        return Seen(arrays, notes, own)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
