"""Render Bandstand, the benchmark that knows when and where every answer is: videos, annotations, truth.

    python -m scripts.render_bandstand --preset demo --out data/bandstand

Interrupted, it goes on where it was; a damaged video is rendered again. Annotations and truth are made anew each time:
a second for the demo, three for the study, a minute and a half for the full preset.
"""

import re
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt

from dataset.bandstand.benchmark import PRESETS, make_scenes, write_annotations
from dataset.bandstand.render import render
from dataset.bandstand.scene import Scene
from feat_script.reading import begin_worker
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import sha256, write_bytes, writing
from utils.machine import usable_cores
from utils.manifest import claim_manifest
from utils.progress import tqdm

SUMS = "SHA256SUMS"  # of the videos, as `sha256sum` writes it: what is whole is not rendered again


@command
def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, write annotations and truth, render what is not there yet."""
    parser = Parser(description=__doc__)
    sizes = "; ".join(f"{name}: {size.videos} videos of {size.seconds} s" for name, size in PRESETS.items())
    parser.add_argument("--preset", choices=list(PRESETS), default="demo", help=sizes)
    parser.add_argument("--out", type=Path, default="data/bandstand", help="folder of videos, annotations, truth")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="the same seed gives the same benchmark")
    parser.add_argument("--workers", type=PositiveInt, default=usable_cores(), help="processes that render")
    args = parser.parse_args(arguments)

    out, size = args.out, PRESETS[args.preset]
    start = time.perf_counter()
    claim_manifest(out, {"version": 1, "seed": args.seed, "videos": size.videos, "seconds": size.seconds})
    scenes = make_scenes(size, args.seed)
    questions = write_annotations(scenes, args.seed, out)
    sums = out / SUMS
    known = _known(sums)
    _note(sums, known)  # whole lines alone: half a one would take in what is appended
    todo = [scene for scene in scenes if not _whole(_path(out, scene), known)]
    with ProcessPoolExecutor(args.workers, initializer=begin_worker) as pool:
        try:
            for _ in tqdm(pool.map(partial(_render, out), todo), total=len(todo), desc="render", unit="video"):
                pass
        except BrokenProcessPool:  # killed: memory is short
            raise UserError(f"{out}: a process that renders died; run again, perhaps with fewer --workers") from None
        finally:
            pool.shutdown(cancel_futures=True)
    known |= _known(sums)
    names = [f"videos/{_path(out, scene).name}" for scene in scenes]
    _note(sums, {name: known[name] for name in names})
    with writing(out / "videos"):  # they may be taken away
        megabytes = sum(_path(out, scene).stat().st_size for scene in scenes) / 1e6
    print(
        f"{out}: {size.videos} videos of {size.seconds} s ({megabytes:.0f} MB, {len(todo)} new), "
        f"{' + '.join(f'{n} {split}' for split, n in questions.items())} questions, {time.perf_counter() - start:.0f} s"
    )


def _path(out: Path, scene: Scene) -> Path:
    return out / "videos" / f"{scene.video_id}.mp4"


def _known(sums: Path) -> dict[str, str]:
    """The SHA-256 of each video, by its name, as far as the lines are whole."""
    text = sums.read_text(errors="replace") if sums.exists() else ""
    return {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (videos/.+)\n", text, re.MULTILINE)}


def _note(sums: Path, known: dict[str, str]) -> None:
    """Have the file hold these digests and nothing else."""
    listed = "".join(f"{digest}  {name}\n" for name, digest in known.items()).encode()
    if (sums.read_bytes() if sums.exists() else b"") != listed:
        write_bytes(sums, listed)


def _whole(path: Path, known: dict[str, str]) -> bool:
    """Whether a video is there and as it was rendered; one that is not listed, by an older release or a kill, is."""
    if not path.exists():
        return False
    digest = sha256(path)
    return known.setdefault(f"videos/{path.name}", digest) == digest


def _render(out: Path, scene: Scene) -> None:
    path = _path(out, scene)
    render(scene, path)
    with writing(out / SUMS), open(out / SUMS, "a") as file:
        file.write(f"{sha256(path)}  videos/{path.name}\n")


if __name__ == "__main__":
    main()
