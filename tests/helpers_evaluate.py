"""A tiny model, a small data set and a run over it, on one thread, for the tests of evaluation and of commands."""

from contextlib import contextmanager

import pytest
import torch
from helpers_datasets import write_cityscapes
from helpers_models import tiny_components

from diffseg import DiffSegPipeline
from diffseg.datasets import open_dataset
from diffseg.evaluate import evaluate

SIZE = 64
THRESHOLDS = (0.001, 0.0015, 0.0018)  # about 120, 10 and 3 segments: more and fewer than there are classes


def write_model(folder, threshold=0.001):
    """A tiny model with random weights; the same every time."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    DiffSegPipeline(**tiny_components(folder / "parts"), threshold=threshold).save_pretrained(folder)
    return folder


@contextmanager
def one_thread():
    """Sums of floats depend on how many threads share them: here one does, and in the processes that are started."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")
            yield
    finally:
        torch.set_num_threads(before)


def write_data(root, images):
    """Images in Cityscapes' layout."""
    write_cityscapes(root, images)
    return open_dataset("cityscapes", root)


def run(data, model, out, methods=None, size=SIZE, **options):
    """Score a method; by default DiffSeg at three thresholds."""
    return evaluate(data, methods or {"diffseg": THRESHOLDS}, out, model, size, **options)
