"""Kinds of features: where each lies, what it is shaped like, and what makes it. A new kind is a line in `KINDS`."""

from collections.abc import Mapping
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of feature with a file per video. `{tokens}` stands for the number of tokens stored of a frame."""

    folder: str
    sizes: tuple[str | None, ...]  # of one video's array, by name; None: any, the manifest says it
    maker: str  # the command that extracts it
    public: str  # the folder in the layout of the published implementation
    status_in: str  # the folder with a status file per video, for all kinds that one command makes
    by_segment: bool = False  # large, and read a segment at a time where a network asks for some of them
    same: tuple[str, ...] = ()  # fields of the manifest that must agree among the kinds that name them

    def shape(self, given: Mapping[str, int | None]) -> tuple[int | None, ...]:
        """The sizes of one video's array, given the number of segments and tokens; None: any."""
        return tuple(None if name is None else given[name] for name in self.sizes)


SEEN = ("weights_sha256", "image_size", "fit", "hop_seconds")  # frames and tokens are of one picture a second
IMPLIED = {"hop_seconds": 1.0}  # where a manifest does not say
KINDS = {
    "audio": Kind(
        "vggish", ("segments", None), "python -m feat_script.extract_audio", "vggish", "vggish", same=("hop_seconds",)
    ),
    "frame": Kind(
        "clip_frame",
        ("segments", None),
        "python -m feat_script.extract_visual",
        "clip_feats/frame_1fps_ViT-L14@336px",
        "clip_frame",
        same=SEEN,
    ),
    "token": Kind(
        "clip_token_{tokens}",
        ("segments", "tokens", None),
        "python -m feat_script.extract_visual --tokens {tokens}",
        "ToMe_feat/tome{tokens}",
        "clip_frame",
        by_segment=True,
        same=SEEN,
    ),
}
TEXT = Kind(
    folder="text",
    sizes=(None,),
    maker="python -m feat_script.extract_text",
    public="clip_feats/qst_ViT-L14@336px",
    status_in="text",
    same=("weights_sha256",),
)
"""The kind that is no video's: a row per sentence."""
WORDS = "words"
"""What a network names that also reads the words of its questions: (77, Dw) of each, beside the text."""
TRUTH = "truth"
"""What a network names that is told where each question's prompt is true: (B, T), by the files of data.truth."""
WORDS_MAKER = f"{TEXT.maker} --words"
PUBLIC_PROMPTS = "clip_feats/qaPrompt_ViT-L14@336px"
