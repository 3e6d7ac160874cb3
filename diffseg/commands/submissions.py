"""Notebooks that students hand in, read as strangers' files: nothing is run, and no output is looked at."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from diffseg import check
from diffseg.commands.pictures import absolute, common_folder, relative, walk

_LARGEST = 20 * 2**20  # bytes of a notebook
#: A call of a check, by its name.
HANDED = re.compile(r"\bcheck\.(\w+)\s*\(")
_DEFINED = re.compile(r"^\s*def\s+(\w+)\b|^\s*(\w+)\s*=", re.MULTILINE)


@dataclass(frozen=True)
class Submission:
    """A notebook that was handed in.

    Attributes:
        path: of its file.
        name: the same, relative to the folder that all of them are in.
        sha256: of the file.
        cells: the source of its code cells, in order.
    """

    path: Path
    name: str
    sha256: str = ""
    cells: tuple[str, ...] = ()

    def cells_of(self, exercise: str) -> list[int]:
        """The cells that hand a function to the check of an exercise; without one, those that define its name."""
        handed = [i for i, source in enumerate(self.cells) if exercise in HANDED.findall(source)]
        defined = [i for i, source in enumerate(self.cells) if exercise in sum(_DEFINED.findall(source), ())]
        return handed or defined


@cache
def chapters() -> tuple[tuple[str, ...], ...]:
    """The exercises of each notebook, in their order."""
    modules = [value for name, value in vars(check).items() if isinstance(value, ModuleType) and name.startswith("_")]
    names = [[each.name for each in vars(module).values() if isinstance(each, check.Check)] for module in modules]
    return tuple(sorted(tuple(each) for each in names if each))


def exercises_of(submission: Submission) -> tuple[str, ...]:
    """All exercises of the notebooks of which a submission hands in some."""
    handed = {name for source in submission.cells for name in HANDED.findall(source)}
    found = tuple(name for names in chapters() if handed & {*names} for name in names)
    if found:
        return found
    defined = {name for source in submission.cells for name in sum(_DEFINED.findall(source), ())}
    # Without the calls of the checks, its notebook is the one of which it defines the most.
    best = max(chapters(), key=lambda names: len(defined & {*names}))
    return best if defined & {*best} else ()


def find_submissions(given: Sequence[Path]) -> list[Submission]:
    """The notebooks that are named, and those in the folders that are named, by name; they are not read yet.

    Hidden files and folders, such as .ipynb_checkpoints, are left out.

    Raises:
        FileNotFoundError: if something that is named is not there.
        OSError: if a folder cannot be looked into.
        ValueError: if there is no notebook.
    """
    unreadable: list[str] = []
    roots, paths = [], set()
    for each in map(absolute, given):
        if each.is_dir():
            roots.append(each)
            paths |= {path for path in walk(each, each, unreadable) if path.suffix == ".ipynb"}
        elif each.is_file():
            roots.append(each.parent)
            paths.add(each)
        else:
            raise FileNotFoundError(f"{str(each)!r} is neither a file nor a folder. Check the path.")
    if unreadable:
        raise OSError(f"some folders cannot be looked into: {'; '.join(unreadable)}.")
    if not paths:
        raise ValueError(f"no notebooks (.ipynb) in {', '.join(repr(str(each)) for each in given)}.")
    base = common_folder(roots)
    return sorted((Submission(path, relative(path, base).as_posix()) for path in paths), key=lambda one: one.name)


def read_submission(found: Submission) -> Submission:
    """The same with its cells.

    Only the source of its cells is wanted of a stranger's file, so it is read as JSON and not checked as a notebook.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no notebook.
    """
    if not found.path.is_file():  # a pipe, for example, from which reading would wait for ever
        raise ValueError("it is no file")
    if found.path.stat().st_size > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST // 2**20} MB: clear its outputs")
    content = found.path.read_bytes()
    try:
        cells = json.loads(content)["cells"]
        sources = tuple(_source(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("it is no notebook of Jupyter (nbformat 4)") from error
    return Submission(found.path, found.name, sha256(content).hexdigest(), sources)


def _source(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)
