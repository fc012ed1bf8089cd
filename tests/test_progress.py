"""Progress: the library's bar on a terminal, a line now and then in a log."""

import os
import pty
import select
import sys
import termios

import pytest

from utils import progress
from utils.progress import EVERY, tqdm


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("tqdm.std.time", made)
    monkeypatch.setattr(progress, "monotonic", made)
    return made


@pytest.mark.parametrize("leave", [True, False])
@pytest.mark.parametrize("delay", [0, 1])
def test_a_log_gets_a_line_now_and_then(clock, capsys, leave, delay):
    for _ in tqdm(range(4 * EVERY - 1), "reading", leave=leave, delay=delay, unit="video"):
        clock.now += 1
    said = capsys.readouterr().err
    assert "\r" not in said
    assert [line.partition("%")[0].split() for line in said.splitlines()] == [
        ["reading:", str(round(100 * part * EVERY / (4 * EVERY - 1)))] for part in (1, 2, 3)
    ]


@pytest.mark.parametrize("leave", [True, False])
def test_a_short_loop_says_nothing_in_a_log(clock, capsys, leave):
    for _ in tqdm(range(EVERY - 1), "reading", leave=leave):
        clock.now += 1
    with tqdm(total=EVERY - 1, leave=leave) as bar:
        for _ in range(EVERY - 1):
            clock.now += 1
            bar.set_postfix(loss=clock.now)
            bar.update()
    assert capsys.readouterr() == ("", "")


def test_a_number_that_is_shown_anew_at_every_step_adds_no_line(clock, capsys):
    with tqdm(total=1000, desc="epoch 1") as bar:
        for step in range(2 * EVERY + 1):
            clock.now += 1
            bar.set_postfix(loss=step)
            bar.update()
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert "loss=" in said


def test_a_bar_that_is_disabled_is_silent_and_a_message_is_not(clock, capsys):
    for step in tqdm(range(3), "quiet", disable=True):
        clock.now += EVERY
        if step == 0:
            tqdm.write("a process died", file=sys.stderr)
    assert capsys.readouterr().err == "a process died\n"


def test_a_terminal_gets_the_bar(monkeypatch):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with open(theirs, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        for _ in tqdm(range(5), "reading", mininterval=0):
            pass
        terminal.flush()
        said = ""
        while "5/5" not in said and select.select([ours], [], [], 10)[0]:  # a terminal hands on in its own time
            said += os.read(ours, 65536).decode()
    os.close(ours)
    strokes = [stroke for stroke in said.split("\r") if stroke.strip()]
    assert len(strokes) > 3
    assert strokes[0].startswith("reading:   0%|")
    assert "5/5" in strokes[-1]
    assert all(len(stroke.rstrip()) <= 80 for stroke in strokes)
