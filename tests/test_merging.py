"""Distances, anchors and merging against the formulas, and their properties."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffseg.merging import (
    anchor_distances,
    anchor_grid,
    full_precision,
    greedy_groups,
    merge,
    merge_passes,
    symmetric_kl,
)


def distributions(n, d, seed, sharpness=3.0, zeros=False):
    generator = torch.Generator().manual_seed(seed)
    rows = (sharpness * torch.randn(n, d, generator=generator)).softmax(-1)
    if zeros:
        rows[torch.rand(n, d, generator=generator) < 0.4] = 0
        rows[:, 0] += 0.1  # no empty row
        rows /= rows.sum(1, keepdim=True)
    return rows


def attention_of_objects(size, objects, seed, noise=0.5):
    """Positions look at their own object, more or less."""
    generator = torch.Generator().manual_seed(seed)
    owner = torch.randint(objects, (size**2,), generator=generator)
    logits = 4.0 * (owner[:, None] == owner)
    logits = logits + noise * torch.randn(size**2, size**2, generator=generator)
    return logits.softmax(-1).reshape(size, size, size, size)


class TestDistance:
    @pytest.mark.parametrize("zeros", [False, True])
    @pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 2), (3, 5, 7), (4, 2, 64)])
    def test_equals_the_formula(self, n, m, d, zeros):
        p, q = distributions(n, d, 0, zeros=zeros), distributions(m, d, 1, zeros=zeros)
        expected = [[oracles.distance(a, b) for b in q.numpy()] for a in p.numpy()]
        result = symmetric_kl(p, q)
        assert result.dtype == torch.float32
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)

    def test_blocks_of_rows_join(self):
        p, q = distributions(2, 3, 0), distributions(1100, 3, 1)
        whole = symmetric_kl(p, q)
        apart = torch.cat([symmetric_kl(p, row[None]) for row in q], dim=1)
        assert torch.allclose(whole, apart, atol=1e-6)

    def test_by_hand(self):
        p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.75, 0.25]])
        # 1/2 sum (p - q)(log p - log q) = 1/2 * 1/4 * log 3
        assert symmetric_kl(p, q).item() == pytest.approx(np.log(3) / 8, rel=1e-5)

    @settings(max_examples=40, deadline=None)
    @given(
        n=st.integers(1, 6),
        d=st.integers(2, 40),
        seed=st.integers(0, 10_000),
        sharpness=st.floats(0.1, 30),
        zeros=st.booleans(),
    )
    def test_symmetric_not_negative_and_zero_on_itself(self, n, d, seed, sharpness, zeros):
        p = distributions(n, d, seed, sharpness, zeros)
        q = distributions(n + 1, d, seed + 1, sharpness, zeros)
        there, back = symmetric_kl(p, q), symmetric_kl(q, p)
        assert there.isfinite().all()
        assert (there >= 0).all()
        assert torch.allclose(there, back.T, rtol=1e-4, atol=1e-4)
        assert symmetric_kl(p, p).diagonal().max() < 1e-4

    def test_half_precision_is_raised(self):
        p, q = distributions(3, 8, 0).bfloat16(), distributions(4, 8, 1).bfloat16()
        assert torch.equal(symmetric_kl(p, q), symmetric_kl(p.float(), q.float()))

    def test_autocast_does_not_reach_it(self):
        p, q = distributions(3, 64, 0), distributions(4, 64, 1)
        outside = symmetric_kl(p, q)
        with torch.autocast("cpu", torch.bfloat16):
            inside = symmetric_kl(p, q)
        assert torch.equal(inside, outside)


class TestFullPrecision:
    def test_is_put_back(self):
        torch.set_float32_matmul_precision("medium")
        try:
            with pytest.raises(KeyError), full_precision("cpu"):
                assert torch.get_float32_matmul_precision() == "highest"
                raise KeyError
            assert torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_float32_matmul_precision("highest")

    def test_follows_the_newer_interface(self):
        backend = torch.backends.cuda.matmul
        before, backend.fp32_precision = backend.fp32_precision, "tf32"
        try:
            with full_precision("cpu"):
                assert backend.fp32_precision == "ieee"
            assert backend.fp32_precision == "tf32"
        finally:
            backend.fp32_precision = before


class TestAnchors:
    @pytest.mark.parametrize(
        ("size", "points", "ticks"),
        [
            (64, 16, list(range(1, 62, 4))),
            (64, 8, list(range(0, 64, 9))),
            (64, 4, [0, 21, 42, 63]),
            (64, 32, list(range(0, 63, 2))),
            (28, 28, list(range(28))),
            (5, 2, [0, 4]),
        ],
    )
    def test_grid(self, size, points, ticks):
        expected = [[row, column] for row in ticks for column in ticks]
        assert anchor_grid(size, points).tolist() == expected

    @pytest.mark.parametrize("points", [-1, 0, 1, 65])
    def test_errors(self, points):
        with pytest.raises(ValueError, match=f"points={points} must be from 2 to .* 64"):
            anchor_grid(64, points)

    def test_distance_to_itself_is_exactly_zero(self):
        attention = attention_of_objects(8, 3, 0)
        distances = anchor_distances(attention, 4)
        own = [row * 8 + column for row, column in oracles.anchors(8, 4)]
        assert (distances[range(16), own] == 0).all()
        assert (distances > 0).sum() == distances.numel() - 16


class TestMerge:
    @pytest.mark.parametrize("remove_merged", [True, False])
    @pytest.mark.parametrize("thresholds", [(0.05,), (0.5, 0.5, 0.5), (1.2, 0.4, 0.8)])
    @pytest.mark.parametrize(("size", "points"), [(4, 4), (6, 3), (8, 4)])
    def test_equals_algorithm_1(self, size, points, thresholds, remove_merged):
        attention = attention_of_objects(size, 4, seed=size, noise=0.9)
        expected = oracles.merge(attention.numpy(), points, thresholds, remove_merged)
        result = merge(attention, points, len(thresholds), thresholds, remove_merged)
        assert result.dtype == torch.float32
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-8)

    def test_the_two_variants_differ_on_a_chain(self):
        # 0 and 2 are both near 1, but not near each other: 1 is merged into 0's group, and the
        # released code averages it into 2's once more.
        near = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1]], dtype=torch.bool)
        assert greedy_groups(near, True).int().tolist() == [[1, 1, 0], [0, 0, 1]]
        assert greedy_groups(near, False).int().tolist() == [[1, 1, 0], [0, 1, 1]]

    def test_a_proposal_is_always_near_itself(self):
        assert greedy_groups(torch.zeros(3, 3, dtype=torch.bool)).int().tolist() == [
            [1, 0, 0],
            [0, 1, 0],
            [0, 0, 1],
        ]

    def test_one_number_means_the_same_for_each_pass(self):
        attention = attention_of_objects(6, 3, 0)
        assert torch.equal(merge(attention, 3, 2, threshold=0.3), merge(attention, 3, 2, threshold=[0.3, 0.3]))

    @pytest.mark.parametrize("remove_merged", [True, False])
    def test_every_pass_is_what_merge_returns_if_it_stops_there(self, remove_merged):
        attention = attention_of_objects(6, 4, seed=6, noise=0.9)
        thresholds = [1.2, 0.4, 0.8]
        passes = merge_passes(attention, 3, 3, thresholds, remove_merged)
        assert len(passes) == 3 and len(passes[0]) == 9  # pass 1 leaves a proposal per anchor
        for number, proposals in enumerate(passes, start=1):
            expected = oracles.merge(attention.numpy(), 3, thresholds[:number], remove_merged)
            np.testing.assert_allclose(proposals, expected, rtol=1e-4, atol=1e-8)
        assert torch.equal(merge(attention, 3, 3, thresholds, remove_merged), passes[-1])

    def test_distances_at_hand_change_nothing(self):
        attention = attention_of_objects(6, 3, 0)
        distances = anchor_distances(attention, 3)
        kept = distances.clone()
        fresh = merge(attention, 3, threshold=0.3)
        assert torch.equal(merge(attention, 3, threshold=0.3, distances=distances), fresh)
        assert torch.equal(distances, kept)

    @settings(max_examples=20, deadline=None)
    @given(
        size=st.integers(2, 7),
        objects=st.integers(1, 4),
        tau=st.floats(0.01, 5),
        iterations=st.integers(1, 4),
        remove_merged=st.booleans(),
        seed=st.integers(0, 10_000),
    )
    def test_proposals_are_distributions(self, size, objects, tau, iterations, remove_merged, seed):
        attention = attention_of_objects(size, objects, seed)
        proposals = merge(attention, 2, iterations, tau, remove_merged)
        assert (proposals >= 0).all()
        assert torch.allclose(proposals.sum((1, 2)), torch.ones(len(proposals)), atol=1e-5)

    @settings(max_examples=20, deadline=None)
    @given(size=st.integers(2, 7), seed=st.integers(0, 10_000), remove_merged=st.booleans())
    def test_a_huge_threshold_merges_all(self, size, seed, remove_merged):
        attention = attention_of_objects(size, 3, seed)
        proposals = merge(attention, 2, 2, 1e6, remove_merged)
        mean = attention.reshape(-1, size, size).mean(0)
        assert proposals.shape[0] == 1
        assert torch.allclose(proposals[0], mean, atol=1e-6)

    @settings(max_examples=20, deadline=None)
    @given(
        size=st.integers(2, 6),
        copies=st.integers(1, 36),
        seed=st.integers(0, 10_000),
        remove_merged=st.booleans(),
    )
    def test_a_tiny_threshold_merges_nothing_but_duplicates(self, size, copies, seed, remove_merged):
        maps = distributions(size**2, size**2, seed)
        maps[: min(copies, size**2)] = maps[0]
        attention = maps.reshape(size, size, size, size)
        proposals = merge(attention, size, 3, 1e-3, remove_merged)
        assert len(proposals) == size**2 - min(copies, size**2) + 1
        assert torch.allclose(proposals.flatten(1), torch.cat([maps[:1], maps[copies:]]), atol=1e-6)

    @settings(max_examples=20, deadline=None)
    @given(size=st.integers(2, 6), seed=st.integers(0, 10_000))
    def test_pass_1_follows_a_permutation_of_the_anchors(self, size, seed):
        # with an anchor at every position, permuting positions permutes the proposals
        attention = attention_of_objects(size, 2, seed)
        order = torch.randperm(size**2, generator=torch.Generator().manual_seed(seed))
        shuffled = attention.flatten(0, 1)[order].reshape(attention.shape)
        straight = merge(attention, size, 1, 0.3)
        assert torch.allclose(merge(shuffled, size, 1, 0.3), straight[order], atol=1e-6)

    def test_separate_objects_come_out_whole(self):
        attention = torch.zeros(4, 4, 4, 4)
        attention[:, :2, :, :2] = 1 / 8  # the left half looks at itself
        attention[:, 2:, :, 2:] = 1 / 8
        proposals = merge(attention, 2, 2, 1.0)
        assert torch.allclose(proposals, torch.stack([attention[0, 0], attention[0, 3]]))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"points": 1}, "points=1 must be from 2 to the side of the attention, 4"),
            ({"points": 5}, "points=5"),
            ({"iterations": 0}, "iterations=0 must be at least 1"),
            ({"threshold": 0}, "threshold=0 must be above 0"),
            ({"threshold": -0.5}, "threshold=-0.5 must be above 0"),
            ({"threshold": float("nan")}, "threshold=nan"),
            ({"threshold": [1.0, 0.0, 1.0]}, "must be above 0"),
            ({"threshold": [1.0, 1.0]}, "2 values for iterations=3"),
            ({"distances": torch.zeros(3, 16)}, r"distances has the shape \[3, 16\]"),
        ],
    )
    def test_errors_name_the_trouble(self, options, message):
        with pytest.raises(ValueError, match=message):
            merge(attention_of_objects(4, 2, 0), **{"points": 2} | options)

    def test_nan_in_attention(self):
        attention = attention_of_objects(4, 2, 0)
        attention[3, 2, 1, 0] = float("nan")
        with pytest.raises(ValueError, match="attention holds NaN"):
            merge(attention, 2)

    @pytest.mark.parametrize("shape", [(4, 4, 4), (1, 1, 1, 1), (4, 2, 4, 2)])
    def test_wrong_shapes(self, shape):
        with pytest.raises((ValueError, TypeError)):  # TypeError: the signature's own check
            merge(torch.ones(shape))
