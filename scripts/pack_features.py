"""Pack the per-video files of each kind into one array that training maps into memory.

    python -m scripts.pack_features --features data/music_avqa/features --segments 60 --tokens 14

Then train with `--data.layout packed`. Every file is checked; the files themselves stay, and may be deleted afterwards.
Once files have changed, the pack is stale: run this again.
"""

from dataset.feature_folder import Folder, describe_faults
from dataset.feature_pack import Pack, write_pack
from dataset.features import open_features
from dataset.kinds import KINDS
from utils.cli import Parser
from utils.errors import command


@command
def main(args: list[str] | None = None) -> None:
    """Pack kind after kind and say what came of it."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", required=True, help="folder of the feature kinds")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="kinds to pack")
    parser.add_argument("--segments", type=int, default=60, help="segments T of a video")
    parser.add_argument("--tokens", type=int, default=14, help="tokens M per frame as stored")
    parser.add_argument("--skip-faulty", action="store_true", help="leave faulty videos out instead of refusing")
    options = parser.parse_args(args)
    store = open_features(options.features, "files", options.kinds, options.segments, options.tokens, text=False)
    for kind, folder in store.folders.items():
        assert isinstance(folder, Folder), "of the layout `files`"
        faults = write_pack(folder, store.manifests[kind], options.skip_faulty)
        pack = Pack(folder, store.manifests[kind])  # as training will open it
        print(f"{pack.file}: {len(pack.rows)} videos, {len(pack.rows) * folder.nbytes / 1e9:.2f} GB")
        if faults:
            print(f"left out, {len(faults)} faulty:\n{describe_faults(faults)}")


if __name__ == "__main__":
    main()
