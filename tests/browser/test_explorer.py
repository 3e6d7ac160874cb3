"""The explorer of notebook 11, as a reader meets it: in JupyterLab, with mouse and keyboard."""

import json
import re
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import TimeoutError

from diffseg import DiffSegPipeline
from diffseg.pocket import scene

SEGMENTS = re.compile(r"(\d+) segments? at")


class Explorer:
    """What a test does to the explorer, and what it finds there."""

    def __init__(self, watched, folder):
        self.watched, self.page, self.folder = watched, watched.page, folder
        self.box = self.page.locator(".diffseg-explorer")
        self.canvas = self.box.locator(".diffseg-canvas", has=self.page.locator(".diffseg-stage")).last
        self.said = self.box.locator(".diffseg-said")
        self.code = self.box.locator(".diffseg-code")

    def picture(self):
        """The large picture: the small ones of the resolutions come after it."""
        return self.box.locator(".diffseg-canvas[aria-label]").nth(1)

    def press(self, name):
        self.box.get_by_role("button", name=re.compile(re.escape(name) + "$")).click()  # an icon may stand before it

    def upload(self, path):
        with self.page.expect_file_chooser() as chooser:
            self.box.locator(".widget-upload").click()
        chooser.value.set_files(path)

    def at(self, x, y, **options):
        """Click on the picture, at a place from 0 to 1."""
        box = self.picture().locator(".diffseg-stage").bounding_box()
        self.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if options.get("hover"):
            return
        for key in options.get("keys", ()):
            self.page.keyboard.down(key)
        self.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        for key in options.get("keys", ()):
            self.page.keyboard.up(key)

    def segments(self):
        return int(SEGMENTS.search(self.said.inner_text())[1])

    def source(self):
        """The overlay that is shown; a new one has a new address."""
        return self.picture().locator(".diffseg-overlay").get_attribute("src")

    def message(self):
        return self.picture().locator(".diffseg-message")

    @contextmanager
    def changes(self, what=None):
        """Whatever is done within changes the sentence below the picture."""
        before = self.said.inner_text()
        yield
        self.page.wait_for_function(
            "([before]) => document.querySelector('.diffseg-said').innerText !== before", arg=[before]
        )
        self.settle()

    def settle(self):
        """All that was sent has been answered, and is drawn."""
        self.page.wait_for_function("() => !document.querySelector('.diffseg-explorer .diffseg-busy')")
        self.page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
        )
        self.page.wait_for_timeout(300)

    def everything(self):
        """Back to all segments."""
        self.press("Segment everything")
        self.page.wait_for_function("() => / at a threshold/.test(document.querySelector('.diffseg-said').innerText)")
        self.settle()


@pytest.fixture(scope="module")
def explorer(lab, open_page):
    with open_page(lab.address("11_explore.ipynb"), height=1300) as watched:
        watched.run(2)
        watched.page.wait_for_selector(".diffseg-explorer img.diffseg-picture[src]")
        explorer = Explorer(watched, lab.folder)
        explorer.settle()
        explorer.box.scroll_into_view_if_needed()
        yield explorer


@pytest.fixture(autouse=True)
def no_trouble(explorer):
    """Nothing goes to the console, and nothing is asked of other computers."""
    if not SEGMENTS.search(explorer.said.inner_text()):
        explorer.everything()
    yield
    assert explorer.watched.errors == [] and explorer.watched.outside == []


def test_segments_light_up_under_the_pointer_without_python(explorer):
    picture = explorer.picture()
    found = set()
    for x, y in ((0.1, 0.1), (0.5, 0.4), (0.3, 0.9)):
        explorer.at(x, y, hover=True)
        explorer.page.wait_for_function(f"() => {picture_script()}.dataset.lit !== '-1'")
        name = picture.locator(".diffseg-name").inner_text()
        assert re.fullmatch(r"segment \d+ · \d+%", name)
        found.add((picture.get_attribute("data-lit"), name))
    assert len(found) > 1
    explorer.watched.shoot("explorer_hover", explorer.box)


def picture_script():
    return "document.querySelectorAll('.diffseg-explorer .diffseg-canvas[aria-label]')[1]"


def test_a_click_shows_another_map(explorer):
    with explorer.changes():
        explorer.at(0.3, 0.2)
    first = explorer.source()
    small = explorer.box.locator(".diffseg-small-title").all_inner_texts()
    assert small == ["64 × 64", "32 × 32", "16 × 16", "8 × 8"]
    with explorer.changes():
        explorer.at(0.65, 0.6)
    assert explorer.source() != first
    explorer.watched.shoot("explorer_attention", explorer.box)
    explorer.everything()


