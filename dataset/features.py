"""The feature store: arrays by video and text rows by sentence, from any of three layouts on disk.

    files     a `.npy` per video and kind, as extraction writes them; `manifest.json` in each kind's folder
    packed    one memory-mapped array per kind, made of those by scripts.pack_features
    public    the folders of the published TSPM implementation, unmodified; no manifests, text by question id

T: segments, M: tokens per frame as stored, Dq: width of a text row.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.feature_folder import FLOATS, Folder, all_finite, plain_folder
from dataset.feature_pack import Pack
from dataset.feature_text import PublicText, Sentences, TextBank
from dataset.kinds import IMPLIED, KINDS, PUBLIC_PROMPTS, TEXT, WORDS, Kind
from utils.errors import UserError
from utils.files import fits, told
from utils.manifest import DAMAGED, NAME, VERSION, read_manifest


class FeatureStore:
    """Features of one dataset; made by `open_features`.

    `shapes` maps each wanted kind to one video's shape: audio (T, Da), frame (T, Df), token (T, M, Dt); and words to
    one question's, (77, Dw). `dtypes` maps those of videos to the dtype that is stored. `manifests` maps each kind,
    text included, to its manifest; it is empty in the public layout.
    """

    def __init__(self, folders: Mapping[str, Folder | Pack], text: Sentences | PublicText | None, manifests: dict):
        self.folders, self.manifests = folders, manifests
        self.shapes = {kind: folder.shape for kind, folder in folders.items()}
        self.dtypes = {kind: folder.dtype for kind, folder in folders.items()}
        self._text = text
        if text and text.words:
            self.shapes[WORDS] = text.words.features.shape[1:]
        self._instead: dict[str, dict[str, str]] = {}  # by kind and video: whose features are read

    @property
    def text_width(self) -> int:
        """Width Dq of a text row."""
        assert self._text, "opened without text"
        return self._text.width

    @property
    def video_bytes(self) -> int:
        """Bytes of one video's features, all wanted kinds together."""
        return sum(folder.nbytes for folder in self.folders.values())

    def check(self, videos: Iterable[str]) -> dict[str, str]:
        """Map each faulty video to its faults, a line per kind, as far as headers and lengths tell."""
        videos = list(videos)
        return _merge({kind: folder.check(videos) for kind, folder in self.folders.items()})

    def verify(self, videos: Iterable[str]) -> dict[str, str]:
        """Like `check`, with the data of whatever is new or changed since it last passed: NaN, infinity, damage."""
        videos = list(videos)
        return _merge({kind: folder.examine(videos)[1] for kind, folder in self.folders.items()})

    def read(self, kind: str, videos: Sequence[str], out: np.ndarray | None = None) -> np.ndarray:
        """Return one kind of the videos' features, (len(videos), *shapes[kind]) in the stored dtype.

        A given `out` of that shape and dtype is filled and returned, which saves new memory for every batch. May be
        called by several threads at once. Raises `UserError` for a file that is missing or not whole.
        """
        return self.folders[kind].read(self._given(kind, videos), out)

    def read_segments(self, kind: str, videos: Sequence[str], segments: np.ndarray) -> np.ndarray:
        """Return one segment (P,) of each of the videos (P,), of one kind: (P, ...) in the stored dtype."""
        out = np.empty((len(videos), *self.shapes[kind][1:]), self.dtypes[kind])
        self.folders[kind].read_segments(self._given(kind, videos), segments, out)
        return out

    def prefetch(self, kind: str, videos: Sequence[str]) -> None:
        """Have the disk fetch what `read` will want of one kind, without waiting for it."""
        self.folders[kind].prefetch(self._given(kind, videos))

    def shuffle(self, kinds: Iterable[str], videos: Sequence[str]) -> None:
        """From now on, read for each of the videos these kinds of another one of them: the same for all kinds."""
        order = np.random.default_rng(0).permutation(sorted(videos)).tolist()
        for kind in kinds:
            self._instead.setdefault(kind, {}).update(zip(order, order[1:] + order[:1], strict=True))

    @property
    def tells_patches(self) -> bool:
        """Whether it is known which patches are in a token: not in the public layout, nor where made elsewhere."""
        return not self.manifests.get("token", {"adopted": True}).get("adopted")

    def read_source(self, videos: Sequence[str]) -> np.ndarray:
        """Return in which stored token each input token of the videos' frames ended, (len(videos), T, 1 + P).

        The class token comes first, then the P patches, row by row. Where extraction did not merge, a token is itself.
        Raises `UserError` where the maps are missing.
        """
        if not self.tells_patches:
            raise UserError("features that were made elsewhere do not tell which patches are in a token")
        segments, tokens, _ = self.shapes["token"]
        if not any(self.manifests["token"]["merge_schedule"]):
            return np.broadcast_to(np.arange(tokens), (len(videos), segments, tokens))
        path = self.folders["token"].path
        path = path.with_name(f"{path.name}_source")
        return _folder(path, read_manifest(path)).read(self._given("token", videos))

    def _given(self, kind: str, videos: Sequence[str]) -> list[str]:
        """Whose features each of the videos is given."""
        instead = self._instead.get(kind, {})
        return [instead.get(video, video) for video in videos]

    def read_text(self, ids: Sequence[int | str], questions: Sequence[str], prompts: Sequence[str]) -> TextBank:
        """Return the text rows of the given questions: by sentence, or in the public layout by question id.

        With the words of the questions, where these are wanted. Raises `UserError` where a sentence or a question's
        file is missing or its row is not finite.
        """
        assert self._text, "opened without text"
        text = self._text.read(ids, questions, prompts)
        if not np.isfinite(text.bank).all():
            raise UserError(f"{self._text.path}: text rows hold NaN or infinite values; encode the text again")
        if text.words is not None and not all_finite(text.words):
            raise UserError(f"{self._text.path}: words hold NaN or infinite values; encode the text again")
        return text


