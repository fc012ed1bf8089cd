"""Features that were made elsewhere: check a folder of .npy files and write its manifest, so that they train like ours.

    python -m scripts.adopt_features --features data/own/features --kind frame --encoder "DINOv2 ViT-B/14" --segments 10

The files lie where ours would: <features>/vggish/<video>.npy for the kind audio, clip_frame for frame, clip_token_<S>
for token (a link will do). All must have one shape, (T, width) or (T, S, width), and be float16 or float32; row t is
second t. dataset/own_videos.md has the rest.
"""

from pathlib import Path

from dataset.feature_folder import describe_faults, plain_folder
from dataset.kinds import KINDS
from utils.cli import Parser
from utils.errors import UserError, command
from utils.manifest import NAME, claim_manifest, make_manifest


@command
def main(args: list[str] | None = None) -> None:
    """Check all files of a folder, write its manifest, and say what it holds.

    The first file that fits says shape and dtype; every other must have them, and be finite.
    """
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", required=True, help="folder of the feature kinds")
    parser.add_argument("--kind", required=True, choices=list(KINDS), help="what the files are taken for")
    parser.add_argument("--encoder", required=True, help="what made them: runs refuse features of another name")
    parser.add_argument("--segments", type=int, default=60, help="segments T of a video")
    parser.add_argument("--tokens", type=int, default=14, help="tokens of a frame, for the kind token")
    options = parser.parse_args(args)
    kind, given = KINDS[options.kind], {"segments": options.segments, "tokens": options.tokens}
    path = Path(options.features) / kind.folder.format(**given)
    if (path / NAME).exists():
        raise UserError(f"{path / NAME}: is there already; what made it needs no adoption")
    folder = plain_folder(path, kind.shape(given))
    videos = list(folder.stamps())
    _, faults = folder.examine(videos)
    if faults:
        raise UserError(
            f"{path}: {len(faults)} of {len(videos)} files are not like the others\n{describe_faults(faults)}"
        )
    weights = f"not known: {options.encoder}"
    manifest = make_manifest(options.kind, options.encoder, weights, folder.shape, folder.dtype.name)
    claim_manifest(path, manifest | {"adopted": True, "image_size": None, "fit": None})
    print(
        f"{path}: {len(videos)} videos, {folder.dtype} {folder.shape}, by {options.encoder}; {path / NAME} is written"
    )


if __name__ == "__main__":
    main()
