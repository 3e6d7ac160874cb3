"""A real JupyterLab with copies of the real notebooks, and a headless Chromium that works in it.

Skipped where no browser is found: install Chromium, or name one in $CHROMIUM.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers_browser import Lab, Watched, find_browser, start_lab


def pytest_collection_modifyitems(items):
    missing = None if find_browser() else "no Chromium is installed; $CHROMIUM may name one"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> Iterator[Lab]:
    """See `start_lab`."""
    with start_lab(tmp_path_factory.mktemp("jupyter")) as lab:
        yield lab


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def open_page(browser):
    """Open an address in a window of some size: `with open_page(url, width=1100) as watched`."""

    @contextmanager
    def opened(url: str, width: int = 1100, height: int = 1400, **options) -> Iterator[Watched]:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        try:
            watched = Watched(context.new_page())
            watched.page.goto(url)
            yield watched
        finally:
            context.close()

    return opened
