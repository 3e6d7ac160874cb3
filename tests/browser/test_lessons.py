"""The widget of every lesson, as a reader meets it: in JupyterLab, with mouse and keyboard.

Each notebook here holds the lesson's own cells, those that its widget needs, so that it opens quickly.
"""

import ast
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
WAIT = 240_000  # milliseconds: beside another program a pass of the model takes long


def names_in(cell) -> tuple[set[str], set[str]]:
    """The names that a cell reads, and those that it defines."""
    nodes = list(ast.walk(ast.parse(cell.source)))
    read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    made = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    made |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            made |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return read, made


def cells_for(notebook, name: str) -> list:
    """The cell with this id, and before it the cells that define what it needs."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    end = [cell.id for cell in code].index(name)
    chosen, needed = [code[end]], names_in(code[end])[0]
    for cell in reversed(code[:end]):
        read, made = names_in(cell)
        if made & needed:
            chosen.append(cell)
            needed = (needed - made) | read
    return chosen[::-1]


class Lesson:
    """A widget on its page, and what a test does to it."""

    def __init__(self, watched):
        self.watched, self.page = watched, watched.page
        self.panel = self.page.locator(".diffseg-lesson").last
        self.said = self.panel.locator(".diffseg-said")

    def canvas(self, number=0):
        return self.panel.locator(".diffseg-canvas").nth(number)

    def picture(self, number=0):
        return self.canvas(number).locator(".diffseg-picture")

    def handle(self, description):
        """The handle of a slider."""
        slider = self.panel.locator(".widget-slider", has=self.page.get_by_text(description, exact=True))
        return slider.locator(".noUi-handle")

    def point(self, x, y, number=0):
        box = self.canvas(number).locator(".diffseg-stage").bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def drag(self, start, end, number=0):
        self.page.mouse.move(*self.point(*start, number))
        self.page.mouse.down()
        self.page.mouse.move(*self.point(*end, number), steps=4)
        self.page.mouse.up()

    def press(self, *keys, number=0):
        """Keys on a canvas that has the focus."""
        self.canvas(number).focus()
        for key in keys:
            self.page.keyboard.press(key)

    def ask_by_mouse_and_keys(self, place, *keys):
        """A click on the picture, then keys: each changes what is said, the click also the picture beside it."""
        with self.says_something_else(), self.shows_something_else(1):
            self.page.mouse.click(*self.point(*place))
        with self.says_something_else():
            self.press(*keys)

    @contextmanager
    def says_something_else(self):
        """Whatever is done within changes the sentence, and what the picture says to those who cannot see it."""
        before = self.said.inner_text()
        yield
        expect(self.said).not_to_have_text(before, timeout=WAIT)
        self.settle()

    @contextmanager
    def shows_something_else(self, number):
        """Whatever is done within changes a picture."""
        before = self.picture(number).get_attribute("src")
        yield
        expect(self.picture(number)).not_to_have_attribute("src", before, timeout=WAIT)

    def settle(self):
        """All that was sent has been answered."""
        expect(self.panel.locator(".diffseg-busy")).to_have_count(0, timeout=WAIT)


@pytest.fixture
def opened(lab, open_page):
    """Open the widget of a lesson: `with opened("05_masks", "05-live-widget") as lesson`."""

    @contextmanager
    def open_lesson(stem: str, cell: str):
        notebook = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4)
        notebook.cells = cells_for(notebook, cell)
        for each in notebook.cells:
            each.outputs, each.execution_count = [], None
        nbformat.write(notebook, lab.folder / f"{cell}.ipynb")
        with open_page(lab.address(f"{cell}.ipynb"), width=1280, height=1000) as watched:
            watched.run()
            lesson = Lesson(watched)
            lesson.picture().wait_for(timeout=WAIT)
            lesson.panel.scroll_into_view_if_needed()
            expect(lesson.said).not_to_be_empty()
            lesson.settle()
            yield lesson
            watched.page.mouse.move(1, 1)
            watched.shoot(f"lesson_{cell.removesuffix('-widget')}", lesson.panel)
            assert watched.errors == [] and watched.outside == []

    return open_lesson


def test_00_the_pointer_finds_a_segment_and_its_proposal(opened):
    with opened("00_segment_an_image", "00-live-widget") as lesson:
        lesson.page.mouse.move(*lesson.point(0.1, 0.1))
        with lesson.says_something_else(), lesson.shows_something_else(1):
            lesson.page.mouse.move(*lesson.point(0.5, 0.9))
        assert lesson.canvas().locator(".diffseg-name").is_visible()
        with lesson.says_something_else():
            lesson.press(*["Shift+ArrowUp"] * 6)


def test_00_a_click_shows_the_map_of_the_pixel(opened):
    with opened("00_segment_an_image", "00-click-widget") as lesson:
        lesson.ask_by_mouse_and_keys((0.2, 0.2), "Shift+ArrowRight", "Shift+ArrowDown", "Enter")


def test_01_a_click_asks_every_layer_and_a_click_on_a_layer_its_heads(opened):
    with opened("01_hooking_attention", "01-live-widget") as lesson:
        lesson.ask_by_mouse_and_keys((0.2, 0.2), "Shift+ArrowRight", "Shift+ArrowDown", "Enter")
        lesson.watched.shoot("lesson_01-all", lesson.panel)
        with lesson.says_something_else():
            lesson.page.mouse.click(*lesson.point(0.1, 0.9, 1))
        expect(lesson.said).to_contain_text("head 2")
        with lesson.says_something_else():
            lesson.panel.locator("select").select_option(index=0)
        with lesson.says_something_else():
            lesson.panel.locator("select").select_option(index=2)


def test_02_heads_of_a_layer_at_a_pixel(opened):
    with opened("02_do_heads_agree", "02-live-widget") as lesson:
        lesson.ask_by_mouse_and_keys((0.5, 0.8), "Shift+ArrowUp", "Enter")
        with lesson.says_something_else():
            lesson.panel.locator("select").select_option(index=9)
        assert lesson.panel.locator("table").is_visible()


def test_03_sliders_weigh_the_resolutions(opened):
    with opened("03_aggregating_attention", "03-live-widget") as lesson:
        with lesson.shows_something_else(1):
            lesson.page.mouse.click(*lesson.point(0.2, 0.8))
        for description in ("64 x 64", "16 x 16"):
            with lesson.says_something_else():
                lesson.handle(description).focus()
                lesson.page.keyboard.press("End" if description == "16 x 16" else "Home")
        with lesson.says_something_else():
            lesson.panel.get_by_role("button", name="by resolution (code)").click()


def test_04_bars_are_dragged(opened):
    with opened("04_merging_attention", "04-live-widget") as lesson:
        with lesson.says_something_else(), lesson.shows_something_else(0):
            lesson.drag((0.06, 0.4), (0.06, 0.8))
        with lesson.says_something_else():
            lesson.press("Enter", "Shift+ArrowUp", "Enter")
        with lesson.says_something_else():
            lesson.panel.get_by_role("button", name="swap p and q").click()


def test_04_passes_and_threshold(opened):
    with opened("04_merging_attention", "04-steps-widget") as lesson:
        for times in range(3):
            with lesson.says_something_else():
                lesson.handle("pass").focus()
                lesson.page.keyboard.press("ArrowRight")
            lesson.watched.shoot(f"lesson_04-pass-{times + 1}", lesson.panel)
        expect(lesson.said).to_contain_text("After pass 3")
        with lesson.says_something_else():
            lesson.handle("threshold").focus()
            lesson.page.keyboard.press("ArrowLeft")


def test_05_the_line_follows_the_pointer(opened):
    with opened("05_masks", "05-live-widget") as lesson:
        with lesson.says_something_else():
            lesson.page.mouse.move(*lesson.point(0.3, 0.6))
        with lesson.says_something_else():
            lesson.press(*["ArrowRight"] * 4)
        chart = lesson.panel.locator("svg[role=img]")
        before = chart.get_attribute("aria-label")
        lesson.panel.get_by_role("button", name="down").click()
        lesson.page.wait_for_timeout(500)
        assert chart.is_visible() and before


def test_06_words_are_typed(opened):
    with opened("06_adding_semantics", "06-live-widget") as lesson:
        field = lesson.panel.locator("input[type=text]")
        with lesson.says_something_else(), lesson.shows_something_else(1):
            field.fill("dog, snow, tree, sky")
            field.press("Enter")
        field.fill("dog, dog")
        field.press("Enter")
        message = lesson.canvas().locator(".diffseg-message")
        expect(message).to_contain_text("different words", timeout=WAIT)
        with lesson.says_something_else():
            field.fill("car, road")
            field.press("Enter")
        expect(message).to_be_hidden(timeout=WAIT)


def test_07_three_knobs(opened):
    with opened("07_baselines", "07-live-widget") as lesson:
        for description, key in (("eps", "ArrowRight"), ("k", "ArrowLeft"), ("threshold", "ArrowLeft")):
            with lesson.says_something_else():
                lesson.handle(description).focus()
                lesson.page.keyboard.press(key)


def test_08_four_numbers(opened):
    with opened("08_hyperparameters", "08-live-widget") as lesson:
        for description in ("threshold", "passes N", "anchors M", "time step t"):
            with lesson.says_something_else():
                lesson.handle(description).focus()
                lesson.page.keyboard.press("ArrowLeft")
        expect(lesson.said).to_contain_text("t = 200, M = 8, N = 2")


def test_09_borders_are_dragged(opened):
    with opened("09_evaluation", "09-live-widget") as lesson:
        with lesson.says_something_else(), lesson.shows_something_else(1):
            lesson.drag((6 / 24, 0.3), (0.5, 0.3), 1)
        with lesson.says_something_else():
            lesson.press("Enter", "Shift+ArrowRight", "Enter", number=1)
        with lesson.says_something_else():
            lesson.handle("horizon").focus()
            lesson.page.keyboard.press("ArrowLeft")
        assert lesson.panel.locator("table").is_visible()


def test_12_ideas_are_turned(opened):
    with opened("12_beyond", "12-live-widget") as lesson:
        for description in ("rounds", "exponent"):
            with lesson.says_something_else():
                lesson.handle(description).focus()
                lesson.page.keyboard.press("End")
        expect(lesson.said).to_contain_text("40 rounds of refinement")
        assert lesson.panel.locator("b").count() == 2  # the bars of two scores


def test_a1_a_caption_is_painted(opened):
    with opened("A1_the_pocket_world", "A1-live-widget") as lesson:
        field = lesson.panel.locator("input[type=text]")
        with lesson.says_something_else(), lesson.shows_something_else(0), lesson.shows_something_else(1):
            field.fill("A dog on the snow under the sky")
            lesson.panel.get_by_role("button", name="paint").click()
        expect(lesson.said).to_contain_text("A dog on the snow")
        field.fill("very slowly")
        lesson.panel.get_by_role("button", name="paint").click()
        expect(lesson.canvas().locator(".diffseg-message")).to_contain_text("has no noun", timeout=WAIT)