def test_dragging_the_threshold_changes_the_number_of_segments(explorer):
    before = explorer.segments()
    handle = explorer.box.locator(".widget-slider", has_text="threshold").locator(".noUi-handle")
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    explorer.page.mouse.move(x, y)
    explorer.page.mouse.down()
    with explorer.changes():
        explorer.page.mouse.move(x - 40, y, steps=8)
    explorer.page.mouse.up()
    explorer.settle()
    assert explorer.segments() > before
    explorer.press("Undo")  # one step for the whole movement
    explorer.settle()
    assert explorer.segments() == before


def test_clicks_select_an_object_and_take_away(explorer):
    explorer.press("Object")
    explorer.settle()
    with explorer.changes():
        explorer.at(0.62, 0.6)
    with explorer.changes():
        explorer.at(0.5, 0.35)
    with explorer.changes():
        explorer.at(0.3, 0.85, keys=["Shift"])
    marks = explorer.picture().locator(".diffseg-points")
    assert (marks.locator(".diffseg-positive").count(), marks.locator(".diffseg-negative").count()) == (2, 1)
    explorer.watched.shoot("explorer_object", explorer.box)
    explorer.everything()


def test_words_give_the_segments_names(explorer):
    words = explorer.box.get_by_placeholder("dog, grass")
    words.fill("tree, dog, snow, forest")
    words.press("Enter")
    explorer.page.wait_for_function("() => /dog · /.test(document.querySelector('.diffseg-legend')?.innerText)")
    explorer.settle()
    assert set(re.findall(r"(\w+) · ", explorer.box.locator(".diffseg-legend").inner_text())) <= {
        "tree", "dog", "snow", "forest"
    }  # fmt: skip
    explorer.watched.shoot("explorer_words", explorer.box)
    words.fill("")
    words.press("Enter")
    explorer.page.wait_for_function("() => /segment 0/.test(document.querySelector('.diffseg-legend')?.innerText)")
    explorer.settle()


def test_two_settings_side_by_side(explorer):
    explorer.press("Compare")
    explorer.settle()
    explorer.press("Keep as A")
    explorer.page.wait_for_function("() => /differ on 0.0%/.test(document.querySelector('.diffseg-said').innerText)")
    explorer.box.locator(".widget-slider", has_text="threshold").locator(".noUi-handle").focus()
    with explorer.changes():
        for _ in range(15):
            explorer.page.keyboard.press("ArrowLeft")
    assert "differ on" in explorer.said.inner_text()
    explorer.watched.shoot("explorer_compare", explorer.box)
    explorer.press("Undo")
    explorer.settle()
    explorer.everything()


def test_an_upload_that_is_no_picture_is_named_and_all_goes_on(explorer, tmp_path):
    (tmp_path / "letter.png").write_text("Dear reader", encoding="utf-8")
    explorer.upload(tmp_path / "letter.png")
    explorer.message().wait_for()
    assert "letter.png could not be read as a picture" in explorer.message().inner_text()
    explorer.watched.shoot("explorer_error", explorer.box)
    with explorer.changes():
        explorer.at(0.3, 0.3)
    assert explorer.message().is_hidden()
    explorer.everything()


def test_pictures_are_uploaded_dropped_and_pasted(explorer, tmp_path):
    for seed in (1_000_020, 1_000_021, 1_000_022):
        scene(seed, 256).image.save(tmp_path / f"{seed}.png")
    before = explorer.picture().locator(".diffseg-picture").get_attribute("src")

    def arrives(name):
        explorer.page.wait_for_function(
            "(name) => document.querySelector('.diffseg-code').innerText.includes(name)", arg=name
        )
        explorer.settle()

    explorer.upload(tmp_path / "1000020.png")
    arrives("1000020.png")
    assert explorer.picture().locator(".diffseg-picture").get_attribute("src") != before
    for seed, event in ((1_000_021, "drop"), (1_000_022, "paste")):
        content = list((tmp_path / f"{seed}.png").read_bytes())
        explorer.picture().evaluate(
            """(canvas, [content, name, event]) => {
                const held = new DataTransfer();
                held.items.add(new File([new Uint8Array(content)], name, { type: "image/png" }));
                const options = { bubbles: true, cancelable: true };
                canvas.dispatchEvent(event === "drop" ? new DragEvent("drop", { ...options, dataTransfer: held })
                    : new ClipboardEvent("paste", { ...options, clipboardData: held }));
            }""",
            [content, f"{seed}.png", event],
        )
        arrives(f"{seed}.png")
    explorer.press("Undo")
    arrives("1000021.png")


