"""What this process may use of the machine."""

import os
import re
from pathlib import Path

GROUPS = "sys/fs/cgroup"  # where control groups are mounted


def usable_cores() -> int:
    """Cores that this process may use, of which a scheduler or a container may have given it but some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # Linux, others


def own_cores() -> int:
    """This process's share of them, where a launcher says that several processes of this machine work together."""
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def available_memory(root: Path = Path("/")) -> int:
    """Bytes of the host's memory that programs can still take, and a container's or a job's limit (cgroups) allows.

    Where the system does not tell, all that it has. `root` is where its files are.
    """
    meminfo, listed = root / "proc/meminfo", root / "proc/self/cgroup"
    told = meminfo.exists() and re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
    if not told:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    left = [int(told[1]) * 1024]
    own = listed.read_text().strip().rpartition("::/")[2] if listed.exists() else ""  # within a container often absent
    for group in (root / GROUPS / own, *(root / GROUPS / own).parents):
        if (group / "memory.max").exists() and (limit := (group / "memory.max").read_text().strip()) != "max":
            cached = re.findall(r"^(?:in)?active_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
            left.append(int(limit) - int((group / "memory.current").read_text()) + sum(map(int, cached)))
    return max(0, min(left))
