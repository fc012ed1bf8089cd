"""One exception for everything that a user can mend."""

import functools
import os
import sys


class UserError(ValueError):
    """Input that its owner can mend: the message names the file, field or cell and the remedy in a line or two."""


class Interrupted(Exception):
    """The user asked to stop, and what was computed is saved: the message says where and how to go on."""


def command(main):
    """Decorate a script's `main`: a `UserError` becomes a line on stderr and exit status 2,
    `Interrupted` or Ctrl-C one and 130. A reader that has gone ends it silently, with 141."""

    @functools.wraps(main)
    def run(*args, **kwargs):
        try:
            returned = main(*args, **kwargs)
            sys.stdout.flush()
            return returned
        except BrokenPipeError:  # whoever reads the output, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to be flushed at the end
            sys.exit(141)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except Interrupted as interrupted:
            print(f"interrupted: {interrupted}", file=sys.stderr)
            sys.exit(130)
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            sys.exit(130)

    return run
