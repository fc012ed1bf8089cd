"""Render Bandstand, the benchmark that knows when and where every answer is: videos, annotations, truth.

    python -m scripts.render_bandstand --preset demo --out data/bandstand

Interrupted, it goes on where it was. Annotations and truth are made anew each time: a second for the demo, three for
the study, a minute and a half for the full preset.
"""

import multiprocessing
import time
from functools import partial
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt

from dataset.bandstand.benchmark import PRESETS, make_scenes, write_annotations
from dataset.bandstand.render import render
from dataset.bandstand.scene import Scene
from utils.cli import Parser
from utils.errors import command
from utils.machine import usable_cores
from utils.manifest import claim_manifest
from utils.progress import tqdm


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
    todo = [scene for scene in scenes if not _path(out, scene).exists()]
    with multiprocessing.Pool(args.workers) as pool:
        for _ in tqdm(pool.imap_unordered(partial(_render, out), todo), total=len(todo), desc="render", unit="video"):
            pass
    megabytes = sum(_path(out, scene).stat().st_size for scene in scenes) / 1e6
    print(
        f"{out}: {size.videos} videos of {size.seconds} s ({megabytes:.0f} MB, {len(todo)} new), "
        f"{' + '.join(f'{n} {split}' for split, n in questions.items())} questions, {time.perf_counter() - start:.0f} s"
    )


def _path(out: Path, scene: Scene) -> Path:
    return out / "videos" / f"{scene.video_id}.mp4"


def _render(out: Path, scene: Scene) -> None:
    render(scene, _path(out, scene))


if __name__ == "__main__":
    main()
