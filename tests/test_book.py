"""The book is built once, without a warning, and read as readers do: in a browser, in both themes, on a phone."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from book_docstrings import as_rest
from descriptions import describe
from formulas import draw
from make_book import Places, find_places, repository, with_links
from make_exercises import is_solution, read_lesson, stub

import diffseg

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
AXE = Path(__file__).parent / "browser" / "axe" / "axe.min.js"
PHONE = 390
KINDS = {
    "first page": "index.html",
    "chapter": "notebooks/04_merging_attention.html",
    "reference": "api/merging.html",
    "glossary": "glossary.html",
    "model": "models/pocket-sd.html",
    "guide": "guides/contributing.html",
    "search": "search.html?q=anchor",
    "index of names": "genindex.html",
    "explorer": "explorer.html",
}
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """The folder of the site, built as `make book` builds it; a warning would end it."""
    out = tmp_path_factory.mktemp("site") / "book"
    command = [sys.executable, "tools/make_book.py", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


# ---- what the files hold ----


@dataclass
class Page(HTMLParser):
    """What a page refers to, and what can be referred to in it.

    Attributes:
        names: of its parts.
        targets: addresses in it.
        undescribed: pictures without words for those who do not see them.
    """

    text: str
    names: set[str] = field(default_factory=set)
    targets: list[str] = field(default_factory=list)
    undescribed: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.names |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag != "base":
            self.targets += [given[key] for key in ("href", "src") if given.get(key)]
        if tag == "img" and not (given.get("alt") or "").strip(" ./"):
            self.undescribed.append(given.get("src", "?"))


def read_pages(folder: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}


def broken(folder: Path) -> list[str]:
    """The addresses within a site that lead nowhere, each with the page that it stands on."""
    pages, found = read_pages(folder.resolve()), []
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            aim = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            named = not parts.fragment or aim not in pages or unquote(parts.fragment) in pages[aim].names
            if not aim.is_file() or not (named or parts.fragment == "top"):
                found.append(f"{path.relative_to(folder.resolve())}: {target}")
    return found


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<p id="x"><a href="#x"></a><a href="b.html#y"></a><img src="no.png" alt="?">')
    (tmp_path / "b.html").write_text(
        '<a href="a.html#x"></a><a href="https://example.org/no"></a><a href="c.html"></a>'
    )
    assert broken(tmp_path) == ["a.html: b.html#y", "a.html: no.png", "b.html: c.html"]


@slow
def test_every_link_leads_somewhere(book):
    assert broken(book) == []


@slow
def test_every_picture_is_described(book):
    assert {str(path): page.undescribed for path, page in read_pages(book).items() if page.undescribed} == {}


@slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_has_all_that_its_notebook_has(book, path):
    page = (book / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
    cells = read_lesson(path).cells
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = sum(any(kind.startswith("image/") for kind in output.get("data", {})) for output in outputs)
    assert len(re.findall(r'<img alt="Figure, ', page)) == pictures
    solved = sum(map(is_solution, cells))
    left_open = sum(
        (stub(cell.source) if is_solution(cell) else cell.source).count("NotImplementedError") for cell in cells
    )
    assert page.count("NotImplementedError") == left_open >= solved
    written = sum(cell.source.count("<summary>Solution</summary>") for cell in cells)
    assert page.count("<summary>Solution</summary>") == written + solved
    assert page.count("<details") == page.count("</details>")
    assert not re.search(r"\$\$|\\(frac|sum|log|mathcal)\b", re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL))


@slow
def test_chapters_stand_in_order(book):
    listed = re.findall(r'href="(notebooks/[^"#]+)\.html"', (book / "index.html").read_text(encoding="utf-8"))
    assert list(dict.fromkeys(listed)) == [f"notebooks/{path.stem}" for path in NOTEBOOKS]


@slow
def test_the_reference_has_every_public_name_and_equation(book):
    names = set().union(*(page.names for path, page in read_pages(book).items() if path.parent.name == "api"))
    assert {f"diffseg.{module}.{name}" for module, public in diffseg._PUBLIC.items() for name in public} <= names
    assert {f"eq-{number}" for number in range(1, 12)} <= names


@slow
def test_every_model_has_a_page(book):
    folders = [path.name for path in (ROOT / "data" / "models").iterdir() if path.is_dir()]
    assert all((book / "models" / f"{name}.html").is_file() for name in folders)


def glossary() -> Iterator[tuple[str, str, str]]:
    """Each term, what is said about it, and the notebook that it names."""
    text = (ROOT / "docs" / "book" / "glossary.md").read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        term, said = section.split("\n", 1)
        said, link = re.fullmatch(
            r"(.*)\[Chapter (?:\d\d|A\d)\]\(\.\./\.\./(notebooks/[^)]+)\)\.", " ".join(said.split())
        ).groups()
        yield term, said, link


def test_the_glossary_is_in_order_short_and_about_the_chapters():
    terms = [term for term, _, _ in glossary()]
    assert terms == sorted(terms, key=str.lower) and len(terms) > 50
    for term, said, link in glossary():
        assert 1 <= len(re.findall(r"[.:](?= |$)", said)) <= 5, term
        cells = nbformat.read(ROOT / link, as_version=4).cells
        text = " ".join(cell.source for cell in cells).lower().replace("\n", " ")
        assert all(word.rstrip("e") in text for word in re.findall(r"[\w-]+", term.lower())), f"{term} is not in {link}"


# ---- how pages are made ----


def test_links_fit_the_book():
    places = find_places()
    known = Places(places.pages, places.aliases, "someone/diffseg")
    text = "[a](../notebooks/05_masks.ipynb#recap) [b](../diffseg/merging.py) [c](../LICENSE) `[d](e.md)` [f](https://x.org)"
    here = partial(with_links, text, "docs/live.md", pictures={})
    kept = "[a](../notebooks/05_masks.ipynb#recap) [b](../api/merging.md) {} `[d](e.md)` [f](https://x.org)"
    unknown = Places(places.pages, places.aliases, None)
    assert here(places=unknown) == kept.format("c")
    assert here(places=known) == kept.format("[c](https://github.com/someone/diffseg/tree/main/LICENSE)")
    pictures = {}
    assert with_links("![x](../../docs/training.png)", "data/models/README.md", places, pictures).startswith("![x](../")
    assert list(pictures) == ["docs/training.png"]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://github.com/some-one/diff.seg", "some-one/diff.seg"),
        ("https://github.com/a/b.git", "a/b"),
        ("https://example.org/a/b", None),
    ],
)
def test_the_repository_is_read_from_one_place(tmp_path, address, name):
    path = tmp_path / "pyproject.toml"
    path.write_text(f'[project]\nname = "x"\n[project.urls]\nRepository = "{address}"\n')
    assert repository(path) == name
    path.write_text('[project]\nname = "x"\n')
    assert repository(path) is None


def test_a_figure_is_described_by_what_its_code_writes():
    code = 'titles = ["one", f"{n} maps"]\nshow_images(some, titles)\nax.set_title(f"{a}")\nax.plot(x, label="τ, nats")'
    assert describe(code, "2. *Whom* to ask?") == "Figure, 2. Whom to ask: one; … maps; τ, nats."
    assert describe("plt.show()", "Recap") == "Figure, Recap."
    assert describe('%matplotlib inline\nax.set_title("one")', "Recap") == "Figure, Recap: one."
    assert (
        describe("plt.show()", "Recap", "## Recap\n\nSee. Here are [three](a.md):") == "Figure, Recap: Here are three."
    )


def test_docstrings_become_what_sphinx_reads():
    lines = [
        "Of Eq. 4 and 5, |x| and side**2.",
        "",
        "    code = a**2",
        "",
        "Returns:",
        "    a: one.",
        "    b: two,",
        "        or 3.",
    ]
    assert as_rest(lines) == [
        r"Of Eq. :ref:`4 <eq-4>` and :ref:`5 <eq-5>`, \|x\| and side\*\*2.",
        *["", "::", "", "    code = a**2", "", "Returns:"],
        *["    Several results, in this order.", "", "    * **a**: one.", "    * **b**: two,", "      or 3."],
    ]


def test_names_of_functions_keep_their_distance():
    assert '</mi><mo lspace="0.17em" rspace="0.17em">log</mo>' in draw(r"P \log Q", "inline")
    assert '<mo lspace="0" rspace="0">exp</mo>' in draw(r"\exp(q)", "inline")


# ---- how pages are read ----


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site(book) -> Iterator[str]:
    """The address of a server with the book."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(book))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@slow
