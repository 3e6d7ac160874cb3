"""Copy the notebooks that come with the package to a folder of yours, to run and change them there.

    diffseg notebooks lessons            # files that are there already stay as they are
    diffseg notebooks lessons --force    # they are replaced

Then `jupyter lab lessons` opens them.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from diffseg.exits import DONE, WRONG, say
from diffseg.files import write_whole
from diffseg.models.paths import notebooks_dir


def copy_notebooks(target: Path, force: bool = False) -> tuple[list[Path], list[Path]]:
    """Copy every notebook, in its subfolder; a file appears whole or not at all.

    Args:
        target: a folder, which is made if it is not there.
        force: replace files that are there.

    Returns:
        the files that were written, and those that were there and stay.

    Raises:
        NotADirectoryError: if there is a file in the place of the folder.
        OSError: if a file cannot be written.
    """
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"FOLDER={str(target)!r} is a file; name a folder, or one that is still to be made.")
    source = notebooks_dir()
    written, kept = [], []
    for notebook in sorted(source.rglob("*.ipynb")):
        name = notebook.relative_to(source)
        if any(part.startswith(".") for part in name.parts):  # such as .ipynb_checkpoints
            continue
        file = target / name
        if file.exists() and not force:
            kept.append(file)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, notebook.read_bytes())
        written.append(file)
    return written, kept


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, or 2 if the folder cannot be used."""
    parser = argparse.ArgumentParser(
        prog="diffseg notebooks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where they go; made if it is not there")
    parser.add_argument("--force", action="store_true", help="replace files that are there, changes and all")
    options = parser.parse_args(arguments)
    try:
        written, kept = copy_notebooks(options.folder, options.force)
    except OSError as error:
        say(f"error: {error}")
        return WRONG
    print(f"{len(written)} notebooks copied to {options.folder}")
    if kept:
        print(f"{len(kept)} were there and stay as they are; --force replaces them.")
    install = [] if find_spec("jupyterlab") else ['pip install "diffseg[lab]"']
    print("Next:", *install, f'jupyter lab "{options.folder}"', sep="\n    ")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
