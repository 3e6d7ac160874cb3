"""Make slides of notebooks: reveal.js pages that need no network, out of what slides.toml selects.

    python tools/make_slides.py build/slides        # of the notebooks in slides.toml

Text, figures and printed lines come from the notebooks and their stored outputs; nothing is run. Code is shown only
where slides.toml names it. The script and the style of reveal.js go into each page; `npm` fetches them once.
"""

import argparse
import html
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

import nbformat
from make_exercises import NOTEBOOKS
from nbconvert.filters import Highlight2HTML, markdown2html
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter
from run_notebooks import with_formulas

REVEAL = "reveal.js@5.2.1"
HERE = Path(__file__).resolve().parent
CODE = "code"
PICTURES = ("image/png", "image/jpeg")
LINK = re.compile(r"\[([^]]+)\]\((?!https?:)[^)]*\)")  # to a file that does not lie beside the slides
WIDE = 96  # signs of a line of code that fit in its usual size
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script>
{script}
</script>
<script>
Reveal.initialize({{
  width: 1280, height: 720, margin: 0, center: false, transition: "none",
  hash: true, slideNumber: true, controls: false,
}});
</script>
</body>
</html>
"""


class Deck:
    """The cells of a notebook, by their ids, and the heading that each stands under."""

    def __init__(self, notebook: NotebookNode) -> None:
        self.cells = {cell.id: cell for cell in notebook.cells}
        self.order = list(self.cells)

    def title(self, parts: Sequence[str]) -> str:
        """The heading above the first part of a slide."""
        cell, _, words = parts[0].partition(" | ")
        self.find(parts[0])
        heading = ""
        for each in self.order:
            for block in blocks(self.cells[each].source) if self.cells[each].cell_type == "markdown" else []:
                if each == cell and words and block.startswith(words):
                    return heading
                if block.startswith("#"):
                    heading = block.lstrip("# ")
            if each == cell:
                return heading
        return heading

    def find(self, part: str) -> tuple[NotebookNode, str]:
        """The cell of a part, and its text: of a Markdown cell a block or all of them; "" for outputs of code.

        Raises:
            KeyError: if the notebook has no such cell, or the cell no such block.
        """
        number, _, words = part.partition(" | ")
        if number not in self.cells:
            raise KeyError(f"slides.toml names the cell {number!r}, which is not there")
        cell = self.cells[number]
        if cell.cell_type == CODE:
            return cell, cell.source if words == CODE else ""
        found = [block for block in blocks(cell.source) if block.startswith(words) and not block.startswith("#")]
        if not found:
            raise KeyError(f"slides.toml: no paragraph of the cell {number!r} begins with {words!r}")
        return cell, found[0] if words else "\n\n".join(found)

    def slide(self, parts: Sequence[str], first: bool) -> str:
        """One slide as HTML."""
        title = self.title(parts)
        body = "\n".join(piece for part in parts for piece in self.pieces(part, title))
        kinds = {"title": first, "words": 'class="picture"' not in body}
        names = " ".join(kind for kind, holds in kinds.items() if holds)
        return f'<section class="{names}">\n<h2>{markdown(title)}</h2>\n{body}\n</section>'

    def pieces(self, part: str, title: str) -> list[str]:
        """A part as pieces of HTML."""
        cell, text = self.find(part)
        if cell.cell_type != CODE:
            return ["<div>" + markdown2html(with_formulas(LINK.sub(r"\1", text))) + "</div>"]
        if text:
            wide = max(map(len, text.splitlines())) > WIDE
            return [f'<div class="{"wide" * wide}">{Highlight2HTML()(text)}</div>']
        return [piece for output in cell.outputs for piece in shown(output, title)]


def blocks(source: str) -> list[str]:
    """The paragraphs, lists, formulas and headings of a Markdown text: what blank lines part."""
    return [block.strip("\n") for block in source.split("\n\n") if block.strip()]


def markdown(line: str) -> str:
    """One line of Markdown, without the paragraph around it."""
    return markdown2html(with_formulas(line)).strip().removeprefix("<p>").removesuffix("</p>")


def shown(output: NotebookNode, title: str) -> list[str]:
    """An output as HTML: a picture, or what was printed."""
    if output.output_type == "stream":
        return [f'<pre class="printed">{html.escape(output.text.rstrip())}</pre>'] if output.name == "stdout" else []
    data = output.get("data", {})
    for kind in PICTURES:
        if kind in data:
            source = f"data:{kind};base64,{data[kind].strip()}"
            return [f'<div class="picture"><img src="{source}" alt="{html.escape(f"Figure: {title}")}"></div>']
    return []


def page(notebook: NotebookNode, slides: Sequence[Sequence[str]], reveal: Path) -> str:
    """The page of one notebook."""
    deck = Deck(notebook)
    code = HtmlFormatter(style="friendly", nobackground=True).get_style_defs(".highlight")
    style = [(reveal / "dist" / name).read_text(encoding="utf-8") for name in ("reset.css", "reveal.css")]
    return PAGE.format(
        title=html.escape(deck.title(slides[0])),
        style="\n".join([*style, code, (HERE / "slides.css").read_text(encoding="utf-8")]),
        slides="\n".join(deck.slide(parts, first=not number) for number, parts in enumerate(slides)),
        script=(reveal / "dist" / "reveal.js").read_text(encoding="utf-8"),
    )


def selections() -> dict[str, list[list[str]]]:
    """Name of a notebook -> its slides -> their parts."""
    return tomllib.loads((HERE / "slides.toml").read_text(encoding="utf-8"))


def fetch_reveal(folder: Path) -> Path:
    """The npm package reveal.js, unpacked; fetched if it is not there.

    Raises:
        FileNotFoundError: if it is not there, and there is no npm.
        subprocess.CalledProcessError: if npm cannot get it.
    """
    package = folder / "package"
    if not (package / "dist" / "reveal.js").is_file():
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError(f"npm is not installed, which fetches {REVEAL}. Install Node.js.")
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "pack", "--silent", REVEAL], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(folder.glob("reveal.js-*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
    return package


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    reveal = fetch_reveal(HERE.parent / "build" / "reveal")
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, slides in selections().items():
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        path = options.folder / f"{name}.html"
        path.write_text(page(notebook, slides, reveal), encoding="utf-8")
        print(f"{path}: {len(slides)} slides")
    return 0


if __name__ == "__main__":
    sys.exit(main())
