"""What this process may use of the machine."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

# Where control groups are mounted; their limit, use, and what of the use is the cache of files, which gives way.
VERSION_1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_(?:in)?active_file")
VERSION_2 = ("sys/fs/cgroup", "memory.max", "memory.current", "(?:in)?active_file")


def usable_cores() -> int:
    """Cores that this process may use, of which a scheduler or a container may have given it but some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # Linux, others


def own_cores() -> int:
    """This process's share of them, where a launcher says that several processes of this machine work together."""
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def available_memory(root: Path = Path("/")) -> int:
    """Bytes of the host's memory that programs can still take, within the limits of a container or a scheduler's job.

    Where the system does not tell, all that it has. `root` is where its files are.
    """
    meminfo = root / "proc/meminfo"
    told = meminfo.exists() and re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
    if not told:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(0, min([int(told[1]) * 1024, *_left_in_control_groups(root)]))


def _left_in_control_groups(root: Path) -> Iterator[int]:
    """What each control group that this process is in, and each around it, still allows; those without a limit not."""
    listed = root / "proc/self/cgroup"
    for line in listed.read_text().splitlines() if listed.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mounted, limit, use, cache = VERSION_1 if controllers else VERSION_2
        group = root / mounted / path.strip("/")  # in a container it may not be there, but those around it are
        while group.is_relative_to(root / mounted):
            if (group / limit).exists() and (allowed := (group / limit).read_text().strip()) != "max":
                cached = re.findall(rf"^{cache} (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
                yield int(allowed) - int((group / use).read_text()) + sum(map(int, cached))
            group = group.parent
