"""Build the book: a static site of the notebooks as they are stored, of the pages in docs/, and of the docstrings.

    python tools/make_book.py                     # to build/book; open build/book/index.html
    python tools/make_book.py --out DIR           # or somewhere else

No notebook is executed. The pages ask for nothing outside of the site: formulas are MathML, and fonts and scripts are
files of the site. Buttons that open a chapter in Colab or Binder appear once pyproject.toml names the repository, as
`Repository` in [project.urls].
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import nbformat
from book_chapters import chapter
from make_exercises import SOLVED, read_lesson

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "docs" / "book"
PICTURES = {".png", ".jpg", ".jpeg", ".svg", ".gif", ".webp"}
SCENE = 1_000_005  # the picture of the explorer on the first page
EXPLORER = "explorer.html"
# Code, which is left alone, or a link or picture.
LINK = re.compile(r"(```.*?```|`[^`\n]*`)|(!?)\[((?:[^][]|\[[^][]*\])*)\]\(([^)\s]+)\)", re.DOTALL)


# ---- what is in the book, and where ----


@dataclass(frozen=True)
class Places:
    """Which files of the repository are pages of the book.

    Attributes:
        pages: path in the repository -> path in the book's source.
        aliases: paths that are shown on the page of another file.
        repository: "owner/name" on GitHub, or None if it is not known.
    """

    pages: Mapping[str, str]
    aliases: Mapping[str, str]
    repository: str | None = None

    def find(self, path: str) -> str | None:
        """The page in the book's source that shows a path of the repository; None if there is none."""
        module = re.fullmatch(r"diffseg/(\w+)(\.py|/|/__init__\.py)?", path)
        documented = f"docs/book/api/{module[1]}.md" if module else ""
        return next(
            (self.pages[name] for name in (path, self.aliases.get(path), documented) if name in self.pages), None
        )


def repository(pyproject: Path = ROOT / "pyproject.toml") -> str | None:
    """The "owner/name" that pyproject.toml gives as the repository on GitHub, or None."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "")
    named = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", address)
    return named[1] if named else None


def find_places(root: Path = ROOT) -> Places:
    """Everything that becomes a page."""
    book = root / "docs" / "book"
    pages = {str(path.relative_to(root)): str(path.relative_to(book)) for path in sorted(book.rglob("*.md"))}
    pages |= {f"docs/{path.name}": f"guides/{path.name}" for path in sorted((root / "docs").glob("*.md"))}
    pages |= {f"notebooks/{path.name}": f"notebooks/{path.name}" for path in sorted(root.glob("notebooks/*.ipynb"))}
    single = {"CONTRIBUTING.md": "guides/contributing.md", "CHANGELOG.md": "guides/changelog.md"}
    single |= {"data/models/README.md": "models/index.md"}
    pages |= {name: page for name, page in single.items() if (root / name).exists()}
    cards = sorted(root.glob("data/models/*/README.md"))
    pages |= {str(path.relative_to(root)): f"models/{path.parent.name}.md" for path in cards}
    aliases = {f"notebooks/{SOLVED}/{path.name}": f"notebooks/{path.name}" for path in root.glob("notebooks/*.ipynb")}
    aliases |= {"README.md": "docs/book/index.md"}
    aliases |= {str(path.parent.relative_to(root)): str(path.relative_to(root)) for path in cards}
    return Places(
        {name.replace(os.sep, "/"): page.replace(os.sep, "/") for name, page in pages.items()}, aliases, repository()
    )


# ---- Markdown ----


def with_links(text: str, origin: str, places: Places, pictures: dict[str, str]) -> str:
    """Markdown of one file of the repository whose links fit the book.

    A link to what is a page leads to that page, to another file to the code host; if that is not known, its words stay
    and the link goes. Pictures that are shown are added to `pictures`: path in the repository -> path in the source.
    """
    here = PurePosixPath(places.find(origin)).parent

    def fitted(match: re.Match) -> str:
        code, picture, words, target = match.groups()
        if code or re.match(r"[a-z]+:|#", target):
            return match.group()
        name, _, anchor = target.partition("#")
        path = os.path.normpath(PurePosixPath(origin).parent / name).replace(os.sep, "/")
        if PurePosixPath(path).suffix in PICTURES:
            pictures[path] = f"pictures/{path.replace('/', '-')}"
            return f"{picture}[{words}]({os.path.relpath(pictures[path], here)})"
        page = places.find(path)
        if page:
            return f"[{words}]({os.path.relpath(page, here)}{'#' + anchor if anchor else ''})"
        if places.repository:
            kind = "blob" if PurePosixPath(path).suffix else "tree"
            return f"[{words}](https://github.com/{places.repository}/{kind}/main/{path})"
        return words

    return LINK.sub(fitted, text)


def without_front_matter(text: str) -> str:
    """Markdown without the block of settings that a model card begins with."""
    return re.sub(r"\A---\n.*?\n---\n+", "", text, flags=re.DOTALL)


# ---- the source of the book, and the book ----


def write_source(folder: Path, places: Places) -> None:
    """Write everything that Sphinx needs into a folder, but the explorer."""
    shutil.copytree(BOOK, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    pictures: dict[str, str] = {}
    pages = {}
    for name, page in places.pages.items():
        fit = partial(with_links, origin=name, places=places, pictures=pictures)
        if name.endswith(".ipynb"):
            pages[page] = nbformat.writes(chapter(read_lesson(ROOT / name), fit))
        elif page.startswith("models/"):
            pages[page] = fit(without_front_matter((ROOT / name).read_text(encoding="utf-8")))
        else:
            pages[page] = fit((ROOT / name).read_text(encoding="utf-8"))
    pages["models/index.md"] += "\n```{toctree}\n:glob:\n\npocket-*\n```\n"
    for page, text in pages.items():
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text(text, encoding="utf-8")
    for name, picture in pictures.items():
        (folder / picture).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / picture)


def write_explorer(path: Path) -> None:
    """The explorer without Python, on one scene."""
    from diffseg import DiffSegPipeline, widgets
    from diffseg.pocket import scene

    path.parent.mkdir()
    out = DiffSegPipeline.from_pretrained("pocket")(scene(SCENE).image)
    widgets.export(out, path, title="What does a pixel see?")


def build(out: Path) -> int:
    """Build the book; a warning is an error, and then the book that was there stays.

    Returns:
        an exit status: 0 if all is well.
    """
    from sphinx.cmd.build import build_main

    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".book-") as work:
        source, pages = Path(work, "source"), Path(work, "pages")
        write_source(source, find_places())
        write_explorer(source / "extra" / EXPLORER)
        status = build_main(
            ["-q", "-W", "--keep-going", "-n", "-d", str(Path(work, "doctrees")), str(source), str(pages)]
        )
        if status == 0:
            for template in pages.rglob("*webpack-macros.html"):  # of the themes, which is no page
                template.unlink()
            shutil.rmtree(out, ignore_errors=True)
            pages.rename(out)
    return status


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "book", metavar="DIR", help="default: build/book")
    options = parser.parse_args(arguments)
    status = build(options.out)
    if status == 0:
        size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
        print(f"the book is in {options.out}, {size / 1e6:.0f} MB: open {options.out / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
