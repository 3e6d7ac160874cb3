"""Settings for every test of the repository: of tests/, and of the notebooks, which nbval reruns and compares."""

import os

import matplotlib
import pytest

# Kernels inherit these. Bars differ in every run; and a test must never wait for a hub.
os.environ.update(TQDM_DISABLE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
matplotlib.use("Agg")  # not through MPLBACKEND, which would reach the kernels and cost them their inline figures

OUTPUT_SECONDS = 60  # nbval waits 5 for a cell's output, too little on a loaded machine


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Give notebook cells time to print, and do not compare stderr: warnings differ between versions."""
    for item in items:
        if hasattr(item, "output_timeout") and hasattr(item.parent, "skip_compare"):
            item.output_timeout = OUTPUT_SECONDS
            item.parent.skip_compare = tuple({*item.parent.skip_compare, "stderr"})