def test_saved_files_hold_what_the_code_gives(explorer):
    seed = explorer.box.locator(".widget-text", has_text="scene").locator("input")
    seed.fill("1000005")
    explorer.press("Draw")
    explorer.page.wait_for_function(
        "() => document.querySelector('.diffseg-code').innerText.includes('scene(1000005)')"
    )
    explorer.settle()
    explorer.press("Show me the code")
    explorer.code.wait_for()
    explorer.watched.shoot("explorer_code", explorer.box)
    names = {}
    exec(explorer.code.inner_text(), names)
    explorer.press("Save")
    explorer.message().wait_for()
    assert explorer.message().inner_text().startswith("Saved ")
    saved = explorer.folder / "explored"
    labels = np.asarray(Image.open(saved / "scene 1000005.labels.png")).astype(int) - 1
    assert isinstance(names["pipe"], DiffSegPipeline) and np.array_equal(labels, names["out"].labels)
    about = json.loads((saved / "scene 1000005.json").read_text(encoding="utf-8"))
    assert len(about["segments"]) == labels.max() + 1
    assert Image.open(saved / "scene 1000005.overlay.png").size == (512, 512)
    explorer.press("Show me the code")


def test_the_keyboard_alone_does_all_of_it(explorer):
    page = explorer.page

    def tab_to(script, key="Tab"):
        for _ in range(60):
            if page.evaluate(f"() => {{ const here = document.activeElement; return Boolean({script}); }}"):
                return
            page.keyboard.press(key)
        raise AssertionError(f"Tab does not lead to {script}")

    explorer.box.locator(".widget-text", has_text="scene").locator("input").focus()
    tab_to("here.matches('.widget-upload')")
    for last in (
        False,
        False,
        True,
    ):
        try:
            with page.expect_file_chooser(timeout=10_000):
                page.keyboard.press("Enter")
            break
        except TimeoutError:
            if last:
                raise
    tab_to("here.innerText === 'Attention'")
    page.keyboard.press("Enter")
    explorer.settle()
    tab_to("here.matches('.diffseg-canvas')")
    with explorer.changes():
        for _ in range(3):
            page.keyboard.press("Shift+ArrowUp")
        page.keyboard.press("Enter")
    explorer.watched.shoot("explorer_keyboard", explorer.box)
    tab_to("here.innerText === 'Object'", "Shift+Tab")
    page.keyboard.press("Enter")
    explorer.settle()
    tab_to("here.matches('.diffseg-canvas')")
    with explorer.changes():
        page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+Enter")
    explorer.settle()
    assert explorer.picture().locator(".diffseg-negative").count() == 1
    page.keyboard.press("Delete")
    explorer.settle()
    assert explorer.picture().locator(".diffseg-negative").count() == 0
    tab_to("here.innerText.trim() === 'Segment everything'", "Shift+Tab")
    with explorer.changes():
        page.keyboard.press("Enter")
    before = explorer.segments()
    tab_to("here.matches('.noUi-handle')")  # the first one is the threshold
    with explorer.changes():
        for _ in range(20):
            page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "(before) => !document.querySelector('.diffseg-said').innerText.startsWith(before)", arg=f"{before} segment"
    )
    tab_to("here.placeholder?.startsWith('dog, grass')")
    page.keyboard.type("sky, grass")
    page.keyboard.press("Enter")
    page.wait_for_function("() => /(sky|grass) · /.test(document.querySelector('.diffseg-legend')?.innerText)")
    tab_to("here.innerText.trim() === 'Save'")
    page.keyboard.press("Enter")
    explorer.message().wait_for()
    assert page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets.length") > 10  # no cell was cut


def test_it_is_readable_in_a_narrow_window(explorer):
    explorer.page.set_viewport_size({"width": 700, "height": 1500})
    explorer.page.wait_for_timeout(500)
    outer = explorer.box.bounding_box()
    for part in explorer.box.locator(".widget-slider, .widget-text, button, .diffseg-canvas").all():
        if part.is_visible() and (box := part.bounding_box()):
            assert box["x"] + box["width"] <= outer["x"] + outer["width"] + 2
    explorer.box.scroll_into_view_if_needed()
    explorer.watched.shoot("explorer_narrow", explorer.box)
    explorer.page.set_viewport_size({"width": 1100, "height": 1300})
