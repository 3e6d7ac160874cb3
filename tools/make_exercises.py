"""Make the open version of every notebook: the same text, with the solutions of its exercises taken out.

    python tools/make_exercises.py            # write notebooks/exercises/
    python tools/make_exercises.py --check    # is it up to date?

In a notebook, a code cell tagged "solution" holds one exercise: a function, and the check of it. In the open version
the body of the function is left to the reader, and the solution follows, folded.
"""

import argparse
import ast
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
FOLDER = "exercises"
TAG = "solution"
OPEN = "    raise NotImplementedError  # your code"
NOTE = """

> **The open version.** This is [{name}](../{name}) with its exercises left open. Write each function yourself;
> the last line of its cell checks it and says what is wrong. A folded hint stands before the cell, and a folded
> solution after it."""


def is_solution(cell: NotebookNode) -> bool:
    """Whether a cell holds the solution of an exercise."""
    return cell.cell_type == "code" and TAG in cell.metadata.get("tags", [])


def bodies(source: str) -> list[tuple[int, int]]:
    """Where the bodies of the functions of a solution's cell lie, without their docstrings: lines, the end left out.

    Raises:
        ValueError: if there is no function to be written.
    """
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    if not functions:
        raise ValueError(f"a solution must define a function, this one does not:\n{source}")
    return [
        (node.body[0].end_lineno if ast.get_docstring(node, clean=False) is not None else node.body[0].lineno - 1,
         node.end_lineno)
        for node in functions
    ]  # fmt: skip


def stub(source: str) -> str:
    """The solution's cell with the bodies of its functions, after their docstrings, left open.

    Raises:
        ValueError: if there is no function to be written.
    """
    lines = source.splitlines()
    for first, end in reversed(bodies(source)):
        lines[first:end] = [OPEN]
    return "\n".join(lines)


def folded(source: str) -> str:
    """The functions of a solution as a folded piece of Markdown, without the call of the check."""
    lines = source.splitlines()
    end = max(node.end_lineno for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    code = "\n".join(lines[:end])
    return f"<details><summary>Solution</summary>\n\n```python\n{code}\n```\n\n</details>"


def open_version(notebook: NotebookNode, name: str) -> NotebookNode:
    """A copy of a notebook with its exercises left open and without outputs; links lead out of the folder."""
    copy = nbformat.from_dict(notebook)
    cells = []
    for cell in copy.cells:
        solution = is_solution(cell)
        original = cell.source
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count, cell.metadata = [], None, NotebookNode()
        else:
            cell.source = re.sub(r"\]\((?!https?:|#|mailto:)", "](../", cell.source)
        if solution:
            cell.source = stub(original)
        cells.append(cell)
        if solution:
            cells.append(new_markdown_cell(folded(original), id=f"{cell.id}-solution"))
    cells[0].source = cells[0].source.replace(f"notebooks/{name}", f"notebooks/{FOLDER}/{name}")  # of badges
    cells[0].source += NOTE.format(name=name)
    copy.cells = cells
    return copy


def open_versions(folder: Path = NOTEBOOKS) -> dict[Path, str]:
    """What should be in the folder of exercises: path -> text."""
    made = {}
    for path in sorted(folder.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if any(map(is_solution, notebook.cells)):
            made[folder / FOLDER / path.name] = nbformat.writes(open_version(notebook, path.name)) + "\n"
    return made


def stale(folder: Path = NOTEBOOKS) -> list[Path]:
    """Files of the exercises that are missing, differ, or have no notebook any more."""
    made = open_versions(folder)
    there = {path: path.read_text(encoding="utf-8") for path in (folder / FOLDER).glob("*.ipynb")}
    return sorted(path for path in made.keys() | there.keys() if made.get(path) != there.get(path))


def write(folder: Path = NOTEBOOKS) -> list[Path]:
    """Bring the exercises up to date; returns the files that were written or removed."""
    paths, made = stale(folder), open_versions(folder)
    for path in paths:
        if path in made:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made[path], encoding="utf-8", newline="\n")
        else:
            path.unlink()
    return paths


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if something is out of date")
    check = parser.parse_args(arguments).check
    paths = stale() if check else write()
    for path in paths:
        print(f"{'out of date' if check else 'written'}: {path.relative_to(NOTEBOOKS)}")
    return int(check and bool(paths))


if __name__ == "__main__":
    sys.exit(main())
