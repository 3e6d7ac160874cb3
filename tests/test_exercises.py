"""Exercises: every check accepts the solution, calls the stub open, and rejects typical mistakes, with a reason."""

import ast
import re

import make_exercises
import nbformat
import numpy as np
import pytest
import torch
from helpers_submissions import LESSONS
from make_exercises import is_solution, open_version, read_lesson, solved_version, stub, versions
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from diffseg import check
from diffseg.check import Case, Check, Mistake, NotYet

CHECKS = {name: value for name, value in vars(check).items() if isinstance(value, Check)}
MISTAKES = [(name, number) for name, value in CHECKS.items() for number in range(len(value.mistakes))]


def imports_of(notebook):
    """The import statements of a notebook: what a solution may rely on."""
    sources = (cell.source for cell in notebook.cells if cell.cell_type == "code")
    nodes = (node for source in sources for node in ast.parse(source).body)
    return "\n".join(ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


def exercises():
    """(name, imports, the task's text, the solution's cell) of every exercise."""
    for path in LESSONS:
        notebook = read_lesson(path)
        for task, cell in zip(notebook.cells, notebook.cells[1:]):
            if is_solution(cell):
                name = re.search(r"^check\.(\w+)\(\1\)$", cell.source, re.MULTILINE)
                yield pytest.param(name and name[1], imports_of(notebook), task, cell, id=f"{path.stem[:2]}-{cell.id}")


EXERCISES = list(exercises())


@pytest.mark.parametrize(("name", "imports", "task", "cell"), EXERCISES)
class TestExercise:
    def test_solution_is_accepted(self, name, imports, task, cell, capsys):
        exec(f"{imports}\n{cell.source}", {})
        assert capsys.readouterr().out == f"{name}: right on all {len(CHECKS[name].cases)} inputs\n"

    def test_stub_is_still_open(self, name, imports, task, cell, capsys):
        exec(f"{imports}\n{stub(cell.source)}", {})
        assert capsys.readouterr().out.startswith(f"{name} is still to be written: ")

    def test_task_has_its_parts(self, name, imports, task, cell):
        assert task.cell_type == "markdown"
        assert re.match(r"### Exercise \d: .+\n\n?\*Difficulty [★☆]{3}, \d+ minutes\*\n", task.source), task.source[:80]
        assert "<details><summary>Hint</summary>\n\n" in task.source and task.source.rstrip().endswith("</details>")


def test_every_check_belongs_to_one_exercise():
    assert sorted(exercise.values[0] for exercise in EXERCISES) == sorted(CHECKS)
    assert set(CHECKS) <= set(check.__all__)
    assert all(value.name == name for name, value in CHECKS.items())


@pytest.mark.parametrize(("name", "number"), MISTAKES)
def test_typical_mistake_is_recognised(name, number):
    mistake = CHECKS[name].mistakes[number]
    with pytest.raises(NotYet) as raised:
        CHECKS[name](mistake.function)
    assert str(raised.value).endswith(mistake.hint)


@pytest.mark.parametrize("name", CHECKS)
def test_check_knows_enough(name):
    assert len(CHECKS[name].mistakes) >= 2 and len(CHECKS[name].cases) >= 2
    assert f"tries it on {len(CHECKS[name].cases)} inputs" in repr(CHECKS[name])


# ---- the messages of a check ----------------------------------------------------------------------------------------

DOUBLE = Check(
    "double",
    lambda x: 2 * x,
    [Case("a row", (torch.tensor([1.0, 2.0, 0.0]),)), Case("a table", (torch.ones(2, 3),))],
    [Mistake("That is the square.", lambda x: x**2), Mistake("That is x itself.", lambda x: x)],
)
PAIR = Check("pair", lambda x: (x, "down"), [Case("a number", (1.0,))])


@pytest.mark.parametrize(
    ("exercise", "function", "message"),
    [
        (DOUBLE, lambda x: 3 * x, r"for a row:\n  the value at \[0\] is 3, expected 2; 2 of 3 values differ$"),
        (DOUBLE, lambda x: x**2, "That is the square.$"),
        (DOUBLE, lambda x: x, "That is x itself.$"),
        (DOUBLE, lambda x: 2 * x.T if x.ndim > 1 else 2 * x, r"for a table:\n  .*shape \[3, 2\], expected \[2, 3\]"),
        (DOUBLE, lambda x: None, "returned nothing: does it end with `return`"),
        (DOUBLE, lambda x: 2 * x / x * x, "holds NaN: is there a logarithm of 0, or a division by 0"),
        (DOUBLE, lambda x: "2", "your result is a str, expected a torch.Tensor"),
        (DOUBLE, lambda x: x.mul_(2), "changes its arguments"),
        (DOUBLE, 7, "takes your function itself, not its result: .* given this: 7"),
        (PAIR, lambda x: (x,), "has 1 entries, expected 2"),
        (PAIR, lambda x: (x, "up"), r"in entry 1 \(counted from 0\), your result is 'up', expected 'down'"),
        (PAIR, lambda x: (2 * x, "down"), r"in entry 0 \(counted from 0\), your result is 2, expected 1"),
        (PAIR, lambda x: x, "your result is a float, expected 2 values in a list or tuple"),
        (PAIR, lambda x: None, "returned nothing"),
    ],
)
def test_check_says_what_is_wrong(exercise, function, message):
    with pytest.raises(NotYet, match=message) as raised:
        exercise(function)
    assert raised.value._render_traceback_() == str(raised.value).splitlines()


def test_check_accepts_what_is_right(capsys):
    DOUBLE(lambda x: x + x)
    DOUBLE(lambda x: np.asarray(x) * 2)
    PAIR(lambda x: [x, "down"])
    assert capsys.readouterr().out.splitlines() == ["double: right on all 2 inputs"] * 2 + [
        "pair: right on all 1 inputs"
    ]


@pytest.mark.parametrize(
    ("function", "error"),
    [(lambda x: 1 / 0, ZeroDivisionError), (lambda x: torch.linalg.cholesky(x.half()), RuntimeError)],
)
def test_an_error_in_the_function_is_shown_as_it_is(function, error):
    with pytest.raises(error) as raised:
        DOUBLE(function)
    assert raised.value.__notes__ == ["This was raised by your function, called by check.double for a row."]


def test_an_error_of_a_library_is_no_open_exercise():
    def lacking(x):
        raise NotImplementedError("there is no kernel for that")

    with pytest.raises(NotImplementedError, match="no kernel"):
        DOUBLE(lacking)


# ---- the generator --------------------------------------------------------------------------------------------------

SOLUTION = '''import torch


def double(x: torch.Tensor) -> torch.Tensor:
    """Twice x, [n]."""
    y = x
    return y + x


check.double(double)'''


def test_stub_keeps_all_but_the_body():
    expected = SOLUTION.replace("    y = x\n    return y + x", "    raise NotImplementedError  # your code")
    assert stub(SOLUTION) == expected
    assert stub("def f(x):\n    return x") == "def f(x):\n    raise NotImplementedError  # your code"
    with pytest.raises(ValueError, match="must define a function"):
        stub("x = 1")


@pytest.fixture
def folder(tmp_path):
    """Notebooks with one lesson, solved and open, whose cells have run."""
    said = [nbformat.v4.new_output("stream", text="2")]
    cells = [
        new_markdown_cell("# T\n\n[next](02_x.ipynb), [paper](https://example.org), [below](#a)", id="title"),
        new_code_cell("1 + 1", execution_count=1, outputs=said, id="sum"),
        new_code_cell(SOLUTION, execution_count=2, outputs=said, metadata={"tags": ["solution"]}, id="x"),
    ]
    lesson = new_notebook(cells=cells)
    (tmp_path / "solved").mkdir()
    nbformat.write(solved_version(lesson, "01_y.ipynb"), tmp_path / "solved" / "01_y.ipynb")
    nbformat.write(open_version(lesson, "01_y.ipynb"), tmp_path / "01_y.ipynb")
    return tmp_path


def test_the_solved_version_has_solutions_and_no_outputs(folder):
    solved = nbformat.read(folder / "solved" / "01_y.ipynb", as_version=4)
    assert "[next](../02_x.ipynb), [paper](https://example.org), [below](#a)" in solved.cells[0].source
    assert "[01_y.ipynb](../01_y.ipynb)" in solved.cells[0].source
    assert [cell.get("outputs", []) for cell in solved.cells] == [[]] * 3
    assert solved.cells[2].source == SOLUTION


def test_the_open_version_has_outputs_and_no_solutions(folder):
    opened = nbformat.read(folder / "01_y.ipynb", as_version=4)
    assert opened.cells[0].source == "# T\n\n[next](02_x.ipynb), [paper](https://example.org), [below](#a)"
    assert [cell.outputs[0].text for cell in opened.cells[1:3]] == ["2", "2"]
    assert opened.cells[2].source == stub(SOLUTION) and "y = x" not in (folder / "01_y.ipynb").read_text()
    assert "(solved/01_y.ipynb)" in opened.cells[3].source
    nbformat.validate(opened)


def test_a_lesson_is_both(folder):
    lesson = read_lesson(folder / "01_y.ipynb")
    assert lesson.cells[0].source == "# T\n\n[next](02_x.ipynb), [paper](https://example.org), [below](#a)"
    assert [cell.source for cell in lesson.cells[1:]] == ["1 + 1", SOLUTION]
    assert [cell.outputs[0].text for cell in lesson.cells[1:]] == ["2", "2"]


def test_outputs_of_a_changed_cell_are_left_out_and_files_are_brought_in_step(folder):
    assert make_exercises.stale(folder) == []
    solved = folder / "solved" / "01_y.ipynb"
    solved.write_text(solved.read_text().replace("1 + 1", "1 + 2").replace("    y = x", "    y = 1 * x"))
    assert make_exercises.stale(folder) == [folder / "01_y.ipynb"]
    assert make_exercises.write(folder) == [folder / "01_y.ipynb"] and make_exercises.stale(folder) == []
    opened = nbformat.read(folder / "01_y.ipynb", as_version=4)
    assert opened.cells[1].source == "1 + 2" and opened.cells[1].outputs == []
    assert [output.text for output in opened.cells[2].outputs] == ["2"], "the reader sees the same open exercise"
    (folder / "01_y.ipynb").unlink()
    assert make_exercises.write(folder) == [folder / "01_y.ipynb"]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem[:2])
def test_no_cell_needs_what_the_reader_has_still_to_write(path):
    written = set()
    for cell in (cell for cell in read_lesson(path).cells if cell.cell_type == "code"):
        if is_solution(cell):
            written |= set(re.findall(r"^def (\w+)", cell.source, re.MULTILINE))
        else:
            used = {node.id for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
            assert used & written == set(), cell.source


def test_committed_exercises_are_up_to_date():
    assert set(versions()) >= {*LESSONS} and make_exercises.stale() == [], "run `make exercises` (or `make refresh`)"
