"""How every command ends when it cannot go on."""

import importlib
import subprocess
import sys

import pytest

from tests.small_run import ROOT


@pytest.mark.parametrize("lines", [1, 100_000])  # within the buffer that is flushed at the end, and beyond it
def test_a_reader_that_has_seen_enough_ends_a_command_silently(lines):
    code = (
        "from utils.errors import command\n"
        f"main = command(lambda: [print('a line of output', i) for i in range({lines})])\n"
        "import time; time.sleep(0.5)\n"  # until the reader is gone
        "main()"
    )
    made = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    made.stdout.close()
    assert made.stderr.read() == ""
    assert made.wait() == 141


@pytest.mark.parametrize(
    "command",
    ["scripts.answer", "scripts.app", "scripts.reproduce.__main__", "scripts.score", "scripts.visualize", "test"],
)
def test_a_command_that_is_not_understood_says_so_in_a_line(command, capsys):
    with pytest.raises(SystemExit) as left:
        importlib.import_module(command).main(["--split=neither", "--port=no", "--no-option=1"])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.endswith(" (--help lists all options)\n")
    assert said.count("\n") == 1
