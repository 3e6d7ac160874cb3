"""Notebooks as chapters of the book: exercises open with their answers folded, figures described in words."""

from collections.abc import Callable

from descriptions import FIGURES, figure_descriptions
from make_exercises import folded, is_solution, stub
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

LIVE = (
    '<p class="live">Something moves here when the notebook runs. On this page, look at the figure below, which stands '
    "still.</p>"
)


def chapter(notebook: NotebookNode, fit_links: Callable[[str], str]) -> NotebookNode:
    """A copy of a notebook to be read on a page.

    Args:
        notebook: with its outputs.
        fit_links: makes the links of a piece of Markdown fit the page.
    """
    cells = []
    for cell, words in zip(notebook.cells, figure_descriptions(notebook)):
        if cell.cell_type == "markdown":
            cells.append(new_markdown_cell(fit_links(cell.source)))
        elif is_solution(cell):
            cells.append(NotebookNode(cell, source=stub(cell.source), outputs=[], execution_count=None, metadata={}))
            cells.append(new_markdown_cell(folded(cell.source)))
        else:
            image = {"alt": words} | shown_width(cell) if words else {}
            cells.append(NotebookNode(cell, metadata=NotebookNode({"mystnb": {"image": image}} if image else {})))
            if is_live(cell):
                cells.append(new_markdown_cell(LIVE))
    return NotebookNode(notebook, cells=cells)


def shown_width(cell: NotebookNode) -> dict[str, str]:
    """How wide the widest figure of a cell is shown, which holds more pixels than that; empty if it is not said."""
    said = [output.get("metadata", {}).get(kind, {}) for output in cell.outputs for kind in FIGURES]
    widths = [each["width"] for each in said if "width" in each]
    return {"width": f"{max(widths)}px"} if widths else {}


def is_live(cell: NotebookNode) -> bool:
    """Whether a code cell shows something that moves, of which nothing is stored."""
    return "nbval-ignore-output" in cell.metadata.get("tags", []) and not cell.outputs and "widgets" in cell.source
