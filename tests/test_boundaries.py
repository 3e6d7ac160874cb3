"""Boundary IoU against erosions of single masks, against distances to every other pixel, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

from diffseg.boundaries import BAND, band_width, boundary_band, count_boundary


@st.composite
def maps(draw, most=4):
    """Two label maps of one shape, of blocks, with -1 among the labels."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    block = draw(st.integers(1, 5))
    grids = rng.integers(-1, most, (2, -(-height // block), -(-width // block)))
    return tuple(np.kron(grid, np.ones((block, block), int))[:height, :width] for grid in grids)


def eroded_away(mask, width):
    """What `width` erosions by a 3 x 3 square take from a mask; outside of the picture there is nothing."""
    return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=width, border_value=0)


@given(maps(), st.integers(1, 4))
def test_the_band_is_what_erosion_takes_away(pair, width):
    for labels in pair:
        expected = np.zeros(labels.shape, bool)
        for label in np.unique(labels):
            expected |= eroded_away(labels == label, width)
        assert np.array_equal(boundary_band(labels, width), expected)


@given(maps(), st.integers(1, 3))
def test_counts_are_those_of_sets_of_pixels(pair, width):
    """The definition: pixels of each mask within `width` of a pixel that is not of it, the outside included."""
    pred, truth = pair

    def close(labels, label):
        height, width_ = labels.shape
        found = set()
        for row, column in zip(*np.nonzero(labels == label)):
            for other in np.ndindex(2 * width + 1, 2 * width + 1):
                at = row + other[0] - width, column + other[1] - width
                if not (0 <= at[0] < height and 0 <= at[1] < width_) or labels[at] != label:
                    found.add((row, column))
        return found

    hits, predicted, actual = count_boundary(pred, truth, 4, width)
    for label in range(4):
        mine, theirs = close(pred, label), close(truth, label)
        assert (hits[label], predicted[label], actual[label]) == (len(mine & theirs), len(mine), len(theirs))


def test_the_width_is_two_percent_of_the_diagonal():
    assert BAND == 0.02
    assert band_width(512, 512) == round(0.02 * 512 * math.sqrt(2)) == 14
    assert band_width(300, 400) == 10 and band_width(4, 4) == 1


def test_a_ragged_outline_costs_a_large_thing_more_than_iou_says():
    truth = np.zeros((100, 100), int)
    truth[10:90, 10:90] = 1
    pred = truth.copy()
    pred[10:13, 10:90] = 0  # three rows of 80 are missing
    hits, predicted, actual = count_boundary(pred, truth, 2)
    boundary = hits[1] / (predicted[1] + actual[1] - hits[1])
    assert (pred & truth).sum() / (pred | truth).sum() > 0.96
    # bands of 3: the truth's is a frame of 80 and 74, the prediction's of 77 x 80 and 71 x 74
    assert (actual[1], predicted[1]) == (80**2 - 74**2, 77 * 80 - 71 * 74)
    assert hits[1] == 2 * 3 * 77 + 3 * 74  # two sides and the bottom
    assert boundary < 0.75


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2)])
def test_what_is_all_boundary(shape):
    labels = np.zeros(shape, int)
    hits, predicted, actual = count_boundary(labels, labels, 1)
    assert hits[0] == predicted[0] == actual[0] == labels.size
