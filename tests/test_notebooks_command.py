"""`diffseg notebooks`: copies of all notebooks, and nothing of the reader's is lost."""

import json
from pathlib import Path

import pytest

from diffseg.__main__ import main

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.ipynb")}


def test_every_notebook_is_copied(tmp_path, capsys):
    folder = tmp_path / "a b" / "lessons"
    assert main(["notebooks", str(folder)]) == 0
    assert files(folder) == files(NOTEBOOKS) and len(files(folder)) > 2
    assert f'jupyter lab "{folder}"' in capsys.readouterr().out


def test_what_is_there_stays_unless_told_otherwise(tmp_path, capsys):
    mine = tmp_path / next(iter(files(NOTEBOOKS)))
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine", encoding="utf-8")
    assert main(["notebooks", str(tmp_path)]) == 0
    assert mine.read_text(encoding="utf-8") == "mine"
    assert files(tmp_path).keys() == files(NOTEBOOKS).keys()
    assert "1 were there and stay" in capsys.readouterr().out

    assert main(["notebooks", str(tmp_path), "--force"]) == 0
    assert json.loads(mine.read_text(encoding="utf-8"))["cells"]
    assert "--force" not in capsys.readouterr().out


@pytest.mark.parametrize("inside", ["", "folder"])
def test_a_file_in_the_place_of_the_folder(tmp_path, capsys, inside):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert main(["notebooks", str(tmp_path / "file" / inside)]) == 2
    assert "file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
