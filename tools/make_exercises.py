"""Keep the two versions of every lesson with exercises in step: the solved one, and the one that is read.

    python tools/make_exercises.py            # bring both up to date; afterwards run what has changed
    python tools/make_exercises.py --check    # are they?

The source is notebooks/solved/NAME: the whole lesson, without outputs, in which a code cell tagged "solution" holds one
exercise: a function, and the check of it. From it comes notebooks/NAME, which is read first: there the bodies of those
functions are left to the reader, and outputs are kept. A lesson without exercises is one file.
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
SOLVED = "solved"
TAG, OPEN_TAG = "solution", "exercise"
OPEN = "    raise NotImplementedError  # your code"
NOTE = """

> **Solved.** This is [{name}](../{name}) with the solutions of its exercises. Read that one first."""
LINK = "[A solution](solved/{name}) of this exercise, should you need one."


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


def read_lesson(path: Path, ran: NotebookNode | None = None) -> NotebookNode:
    """A lesson with its solutions and its outputs, those of cells that have changed since left out.

    Args:
        path: of the lesson as it is read, of notebooks/.
        ran: holds the outputs; None: the file does.
    """
    solved = path.parent / SOLVED / path.name
    if not solved.is_file():
        return ran or nbformat.read(path, as_version=4)
    lesson = nbformat.read(solved, as_version=4)
    first = lesson.cells[0]
    first.source = first.source.removesuffix(NOTE.format(name=path.name))
    first.source = first.source.replace(f"notebooks/{SOLVED}/{path.name}", f"notebooks/{path.name}")  # of badges
    if ran is None and path.is_file():
        ran = nbformat.read(path, as_version=4)
    stored = {cell.id: cell for cell in ran.cells} if ran else {}
    for cell in lesson.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../", "](")
            continue
        known, shown = stored.get(cell.id), stub(cell.source) if is_solution(cell) else cell.source
        if known and known.source == shown:
            cell.outputs, cell.execution_count = known.outputs, known.execution_count
    return lesson


def solved_version(lesson: NotebookNode, name: str) -> NotebookNode:
    """A lesson as it is kept in the folder of solutions: without outputs; links lead out of the folder."""
    solved = nbformat.from_dict(lesson)
    for cell in solved.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = re.sub(r"\]\((?!https?:|#|mailto:)", "](../", cell.source)
    first = solved.cells[0]
    first.source = first.source.replace(f"notebooks/{name}", f"notebooks/{SOLVED}/{name}")  # of badges
    first.source += NOTE.format(name=name)
    return solved


def open_version(lesson: NotebookNode, name: str) -> NotebookNode:
    """A lesson as it is read: its exercises left open, each followed by a link to its solution."""
    opened = nbformat.from_dict(lesson)
    cells = []
    for cell in opened.cells:
        cells.append(cell)
        if is_solution(cell):
            cell.source = stub(cell.source)
            cell.metadata = NotebookNode(tags=[OPEN_TAG])
            cells.append(new_markdown_cell(LINK.format(name=name), id=f"{cell.id}-link"))
    opened.cells = cells
    return opened


def versions(folder: Path = NOTEBOOKS) -> dict[Path, str]:
    """What the files of the lessons with exercises should hold: path -> text."""
    made = {}
    for solved in sorted((folder / SOLVED).glob("*.ipynb")):
        lesson = read_lesson(folder / solved.name)
        made[solved] = nbformat.writes(solved_version(lesson, solved.name)) + "\n"
        made[folder / solved.name] = nbformat.writes(open_version(lesson, solved.name)) + "\n"
    return made


def outdated(folder: Path) -> dict[Path, str]:
    """Files that are missing or differ from what they should hold, in their order: path -> text."""
    return {
        path: text
        for path, text in sorted(versions(folder).items())
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    }


def stale(folder: Path = NOTEBOOKS) -> list[Path]:
    """Files that are missing or differ from what they should hold."""
    return list(outdated(folder))


def write(folder: Path = NOTEBOOKS) -> list[Path]:
    """Bring the files up to date; returns those that were written."""
    texts = outdated(folder)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8", newline="\n")
    return list(texts)


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
