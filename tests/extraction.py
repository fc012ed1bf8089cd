"""What the tests of extraction share beside their fixtures."""

import pytest

T = 4  # segments of a video


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def changed(before, after):
    return {path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def says(capfd, run, *options):
    """The one line with which a run ends that its user can mend."""
    with pytest.raises(SystemExit) as end:
        run(*options)
    assert end.value.code == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]
