"""The released code of the paper, on the same attention: its aggregation to rounding, its masks pixel by pixel.

data/README.md says where the masks come from.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from diffseg.aggregation import aggregate
from diffseg.masks import suppress
from diffseg.merging import anchor_distances, merge

pytestmark = pytest.mark.slow

GOLDEN = np.load(Path(__file__).parent / "data" / "released_masks.npz")
SIDES = (64, 32, 16, 8)
SETTINGS = [(1.1, 3, 16), (0.9, 3, 16), (0.5, 3, 16), (0.9, 2, 8)]  # tau, passes, anchors along a side


def regions(size):
    """Which of a few random sites is nearest, on a grid: [size, size]."""
    rng = np.random.default_rng(0)
    sites = rng.random((int(rng.integers(4, 9)), 2))
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    return ((y[..., None] - sites[:, 0]) ** 2 + (x[..., None] - sites[:, 1]) ** 2).argmin(-1)


def heads_of(size):
    """Two heads of attention, [2, size**2, size**2]: positions look at their region, at what is near, and at noise."""
    owner, rng = regions(size).ravel(), np.random.default_rng(size)
    y, x = np.divmod(np.arange(size**2), size)
    far = ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2) / size**2
    heads = []
    for _ in range(2):
        features = rng.standard_normal((size**2, 8)).astype(np.float32) * 0.6
        logits = 4.5 * (owner[:, None] == owner) - 2.0 * far + features @ features.T * 0.35
        scores = np.exp(logits - logits.max(1, keepdims=True))
        heads.append((scores / scores.sum(1, keepdims=True)).astype(np.float32))
    return torch.from_numpy(np.stack(heads))


@pytest.fixture(scope="module")
def attention():
    """Aggregated as the released code does it, from layers of which there are two of a side, but only one of side 8.

    It averaged the two itself. Handed over one by one they also tell weights="resolution" from weights="layer".
    """
    *finer, coarsest = (heads_of(side) for side in SIDES)
    return aggregate([head for heads in finer for head in heads] + [coarsest], SIDES[0], weights="resolution")


@pytest.fixture(scope="module")
def distances(attention):
    return {points: anchor_distances(attention, points) for points in (8, 16)}


def test_aggregation_is_that_of_the_released_code(attention):
    entries = attention.flatten(2).flatten(0, 1)[::257, ::129]
    np.testing.assert_allclose(entries, GOLDEN["agg_0"], rtol=1e-5)


@pytest.mark.parametrize(("tau", "passes", "points"), SETTINGS)
def test_masks_are_those_of_the_released_code(attention, distances, tau, passes, points):
    proposals = merge(attention, points, passes, tau, remove_merged=False, distances=distances[points])
    released = GOLDEN[f"mask_0_{tau}_{passes}_{points}"]
    assert np.count_nonzero(suppress(proposals, len(released)).numpy() != released) == 0


def test_the_masks_tell_the_released_code_from_algorithm_1(attention, distances):
    """A chain of near proposals is among them, so that the agreement above is about `remove_merged` as well."""
    proposals = merge(attention, 16, 3, 1.1, remove_merged=True, distances=distances[16])
    assert (suppress(proposals, 512).numpy() != GOLDEN["mask_0_1.1_3_16"]).mean() > 0.1
