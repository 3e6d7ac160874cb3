"""The divergence of heads against its definition."""

import itertools
import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffseg import heads
from diffseg.heads import class_distances, divergence_map, head_divergence, jensen_shannon
from diffseg.merging import symmetric_kl


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
    from_the_mean = jensen_shannon(probs)
    monkeypatch.setattr(heads, "_BLOCK", 3 * 6 * 4)
    assert head_divergence(probs) == pytest.approx(whole, rel=1e-5)
    assert jensen_shannon(probs) == pytest.approx(from_the_mean, rel=1e-5)


def test_map_is_the_divergence_of_each_query_alone():
    probs = random_heads(4, 5, 9)
    alone = [head_divergence(probs[:, [query]]) for query in range(5)]
    assert divergence_map(probs).tolist() == pytest.approx(alone, rel=1e-5)


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


@pytest.mark.parametrize("statistic", [head_divergence, divergence_map, jensen_shannon])
def test_one_head_has_nobody_to_differ_from(statistic):
    with pytest.raises(ValueError, match=r"shape \[1, 4, 9\].*Record with heads='all'"):
        statistic(random_heads(1, 4, 9))


# ---- jensen_shannon -------------------------------------------------------------------------------------------------


def test_jensen_shannon_is_the_mean_divergence_from_the_mean():
    probs = random_heads(3, 4, 8).double().numpy()
    expected = np.mean([[oracles.kl(p, mean) for p, mean in zip(head, probs.mean(0))] for head in probs])
    assert jensen_shannon(torch.from_numpy(probs)) == pytest.approx(expected, rel=1e-4)


def test_jensen_shannon_of_equal_and_of_disjoint_heads():
    assert jensen_shannon(random_heads(1, 5, 7).repeat(4, 1, 1)) == pytest.approx(0, abs=1e-6)
    disjoint = torch.eye(4)[:, None]  # four heads, each attends to a key of its own
    assert jensen_shannon(disjoint) == pytest.approx(math.log(4), rel=1e-5)


# ---- class_distances ------------------------------------------------------------------------------------------------


def test_class_distances_are_means_over_pairs():
    probs, classes = random_heads(2, 6, 9), torch.tensor([0, 1, 0, 2, 1, 0])
    pairs = {True: [], False: []}
    for head in probs.double().numpy():
        for i, j in itertools.permutations(range(6), 2):
            distance = (oracles.kl(head[i], head[j]) + oracles.kl(head[j], head[i])) / 2
            pairs[bool(classes[i] == classes[j])].append(distance)
    expected = np.mean(pairs[True]), np.mean(pairs[False])
    assert class_distances(probs, classes) == pytest.approx(expected, rel=1e-4)


def test_class_distances_without_such_a_pair():
    same, other = class_distances(random_heads(2, 3, 4), torch.tensor([7, 7, 7]))
    assert same > 0 and math.isnan(other)
    same, other = class_distances(random_heads(2, 3, 4), torch.arange(3))
    assert math.isnan(same) and other > 0
