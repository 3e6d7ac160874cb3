"""What is done with this repository, on every system: `python tools NAME...`. `make NAME` is the same.

Each NAME sets up .venv by itself, once. NAME=VALUE sets a variable of the environment, and what follows `--` is handed
to the last command:

    python tools notebooks TORCH_INDEX=https://download.pytorch.org/whl/cpu    # on Linux without a GPU
    python tools notebooks -- notebooks/05_masks.ipynb
"""

from __future__ import annotations  # an older Python gets as far as pip, which names those that do

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
READY = VENV / ".ready"
CONSTRAINTS = ROOT / "constraints.txt"
#: Built or remembered, and quickly made again; not the training runs in build/pocket.
BUILT = (".venv", "build/html", "build/book", "dist", ".pytest_cache", ".ruff_cache", ".hypothesis")

RUN = "python tools/run_notebooks.py"
LINT = ("python -m ruff check .", "python -m ruff format --check .")
# Notebooks and files of tests in parallel, each on its own core; more than four would want much memory.
PYTEST = "DIFFSEG_MODEL= python -m pytest -n auto --maxprocesses 4 --dist loadfile"
FAST = f"{PYTEST} tests -m 'not slow'"
INSTALL = "python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab,test]'"
EXERCISES = "python tools/make_exercises.py"
FOREIGN = "DIFFSEG_MODEL=ROOT/build/foreign HF_HUB_CACHE=ROOT/build/foreign/hub HF_HUB_OFFLINE=1"


def environment() -> dict[str, str]:
    """What every command gets. Embedded models need no network; a hub id such as CompVis/stable-diffusion-v1-4 does."""
    on_hub = "/" in os.environ.get("DIFFSEG_MODEL", "")
    return {"HF_HUB_OFFLINE": "0" if on_hub else "1", "PYTHONUTF8": "1", **os.environ}


