"""Fetch public annotations and weights; interrupted, it goes on where it was.

    python -m scripts.download                                   # what there is, and what a person must fetch by hand
    python -m scripts.download music_avqa vggish clip_l14

Files whose digest is known, or the start of it, are checked. The whole digest of every file is recorded at its first
download in <root>/digests.json, and compared from then on: a file that changed under its address is refused.
"""

import os
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from feat_script.clip_vision import clip
from feat_script.vggish import PUBLIC, URL, public_weights
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import read_json, sha256, write_json, writing
from utils.progress import tqdm

CHUNK = 1 << 20


class File(NamedTuple):
    """A public file. Relative paths are below --root."""

    url: str
    path: str
    sha256: str = ""  # the digest, or the start of it, where it is known


def _github(files: str, folder: str) -> list[File]:
    """Annotations, a file for each split, and the folder where they go."""
    splits = ("train", "val", "test")
    return [File(f"https://raw.githubusercontent.com/{files.format(s)}", f"{folder}/{s}.json") for s in splits]


def _clip(name: str) -> list[File]:
    url = clip.clip._MODELS[name]  # the address holds the digest
    return [File(url, str(Path("~/.cache/clip").expanduser() / Path(url).name), Path(url).parent.name)]


V2 = "music_avqa_v2/annotations"
CATALOGUE = {
    "music_avqa": _github("GeWu-Lab/MUSIC-AVQA/main/data/json_update/avqa-{}.json", "music_avqa/annotations"),
    "music_avqa_video_split": _github(
        "GeWu-Lab/TSPM/259d4f51ed86963828179726cc9b818cb3debb2a/dataset/split_video_id/music_avqa_{}.json",
        "music_avqa/annotations_video_split",
    ),
    "music_avqa_v2_test": [
        File(f"https://raw.githubusercontent.com/DragonLiu1995/MUSIC-AVQA-v2.0/{file}", f"{V2}/{Path(file).name}")
        for file in (
            "8218e35c451f6c7ce1cae76ac480f0887dbdf4d8/data/balance_full_set/test_balance.json",
            "41c8235d573b2f840750f27577ea57e748ea0e94/data/bias_set/test_bias.json",
        )
    ],
    "vggish": [File(URL, str(public_weights()), PUBLIC)],
    "clip_l14": _clip("ViT-L/14@336px"),
    "clip_b32": _clip("ViT-B/32"),
}
BY_HAND = """by hand:
  MUSIC-AVQA videos (9,288 of 60 s) and annotations: https://gewu-lab.github.io/MUSIC-AVQA/ -> data/music_avqa/videos
  MUSIC-AVQA v2 (training questions, list of its videos): https://github.com/DragonLiu1995/MUSIC-AVQA-v2.0
  MUSIC-AVQA-R (rephrased test questions): https://github.com/reml-group/MUSIC-AVQA-R
  AVQA (57,335 questions; clips of VGGSound): https://mn.cs.tsinghua.edu.cn/avqa/ -> data/avqa/annotations, videos"""


def download(file: File, root: Path) -> Path:
    """Fetch a file unless it is there, check its digest and record it. Returns its path.

    Raises `UserError` where it cannot be fetched or has another digest than is known or recorded.
    """
    path, record = root / file.path, root / "digests.json"
    digests = read_json(record) if record.exists() else {}
    held = path if path.exists() else _fetch(file, path)
    digest, known = sha256(held), digests.get(file.url, file.sha256)
    if not digest.startswith(known):
        remedy = f"delete it, or its line in {record} if a new release is meant" if held == path else "it was deleted"
        if held != path:
            held.unlink()
        raise UserError(f"{held}: its SHA-256 is {digest}, but that of {file.url} is {known}...; {remedy}")
    with writing(path):
        os.replace(held, path)
    if file.url not in digests:
        write_json(record, digests | {file.url: digest})
    return path


def _fetch(file: File, path: Path) -> Path:
    """Load a file beside `path`. Returns it, whole.

    It goes on where an earlier try ended if its digest will tell that both parts are of one file.
    """
    part = path.with_name(f"{path.name}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    request, start = urllib.request.Request(file.url), 0
    if file.sha256 and part.exists():
        start = max(part.stat().st_size - 1, 0)  # one byte again, as a range of none is an error
        request.add_header("Range", f"bytes={start}-")
    try:
        with urllib.request.urlopen(request, timeout=60) as response, open(part, "ab") as out:
            start = start if response.status == 206 else 0
            length = response.headers.get("Content-Length")
            total = start + int(length) if length else None
            out.truncate(start)
            with tqdm(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True) as bar:
                while chunk := response.read(CHUNK):
                    out.write(chunk)
                    bar.update(len(chunk))
        if total in (None, part.stat().st_size):
            return part
        reason = "the connection ended early"
    except urllib.error.HTTPError as error:
        reason = f"{error.code} {error.reason}"
        if error.code < 500:
            raise UserError(f"{file.url}: {reason}; look for it by hand\n{BY_HAND}") from error
    except (HTTPException, OSError) as error:  # no connection, a broken one, a full disk
        reason = str(error)
    raise UserError(f"{file.url}: {reason}; run again to go on")


@command
def main(args: list[str] | None = None) -> None:
    """Fetch the sets that are named; without a name, list them all."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"sets to fetch: {', '.join(CATALOGUE)}")
    parser.add_argument("--root", default="data", help="folder of data sets; weights go to the caches of their loaders")
    options = parser.parse_args(args)
    root = Path(options.root)
    unknown = [name for name in options.names if name not in CATALOGUE]
    if unknown:
        raise UserError(f"{unknown[0]!r} is no set; there are {', '.join(CATALOGUE)}\n{BY_HAND}")
    for name in options.names or CATALOGUE:
        for file in CATALOGUE[name]:
            if not options.names:
                print(f"{name:24}{file.url} -> {root / file.path}")
                continue
            path = download(file, root)
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256(path)}")
    if not options.names:
        print(BY_HAND)


if __name__ == "__main__":
    main()
