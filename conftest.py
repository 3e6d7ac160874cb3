"""Settings for every test of the repository: of tests/, and of the notebooks, which nbval reruns and compares."""

import os

import pytest
from hypothesis import settings
from nbval.plugin import IPyNbCell
from run_notebooks import PATIENT, QUIET

# Kernels inherit these, and they must be set before numpy and torch are loaded.
os.environ.update(QUIET)
for name, value in {**PATIENT, "HF_HUB_OFFLINE": "1"}.items():  # a test must never wait for a hub
    os.environ.setdefault(name, value)
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):  # they share the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

OUTPUT_SECONDS = 60  # nbval waits 5 for a cell's output, too little on a loaded machine
#: So begin the names of tests that train, or load many models.
SLOW = ("test_pocket_", "test_behaviour", "test_backbones", "test_loading")


def pytest_configure():
    """Draw without a screen, and let an example take its time on a busy machine."""
    import matplotlib

    matplotlib.use("Agg")  # not through MPLBACKEND, which would reach the kernels and cost them their inline figures
    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")


def pytest_itemcollected(item):
    """What runs a notebook, trains, or loads many models is slow."""
    if isinstance(item, IPyNbCell) or item.path.name.startswith(SLOW):
        item.add_marker("slow")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Give notebook cells time to print, and do not compare stderr: warnings differ between versions."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.output_timeout = OUTPUT_SECONDS
            item.parent.skip_compare = tuple({*item.parent.skip_compare, "stderr"})
