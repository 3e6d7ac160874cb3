"""The divergence of heads against its definition."""

import math

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffseg import heads
from diffseg.heads import head_divergence
from diffseg.merge import symmetric_kl


def random_heads(n_heads, queries, keys, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n_heads, queries, keys, generator=generator)).softmax(-1)


@pytest.mark.parametrize(("n_heads", "queries", "keys"), [(2, 1, 2), (3, 5, 7), (5, 9, 9)])
def test_equals_the_definition(n_heads, queries, keys):
    probs = random_heads(n_heads, queries, keys)
    expected = oracles.head_divergence(probs.double().numpy())
    assert head_divergence(probs) == pytest.approx(expected, rel=1e-4)


def test_zeros_are_no_trouble():
    probs = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]])
    expected = oracles.head_divergence(probs.double().numpy())
    assert head_divergence(probs) == pytest.approx(expected, rel=1e-5)


def test_two_heads_and_one_query_are_the_merging_distance():
    probs = random_heads(2, 1, 16)
    assert head_divergence(probs) == pytest.approx(symmetric_kl(probs[0], probs[1]).item(), rel=1e-4)


def test_blocks_of_queries_join(monkeypatch):
    probs = random_heads(3, 10, 6)
    whole = head_divergence(probs)
    monkeypatch.setattr(heads, "_BLOCK", 3 * 6 * 4)
    assert head_divergence(probs) == pytest.approx(whole, rel=1e-5)


def test_by_hand():
    # KL(p||q) = 1/2 log(2/3) + 1/2 log 2 and KL(q||p) = 3/4 log(3/2) + 1/4 log(1/2)
    probs = torch.tensor([[[0.5, 0.5]], [[0.75, 0.25]]])
    assert head_divergence(probs) == pytest.approx(math.log(3) / 8, rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(n_heads=st.integers(2, 6), seed=st.integers(0, 1000))
def test_order_of_heads_does_not_matter_and_equal_heads_agree(n_heads, seed):
    probs = random_heads(n_heads, 4, 9, seed)
    assert head_divergence(probs.flip(0)) == pytest.approx(head_divergence(probs), rel=1e-4)
    assert head_divergence(probs[:1].repeat(n_heads, 1, 1)) == pytest.approx(0, abs=1e-5)


def test_one_head_has_nobody_to_differ_from():
    with pytest.raises(ValueError, match=r"shape \[1, 4, 9\].*Record with heads='all'"):
        head_divergence(random_heads(1, 4, 9))
