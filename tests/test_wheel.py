"""The package as `pip install` brings it: a wheel in an environment that has its dependencies, and no checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import make_badges
import nbformat
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
MEGABYTES = 50  # of the wheel, at most; most of it weights

#: What a Colab kernel has, and nothing else has, then the first cell of a notebook. Printed: where diffseg is.
COLAB = """
import sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
{cell}
import diffseg
print(diffseg.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel that a release holds."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out], cwd=ROOT, check=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Of an environment that has all packages of this one but diffseg; to download gigabytes would prove no more."""
    folder = tmp_path_factory.mktemp("environment with a space")
    venv.create(folder / "venv", with_pip=True)
    packages = folder / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.suffix != ".pth" and not entry.name.lower().startswith(("diffseg", "_diffseg", "pip")):
            (packages / entry.name).symlink_to(entry)
    inside = sysconfig.get_path("purelib", "venv", {"base": str(folder / "venv")})
    (Path(inside) / "packages.pth").write_text(f"{packages}\n", encoding="utf-8")
    python = folder / "venv/bin/python"
    # Python 3.11 brings one of its own, an old one.
    run([python, "-m", "pip", "uninstall", "--yes", "setuptools"], folder)
    return python


def run(command: list, folder: Path) -> str:
    """Run a command far from the checkout; returns what it printed."""
    alone = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DIFFSEG_MODEL")}
    done = subprocess.run(command, cwd=folder, env=alone | {"PIP_NO_INDEX": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(python, wheel, tmp_path_factory) -> Path:
    """The environment after a notebook's first cell has run there, as on Colab."""
    folder = tmp_path_factory.mktemp("colab")
    cell = make_badges.CELL.format(address=wheel.as_uri())
    before = subprocess.run([python, "-c", "import diffseg"], cwd=folder, capture_output=True, text=True)
    assert "No module named 'diffseg'" in before.stderr
    where = Path(run([python, "-c", COLAB.format(cell=cell)], folder).strip().splitlines()[-1])
    assert where.is_relative_to(python.parent.parent)
    return python


def test_it_is_small_and_whole(wheel):
    assert wheel.stat().st_size < MEGABYTES * 1e6
    stated = re.search(r"wheel of (\d+) MB", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert wheel.stat().st_size / 1e6 == pytest.approx(int(stated[1]), abs=1)
    names = zipfile.ZipFile(wheel).namelist()
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / "diffseg").rglob("*.py")]
    modules += [path.relative_to(ROOT).as_posix() for path in (ROOT / "diffseg/widgets").rglob("*.js")]
    data = [f"diffseg/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "data").rglob("*") if path.is_file()]
    lessons = [f"diffseg/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "notebooks").rglob("*.ipynb")]
    assert {*modules, *data, *lessons} <= {*names}
    assert not [name for name in names if name.startswith(("tests", "tools", "build")) or "__pycache__" in name]


@pytest.mark.slow
def test_a_picture_is_segmented(installed, tmp_path):
    picture = Image.open(ROOT / "docs/segmentation.png").convert("RGB").crop((0, 0, 200, 200))
    picture.save(tmp_path / "picture.png")
    run([installed.with_name("diffseg"), "segment", "picture.png", "--out", "masks", "--size", "256"], tmp_path)
    assert [*(tmp_path / "masks").rglob("*.png")] and [*(tmp_path / "masks").rglob("*.json")]


@pytest.mark.slow
def test_the_notebooks_are_copied_and_run(installed, tmp_path):
    run([installed.with_name("diffseg"), "notebooks", "lessons"], tmp_path)
    first = tmp_path / "lessons/00_segment_an_image.ipynb"
    command = ["-m", "nbconvert", "--execute", "--to", "notebook", "--output", "run.ipynb", first]
    run([installed, *command], tmp_path)
    for cell in nbformat.read(first.with_name("run.ipynb"), as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.execution_count is not None
            assert not [output for output in cell.outputs if output.output_type == "error"]
