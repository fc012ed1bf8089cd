"""Break every long command at random, run it again, and see that nothing is lost.

    python -m tests.faults --number 200 --seed 0

Each fault starts from a small world of its own. Afterwards the same command must end with the files of a run that
nothing disturbed, or with a line that names the file and the remedy; the remedy is then followed, and must lead to the
same files, as must the damaged input that was read as it is, once restored. Exit status: 0 so it was, 1 not always.
Full and read-only disks are mounted, which wants root.
"""

import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}  # before PyTorch is imported

from tests.faults.inject import DAMAGE, OWNERS, UNDER_WAY, candidates, damage, disturb, may_mount, sort_of
from tests.faults.world import World
from utils.cli import Parser
from utils.errors import command
from utils.files import write_bytes

MAKERS = {  # by what a line says, the commands that it asks for
    r"extract (it|them) again|extract_(audio|visual)": ("audio", "visual"),
    r"encode|extract_text": ("text",),
    "extract again": ("audio", "visual", "text"),
    r"pack with|pack_features": ("pack",),
}
RESULTS = ("same", "one line", "other input")
HEAD = """# Faults injected, nothing lost

    {command}

Each cell counts how the same command ended when it was run again:

1. with the files of a run that nothing disturbed, byte for byte but for times;
2. with one line that names the file and the remedy, which was followed and led to these files;
3. with other files, as another input was read: a video, question, prompt or manifest with other bytes. Once that was
   restored and the command's folder made anew, these files were there.

"""


class Wrong(Exception):
    """A fault that was not made good."""


def outcome(world: World, name: str, fault: str, random: Random) -> tuple[str, str]:
    """Inject a fault into a command, run it again; (what was hit, "same" or "one line"). Raises `Wrong`."""
    hit = None
    if fault in UNDER_WAY:
        world.restore(world.before(name))
        told(*disturb(world, name, fault, random))
    else:
        state = random.choice(("before", "killed", "after"))
        world.restore(world.after(name) if state == "after" else world.before(name))
        if state == "killed":
            told(*disturb(world, name, "killed", random))
        there = candidates(world, name)
        if not there:
            world.restore(world.after(name))
            there = candidates(world, name)
        hit = random.choice(there[random.choice(sorted(there))])
        damage(world.here / hit, fault, random)
    what = f"{hit} ({state})" if hit else ""
    try:
        return what, settled(world, name, hit)
    except Wrong as wrong:
        raise Wrong(f"{what}: {wrong}") from None


def settled(world: World, name: str, hit: str | None) -> str:
    """Run a command again, doing what it says, until its files are those of an undisturbed run: all ways lead there.

    Raises `Wrong` where they do not, or where a line names neither the file nor a remedy.
    """
    again = ["--resume"] if name == "train" else []
    original = world.before(name) / hit if hit else None
    owned = bool(original and original.exists() and sort_of(hit) in OWNERS)
    result, read = "same", False
    for _ in range(4):
        code, said = world.run(name, *again)
        line = told(code, said)
        if line and hit and not is_named(hit, line):
            raise Wrong(f"does not name the file: {line}")
        if not line and not owned:
            different = world.differences(name)
            if not different:
                return result
            if read and result == "same":  # something of that input remains
                make_anew(world, name)
                result = "other input"
                continue
            raise Wrong(f"silently different: {', '.join(different)}")
        read |= owned and not line  # the damaged input, as it is
        result = "one line" if line else result
        follow(world, name, hit, line, owned)
        owned = False
    raise Wrong(f"the remedies do not help: {line}")


def is_named(hit: str, line: str) -> bool:
    """Whether a line names a file; a manifest may be named by its folder."""
    path = Path(hit)
    return path.stem in line or (sort_of(hit) == "manifests" and path.parent.name in line)


def follow(world: World, name: str, hit: str | None, line: str, owned: bool) -> None:
    """Do what a line says; an input that is owned is restored, whatever it says. Raises `Wrong` for no remedy."""
    asked = [maker for words, makers in MAKERS.items() if re.search(words, line) for maker in makers]
    if (named := re.search(r"delete (/\S+)", line)) or (hit and "delete" in line):
        Path(named[1] if named else world.here / hit).unlink(missing_ok=True)
    elif owned or (hit and "restore" in line and (world.before(name) / hit).exists()):
        shutil.copy2(world.before(name) / hit, world.here / hit)
    elif "--out" in line:
        make_anew(world, name)
    elif not (asked or "run again" in line):
        raise Wrong(f"names no remedy: {line}")
    for maker in asked:
        told(*world.run(maker))


def make_anew(world: World, name: str) -> None:
    """Take away the folders that a command makes: as good as another --out."""
    for path in world.outputs(name):
        for folder in Path(path).parents:
            if not (world.before(name) / folder).exists():
                shutil.rmtree(world.here / folder, ignore_errors=True)


def told(code: int | None, said: str) -> str:
    """The line with which a command ended that failed, "" for one that did not. Raises `Wrong` for a traceback."""
    if code is None:
        raise Wrong(f"hangs\n{said}")
    if code >= 0 and "Traceback (most recent call last)" in said:
        raise Wrong(said)
    return said if code > 0 else ""


@command
def main(arguments: list[str] | None = None) -> int:
    """Draw faults, inject them, write the table."""
    parser = Parser(description=__doc__)
    parser.add_argument("--number", type=int, default=200, help="faults to inject")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same faults")
    parser.add_argument("--out", type=Path, help="file for the table; what stands below it stays")
    options = parser.parse_args(arguments)
    counts, wrongs = Counter(), 0
    faults = [*UNDER_WAY, *DAMAGE]
    if not may_mount():
        faults = [fault for fault in faults if fault not in ("disk full", "folder read-only")]
    with tempfile.TemporaryDirectory() as work:
        world = World(Path(work))
        for number in range(options.number):
            name, fault = list(world.commands)[number % len(world.commands)], faults[number % len(faults)]
            try:
                what, result = outcome(world, name, fault, Random(f"{options.seed} {number}"))
            except Wrong as wrong:
                what, result = str(wrong)[-1500:], "WRONG"
                wrongs += 1
            print(f"{number:4} {name}: {fault} {what}: {result}", flush=True)
            counts[fault, name, result] += 1
    if options.out:
        _, gap, rest = (options.out.read_text() if options.out.exists() else "").partition("\n## ")
        head = HEAD.format(command=f"python -m tests.faults --number {options.number} --seed {options.seed}")
        write_bytes(options.out, (head + table(counts, faults, list(world.commands)) + gap + rest).encode())
    print(f"{options.number} faults, {wrongs} not made good")
    return int(wrongs > 0)


def table(counts: Counter, faults: list[str], commands: list[str]) -> str:
    """Counts by fault and command in Markdown."""

    def cell(*keys: tuple[str, str]) -> str:
        found = [sum(counts[*key, result] for key in keys) for result in RESULTS]
        wrong = sum(counts[*key, "WRONG"] for key in keys)
        return " + ".join(map(str, found)) + (f", {wrong} wrong" if wrong else "") if sum(found) + wrong else ""

    rows = [["fault", *commands, "all"], ["---"] * (len(commands) + 2)]
    for fault in faults:
        cells = [cell((fault, name)) for name in commands]
        rows.append([fault, *cells, cell(*((fault, name) for name in commands))])
    by_command = [cell(*((fault, name) for fault in faults)) for name in commands]
    rows.append(["all", *by_command, cell(*((fault, name) for fault in faults for name in commands))])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
