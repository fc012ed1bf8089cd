"""Faults: a command disturbed under way, or a file that is damaged before it runs again."""

import contextlib
import ctypes
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.faults.world import World

UNDER_WAY = ("killed", "file size limited", "disk full", "folder removed", "folder read-only")
DAMAGE = ("file truncated", "bytes zeroed", "bit flipped", "file removed")
INPUTS = {  # what each command reads, besides encoders
    "render": (),
    "audio": ("bandstand/videos/*",),
    "visual": ("bandstand/videos/*",),
    "text": ("bandstand/annotations/*", "prompts.xlsx"),
    "pack": ("features/vggish/**/*", "features/clip_*/**/*"),
    "train": ("bandstand/annotations/*", "prompts.xlsx", "features/*/*", "features/*/status/*"),
    "test": ("bandstand/*/*.json", "prompts.xlsx", "features/text/*", "features/*/packed/*", "runs/one/best.pt"),
    "reproduce": ("bandstand/*/*.json", "prompts.xlsx", "features/*/*"),
}
OWNERS = ("media", "annotations", "spreadsheets", "manifests")  # read as they are: with other bytes, another input
READ_AGAIN = r"/results/|metrics\.json$|predictions.csv"  # of what a queue writes, all that it reads again


def sort_of(path: str) -> str:
    """Which sort of file one is, by its path in the world."""
    for part, sort in {
        "bandstand/videos/": "media",
        "bandstand/annotations/": "annotations",
        "bandstand/truth/": "annotations",
        ".xlsx": "spreadsheets",
        "manifest.json": "manifests",
        "/status/": "status files",
        "/packed/": "packs",
        ".pt": "checkpoints",
        "features/": "features",
    }.items():
        if part in path:
            return sort
    return "results"


def candidates(world: World, command: str) -> dict[str, list[str]]:
    """The files that a command reads or writes and that are there, by sort."""
    reads = {str(path.relative_to(world.here)) for pattern in INPUTS[command] for path in world.here.glob(pattern)}
    found: dict[str, list[str]] = {}
    for name in sorted(reads | world.outputs(command).keys()):
        path = world.here / name
        unread = command == "reproduce" and name not in reads and not re.search(READ_AGAIN, name)
        unread &= path.suffix != ".pt" or (path.parent / "test/metrics.json").exists()
        if path.is_file() and not unread and not path.name.startswith(".") and path.name != "config.yaml":
            found.setdefault(sort_of(name), []).append(name)
    return found


def damage(path: Path, fault: str, random: Random) -> None:
    """Damage a file."""
    data = bytearray(path.read_bytes())
    place = random.randrange(max(1, len(data)))
    if fault == "file truncated":
        del data[place:]
    elif fault == "bytes zeroed":
        data[place : place + 512] = bytes(len(data[place : place + 512]))
    elif data:
        data[place] ^= 1 << random.randrange(8)
    path.unlink()
    if fault != "file removed":
        path.write_bytes(data)


def disturb(world: World, command: str, fault: str, random: Random) -> tuple[int | None, str]:
    """Run a command with a fault under way; its exit status and what it said."""
    moment = random.random() * world.seconds[command]
    if fault == "killed":
        process = world.start(command)
        time.sleep(moment)
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice([process, process, *children(process)]), signal.SIGKILL)
        return world.end(process)
    sizes = [len(data) for data in world.outputs(command).values()]
    if fault == "file size limited":
        most = random.randrange(1, max(sizes))
        return world.end(world.start(command, begin=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))))
    if fault == "disk full":
        root = world.here / min(world.outputs(command)).partition("/")[0]
        with small_disk(root, random.randrange(4096, sum(sizes))):
            return world.run(command)
    folders = sorted({str(Path(name).parent) for name in world.outputs(command)})
    process = world.start(command)
    time.sleep(moment)
    there = [world.here / name for name in folders if (world.here / name).is_dir()]
    if not there:
        return world.end(process)
    folder = random.choice(there)
    if fault == "folder removed":
        with contextlib.suppress(OSError):  # a name that was just made in it
            folder.rename(world.here.with_name(f"removed-{process}"))
        return world.end(process)
    with read_only(folder):
        return world.end(process)


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    with contextlib.suppress(OSError):
        return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def may_mount() -> bool:
    """Part from the machine's mounts, if this user may: those made from now on are seen by nobody else."""
    new_namespace = 0x00020000
    if ctypes.CDLL(None, use_errno=True).unshare(new_namespace):
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True).returncode == 0


@contextlib.contextmanager
def small_disk(folder: Path, free: int) -> Iterator[None]:
    """Put what a folder holds on a disk with so many bytes to spare."""
    held = sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in folder.rglob("*")) if folder.exists() else 0
    aside = folder.with_name(f"{folder.name}.aside")
    folder.mkdir(exist_ok=True)
    folder.rename(aside)
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={held + free}", "tmpfs", folder], check=True)
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield
    finally:
        shutil.rmtree(aside)
        shutil.copytree(folder, aside)
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()
        aside.rename(folder)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write to a folder."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        while subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=False, capture_output=True).returncode:
            time.sleep(0.01)  # a file is being written
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
