"""Draw what was extracted from a video: its frames, its sound, and the merged tokens as regions, second by second.

    python -m scripts.show_features 00000093 --videos data/videos --features data/features --tokens 14

Three strips for every ten seconds. On top the frames; what CLIP did not see is dark. Below them each frame with its
merged tokens: patches of one token share a colour and an outline, and a number says how many patches it stands for. At
the bottom the log-mel spectrogram that VGGish read, and under it the features that are stored, so that a late or lost
sound track shows.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from dataset.feature_folder import Folder
from feat_script.clip_vision import fit_image
from feat_script.media import MediaError, read_audio, read_frames
from feat_script.pipeline import find_videos
from feat_script.status import STATUS
from feat_script.vggish import log_mel
from scripts.visualize import smaller
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import read_json
from utils.manifest import read_manifest
from utils.scoring.geometry import seen_box
from utils.scoring.plots import save_png

COLUMNS = 10  # seconds in a row


def parse(args: list[str] | None = None):
    """Read the options."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("video_id", help="file name of the video without its ending")
    parser.add_argument("--videos", required=True, help="folder of videos")
    parser.add_argument("--features", default="data/features", help="folder of features")
    parser.add_argument("--tokens", type=int, default=14, help="which merged tokens to draw")
    parser.add_argument("--out", help="the picture (default: <video_id>.png)")
    args = sys.argv[1:] if args is None else args
    known = {"-h", "--help", *(f"--{name}" for name in vars(parser.get_defaults()))}
    if args and args[0].startswith("-") and args[0].split("=")[0] not in known:
        args = [*args[1:], "--", args[0]]  # an id that begins with a dash, as YouTube has them
    return parser.parse_args(args)


def load_kind(folder: Path, video_id: str) -> tuple[np.ndarray, dict]:
    """A video's array of one kind with the folder's manifest, compared with each other. Raises `UserError`."""
    manifest = read_manifest(folder)
    return Folder(folder, tuple(manifest["shape"]), np.dtype(manifest["dtype"])).read([video_id])[0], manifest


def paint_tokens(image: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, list[tuple[float, float, int]]]:
    """Paint the merged tokens on a square image (n, n, 3) uint8; `source` (M,) says which token each patch is in.

    A region takes its token's mean colour, half over the picture, and a white outline. Returns the painted image and,
    for each token, (x, y, patches) of the patch of it that is nearest to its centre, where its label goes.
    """
    grid = math.isqrt(len(source) - 1)
    regions = source[1:].reshape(grid, grid)  # the class token has no place
    n = len(image)
    edges = np.round(np.linspace(0, n, grid + 1)).astype(int)
    large = regions.repeat(np.diff(edges), 0).repeat(np.diff(edges), 1)  # (n, n)
    painted, labels = image.astype(float), []
    for token in np.unique(regions):
        inside = large == token
        painted[inside] = 0.4 * painted[inside] + 0.6 * image[inside].mean(0)
        rows, columns = np.nonzero(regions == token)
        near = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        labels.append(((columns[near] + 0.5) * n / grid, (rows[near] + 0.5) * n / grid, len(rows)))
    border = np.zeros((n, n), bool)
    border[:, 1:] |= large[:, 1:] != large[:, :-1]
    border[1:] |= large[1:] != large[:-1]
    painted[border] = 255
    return painted.astype(np.uint8), labels


def shade_unseen(image: np.ndarray, fit: str) -> np.ndarray:
    """Darken what lies outside the box that CLIP saw."""
    left, top, right, bottom = (round(edge) for edge in seen_box(image.shape[1], image.shape[0], fit))
    shaded = image // 3
    shaded[top:bottom, left:right] = image[top:bottom, left:right]
    return shaded


@command
def main(args: list[str] | None = None) -> int:
    """Draw the picture."""
    options = parse(args)
    features = Path(options.features)
    source, manifest = load_kind(features / f"clip_token_{options.tokens}_source", options.video_id)
    sound, heard = load_kind(features / "vggish", options.video_id)
    videos = find_videos(options.videos)
    if options.video_id not in videos:
        raise UserError(f"--videos {options.videos}: holds no video {options.video_id!r}")
    segments, fit, size = len(source), manifest["fit"], manifest["image_size"]
    try:
        frames = read_frames(
            videos[options.video_id], segments, lambda image: (smaller(image)[0], fit_image(image, size, fit))
        ).images
        samples = read_audio(videos[options.video_id], segments).samples
    except MediaError as error:
        raise UserError(f"{videos[options.video_id]}: {error}") from error
    mel = log_mel(torch.from_numpy(samples)).numpy().T  # (64, frames), 100 a second
    status = [read_json(features / folder / STATUS / f"{options.video_id}.json") for folder in ("clip_frame", "vggish")]

    rows = math.ceil(segments / COLUMNS)
    tall = frames[0][0].shape[0] / frames[0][0].shape[1]
    heights = [1.6 * tall, 1.6, 0.8, 0.5]
    figure = Figure(figsize=(1.6 * COLUMNS + 0.6, rows * (sum(heights) + 0.35) + 0.6), layout="constrained")
    axes = figure.subplots(4 * rows, COLUMNS, height_ratios=heights * rows, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for second, (picture, square) in enumerate(frames):
        top = 4 * (second // COLUMNS)
        column = axes[top : top + 4, second % COLUMNS]
        column[0].imshow(shade_unseen(picture, fit))
        column[0].set_title(f"{second + 0.5:g} s", fontsize=8)
        painted, labels = paint_tokens(square, source[second])
        column[1].imshow(painted)
        for x, y, patches in labels:
            label = column[1].text(x, y, patches, color="white", fontsize=5, ha="center", va="center")
            label.set_path_effects([withStroke(linewidth=1, foreground="black")])
        column[2].imshow(
            mel[:, 100 * second : 100 * second + 100], origin="lower", aspect="auto", vmin=-4.6, vmax=max(mel.max(), 0)
        )
        column[3].imshow(sound[second][None], aspect="auto", cmap="gray_r", vmin=0, vmax=max(sound.max(), 1e-6))
    figure.suptitle(
        f"{options.video_id}: frames as {manifest['encoder']} saw them ({fit}), {options.tokens} tokens of "
        f"{source.shape[1]}, log-mel, features of {heard['encoder']} every {heard['hop_seconds']:g} s\n"
        f"repeated seconds: picture {status[0]['padded_segments']}, sound {status[1]['padded_segments']}; "
        f"audio: {status[1]['audio']}; problem: {status[0]['problem'] or status[1]['problem'] or 'none'}",
        fontsize=10,
    )
    out = Path(options.out or f"{options.video_id}.png")
    save_png(figure, out, dpi=110)
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
