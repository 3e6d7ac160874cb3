"""Committed notebooks are fit to be read on a code host, and nbval really compares them.

nbval compares nothing in a cell without an execution count, so the first check is what makes `--nbval` mean something.
Each check takes a notebook and returns complaints; each is also shown a notebook that it must complain about.
"""

import ast
import base64
import html
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import PIL.Image
import pytest
import run_notebooks
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
GUESS = re.compile(r"\b(Guess|Predict|What do you expect|Write down an order)\b")
MAX_BYTES, MAX_LINES = 1_500_000, 25
PATIENCE = 120  # seconds for a process to start on a busy machine
# /home/ada/..., /Users/ada/..., C:\Users\ada, /tmp/..., a kernel's /var/folders: paths of one machine
MACHINE_PATH = re.compile(r"(?<![\w./:])(/(home|Users|root|tmp|work|var|opt|mnt|content)/\w|[A-Z]:\\\w)")
# addresses in reprs, such as <object at 0x7f...>, differ in every run
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(output):
    """The text that a reader sees in one output."""
    if output.output_type == "stream":
        return [output.text]
    if output.output_type == "error":
        return output.traceback
    return [text for kind, text in output.data.items() if kind.startswith("text/")]


def executed(notebook):
    """Every code cell was run, once, from top to bottom in a fresh kernel."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    expected = list(range(1, len(counts) + 1))
    return [] if counts == expected else [f"execution counts are {counts}, not 1, 2, ...: `make refresh`"]


def no_widgets(notebook):
    """No widget state, and no view that would need it."""
    found = ["metadata.widgets is saved"] if "widgets" in notebook.metadata else []
    views = [o for cell in code_cells(notebook) for o in cell.outputs if run_notebooks.WIDGET in o.get("data", {})]
    return found + (["a widget view is saved"] if views else [])


def no_errors(notebook):
    """No error output, except where the cell's tag says that the error is the lesson."""
    return [
        f"{output.ename} in `{cell.source[:40]}`"
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "error"
        and not {"raises-exception", "nbval-raises-exception"} & set(cell.metadata.get("tags", []))
    ]


def short_cells(notebook):
    """A code cell fits a screen."""
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    return [f"a code cell has {n} lines, more than {MAX_LINES}" for n in lengths if n > MAX_LINES]


def no_machine(notebook):
    """No path or memory address of one machine."""
    seen = [cell.source for cell in notebook.cells]
    seen += [text for cell in code_cells(notebook) for output in cell.outputs for text in texts(output)]
    paths = [match.group() for text in seen for match in MACHINE_PATH.finditer(text)]
    return [f"{found!r} is a path or an address of one machine" for found in paths + ADDRESS.findall("\n".join(seen))]


def titled(notebook):
    """The first cell is prose and opens with a title."""
    first = notebook.cells[0] if notebook.cells else None
    good = first and first.cell_type == "markdown" and first.source.startswith("# ")
    return [] if good else ["the first cell is not Markdown that begins with '# '"]


def small_metadata(notebook):
    """Nothing about the machine that saved it, so that diffs stay small."""
    extra = notebook.metadata.keys() - run_notebooks.METADATA.keys()
    return [f"metadata {sorted(extra)} is saved: `make refresh`"] if extra else []


def guesses_first(notebook):
    """What the text asks to guess is folded until the cell runs."""
    asked, complaints = False, []
    for cell in notebook.cells[1:]:  # the first one asks what the whole lesson answers
        if cell.cell_type == "markdown":
            if cell.source.startswith("### Exercise"):
                asked = False
            elif GUESS.search(cell.source):
                asked = True
            elif cell.source.startswith("## "):
                asked = False
        elif asked and cell.outputs:
            asked = False
            hidden = cell.metadata.get("jupyter", {}).get("outputs_hidden")  # in JupyterLab; the tag is for pages
            if not hidden or "hide-output" not in cell.metadata.get("tags", []):
                complaints.append(f"`{cell.source[:40]}` shows what the reader is to guess first")
    return complaints


def sharp_figures(notebook):
    """A figure has twice as many pixels as it is shown with."""
    complaints = []
    for output in (output for cell in code_cells(notebook) for output in cell.outputs):
        if figure := output.get("data", {}).get("image/jpeg"):
            pixels = PIL.Image.open(io.BytesIO(base64.b64decode(figure))).width
            shown = output.metadata.get("image/jpeg", {}).get("width")
            if not shown or abs(pixels - 2 * shown) > 1:
                complaints.append(f"a figure of {pixels} pixels is shown with {shown}")
    return complaints


