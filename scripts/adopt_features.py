"""Features that were made elsewhere: check a folder of .npy files and write its manifest, so that they train like ours.

    python -m scripts.adopt_features --features data/own/features --kind frame --encoder "DINOv2 ViT-B/14" --segments 10

The files lie where ours would: <features>/vggish/<video>.npy for the kind audio, clip_frame for frame, clip_token_<S>
for token (a link will do). All must have one shape, (T, width) or (T, S, width), and be float16 or float32; row t is
second t. dataset/own_videos.md has the rest.
"""

from pathlib import Path

from dataset.feature_folder import Folder, describe_faults, plain_folder
from dataset.features import MANIFEST_VERSION
from dataset.kinds import KINDS
from utils.cli import Parser
from utils.errors import UserError, command
from utils.manifest import NAME, claim_manifest


def adopt(folder: Path, kind: str, encoder: str, sizes: tuple[int | None, ...]) -> tuple[int, Folder]:
    """Check all files of a folder and write its manifest; returns the number of videos, and the folder.

    The first file that fits `sizes` (None: any) says shape and dtype; every other must have them, and be finite.
    Raises `UserError` listing what does not, and where there is a manifest already.
    """
    if (folder / NAME).exists():
        raise UserError(f"{folder / NAME}: is there already; what made it needs no adoption")
    files = plain_folder(folder, sizes)
    videos = list(files.stamps())
    if faults := files.check(videos, deep=True):
        raise UserError(
            f"{folder}: {len(faults)} of {len(videos)} files are not like the others\n{describe_faults(faults)}"
        )
    not_known = {"weights_sha256": f"not known: {encoder}", "image_size": None, "fit": None}
    manifest = {"version": MANIFEST_VERSION, "kind": kind, "encoder": encoder, "adopted": True}
    claim_manifest(folder, manifest | {"shape": list(files.shape), "dtype": files.dtype.name} | not_known)
    return len(videos), files


@command
def main(args: list[str] | None = None) -> None:
    """Adopt one kind and say what it is."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", required=True, help="folder of the feature kinds")
    parser.add_argument("--kind", required=True, choices=list(KINDS), help="what the files are taken for")
    parser.add_argument("--encoder", required=True, help="what made them: runs refuse features of another name")
    parser.add_argument("--segments", type=int, default=60, help="segments T of a video")
    parser.add_argument("--tokens", type=int, default=14, help="tokens of a frame, for the kind token")
    options = parser.parse_args(args)
    kind, given = KINDS[options.kind], {"segments": options.segments, "tokens": options.tokens}
    folder = Path(options.features) / kind.folder.format(**given)
    videos, files = adopt(folder, options.kind, options.encoder, kind.shape(given))
    print(f"{folder}: {videos} videos, {files.dtype} {files.shape}, by {options.encoder}; {folder / NAME} is written")


if __name__ == "__main__":
    main()
