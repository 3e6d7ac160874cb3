"""Words for the figures of notebooks, for those who do not see them: on pages and in the book."""

import ast
import re
from collections.abc import Iterator

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

FIGURES = ("image/png", "image/jpeg", "image/svg+xml")
WRITES = {"set_title": 0, "suptitle": 0, "set_xlabel": 0, "set_ylabel": 0, "show_image": 1, "show_images": 1}
SAYS = {"title", "xlabel", "ylabel", "label", "titles"}


def figure_descriptions(notebook: NotebookNode) -> Iterator[str]:
    """For each cell of a notebook the words for its figures, "" where it shows none. See `describe`."""
    section, before = "", ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            section = ([section] + re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE))[-1]
            before = cell.source
        outputs = cell.outputs if cell.cell_type == "code" else []
        drawn = any(kind in output.get("data", {}) for output in outputs for kind in FIGURES)
        yield describe(cell.source, section, before) if drawn else ""


def describe(source: str, section: str, before: str = "") -> str:
    """Words for a figure, for those who do not see it.

    Args:
        source: the cell that draws it. The titles and labels that it writes are named; if it writes none, the last
            sentence before it says what is drawn.
        section: the heading that it stands under.
        before: the text before it.
    """
    tree = ast.parse(TransformerManager().transform_cell(source))  # Python even where a line begins with % or !
    said = list(dict.fromkeys(text for text in _written(tree) if len(text) > 1))
    sentences = re.split(r"(?<=[.:?])\s+", _plain(re.sub(r"^#.*$|<[^>]+>", "", before, flags=re.MULTILINE)))
    words = "; ".join(said) or sentences[-1].rstrip(".:")
    return f"Figure, {_plain(section).rstrip(' .?')}" + (f": {words}." if words else ".")


def _plain(text: str) -> str:
    """Markdown without its signs, in one line."""
    return " ".join(re.sub(r"[*`$\\]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)).split())


def _written(tree: ast.AST) -> Iterator[str]:
    """The texts that a cell writes into its figures, in the order of its lines."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.Call)]
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        if isinstance(node, ast.Assign):
            if any(isinstance(target, ast.Name) and "title" in target.id for target in node.targets):
                yield from _texts(node.value)
        else:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in WRITES:
                yield from (text for given in node.args[WRITES[name] :][:1] for text in _texts(given))
            yield from (text for given in node.keywords if given.arg in SAYS for text in _texts(given.value))


def _texts(node: ast.AST) -> Iterator[str]:
    """The strings of an expression that hold a letter, with dots for what is only known when the cell runs."""
    if isinstance(node, ast.List | ast.Tuple):
        for part in node.elts:
            yield from _texts(part)
    elif isinstance(node, ast.ListComp):
        yield from _texts(node.elt)
    elif isinstance(node, ast.JoinedStr | ast.Constant):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
        if re.search(r"[^\W\d_]", text):
            yield re.sub(r"[$\\]", "", text).replace("\n", ", ")
