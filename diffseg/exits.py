"""How the commands end: exit statuses, and what is said on the way out."""

import sys
from collections.abc import Callable

#: Exit statuses: all is done; some of it failed; the command cannot be carried out as it was given; Ctrl-C.
DONE, FAILED, WRONG, STOPPED = 0, 1, 2, 130


def run_command(run: Callable[[], int], kept: object) -> int:
    """The exit status of a command that can be stopped and taken up again.

    Args:
        run: does the work and returns a status. An error of what was given to it, or of files, is said in one line.
        kept: where what was done is kept.
    """
    try:
        return run()
    except KeyboardInterrupt:
        say(f"Stopped. What was done is kept in {kept}; the same command goes on from there.")
        return STOPPED
    except (ValueError, OSError, ImportError) as error:
        say(f"error: {error}")
        return WRONG


def say(text: str) -> None:
    """To stderr; what is no Unicode in the names of files is written with backslashes."""
    print(text.encode("utf-8", "backslashreplace").decode("utf-8"), file=sys.stderr)
