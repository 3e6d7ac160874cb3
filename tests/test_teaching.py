"""What is made for teachers from the notebooks: assignments for otter-grader, and slides."""

import re

import make_slides
import nbformat
import pytest
from helpers_submissions import LESSONS
from make_exercises import NOTEBOOKS, is_solution, read_lesson, stub
from make_otter import assignment, marked, write_assignments
from make_slides import Deck, blocks, page, selections
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

SELECTED = selections()
SOLUTIONS = [
    pytest.param(cell.source, id=cell.id) for path in LESSONS for cell in read_lesson(path).cells if is_solution(cell)
]


def as_otter_does(source):
    """The student's cell, by otter's rules: solutions go, prompts stay, marks go."""
    source = re.sub(r"^ *# BEGIN SOLUTION NO PROMPT\n.*?# END SOLUTION\n", "", source, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r'^ *""" # (BEGIN|END) PROMPT\n?', "", source, flags=re.MULTILINE)


@pytest.mark.parametrize("source", SOLUTIONS)
def test_otter_leaves_students_what_the_open_notebook_has(source):
    assert as_otter_does(marked(source)) == stub(source)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem[:2])
def test_assignment_runs_and_its_tests_expect_what_the_solution_prints(path, capsys):
    made = assignment(read_lesson(path), path.stem)
    nbformat.validate(made)
    cells = [cell for cell in made.cells if cell.cell_type == "code"]
    tests = [cell for cell in cells if cell.outputs]
    assert [cell.source.splitlines()[0] for cell in made.cells if cell.cell_type == "raw"].count(
        "# BEGIN QUESTION"
    ) == len(tests)
    names = {}
    for cell in cells:
        capsys.readouterr()
        exec(cell.source, names)
        if cell.outputs:
            assert capsys.readouterr().out == cell.outputs[0].text


def test_assignments_of_some_notebooks(tmp_path):
    written = write_assignments(tmp_path, only=["04", "05"])
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "04_merging_attention/04_merging_attention.ipynb", "05_masks/05_masks.ipynb",
    ]  # fmt: skip


# ---- slides ----------------------------------------------------------------------------------------------------------


def notebook():
    printed = new_output("stream", name="stdout", text="a < b\n")
    drawn = new_output("display_data", {"image/png": "iVBORw0KGgo="})
    return new_notebook(
        cells=[
            new_markdown_cell("# The title\n\nFirst *words*.\n\nSecond $x$, [there](other.ipynb).", id="a"),
            new_code_cell("print('a < b')", id="b", outputs=[printed, drawn]),
            new_markdown_cell("Last words.\n\n## The end\n\n- one\n- two", id="c"),
        ]
    )


@pytest.fixture
def reveal(tmp_path):
    (tmp_path / "dist").mkdir()
    for name in ("reset.css", "reveal.css", "reveal.js"):
        (tmp_path / "dist" / name).write_text(f"/* {name} */")
    return tmp_path


def test_slides_have_what_is_selected_and_nothing_else(reveal):
    html = page(notebook(), [["a | First", "b"], ["a | Second", "b | code"], ["c | Last"], ["c | - one"]], reveal)
    slides = re.findall(r"<section.*?</section>", html, re.DOTALL)
    assert [re.search("<h2>(.*)</h2>", slide)[1] for slide in slides] == ["The title"] * 3 + ["The end"]
    assert "<em>words</em>" in slides[0] and "a &lt; b" in slides[0] and 'alt="Figure: The title"' in slides[0]
    assert "Second" not in slides[0] and "highlight" not in slides[0]
    assert "<math" in slides[1] and "href" not in slides[1] and "highlight" in slides[1] and "<img" not in slides[1]
    assert "<li>one</li>" in slides[3]
    assert "reveal.js */" in html and "http" not in html.replace("http://www.w3.org", "")


@pytest.mark.parametrize(("part", "named"), [("z", "'z'"), ("a | Third", "'Third'")])
def test_a_part_that_is_gone_is_named(part, named, reveal):
    with pytest.raises(KeyError, match=named):
        page(notebook(), [[part]], reveal)


@pytest.mark.parametrize("name", SELECTED)
def test_what_is_selected_is_in_the_notebook(name):
    deck = Deck(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4))
    for parts in SELECTED[name]:
        assert deck.title(parts)
        for part in parts:
            cell, text = deck.find(part)
            assert text or cell.outputs, part


def test_blocks_are_what_blank_lines_part():
    assert blocks("# A\n\nb\nc\n\n\n- d\n- e\n") == ["# A", "b\nc", "- d\n- e"]


def test_reveal_is_fetched_once(reveal, monkeypatch):
    monkeypatch.setattr(make_slides.shutil, "which", lambda name: None)
    package = reveal / "package"
    with pytest.raises(FileNotFoundError, match="npm is not installed"):
        make_slides.fetch_reveal(reveal)
    (reveal / "dist").rename(reveal / "moved")
    package.mkdir()
    (reveal / "moved").rename(package / "dist")
    assert make_slides.fetch_reveal(reveal) == package
