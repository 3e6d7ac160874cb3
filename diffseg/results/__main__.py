"""Make the tables in data/results; stop it whenever you like, the same command goes on from there."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import IMAGE_SIZE
from ..exits import DONE, run_command
from . import folder
from .making import make
from .recipes import RECIPES


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m diffseg.results", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TABLE", help=f"of {', '.join(RECIPES)}; default: all")
    parser.add_argument("--scenes", type=int, metavar="N", help="fewer, or more, than the table usually has")
    parser.add_argument("--size", type=int, default=IMAGE_SIZE, help="side of the scenes, pixels")
    parser.add_argument("--out", type=Path, help="default: data/results")
    parser.add_argument("--work", type=Path, default=Path("build/results"), help="where rows of scenes are kept")
    given = parser.parse_args(arguments)
    return run_command(lambda: _make(given), given.work)


def _make(given: argparse.Namespace) -> int:
    for name in given.names or RECIPES:
        for file in make(name, given.out or folder(), given.work, given.scenes, given.size):
            print(file)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
