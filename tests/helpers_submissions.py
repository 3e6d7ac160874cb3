"""Submissions made from the notebooks, with answers of all kinds."""

import re
from pathlib import Path

import nbformat
from make_exercises import NOTEBOOKS, SOLVED, is_solution, read_lesson
from nbformat.v4 import new_code_cell

LESSONS = sorted(NOTEBOOKS / path.name for path in (NOTEBOOKS / SOLVED).glob("*.ipynb"))  # with exercises


def solutions(notebook: str) -> dict[str, str]:
    """The cell of each exercise, solved."""
    cells = read_lesson(NOTEBOOKS / notebook).cells
    return {
        re.search(r"^check\.(\w+)\(", cell.source, re.MULTILINE)[1]: cell.source for cell in cells if is_solution(cell)
    }


def hand_in(notebook: str, to: Path, answers: dict[str, str], before: str = "", lesson: bool = True) -> Path:
    """Write a submission: a notebook with some of its cells replaced.

    Args:
        notebook: name of the file.
        to: where to write it.
        answers: exercise -> the source of its whole cell. The others stay open.
        before: the source of a cell that is put before the first exercise.
        lesson: whether the cells of the lesson stay; they do not matter and make the file long.
    """
    made = nbformat.read(NOTEBOOKS / notebook, as_version=4)
    of_cells = {id(cell): re.search(r"^check\.(\w+)\(", cell.source, re.MULTILINE) for cell in made.cells}
    first = next(cell for cell in made.cells if of_cells[id(cell)])
    cells = []
    for cell in made.cells:
        found = of_cells[id(cell)]
        if cell is first and before:
            cells.append(new_code_cell(before))
        if found and found[1] in answers:
            cell.source = answers[found[1]]
        if found or lesson or (cell.cell_type == "code" and cell.source.startswith("import")):
            cells.append(cell)
    made.cells = cells
    to.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(made, to)
    return to
