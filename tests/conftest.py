"""A headless Chromium, for the tests that look at pages; they are skipped where none is installed."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from helpers_browser import NO_BROWSER, Watched, find_browser


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    if not find_browser():
        pytest.skip(NO_BROWSER)
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
