"""The slides in a window of 1280 x 720: nothing leaves a slide, and nothing is fetched."""

import shutil

import make_slides
import nbformat
import pytest
from helpers_browser import ROOT
from make_exercises import NOTEBOOKS

REVEAL = ROOT / "build" / "reveal"
#: What sticks out of the slide that is shown, by more than a pixel.
OUTSIDE = """() => [...Reveal.getCurrentSlide().querySelectorAll("*")].filter((part) => {
    const box = part.getBoundingClientRect();
    return box.width && (box.left < -1 || box.top < -1 || box.right > 1281 || box.bottom > 721);
}).map((part) => part.tagName + " " + part.textContent.slice(0, 60))"""


@pytest.mark.skipif(not (REVEAL / "package").exists() and not shutil.which("npm"), reason="npm is not installed")
@pytest.mark.parametrize("name", make_slides.selections())
def test_every_slide_fits(name, open_page, tmp_path):
    slides = make_slides.selections()[name]
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    path = tmp_path / f"{name}.html"
    path.write_text(make_slides.page(notebook, slides, make_slides.fetch_reveal(REVEAL)), encoding="utf-8")
    with open_page(path.as_uri(), width=1280, height=720) as watched:
        watched.page.wait_for_function("() => window.Reveal?.isReady()")
        assert watched.page.evaluate("Reveal.getTotalSlides()") == len(slides)
        for number in range(len(slides)):
            watched.page.evaluate(f"Reveal.slide({number})")
            watched.page.wait_for_function("() => [...document.images].every((image) => image.complete)")
            assert watched.page.evaluate(OUTSIDE) == [], f"slide {number + 1}"
            heights = watched.page.evaluate(
                "() => [...Reveal.getCurrentSlide().querySelectorAll('img')].map((image) => image.clientHeight)"
            )
            assert all(height > 200 for height in heights), f"the picture on slide {number + 1} is too small"
            watched.shoot(f"slides_{name[:2]}_{number + 1:02}")
        assert not watched.errors and not watched.outside