CHECKS = [
    executed, no_widgets, no_errors, short_cells, no_machine, titled, small_metadata, guesses_first, sharp_figures,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, check):
    assert check(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_small(path):
    assert path.stat().st_size < MAX_BYTES


def test_names_give_the_order():
    assert NOTEBOOKS, "there is no notebook"
    numbers = []
    for path in NOTEBOOKS:
        assert (match := re.fullmatch(r"(\d\d|A\d)_[a-z0-9_]+", path.stem)), (
            f"{path.name} is not like 03_some_words.ipynb"
        )
        numbers.append(match.group(1))
    assert len(set(numbers)) == len(numbers), f"two notebooks share a number: {numbers}"


# ---- nothing is written twice ---------------------------------------------------------------------------------------

RUN = 4  # lines in a row that two notebooks must not share


def lessons(notebook):
    """Code of the text itself: without the first cell, which sets up, that for Colab, and exercises."""
    cells = [cell for cell in code_cells(notebook) if "colab" not in cell.metadata.get("tags", [])]
    return [cell.source for cell in cells[1:] if "exercise" not in cell.metadata.get("tags", [])]


def definitions(notebook):
    nodes = (node for source in lessons(notebook) for node in ast.parse(source).body)
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def runs(notebook):
    """Every RUN lines in a row of a cell, layout aside."""
    cells = [[line for line in map(str.strip, source.splitlines()) if line] for source in lessons(notebook)]
    return {tuple(lines[start : start + RUN]) for lines in cells for start in range(len(lines) - RUN + 1)}


@pytest.mark.parametrize("found_in", [definitions, runs])
def test_nothing_is_written_in_two_notebooks(found_in):
    first = {}
    for path in NOTEBOOKS:
        for found in found_in(nbformat.read(path, as_version=4)):
            assert found not in first, f"{found} is in {first[found]} and in {path.stem}: move it to diffseg"
            first[found] = path.stem


# ---- the checks themselves ------------------------------------------------------------------------------------------


def cell(source="1", count=1, outputs=(), tags=()):
    return new_code_cell(source, execution_count=count, outputs=list(outputs), metadata={"tags": list(tags)})


def notebook(*cells, **metadata):
    return new_notebook(cells=[new_markdown_cell("# Title"), *cells], metadata=metadata)


def printed(text):
    return new_output("stream", name="stdout", text=text)


RAISED = new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])
_FILE = io.BytesIO()
PIL.Image.new("RGB", (80, 20)).save(_FILE, "jpeg")
JPEG = base64.b64encode(_FILE.getvalue()).decode()
SOFT = new_output("display_data", {"image/jpeg": JPEG})
SHARP = new_output("display_data", {"image/jpeg": JPEG}, metadata={"image/jpeg": {"width": 40, "height": 10}})
HIDDEN = {"tags": ["hide-output"], "jupyter": {"outputs_hidden": True}}
ASKS = new_markdown_cell("## 1. One\n\nGuess first: what is it?")
VIEW = new_output("display_data", {run_notebooks.WIDGET: {"model_id": "1"}, "text/plain": "IntSlider(value=0)"})


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        (executed, notebook(cell(count=None))),
        (executed, notebook(cell(count=1), cell(count=None))),
        (executed, notebook(cell(count=2), cell(count=1))),
        (executed, notebook(cell(count=7), cell(count=8))),
        (no_widgets, notebook(widgets={})),
        (no_widgets, notebook(cell(outputs=[VIEW]))),
        (no_errors, notebook(cell(outputs=[RAISED]))),
        (no_errors, notebook(cell(outputs=[RAISED], tags=["nbval-skip"]))),
        (short_cells, notebook(cell("\n".join("1" * (MAX_LINES + 1))))),
        (no_machine, notebook(cell('open("/home/ada/dog.jpg")'))),
        (no_machine, notebook(cell(outputs=[printed("saved to /tmp/masks.png")]))),
        (
            no_machine,
            notebook(cell(outputs=[new_output("execute_result", {"text/plain": "WindowsPath('C:\\Users')"})])),
        ),
        (no_machine, notebook(cell(outputs=[printed("<Axes at 0x7f3a5c12d0>")]))),
        (no_machine, notebook(new_markdown_cell("The result is in /Users/ada/diffseg"))),
        (titled, new_notebook(cells=[cell()])),
        (titled, new_notebook()),
        (small_metadata, notebook(colab={"provenance": []})),
        (guesses_first, notebook(ASKS, cell(outputs=[printed("it")]))),
        (sharp_figures, notebook(cell(outputs=[SOFT]))),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_check_complains(check, bad):
    assert check(bad)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check_accepts_a_good_notebook(check):
    good = notebook(
        cell("1/0", 1, [RAISED], ["raises-exception"]),
        cell(
            "\n".join("1" * MAX_LINES),
            2,
            [printed("see a/home/dog, https://example.org/home/x, 0x1f697\n"), SHARP],
        ),
        ASKS,
        new_code_cell("2", execution_count=3, outputs=[printed("it")], metadata=HIDDEN),
        **run_notebooks.METADATA,
    )
    assert check(good) == []


