"""A command line whose errors are a line, not a page of usage."""

import argparse
import sys
from typing import NoReturn

from jsonargparse import ArgumentParser, set_parsing_settings

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the line under a dataclass field is its --help


class Parser(ArgumentParser):
    """jsonargparse's parser; what it cannot accept is one line on stderr and exit status 2.

    `source` is what is being parsed, where that is less than the whole command line; the line names it.
    """

    source: str | None = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)  # else --data.feature would be taken for data.features

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message without the usage, which `--help` shows."""
        where = f"{self.source}: " if self.source else ""
        print(f"error: {where}{' '.join(message.split())} (--help lists all options)", file=sys.stderr)
        sys.exit(2)


class PlainParser(argparse.ArgumentParser):
    """argparse's parser, whose errors are like those of `Parser`; `--help` begins with the command's docstring."""

    def __init__(self, docstring: str | None):
        super().__init__(
            description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        """Print the message without the usage, which `--help` shows."""
        self.exit(2, f"error: {message} (--help lists all options)\n")