def test_no_page_asks_for_another_computer_has_an_error_or_scrolls_sideways(book, site, open_page):
    widths = {}
    with open_page(f"{site}/index.html", width=PHONE, height=844) as watched:
        for path in sorted(book.rglob("*.html")):
            name = path.relative_to(book).as_posix()
            watched.page.goto(f"{site}/{name}")
            widths[name] = watched.page.evaluate("() => document.documentElement.scrollWidth")
            assert watched.errors == [] and watched.outside == [], name
    assert {name: width for name, width in widths.items() if width > PHONE} == {}


@slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_keeps_people_from_reading(site, open_page, kind, theme):
    """axe-core finds nothing serious or critical, too faint a contrast included."""
    with open_page(f"{site}/{KINDS[kind]}", width=1280, color_scheme=theme) as watched:
        page = watched.page
        page.evaluate("() => document.querySelectorAll('details').forEach((part) => (part.open = true))")
        page.wait_for_function("() => document.getAnimations().length === 0")  # colours fade into those of the theme
        page.add_script_tag(path=AXE)
        found = page.evaluate("() => axe.run({ resultTypes: ['violations'] })")["violations"]
        serious = {
            f"{each['id']}: {node['target']} {node['failureSummary']}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        }
        assert serious == set()
        light = page.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (sum(light[:3]) > 3 * 128) == (theme == "light")
        watched.shoot(f"book_{kind.replace(' ', '_')}_{theme}")


@slow
def test_the_explorer_works_on_the_first_page_opened_as_a_file(book, open_page):
    with open_page((book / "index.html").as_uri(), offline=True) as watched:
        frame = watched.page.frame_locator("iframe.explorer")
        frame.locator("img.diffseg-overlay[src]").wait_for()
        counts = {}
        for key in ("Home", "End"):
            frame.locator("#threshold").press(key)
            counts[key] = int(frame.locator("#said").inner_text().split()[0])
        assert counts["Home"] > counts["End"] >= 1
        frame.locator(".diffseg-canvas").click()
        frame.get_by_text("attends to").last.wait_for()
        assert watched.errors == [] and watched.outside == []


@slow
@pytest.mark.parametrize("width", [1280, 700, PHONE])
def test_the_explorer_fits_its_frame(site, open_page, width):
    with open_page(f"{site}/index.html", width=width) as watched:
        watched.page.frame_locator("iframe.explorer").locator("img.diffseg-overlay[src]").wait_for()
        inner, outer = watched.page.frames[1].evaluate(
            "() => [document.documentElement.scrollHeight, window.innerHeight]"
        )
        assert inner <= outer


@slow
def test_search_finds(site, open_page):
    with open_page(f"{site}/search.html?q=anchor") as watched:
        watched.page.locator("#search-results li a").first.wait_for()
        found = watched.page.locator("#search-results li a").evaluate_all("all => all.map((each) => each.href)")
        assert any("04_merging_attention" in address for address in found)
        assert watched.errors == [] and watched.outside == []
