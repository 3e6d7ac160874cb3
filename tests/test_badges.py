"""Badges, the first cell for Colab and the address: written everywhere, taken out again, nothing else touched."""

import shutil
import tomllib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import make_badges
import make_exercises
import nbformat
import pytest
import yaml

ROOT = Path(__file__).parent.parent
REPO = "some-one/some.where"


@pytest.fixture
def copy(tmp_path):
    """The files that a name goes into, and two notebooks, each with its solved version."""
    for name in ("pyproject.toml", "CITATION.cff", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "notebooks" / "solved").mkdir(parents=True)
    for name in ("00_segment_an_image.ipynb", "05_masks.ipynb"):
        for kept in (name, f"solved/{name}"):
            shutil.copy(ROOT / "notebooks" / kept, tmp_path / "notebooks" / kept)
    return tmp_path


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*.*") if path.is_file()}


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def committed_repo():
    """The name that this repository has: empty until somebody gives one."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    return urls.get("Repository", "").removeprefix("https://github.com/")


def test_what_is_written_can_be_taken_out(copy):
    make_badges.write("", copy)
    without = contents(copy)
    assert not any(b"colab.research" in text for text in without.values())
    for repo in (REPO, "an/other"):
        assert make_badges.write(repo, copy)
        assert make_badges.write(repo, copy) == [], "a second time changes nothing"
    assert not any(REPO.encode() in text for text in contents(copy).values())
    make_badges.write("", copy)
    assert contents(copy) == without


def test_committed_files_agree_on_the_address(copy):
    before = contents(copy)
    make_badges.write(committed_repo(), copy)
    assert {name: contents(copy)[name] for name in before} == before


def test_every_notebook_opens_itself(copy):
    make_badges.write(REPO, copy)
    for path in (copy / "notebooks").rglob("*.ipynb"):
        name = path.relative_to(copy).as_posix()
        title, line = nbformat.read(path, as_version=4).cells[0].source.split("\n\n")[:2]
        assert title.startswith("# ")
        colab, binder = (part.split(")")[0] for part in line.split("](")[2::2])
        assert colab == f"https://colab.research.google.com/github/{REPO}/blob/main/{name}"
        assert urlsplit(binder).path == f"/v2/gh/{REPO}/main"
        assert parse_qs(urlsplit(binder).query) == {"labpath": [name]}


def test_outputs_stay_and_cells_are_counted_anew(copy):
    name = "notebooks/05_masks.ipynb"
    make_badges.write("", copy)
    old = code_cells(copy / name)
    make_badges.write(REPO, copy)
    nbformat.validate(nbformat.read(copy / name, as_version=4))
    first, *new = code_cells(copy / name)
    assert REPO in first.source and first.outputs == [] and first.execution_count == 1
    assert [cell.source for cell in new] == [cell.source for cell in old]
    for before, after in zip(old, new, strict=True):
        assert after.execution_count == before.execution_count + 1
        for output in after.outputs:
            if output.output_type == "execute_result":
                output.execution_count -= 1
        assert after.outputs == before.outputs
    assert make_exercises.stale(copy / "notebooks") == []


def test_others_find_the_address(copy):
    make_badges.write(REPO, copy)
    project = tomllib.loads((copy / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((copy / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["urls"]["Repository"] == citation["repository-code"] == f"https://github.com/{REPO}"


def test_the_cell_does_nothing_elsewhere():
    exec(make_badges.CELL.format(address="nowhere at all"), {})


@pytest.mark.parametrize("wrong", ["somewhere", "a/b/c", "https://github.com/a/b", 'a/b"'])
def test_what_is_no_name_is_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        make_badges.main([wrong])
    assert "owner/name" in capsys.readouterr().err


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert str(citation["version"]) == project["version"]