def parse(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables that stand before a command, and its words."""
    words = [word.replace("ROOT", ROOT.as_posix()) for word in shlex.split(command)]
    variables = {}
    while "=" in words[0]:
        name, _, variables[name] = words.pop(0).partition("=")
    return variables, [str(PYTHON) if word == "python" else word for word in words]


def run(words: list[str], variables: dict[str, str] | None = None) -> int:
    """Run a command to its end; returns its exit status. Ctrl-C reaches it without us, SIGTERM is passed on."""
    with subprocess.Popen(words, cwd=ROOT, env=environment() | (variables or {})) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        return process.wait()


def call(command: str, more: list[str]) -> int:
    """Run a command that is written as in `TASKS`, with `more` words at its end; returns its exit status."""
    variables, words = parse(command)
    return run(words + more, variables)


def setup() -> int:
    """Prepare .venv, unless it is younger than what it was made from; returns an exit status."""
    needed = max((ROOT / "pyproject.toml").stat().st_mtime, CONSTRAINTS.stat().st_mtime)
    if READY.exists() and READY.stat().st_mtime >= needed:
        return 0
    print(f"Setting up {VENV.name}, once; PyTorch alone is a large download.", flush=True)
    index = os.environ.get("TORCH_INDEX")
    more = ["--extra-index-url", index] if index else []
    status = run([sys.executable, "-m", "venv", str(VENV)]) or call(INSTALL, more)
    if status == 0:
        READY.touch()
    return status


def pin() -> int:
    """Write what is installed in .venv to constraints.txt, below the comment that it begins with."""
    freeze = [str(PYTHON), "-m", "pip", "freeze", "--exclude-editable"]
    frozen = subprocess.run(freeze, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True).stdout.splitlines()
    comment = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    lines = [*comment, *(line.partition("+")[0] for line in frozen)]  # torch==2.13.0+cpu is on one index only
    CONSTRAINTS.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    READY.touch()
    return 0


def clean() -> int:
    """Remove what was built."""
    for name in BUILT:
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for folder in [*ROOT.rglob("__pycache__")]:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def show() -> int:
    """Print what there is."""
    print(__doc__)
    print("\n".join(f"{name:14}{task.about}" for name, task in TASKS.items()))
    return 0


class Task(NamedTuple):
    """What a name stands for.

    Attributes:
        about: a line for the list.
        steps: commands, in which ROOT is the repository, and functions that return an exit status.
        venv: whether .venv is needed.
    """

    about: str
    steps: tuple[str | Callable[[], int], ...] = ()
    venv: bool = True


TASKS = {
    "help": Task("this list", (show,), venv=False),
    "setup": Task("prepare .venv with the tested packages"),
    "notebooks": Task("run every notebook, write pages to build/html", (f"{RUN} --html build/html",)),
    "foreign": Task(
        "run every notebook on a small model that is not the embedded one",
        ("python tools/foreign_model.py build/foreign", f"{FOREIGN} {RUN} --html build/html-foreign"),
    ),
    "pages": Task(
        "write pages of the outputs that the notebooks hold to build/html", (f"{RUN} --render --html build/html",)
    ),
    "book": Task("write the book, a site of all of this, to build/book", ("python tools/make_book.py",)),
    "slides": Task(
        "write slides of notebooks 00 and 04 to build/slides", ("python tools/make_slides.py build/slides",)
    ),
    "otter": Task(
        "write the exercises as assignments for otter-grader to build/otter, and try them: minutes",
        ("python tools/make_otter.py build/otter --venv build/otter-venv",),
    ),
    "lab": Task("open JupyterLab on the notebooks", ("python -m jupyter lab notebooks",)),
    "lint": Task("the rules of layout and style", LINT),
    "fast": Task("the fast tests", (FAST,)),
    "quick": Task("after a change: lint and the fast tests, within a minute", (*LINT, FAST)),
    "test": Task("lint, tests, and every notebook against its committed outputs", (*LINT, f"{PYTEST} --durations=15")),
    "test-browser": Task(
        "the live notebooks in JupyterLab and a headless Chromium; screenshots in build/screenshots",
        ("python -m pytest tests/browser",),
    ),
    "test-full": Task(
        "published architectures at full size, random weights: 8 GB, minutes", ("python -m pytest tests/full",)
    ),
    "bench": Task("time and memory of each stage", ("python -m benchmarks.bench",)),
    "pocket": Task("train the embedded models again", ("python -m diffseg.pocket.training all",)),
    "results": Task(
        "the tables in data/results, anew where models have changed: hours, goes on where it stopped",
        ("python -m diffseg.results",),
    ),
    "refresh": Task(
        "run every notebook, store its outputs in the file, bring notebooks/solved in step",
        (f"{RUN} --inplace", EXERCISES),
    ),
    "exercises": Task("make the lessons that are read from those in notebooks/solved; outputs stay", (EXERCISES,)),
    "badges": Task(
        "REPO=owner/name: badges for Colab and Binder, the address of the repository; without REPO none",
        ("python tools/make_badges.py",),
    ),
    "format": Task(
        "format and lint, mending what can be mended", ("python -m ruff format .", "python -m ruff check --fix .")
    ),
    "constraints": Task("pin what is installed in .venv as the tested set", (pin,)),
    "clean": Task("remove .venv and what was built, but not the training runs in build/pocket", (clean,), venv=False),
}


def carry_out(task: Task, more: list[str]) -> int:
    """Do one task; `more` is added to its last command. Returns an exit status: that of the first step that fails."""
    status = setup() if task.venv else 0
    for number, step in enumerate(task.steps, start=1):
        if status == 0:
            status = step() if callable(step) else call(step, more if number == len(task.steps) else [])
    return status


def main(arguments: list[str] | None = None) -> int:
    """Do all tasks that are named, in their order, until one fails; returns an exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    ours, more = arguments, []
    if "--" in arguments:
        ours, more = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    os.environ.update(word.split("=", 1) for word in ours if "=" in word)
    names = [word for word in ours if "=" not in word] or ["help"]
    if unknown := [name for name in names if name not in TASKS]:
        print(f"error: there is no {', '.join(unknown)}; `python tools help` lists what there is.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, lambda *_: None)
    for name in names:
        if status := carry_out(TASKS[name], more if name == names[-1] else []):
            return status if status > 0 else 128 - status
    return 0


if __name__ == "__main__":
    sys.exit(main())