def open_features(
    root: str | Path, layout: str, kinds: Iterable[str], segments: int, tokens: int | None, text: bool = True
) -> FeatureStore:
    """Open the features below `root`, a folder per kind, and compare their manifests with each other and with
    `segments` and `tokens`.

    `layout` is "files", "packed" or "public". `kinds` are of "audio", "frame", "token" and "words"; no file of features
    holds others. `tokens`, stored of every frame, selects the folder of the tokens. Checking and packing do without
    `text`. Raises `UserError` for a folder that is missing, naming the command that makes it; for a manifest field that
    contradicts; and for a pack that is half-written or stale.
    """
    root, wanted_kinds = Path(root), set(kinds)
    kinds, words = [kind for kind in KINDS if kind in wanted_kinds], WORDS in wanted_kinds
    given: dict[str, int | None] = {"segments": segments, "tokens": tokens}
    if layout == "public":
        if words:
            raise UserError(f"{root}: the public layout has no words of the questions, which the network reads")
        public = {kind: (root / KINDS[kind].public.format(**given), KINDS[kind].shape(given)) for kind in kinds}
        folders = {kind: plain_folder(path, sizes) for kind, (path, sizes) in public.items()}
        return FeatureStore(folders, PublicText(root / TEXT.public, root / PUBLIC_PROMPTS) if text else None, {})
    wanted = {kind: KINDS[kind] for kind in kinds} | ({"text": TEXT} if text else {})
    paths = {name: _existing(root, kind, given) for name, kind in wanted.items()}
    manifests = {name: read_manifest(path) for name, path in paths.items()}
    for name, kind in wanted.items():
        _check_manifest(paths[name] / NAME, name, manifests[name], kind.shape(given))
    _check_alike(wanted, paths, manifests)
    folders = {kind: _folder(paths[kind], manifests[kind], root / KINDS[kind].status_in) for kind in kinds}
    sentences = Sentences(paths["text"], manifests["text"], words) if text else None
    packs = {kind: Pack(folder, manifests[kind]) for kind, folder in folders.items()} if layout == "packed" else None
    return FeatureStore(packs or folders, sentences, manifests)


def _folder(path: Path, manifest: dict[str, Any], first: Path | None = None) -> Folder:
    return Folder(path, tuple(manifest["shape"]), np.dtype(manifest["dtype"]), first)


def _merge(faults: dict[str, dict[str, str]]) -> dict[str, str]:
    merged: dict[str, list[str]] = {}
    for kind, found in faults.items():
        for video, reason in found.items():
            merged.setdefault(video, []).append(f"{kind}: {reason}")
    return {video: "\n".join(reasons) for video, reasons in merged.items()}


def _existing(root: Path, kind: Kind, given: dict[str, int | None]) -> Path:
    path = root / kind.folder.format(**given)
    if not path.is_dir():
        others = sorted(other.name for other in root.glob(kind.folder.format(tokens="*[0-9]")) if other != path)
        there = f" (there is {', '.join(others)})" if others else ""
        raise UserError(f"{path}: no such folder{there}; make it with: {kind.maker.format(**given)}")
    return path


def _check_manifest(path: Path, kind: str, manifest: dict[str, Any], sizes: tuple[int | None, ...]) -> None:
    shape = manifest.get("shape")
    whole = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape) and fits(shape, sizes)
    for field, good, wanted in (
        ("version", manifest.get("version") == VERSION, VERSION),
        ("kind", manifest.get("kind") == kind, repr(kind)),
        ("shape", whole, f"[{told(sizes)}] by the configured segments and tokens"),
        ("dtype", manifest.get("dtype") in FLOATS, " or ".join(FLOATS)),
        ("weights_sha256", isinstance(manifest.get("weights_sha256"), str), "a digest"),
    ):
        if not good:
            raise UserError(f"{path}: field {field!r} is {manifest.get(field)!r}, but must be {wanted}; {DAMAGED}")


def _check_alike(wanted: dict[str, Kind], paths: dict[str, Path], manifests: dict[str, dict[str, Any]]) -> None:
    """Kinds that meet must be made alike: one CLIP, one picture, one second; those made elsewhere share the second."""
    first: dict[str, tuple[str, Any]] = {}
    for name, kind in wanted.items():
        for field in kind.same if not manifests[name].get("adopted") else ["hop_seconds"]:
            found = manifests[name].get(field, IMPLIED.get(field))
            other, known = first.setdefault(field, (name, found))
            if found is not None and known is not None and found != known:
                raise UserError(
                    f"{paths[name] / NAME}: field {field!r} is {found!r} ({manifests[name].get('encoder')}), but that "
                    f"of {paths[other] / NAME} is {known!r} ({manifests[other].get('encoder')}); extract both alike"
                )
