"""Run notebooks from top to bottom, in fresh kernels of this Python.

    python tools/run_notebooks.py                       # all of notebooks/: do they run?
    python tools/run_notebooks.py --html build/html     # and write each as one self-contained page
    python tools/run_notebooks.py --inplace FILE ...    # and store the outputs in the files, ready to commit
    python tools/run_notebooks.py --render --html DIR   # run nothing: pages of the outputs that the files hold

A notebook that fails does not stop the others; the exit status is 1 if one did. SIGINT (Ctrl-C) and SIGTERM stop the
run, with the kernel that works for it; the exit status is then 128 + the number of the signal, as shells have it.
"""

import argparse
import asyncio
import copy
import os
import re
import signal
import sys
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import nbformat
from descriptions import figure_descriptions
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from make_exercises import folded, is_solution, open_version, read_lesson
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from tqdm import tqdm

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PAGE = Path(__file__).resolve().with_name("page.html.j2")
# Progress bars and download bars differ in every run: they must not end up in stored outputs.
QUIET = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
# Threads that have nothing to do go on looking for work, on a core that another program needs; OpenBLAS, behind numpy
# and scikit-learn, cannot be told not to. Beside such a program notebooks took ten times as long. Yours to set.
PATIENT = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1"}
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"
# Code, which is left alone, or a displayed formula, or one in the text.
FORMULA = re.compile(r"(```.*?```|`[^`]*`)|\$\$(.+?)\$\$|\$([^$]+?)\$", re.DOTALL)
FAILURES = (CellExecutionError, CellTimeoutError, DeadKernelError)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A signal told the run to stop; the status to exit with."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


def stop(number: int, frame) -> None:
    """The handler of a signal. From then on they are ignored: the first is enough, and ending a kernel takes time.

    Raises:
        Stopped: always.
    """
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


@contextmanager
def heeding_signals() -> Iterator[None]:
    """Whatever handled the signals before, here they raise Stopped."""
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ThisPython(AsyncKernelManager):
    """Every kernel is the Python that runs this script, whatever kernels the user has installed."""

    @property
    def kernel_spec(self):
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


def execute(notebook, folder: Path, timeout: float, label: str = "") -> None:
    """Run all cells of `notebook` with `folder` as the working directory; outputs are stored in it.

    Raises:
        one of FAILURES: if a cell fails; the outputs up to there are in `notebook`.
        Stopped: if a signal asks for it; the kernel has ended then.
    """
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code_cells:  # so that the cells with a count are those that ran now
        cell.execution_count, cell.outputs = None, []
    hidden = "CI" in os.environ or not sys.stderr.isatty()
    with tqdm(total=len(code_cells), desc=label, leave=False, disable=hidden) as bar:
        kernel = ThisPython()
        client = NotebookClient(
            notebook,
            km=kernel,
            extra_arguments=["--log-level=ERROR"],
            timeout=timeout,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            coalesce_streams=True,  # else a slow machine cuts what a cell prints into several outputs
            on_cell_executed=lambda **_: bar.update(),
        )
        stoppable(run_cells(client, kernel))


async def run_cells(client: NotebookClient, kernel: ThisPython) -> None:
    """Run the notebook of a client and leave no kernel behind, not even one that is just starting."""
    try:
        await client.async_execute(env={**PATIENT, **os.environ, **QUIET}, cleanup_kc=True)
    finally:
        if kernel.has_kernel:
            await kernel.shutdown_kernel(now=True)


def stoppable(work: Coroutine) -> None:
    """Run a coroutine to its end, or, when a signal raises Stopped, cancel it and let it clean up.

    It runs in a thread of its own, where nbclient cannot put its handlers in the place of ours: they end the kernel,
    and the run would take that for a notebook that failed, and go on with the next.
    """
    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as thread:
        loop = runner.get_loop()
        task = loop.create_task(work)
        try:
            done = thread.submit(loop.run_until_complete, task)
            while wait([done], timeout=1).not_done:  # with a timeout, since Windows hears no Ctrl-C in an endless wait
                pass
        except Stopped:
            loop.call_soon_threadsafe(task.cancel)
            raise
        done.result()


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
    from formulas import draw  # slow to import

    def drawn(match: re.Match) -> str:
        code, displayed, inline = match.groups()
        return code or draw(displayed or inline, "block" if displayed else "inline")

    return FORMULA.sub(drawn, source)


def write_html(notebook, path: Path) -> None:
    """Write one page with its figures inside and described, and the solutions of its exercises folded."""
    from nbconvert import HTMLExporter  # slow to import

    page = copy.copy(notebook)
    page.cells = []
    for cell, words in zip(notebook.cells, figure_descriptions(notebook)):
        if cell.cell_type == "markdown" or is_solution(cell):
            source = folded(cell.source) if is_solution(cell) else cell.source
            page.cells.append(new_markdown_cell(with_formulas(source)))
        else:
            page.cells.append(NotebookNode(cell, metadata=NotebookNode(cell.metadata, alt=words)))
    # Not embed_images: it parses each piece of HTML alone, and so would close <details> before what it folds.
    body, _ = HTMLExporter(template_file=str(PAGE)).from_notebook_node(
        page, resources={"metadata": {"name": path.stem, "path": str(NOTEBOOKS)}}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body, encoding="utf-8")


def run(path: Path, html: Path | None, inplace: bool, timeout: float) -> bool:
    """Run one notebook, write what was asked for, print a line about it; True if it succeeded.

    Raises:
        Stopped: if a signal asks for it; then nothing is written.
    """
    notebook = open_version(read_lesson(path), path.name)
    start, problem = time.perf_counter(), None
    try:
        execute(notebook, path.resolve().parent, timeout, path.stem)
    except FAILURES as error:
        problem = explain(notebook, error)
    print(f"{path.stem:32} {time.perf_counter() - start:7.1f} s  {problem or 'ok'}", flush=True)
    clean(notebook)
    if html:
        write_html(read_lesson(path, notebook), html / f"{path.stem}.html")
    if inplace and not problem:
        store(notebook, path)
    return not problem


def store(notebook, path: Path) -> None:
    """Replace a notebook's file as a whole, so that a signal cannot leave half of it."""
    written = path.with_suffix(".new")
    nbformat.write(notebook, written)
    written.replace(path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="files (default: all of notebooks/)")
    parser.add_argument("--html", type=Path, metavar="DIR", help="write a page for each into DIR")
    parser.add_argument("--inplace", action="store_true", help="store the outputs in the notebooks")
    parser.add_argument("--render", action="store_true", help="run nothing, write the pages of the stored outputs")
    parser.add_argument("--timeout", type=float, default=1800, metavar="S", help="seconds a cell may take")
    options = parser.parse_args(arguments)

    paths = options.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
    if options.render and (options.inplace or not options.html):
        parser.error("--render runs nothing: it needs --html DIR and has nothing to store --inplace")
    if not paths:
        parser.error(f"there is no notebook in {NOTEBOOKS}")
    if missing := [str(path) for path in paths if not path.is_file()]:
        parser.error(f"no such notebook: {', '.join(missing)}")

    failed = []
    try:
        with heeding_signals():
            for path in paths:
                if options.render:
                    write_html(read_lesson(path), options.html / f"{path.stem}.html")
                elif not run(path, options.html, options.inplace, options.timeout):
                    failed.append(path.stem)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.status
    if options.html:
        print(f"pages are in {options.html}")
    if failed:
        print(f"{len(failed)} of {len(paths)} notebooks failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
