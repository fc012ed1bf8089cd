"""The memory that features may take: the machine's, or what a container or a job is allowed of it."""

import os
from pathlib import Path

import pytest

from utils.machine import available_memory, usable_cores

GB = 10**9


def write(root: Path, files: dict[str, str | int]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 99 kB\nMemAvailable:   50000000 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def group(path: str, limit: str | int, use: int, cached: int = 0) -> dict[str, str | int]:
    """A control group."""
    stat = f"anon 5\nfile 77\ninactive_anon 3\ninactive_file {cached - 2}\nactive_file 2"
    folder = f"sys/fs/cgroup{path}"
    return {f"{folder}/memory.max": limit, f"{folder}/memory.current": use, f"{folder}/memory.stat": stat}


def test_it_is_part_of_this_machine_s():
    assert 0 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_system_that_does_not_tell_gives_all_that_it_has(tmp_path):
    assert available_memory(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_cores_are_those_that_this_process_was_given():
    given = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, [min(given)])
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, given)
    assert usable_cores() == len(given)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 51.2 * GB),
        ({"proc/self/cgroup": "0::/a/b", **group("/a/b", "max", 7 * GB)}, 51.2 * GB),
        ({"proc/self/cgroup": "0::/a/b", **group("/a/b", 64 * GB, 7 * GB)}, 51.2 * GB),
        ({"proc/self/cgroup": "0::/a/b", **group("/a/b", 16 * GB, 7 * GB, cached=5 * GB)}, 14 * GB),
        ({"proc/self/cgroup": "0::/a/b", **group("/a/b", "max", 1), **group("/a", 20 * GB, 8 * GB, 2)}, 12 * GB + 2),
        ({"proc/self/cgroup": "0::/", **group("", 8 * GB, 3 * GB, 2)}, 5 * GB + 2),
        ({"proc/self/cgroup": "0::/docker/on/the/host", **group("", 8 * GB, 3 * GB, 2)}, 5 * GB + 2),
        ({"proc/self/cgroup": "0::/a", **group("/a", 2 * GB, 3 * GB, 2)}, 0),
    ],
)
def test_a_control_group_s_limit_holds_wherever_it_is_set(tmp_path, files, expected):
    assert available_memory(write(tmp_path, files)) == expected
