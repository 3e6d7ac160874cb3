"""Make assignments for otter-grader (https://otter-grader.readthedocs.io) from the exercises of the notebooks.

    python tools/make_otter.py FOLDER                       # what `otter assign` reads: FOLDER/NAME/NAME.ipynb
    python tools/make_otter.py FOLDER --venv VENV           # and what `otter` makes of it, tried
    python tools/make_otter.py FOLDER --only 04 ...         # of these notebooks

An assignment has the exercises of a notebook, with the imports that they need and without the lesson, so that it runs
in seconds. With --venv, FOLDER/NAME/dist/student is what students get and FOLDER/NAME/dist/autograder what they do
not. `otter run` then has to give the solution all points and the open version none; the exit status says if it did.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import nbformat
from make_exercises import NOTEBOOKS, OPEN, bodies, is_solution, read_lesson
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from diffseg import check
from diffseg.commands.needed import needed
from diffseg.commands.submissions import HANDED

OTTER = "otter-grader[grading]==7.0.0"  # the version that was tried
CONFIG = """# ASSIGNMENT CONFIG
name: {name}
init_cell: true
export_cell:
  pdf: false
  run_tests: true
run_tests: false
show_question_points: true
requirements: [diffseg]
generate:
  pdf: false
  show_stdout: true
"""
TITLE = """# {title}: exercises

Read the notebook of this name first, whose exercises these are. Write each function below; the last line of its cell
tries it and says what is wrong, and the cell after it counts your points."""
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)  # what a task proposes to try
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def marked(source: str) -> str:
    """A solution's cell with the marks by which otter takes the bodies of its functions out."""
    lines = source.splitlines()
    for first, end in reversed(bodies(source)):
        body = ["    # BEGIN SOLUTION NO PROMPT", *lines[first:end], "    # END SOLUTION"]
        lines[first:end] = [*body, '    """ # BEGIN PROMPT', OPEN, '    """ # END PROMPT']
    return "\n".join(lines)


def question(task: NotebookNode, solution: NotebookNode) -> list[NotebookNode]:
    """The cells of one exercise: its text, its solution with marks, and a test, which is the check."""
    (name,) = HANDED.findall(solution.source)
    checked = getattr(check, name)
    said = f"{name}: right on all {len(checked.cases)} inputs\n"
    test = new_code_cell(
        f"from diffseg import check\ncheck.{name}({name})", outputs=[new_output("stream", name="stdout", text=said)]
    )
    return [
        new_raw_cell(f"# BEGIN QUESTION\nname: {name}\npoints: 1"),
        new_markdown_cell(task.source),
        new_raw_cell("# BEGIN SOLUTION"),
        new_code_cell(marked(solution.source)),
        new_raw_cell("# END SOLUTION"),
        new_raw_cell("# BEGIN TESTS"),
        test,
        new_raw_cell("# END TESTS"),
        new_raw_cell("# END QUESTION"),
    ]


def assignment(notebook: NotebookNode, name: str) -> NotebookNode:
    """What `otter assign` reads, of a notebook with exercises."""
    cells = notebook.cells
    numbers = [number for number, cell in enumerate(cells) if is_solution(cell)]
    before = [cell.source for cell in cells[: numbers[0]] if cell.cell_type == "code"]
    used = [cells[number].source for number in numbers]
    used += [block for number in numbers for block in BLOCK.findall(cells[number - 1].source)]
    imports = "\n".join(line for line in needed(before, used) if line.startswith(("import ", "from ")))
    title = cells[0].source.splitlines()[0].removeprefix("# ")
    made = [
        new_raw_cell(CONFIG.format(name=name)),
        new_markdown_cell(TITLE.format(title=title, name=name)),
        new_code_cell(imports),
    ]
    for number in numbers:
        made += question(cells[number - 1], cells[number])
    return new_notebook(cells=made, metadata=METADATA)


def write_assignments(folder: Path, only: Iterable[str] = ()) -> list[Path]:
    """Write those of all notebooks, or of those whose names begin with one of `only`; returns their files."""
    written = []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = read_lesson(path)
        if any(map(is_solution, notebook.cells)) and path.name.startswith(tuple(only) or ""):
            to = folder / path.stem / path.name
            to.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(assignment(notebook, path.stem), to)
            written.append(to)
    return written


def environment(folder: Path) -> Path:
    """The program `otter`, in an environment that is made if need be and shares torch and all else with this one.

    Raises:
        subprocess.CalledProcessError: if it cannot be installed.
    """
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    made = next(scripts.glob("otter*"), None)
    if made is None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = next(scripts.glob("python*"))
        asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        theirs = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        # addsitedir, and not the path alone: so packages that are installed in place are found, too.
        shared = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
        Path(theirs, "shared.pth").write_text(shared, encoding="utf-8")
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", OTTER]
        subprocess.run(install, check=True)
        made = next(scripts.glob("otter*"))
    return made.absolute()


def assign(otter: Path, master: Path) -> tuple[Path, Path, Path]:
    """Let otter make its files: the notebook of the students, the solved one, and the zip file that grades them.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    dist = master.parent / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    subprocess.run([otter, "assign", master.name, "dist"], cwd=master.parent, check=True)
    (grader,) = (dist / "autograder").glob("*.zip")
    return dist / "student" / master.name, dist / "autograder" / master.name, grader


def points(otter: Path, submission: Path, grader: Path, out: Path) -> tuple[float, float]:
    """What `otter run` gives a submission: points, and how many there are."""
    out.mkdir(exist_ok=True)
    command = [otter, "run", submission, "-a", grader, "-o", out, "--no-logo"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    tests = [each for each in json.loads((out / "results.json").read_text())["tests"] if "max_score" in each]
    return sum(each.get("score", 0) for each in tests), sum(each["max_score"] for each in tests)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--venv", type=Path, help="let otter make its files, and try them; it is installed there")
    parser.add_argument("--only", nargs="+", default=(), metavar="NN", help="beginnings of the names of notebooks")
    options = parser.parse_args(arguments)
    otter = environment(options.venv) if options.venv else None
    failed = 0
    for master in write_assignments(options.folder, options.only):
        if otter is None:
            print(master)
            continue
        student, solved, grader = assign(otter, master)
        full, most = points(otter, solved, grader, master.parent / "solved")
        none, _ = points(otter, student, grader, master.parent / "open")
        failed += (full, none) != (most, 0)
        print(f"{master.stem:28} solution {full:g} of {most:g} points, open version {none:g}", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
