"""Suppression against the formula; labels and masks."""

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffseg import masks
from diffseg.masks import binary_masks, relabel, suppress


def random_proposals(count, side, seed=0):
    logits = 2 * torch.randn(count, side**2, generator=torch.Generator().manual_seed(seed))
    return logits.softmax(-1).reshape(count, side, side)


@pytest.mark.parametrize(("count", "side", "size"), [(1, 4, 8), (5, 4, 32), (7, 6, 20), (3, 5, 5)])
def test_equals_the_formula(count, side, size):
    proposals = random_proposals(count, side)
    labels = suppress(proposals, size)
    assert labels.dtype == torch.int64
    assert labels.tolist() == oracles.suppress(proposals.numpy(), size).tolist()


@pytest.mark.parametrize("per_block", [1, 2, 3])
def test_blocks_change_nothing(monkeypatch, per_block):
    proposals = random_proposals(7, 4)
    proposals[5] = proposals[2]  # a tie across blocks
    whole = suppress(proposals, 16)
    monkeypatch.setattr(masks, "_BLOCK", per_block * 16**2)
    assert torch.equal(suppress(proposals, 16), whole)


def test_the_first_of_equals_wins():
    proposals = random_proposals(1, 4).repeat(3, 1, 1)
    assert (suppress(proposals, 8) == 0).all()


def test_edges_are_those_of_the_upsampled_maps():
    # Two pixels, 0.9 against 0.1 and a flat rival of 0.4: the winner changes where the
    # interpolated 0.9 .. 0.1 falls below 0.4, after 5/8 of the way between the centres.
    proposals = torch.tensor([[[0.9, 0.1], [0.9, 0.1]], [[0.4, 0.4], [0.4, 0.4]]])
    row = suppress(proposals, 16)[0]
    assert row.tolist() == [0] * 9 + [1] * 7


@settings(max_examples=30, deadline=None)
@given(hnp.arrays("int64", hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 20)))
def test_relabel_leaves_no_gaps_and_keeps_the_segments(array):
    labels = torch.from_numpy(array)
    compact, kept = relabel(labels)
    assert compact.unique().tolist() == list(range(len(kept)))
    assert torch.equal(kept[compact], labels)
    assert torch.equal(kept, kept.sort().values)


@settings(max_examples=30, deadline=None)
@given(hnp.arrays("int64", hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 6)))
def test_binary_masks_partition_the_image(array):
    labels = torch.from_numpy(array)
    split = binary_masks(labels)
    assert split.dtype == torch.bool
    assert (split.sum(0) == 1).all()
    assert torch.equal(split.int().argmax(0), labels)


@pytest.mark.parametrize(
    ("proposals", "size", "message"),
    [
        (torch.zeros(0, 4, 4), 8, r"proposals has the shape \[0, 4, 4\]"),
        (torch.full((1, 2, 2), float("nan")), 8, "proposals holds NaN"),
        (torch.ones(1, 2, 2), 0, "size=0 must be at least 1"),
    ],
)
def test_errors_name_the_trouble(proposals, size, message):
    with pytest.raises(ValueError, match=message):
        suppress(proposals, size)
