"""Render Bandstand, the benchmark that knows when and where every answer is: videos, annotations, truth.

    python -m scripts.render_bandstand --preset demo --out data/bandstand

Interrupted, it goes on where it was; a damaged video is rendered again. Annotations and truth are made anew each time:
a second for the demo, three for the study, a minute and a half for the full preset.
"""

import re
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt

from dataset.bandstand.benchmark import PRESETS, make_scenes, write_annotations
from dataset.bandstand.render import render
from dataset.bandstand.scene import Scene
from feat_script.reading import begin_worker
from utils.cli import Parser
from utils.errors import UserError, command
from utils.files import sha256, write_bytes
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
    text = sums.read_text(errors="replace") if sums.exists() else ""
    known = {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (videos/.+)\n", text, re.MULTILINE)}
    todo: dict[str, Scene] = {}
    for scene in scenes:
        name = f"videos/{scene.video_id}.mp4"
        digest = sha256(out / name) if (out / name).exists() else None
        if not digest or known.setdefault(name, digest) != digest:  # what is not listed was made just before a kill
            todo[name] = scene
    with ProcessPoolExecutor(args.workers, initializer=begin_worker) as pool:
        try:
            made = pool.map(_render, todo.values(), [out / name for name in todo])
            for name, made_digest in zip(todo, tqdm(made, "render", len(todo), unit="video"), strict=True):
                known[name] = made_digest
        except BrokenProcessPool:  # killed: memory is short
            raise UserError(f"{out}: a process that renders died; run again, perhaps with fewer --workers") from None
        finally:
            pool.shutdown(cancel_futures=True)
            write_bytes(sums, "".join(f"{known[name]}  {name}\n" for name in sorted(known)).encode())
    print(
        f"{out}: {size.videos} videos of {size.seconds} s ({len(todo)} new), "
        f"{' + '.join(f'{n} {split}' for split, n in questions.items())} questions, {time.perf_counter() - start:.0f} s"
    )


def _render(scene: Scene, path: Path) -> str:
    render(scene, path)
    return sha256(path)


if __name__ == "__main__":
    main()
