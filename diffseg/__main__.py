"""The command `diffseg`; `python -m diffseg` is the same.

    diffseg segment     segment pictures, or folders of them, and keep the masks as files
    diffseg evaluate    score DiffSeg and other methods on a data set
    diffseg notebooks   copy the notebooks to a folder of yours
    diffseg check       grade the exercises of notebooks that students hand in

`diffseg segment --help` says more.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from diffseg import __version__
from diffseg.exits import DONE, WRONG, say

#: Name -> the module whose `main` it calls. It is imported then and not before: most load torch.
COMMANDS = {
    "segment": "diffseg.commands.segment",
    "evaluate": "diffseg.evaluate.__main__",
    "notebooks": "diffseg.commands.notebooks",
    "check": "diffseg.commands.check",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: that of the command, 2 if there is no such command."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__.strip())
        return DONE
    if name == "--version":
        print(__version__)
        return DONE
    if name not in COMMANDS:
        say(f"error: {name!r} is no command; there are {', '.join(COMMANDS)}.")
        return WRONG
    return import_module(COMMANDS[name]).main(rest)


if __name__ == "__main__":
    sys.exit(main())
