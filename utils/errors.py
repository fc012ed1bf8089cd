"""One exception for everything that a user can mend."""

import functools
import sys


class UserError(ValueError):
    """Input that its owner can mend: the message names the file, field or cell and the remedy in a line or two."""


def command(main):
    """Decorate a script's `main`: a `UserError` becomes one line on stderr and exit status 2."""

    @functools.wraps(main)
    def run(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    return run