# ---- the runner -----------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path):
    """A notebook that fails in its second code cell, and one that works."""
    nbformat.write(notebook(cell(count=1), cell("1/0", 2), cell(count=3)), tmp_path / "00_bad.ipynb")
    widget = "import ipywidgets\nprint(6 * 7)\nipywidgets.IntSlider()"
    nbformat.write(notebook(cell(widget, None), widgets={}), tmp_path / "01_good.ipynb")
    return tmp_path


def test_runner_names_the_failing_cell_and_goes_on(two, capfd):
    before = (two / "00_bad.ipynb").read_bytes()
    paths = [str(two / name) for name in ("00_bad.ipynb", "01_good.ipynb")]
    assert run_notebooks.main([*paths, "--inplace", "--html", str(two / "html")]) == 1

    out, err = capfd.readouterr()
    assert re.search(r"00_bad .* cell 3 of 4 \(`1/0`\) failed", out) and "ZeroDivisionError" in out
    assert re.search(r"01_good +\d+\.\d s  ok", out)
    assert "1 of 2 notebooks failed: 00_bad" in err
    assert (two / "00_bad.ipynb").read_bytes() == before, "a failed run must not overwrite the file"
    assert {page.stem for page in (two / "html").glob("*.html")} == {"00_bad", "01_good"}

    good = nbformat.read(two / "01_good.ipynb", as_version=4)
    assert [output.text for output in code_cells(good)[0].outputs] == ["42\n"]
    assert [check(good) for check in CHECKS] == [[] for _ in CHECKS]


