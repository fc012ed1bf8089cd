"""Stopping when asked to, between two steps."""

import signal
from types import FrameType


class Interrupt:
    """The first Ctrl-C or SIGTERM asks the loop to save and stop; a second Ctrl-C stops at once.

    A second SIGTERM does not: a scheduler sends one to the whole job, and what started this process passes it on.
    """

    def __init__(self):
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
