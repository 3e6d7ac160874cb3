"""The exported page, opened as a file, with the network off."""

import pytest

from diffseg import DiffSegPipeline, widgets
from diffseg.pocket import scene


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    out = DiffSegPipeline.from_pretrained("pocket")(scene(1_000_005).image)
    return widgets.export(out, tmp_path_factory.mktemp("page") / "explorer.html")


def test_the_page_is_small(path):
    assert path.stat().st_size < 8_000_000


@pytest.mark.parametrize("width", [1100, 700, 390])
def test_click_and_threshold_work_without_python(path, open_page, width):
    with open_page(path.as_uri(), width=width, height=1000, offline=True) as watched:
        page = watched.page
        said, canvas = page.locator("#said"), page.locator(".diffseg-canvas")
        page.wait_for_selector("img.diffseg-overlay[src]")
        counts = {}
        slider = page.locator("#threshold")
        slider.focus()
        for key in ("Home", "End"):
            page.keyboard.press(key)
            counts[key] = int(said.inner_text().split()[0])
        assert counts["Home"] > counts["End"]
        page.keyboard.press("Home")
        for _ in range(15):
            page.keyboard.press("ArrowRight")

        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.35 * box["height"])
        page.wait_for_function("() => document.querySelector('.diffseg-canvas').dataset.lit !== '-1'")
        assert canvas.locator(".diffseg-name").inner_text().startswith("segment")
        watched.shoot(f"page_{width}")

        def overlay():
            return page.locator(".diffseg-overlay").get_attribute("src")

        seen = {overlay()}
        for x, y in ((0.5, 0.35), (0.62, 0.6)):
            before = overlay()
            page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
            page.wait_for_function(
                "(before) => document.querySelector('.diffseg-overlay').getAttribute('src') !== before", arg=before
            )
            seen.add(overlay())
        assert len(seen) == 3 and "attends to" in said.inner_text()
        watched.shoot(f"page_{width}_attention")
        canvas.focus()
        before = overlay()
        page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("Enter")
        page.wait_for_function(
            "(before) => document.querySelector('.diffseg-overlay').getAttribute('src') !== before", arg=before
        )
        page.get_by_role("button", name="All segments").click()
        assert "at a threshold" in said.inner_text()
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
        assert watched.errors == [] and watched.outside == []
