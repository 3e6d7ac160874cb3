"""A real JupyterLab with copies of the real notebooks. The headless Chromium for it is in tests/conftest.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers_browser import NO_BROWSER, Lab, find_browser, start_lab


def pytest_collection_modifyitems(items):
    missing = not find_browser()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if missing:
                item.add_marker(pytest.mark.skip(reason=NO_BROWSER))


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> Iterator[Lab]:
    """See `start_lab`."""
    with start_lab(tmp_path_factory.mktemp("jupyter")) as lab:
        yield lab
