"""Run notebooks from top to bottom, in fresh kernels of this Python.

    python tools/run_notebooks.py                       # all of notebooks/: do they run?
    python tools/run_notebooks.py --html build/html     # and write each as one self-contained page
    python tools/run_notebooks.py --inplace FILE ...    # and store the outputs in the files, ready to commit

A notebook that fails does not stop the others; the exit status is 1 if one did.
"""

import argparse
import copy
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from make_exercises import folded, is_solution
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat.v4 import new_markdown_cell
from tqdm import tqdm

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
# Progress bars and download bars differ in every run: they must not end up in stored outputs.
QUIET = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"
# Code, which is left alone, or a displayed formula, or one in the text.
FORMULA = re.compile(r"(```.*?```|`[^`]*`)|\$\$(.+?)\$\$|\$([^$]+?)\$", re.DOTALL)
FAILURES = (CellExecutionError, CellTimeoutError, DeadKernelError)


class ThisPython(AsyncKernelManager):
    """Every kernel is the Python that runs this script, whatever kernels the user has installed."""

    @property
    def kernel_spec(self):
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


def execute(notebook, folder: Path, timeout: float, label: str = "") -> None:
    """Run all cells of `notebook` with `folder` as the working directory; outputs are stored in it.

    Raises:
        one of FAILURES: if a cell fails; the outputs up to there are in `notebook`.
    """
    code_cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    with tqdm(total=code_cells, desc=label, leave=False, disable="CI" in os.environ or not sys.stderr.isatty()) as bar:
        NotebookClient(
            notebook,
            kernel_manager_class=ThisPython,
            extra_arguments=["--log-level=ERROR"],
            timeout=timeout,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            on_cell_executed=lambda **_: bar.update(),
        ).execute(env={**os.environ, **QUIET})


def clean(notebook):
    """Drop what changes from run to run or machine to machine, in place: widget views and state, metadata."""
    notebook.metadata.clear()
    notebook.metadata.update(nbformat.from_dict(METADATA))
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: cell.metadata[k] for k in ("tags", "jupyter") if cell.metadata.get(k)})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    return notebook


def explain(notebook, error: Exception) -> str:
    """Say in a few lines which cell failed and why."""
    ran = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.execution_count is not None]
    number = notebook.cells.index(ran[-1]) + 1 if ran else 1
    first_line = (ran[-1].source.strip() if ran else "").split("\n")[0]
    reason = error.traceback if isinstance(error, CellExecutionError) else str(error).split("\n")[0]
    return f"cell {number} of {len(notebook.cells)} (`{first_line}`) failed\n{reason}"


def with_formulas(source: str) -> str:
    """Markdown whose LaTeX has become MathML, which browsers draw without a script from the network."""
    from latex2mathml.converter import convert

    def drawn(match: re.Match) -> str:
        code, displayed, inline = match.groups()
        return code or convert(displayed or inline, display="block" if displayed else "inline")

    return FORMULA.sub(drawn, source)


def write_html(notebook, path: Path) -> None:
    """Write one page with its figures inside and the solutions of its exercises folded."""
    from nbconvert import HTMLExporter  # slow to import

    page = copy.copy(notebook)
    cells = [new_markdown_cell(folded(cell.source)) if is_solution(cell) else cell for cell in notebook.cells]
    page.cells = [
        new_markdown_cell(with_formulas(cell.source)) if cell.cell_type == "markdown" else cell for cell in cells
    ]
    # Not embed_images: it parses each piece of HTML alone, and so would close <details> before what it folds.
    body, _ = HTMLExporter().from_notebook_node(
        page, resources={"metadata": {"name": path.stem, "path": str(NOTEBOOKS)}}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body, encoding="utf-8")


def run(path: Path, html: Path | None, inplace: bool, timeout: float) -> bool:
    """Run one notebook, write what was asked for, print a line about it; True if it succeeded."""
    notebook = nbformat.read(path, as_version=4)
    start, problem = time.perf_counter(), None
    try:
        execute(notebook, path.resolve().parent, timeout, path.stem)
    except FAILURES as error:
        problem = explain(notebook, error)
    print(f"{path.stem:32} {time.perf_counter() - start:7.1f} s  {problem or 'ok'}", flush=True)
    clean(notebook)
    if html:
        write_html(notebook, html / f"{path.stem}.html")
    if inplace and not problem:
        nbformat.write(notebook, path)
    return not problem


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="files (default: all of notebooks/)")
    parser.add_argument("--html", type=Path, metavar="DIR", help="write a page for each into DIR")
    parser.add_argument("--inplace", action="store_true", help="store the outputs in the notebooks")
    parser.add_argument("--timeout", type=float, default=1800, metavar="S", help="seconds a cell may take")
    options = parser.parse_args(arguments)

    paths = options.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
    if not paths:
        parser.error(f"there is no notebook in {NOTEBOOKS}")
    if missing := [str(path) for path in paths if not path.is_file()]:
        parser.error(f"no such notebook: {', '.join(missing)}")
    failed = [path.stem for path in paths if not run(path, options.html, options.inplace, options.timeout)]
    if options.html:
        print(f"pages are in {options.html}")
    if failed:
        print(f"{len(failed)} of {len(paths)} notebooks failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