SLEEPS = """import os, pathlib, time
pathlib.Path("unfinished").write_text(str(os.getpid()))
pathlib.Path("unfinished").rename("kernel")  # whoever sees it sees all of it
time.sleep(600)"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals for other processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_runner_stops_when_told_to(tmp_path, number):
    nbformat.write(notebook(cell(SLEEPS, None)), tmp_path / "00_long.ipynb")
    nbformat.write(notebook(cell("open('next', 'w')", None)), tmp_path / "01_next.ipynb")
    before = (tmp_path / "00_long.ipynb").read_bytes()
    command = [sys.executable, run_notebooks.__file__, "--inplace", "00_long.ipynb", "01_next.ipynb"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + PATIENCE
        while not (tmp_path / "kernel").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        printed = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number, printed
    assert f"stopped by {number.name}" in printed[1]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "kernel").read_text()), 0)
    assert not (tmp_path / "next").exists()
    assert (tmp_path / "00_long.ipynb").read_bytes() == before


def test_runner_only_renders(tmp_path, capsys):
    path = tmp_path / "00_x.ipynb"
    nbformat.write(notebook(cell("print(6 * 7)", 1, [printed("stored, not run")])), path)
    assert run_notebooks.main(["--render", "--html", str(tmp_path / "html"), str(path)]) == 0
    assert "stored, not run" in (tmp_path / "html" / "00_x.html").read_text(encoding="utf-8")
    for wrong in (["--render"], ["--render", "--inplace", "--html", "html"]):
        with pytest.raises(SystemExit):
            run_notebooks.main([*wrong, str(path)])
        assert "--render runs nothing" in capsys.readouterr().err


def test_runner_refuses_a_missing_file(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_notebooks.main([str(tmp_path / "none.ipynb")])
    assert "no such notebook" in capsys.readouterr().err


def test_pages_fold_the_solutions(tmp_path):
    source = 'def double(x):\n    return 2 * x\n\n\nprint("was it right")'
    nb = notebook(cell(source, 1, [printed("was it right")], ["solution"]), cell("1 + 1", 2))
    run_notebooks.write_html(nb, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    fold = page[page.index("<details><summary>Solution") : page.index("</details>")]
    assert "return" in fold and "was it right" not in page
    assert code_cells(nb)[0].source == source, "the notebook itself must not change"


def test_pages_fold_what_is_to_be_guessed(tmp_path):
    nb = notebook(ASKS, new_code_cell("1", outputs=[printed("it was forty-two")], metadata=HIDDEN), cell("2", 2))
    run_notebooks.write_html(nb, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<summary>What came out</summary>") == page.count('<details class="guess">') == 1
    fold = page[page.index('<details class="guess">') :]
    assert "it was forty-two" in fold[: fold.index("</details>")]


def test_pages_describe_figures(tmp_path):
    kinds = {"image/png": "YQ==", "image/jpeg": "Yg==", "image/svg+xml": "<svg/>"}
    cells = [
        cell(f"ax.set_title('{kind}, p < 1 & q')", count, [new_output("display_data", {kind: figure})])
        for count, (kind, figure) in enumerate(kinds.items(), start=1)
    ]
    nb = notebook(*cells, cell(count=4))
    run_notebooks.write_html(nb, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    said = [html.unescape(words) for words in re.findall(r'<img[^>]* alt="([^"]*)"', page)]
    assert said == [f"Figure, Title: {kind}, p < 1 & q." for kind in kinds]
    assert nb.cells[1].metadata == {"tags": []}, "the notebook itself must not change"


@pytest.mark.slow
@pytest.mark.parametrize("width", [1000, 390])
def test_pages_cut_no_code_off(tmp_path, open_page, width):
    nb = notebook(
        cell(f"first = {'9 + ' * 40}9", 1), cell(f"def grown(x):\n    return {'x + ' * 40}x", 2, tags=["solution"])
    )
    run_notebooks.write_html(nb, tmp_path / "page.html")
    with open_page((tmp_path / "page.html").as_uri(), width=width) as watched:
        watched.page.evaluate("() => document.querySelectorAll('details').forEach((part) => (part.open = true))")
        parts = watched.page.locator("pre").evaluate_all(
            "all => all.map((each) => [each.scrollWidth, each.clientWidth])"
        )
        assert len(parts) == 2 and all(needed <= given for needed, given in parts)


# ---- nbval ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nbval_compares_outputs(tmp_path):
    """Strict comparison is on: a stored output that the cell does not print fails the cell; stderr may differ."""
    source = "import sys\nprint(1 + 1)\nprint('warning', file=sys.stderr)"
    cells = [cell(source, count, [printed(text)]) for count, text in enumerate(["2\n", "3\n", "2\n"], start=1)]
    nbformat.write(notebook(*cells), tmp_path / "00_x.ipynb")
    shutil.copy(ROOT / "conftest.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-rA", "-c", ROOT / "pyproject.toml", tmp_path]
    tools = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}  # which conftest needs
    report = subprocess.run(list(map(str, command)), cwd=ROOT, env=tools, capture_output=True, text=True).stdout
    outcomes = re.findall(r"^(PASSED|FAILED) .*00_x.ipynb::(Cell \d)", report, re.MULTILINE)
    assert sorted(outcomes) == [("FAILED", "Cell 1"), ("PASSED", "Cell 0"), ("PASSED", "Cell 2")], report


# ---- formulas on pages ----------------------------------------------------------------------------------------------


def test_formulas_are_drawn_without_a_script():
    drawn = run_notebooks.with_formulas("Of `$HOME` and\n```\n$x$\n```\nand $x^2$, and\n\n$$y = \\sum_k p_k$$\n")
    assert "`$HOME`" in drawn and "```\n$x$\n```" in drawn
    assert drawn.count("<math") == 2 and drawn.count('display="block"') == 1
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in drawn


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_formula_is_drawn(path):
    texts = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    drawn = "\n".join(run_notebooks.with_formulas(text) for text in texts)
    assert "$" not in re.sub(r"```.*?```|`[^`]*`", "", drawn, flags=re.DOTALL)
    assert "\\" not in "".join(re.findall(r"<math.*?</math>", drawn, re.DOTALL))  # no command that was not understood
