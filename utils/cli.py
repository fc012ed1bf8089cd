"""A command line whose errors are a line, not a page of usage."""

import sys
from typing import NoReturn

from jsonargparse import ArgumentParser, set_parsing_settings

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the line under a dataclass field is its --help


class Parser(ArgumentParser):
    """jsonargparse's parser; what it cannot accept is one line on stderr and exit status 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message without the usage, which `--help` shows."""
        print(f"error: {' '.join(message.split())} (--help lists all options)", file=sys.stderr)
        sys.exit(2)
