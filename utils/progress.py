"""Progress bars that suit where they go: a bar on a terminal, a line now and then in a log."""

import io
import sys
from time import monotonic

import tqdm as library

EVERY = 30  # seconds between lines in a log; what ends sooner says nothing


class tqdm(library.tqdm):
    """The library's bar; where stderr is no terminal, a line every `EVERY` seconds."""

    def __init__(self, *args, **options):
        self.in_log, self.said = not sys.stderr.isatty(), monotonic()
        if self.in_log:  # the library's own strokes go nowhere
            options |= {"mininterval": EVERY, "maxinterval": EVERY, "file": io.StringIO()}
        super().__init__(*args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Show the bar as it stands."""
        if not self.in_log:
            return super().display(msg, pos)
        if monotonic() - self.said >= EVERY:
            print(self, file=sys.stderr, flush=True)
            self.said = monotonic()
        return True
