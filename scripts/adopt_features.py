"""Features that were made elsewhere: check a folder of .npy files and write its manifest, so that they train like ours.

    python -m scripts.adopt_features --features data/own/features --kind frame --encoder "DINOv2 ViT-B/14" --segments 10

The files lie where ours would: <features>/vggish/<video>.npy for the kind audio, clip_frame for frame, clip_token_<S>
for token (a link will do). All must have one shape, (T, width) or (T, S, width), and be float16 or float32; row t is
second t. dataset/own_videos.md has the rest.
"""

from pathlib import Path

import numpy as np

from dataset.feature_folder import Folder, describe_faults, find_faults
from dataset.features import MANIFEST_VERSION
from dataset.kinds import KINDS, fits
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import npy_header
from utils.manifest import NAME, claim_manifest

DTYPES = ("float16", "float32")


def adopt(folder: Path, kind: str, encoder: str, sizes: tuple[int | None, ...]) -> tuple[int, tuple[int, ...], str]:
    """Check all files of a folder and write its manifest; returns (videos, shape, dtype).

    The first file that fits `sizes` (None: any) says shape and dtype; every other must have them, and be finite.
    Raises `UserError` listing what does not, and where there is a manifest already.
    """
    if (folder / NAME).exists():
        raise UserError(f"{folder / NAME}: is there already; what made it needs no adoption")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; put the .npy files there, or a link to their folder")
    videos = sorted(path.stem for path in folder.glob("[!.]*.npy"))
    wanted = ", ".join("any" if size is None else str(size) for size in sizes)
    seen = "it is empty"
    for video in videos:
        try:
            shape, dtype = npy_header(folder / f"{video}.npy")
        except UserError:
            continue  # is listed below, or all are
        if fits(shape, sizes) and dtype.name in DTYPES:
            break
        seen = f"{video}.npy is {dtype} {shape}"
    else:
        raise UserError(f"{folder}: no file is {' or '.join(DTYPES)} ({wanted}); {seen}")
    files = Folder(folder, shape, dtype)
    faults = find_faults(lambda video: files.fault(video, np.empty(shape, dtype)), videos, folder.name)
    if faults:
        raise UserError(
            f"{folder}: {len(faults)} of {len(videos)} files are not like the others\n{describe_faults(faults)}"
        )
    not_known = {"weights_sha256": f"not known: {encoder}", "image_size": None, "fit": None}
    manifest = {"version": MANIFEST_VERSION, "kind": kind, "encoder": encoder, "adopted": True}
    claim_manifest(folder, manifest | {"shape": list(shape), "dtype": dtype.name} | not_known)
    return len(videos), shape, dtype.name


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
    videos, shape, dtype = adopt(folder, options.kind, options.encoder, kind.shape(given))
    print(f"{folder}: {videos} videos, {dtype} {shape}, by {options.encoder}; {folder / NAME} is written")


if __name__ == "__main__":
    main()
