"""Write the address of the repository where readers start from, or take it out again.

    python tools/make_badges.py owner/name    # of a repository on GitHub
    python tools/make_badges.py               # of none; so does an empty name

The name may also stand in the variable REPO. It goes into pyproject.toml, from which others read it, and CITATION.cff.
README.md and every notebook get badges that open them in Colab and in Binder; notebooks also get a first code cell,
which installs what is missing when it runs on Colab. What outputs the notebooks hold stays.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST = "notebooks/00_segment_an_image.ipynb"
TAG = "colab"
BADGES = re.compile(r"^\[!\[Open in Colab\].*\n\n", re.MULTILINE)
CELL = """\
# On Colab, this installs what is missing. Elsewhere it does nothing.
import subprocess
import sys
from importlib.util import find_spec

if "google.colab" in sys.modules and find_spec("diffseg") is None:
    packages = "diffseg[notebooks] @ {address}"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", packages], check=True)"""


def badges(repo: str, path: str) -> str:
    """One line of Markdown that opens a notebook of a repository, "owner/name", in Colab and in Binder."""
    colab = f"https://colab.research.google.com/github/{repo}/blob/main/{path}"
    binder = f"https://mybinder.org/v2/gh/{repo}/main?labpath={path}"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def with_badges(text: str, repo: str, path: str) -> str:
    """Markdown with badges below its title in the place of those that it has; without any if `repo` is empty."""
    title, _, rest = BADGES.sub("", text).partition("\n\n")
    return "\n\n".join([title, badges(repo, path), rest] if repo else [title, rest])


def with_cell(notebook: dict, repo: str) -> None:
    """Put the cell for Colab before the first code cell of a notebook, or take it out, and count the others anew."""
    cells = [cell for cell in notebook["cells"] if TAG not in cell["metadata"].get("tags", [])]
    if repo:
        first = next((index for index, cell in enumerate(cells) if cell["cell_type"] == "code"), len(cells))
        source = CELL.format(address=f"git+https://github.com/{repo}").splitlines(keepends=True)
        ran = 1 if cells[first : first + 1] and cells[first].get("execution_count") else None
        fresh = {"cell_type": "code", "execution_count": ran, "id": TAG, "metadata": {"tags": [TAG]}, "outputs": []}
        cells.insert(first, fresh | {"source": source})
    for count, cell in enumerate((cell for cell in cells if cell["cell_type"] == "code"), start=1):
        for counted in [cell, *cell["outputs"]]:
            if counted.get("execution_count") is not None:
                counted["execution_count"] = count
    notebook["cells"] = cells


def notebook_with(text: str, repo: str, path: str) -> str:
    """The text of a notebook's file with badges and cell, or without."""
    notebook = json.loads(text)
    title = notebook["cells"][0]
    title["source"] = with_badges("".join(title["source"]), repo, path).splitlines(keepends=True)
    with_cell(notebook, repo)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def pyproject_with(text: str, repo: str) -> str:
    """pyproject.toml with the address in [project.urls], or without."""
    text = re.sub(r"^\[project\.urls\]\nRepository = .*\n\n", "", text, flags=re.MULTILINE)
    urls = f'[project.urls]\nRepository = "https://github.com/{repo}"\n\n' if repo else ""
    return text.replace("[project.scripts]\n", f"{urls}[project.scripts]\n", 1)


def citation_with(text: str, repo: str) -> str:
    """CITATION.cff with the address, or without."""
    text = re.sub(r"^repository-code: .*\n", "", text, flags=re.MULTILINE)
    return text + (f"repository-code: https://github.com/{repo}\n" if repo else "")


def write(repo: str, root: Path = ROOT) -> list[str]:
    """Write an address everywhere; returns the files that changed, relative to `root`."""
    edits: dict[str, Callable[[str], str]] = {
        "pyproject.toml": lambda text: pyproject_with(text, repo),
        "CITATION.cff": lambda text: citation_with(text, repo),
        "README.md": lambda text: with_badges(text, repo, FIRST),
    }
    for path in sorted((root / "notebooks").rglob("*.ipynb")):
        name = path.relative_to(root).as_posix()
        edits[name] = lambda text, name=name: notebook_with(text, repo, name)
    changed = []
    for name, edit in edits.items():
        before = (root / name).read_text(encoding="utf-8")
        if (after := edit(before)) != before:
            (root / name).write_text(after, encoding="utf-8", newline="\n")
            changed.append(name)
    return changed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", nargs="?", default=os.environ.get("REPO", ""), help="owner/name; empty: none")
    repo = parser.parse_args(arguments).repo
    if repo and not re.fullmatch(r"[\w-]+/[\w.-]+", repo):
        parser.error(f"REPO={repo!r} is no repository on GitHub; write owner/name, such as octocat/hello")
    for name in write(repo):
        print(f"written: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
