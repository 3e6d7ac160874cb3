"""Ideas since the paper, each against an oracle from its formula: dense eigenvectors, loops, networks of a kind."""

import itertools
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from helpers_models import tiny_components
from oracles import kl
from scipy import ndimage

from diffseg import DiffSegPipeline, beyond, pocket
from diffseg.masks import suppress
from diffseg.merging import anchor_grid, merge, symmetric_kl

SIDE = 6


@pytest.fixture
def attention():
    """Every position attends mostly to its own half, left or right, and a little at random."""
    generator = torch.Generator().manual_seed(0)
    logits = 0.5 * torch.randn(SIDE, SIDE, SIDE, SIDE, generator=generator)
    half = torch.arange(SIDE) < SIDE // 2
    logits += 4 * (half[None, :, None, None] == half[None, None, None, :])
    return logits.flatten(2).softmax(-1).view_as(logits)


def matrix(attention):
    return attention.flatten(2).flatten(0, 1).double().numpy()


class TestRefine:
    @pytest.mark.parametrize("dilations", [(1,), (1, 2)])
    def test_elementwise(self, dilations):
        rng = np.random.default_rng(0)
        image, maps = rng.random((3, 7, 5)), rng.random((2, 7, 5))
        found = beyond.refine(torch.from_numpy(maps).float(), torch.from_numpy(image).float(), 2, dilations)
        np.testing.assert_allclose(found, pamr(pamr(maps, image, dilations), image, dilations), rtol=1e-4)

    def test_an_edge_that_is_off_by_some_pixels_moves_to_that_of_the_picture(self):
        image = torch.zeros(3, 32, 32)
        image[:, :, 16:] = 1
        left = torch.zeros(32, 32)
        left[:, :13] = 1
        maps = beyond.refine(torch.stack([left, 1 - left]), image, iterations=20)
        assert (maps.argmax(0) == (torch.arange(32) >= 16)).float().mean() > 0.99
        torch.testing.assert_close(maps.sum(0), torch.ones(32, 32))

    def test_a_picture_without_edges_blurs(self):
        maps = torch.zeros(1, 9, 9)
        maps[0, 4, 4] = 1
        refined = beyond.refine(maps, torch.ones(3, 9, 9), iterations=1, dilations=(1,))
        np.testing.assert_allclose(refined[0], ndimage.convolve(maps[0].numpy(), np.array(RING) / 8), atol=1e-6)


RING = [[1, 1, 1], [1, 0, 1], [1, 1, 1]]


def pamr(maps, image, dilations):
    """One round, pixel by pixel."""
    _, height, width = image.shape
    out = np.zeros_like(maps)
    for y, x in itertools.product(range(height), range(width)):
        near = [
            (min(max(y + dy * d, 0), height - 1), min(max(x + dx * d, 0), width - 1))
            for d in dilations
            for dy, dx in itertools.product((-1, 0, 1), repeat=2)
            if (dy, dx) != (0, 0)
        ]
        colours = np.array([image[:, v, u] for v, u in near])  # [neighbours, channels]
        score = -(np.abs(colours - image[:, y, x]) / (0.1 * colours.std(axis=0, ddof=1))).mean(axis=1)
        weights = np.exp(score) / np.exp(score).sum()
        out[:, y, x] = sum(weight * maps[:, v, u] for weight, (v, u) in zip(weights, near, strict=True))
    return out


class TestMarkov:
    @pytest.mark.parametrize("steps", [1, 2, 5])
    def test_walk(self, attention, steps):
        expected = matrix(attention)
        for _ in range(steps - 1):
            expected = expected @ matrix(attention)
        np.testing.assert_allclose(matrix(beyond.walk(attention, steps)), expected, rtol=1e-4)

    @pytest.mark.parametrize("damping", [0.0, 0.5, 0.99])
    def test_token_rank_is_the_eigenvector(self, attention, damping):
        chain = damping * matrix(attention) + (1 - damping) / SIDE**2
        values, vectors = scipy.linalg.eig(chain.T)
        expected = np.real(vectors[:, np.argmin(abs(values - 1))])
        found = beyond.token_rank(attention, damping).numpy()
        np.testing.assert_allclose(found.ravel(), expected / expected.sum(), rtol=1e-3)

    def test_ranked_anchors(self, attention):
        rank = beyond.token_rank(attention)
        distances = beyond.ranked_distances(attention, rank, 2)
        best, cells = {}, anchor_grid(SIDE, 2).tolist()
        for i, j in itertools.product(range(SIDE), repeat=2):
            cell = min(range(4), key=lambda c: (i - cells[c][0]) ** 2 + (j - cells[c][1]) ** 2)
            best[cell] = max(best.get(cell, (-1, None)), (rank[i, j].item(), (i, j)))
        for cell, (_, (i, j)) in best.items():
            for k, m in itertools.product(range(SIDE), repeat=2):
                p, q = attention[i, j].double().numpy(), attention[k, m].double().numpy()
                assert distances[cell, k * SIDE + m] == pytest.approx((kl(p, q) + kl(q, p)) / 2, abs=1e-4)
        assert len(merge(attention, 2, threshold=0.5, distances=distances)) == 2

    def test_bad_input(self, attention):
        with pytest.raises(ValueError, match="steps=0 must be at least 1"):
            beyond.walk(attention, 0)
        with pytest.raises(ValueError, match="damping=1 must be"):
            beyond.token_rank(attention, 1)


class TestCuts:
    @pytest.mark.parametrize("seed", range(5))
    def test_best_cut_against_all_cuts_of_the_eigenvector(self, seed):
        affinity = random_graph(seed, 9)
        degrees = np.diag(affinity.sum(1))
        _, vectors = scipy.linalg.eigh(degrees - affinity, degrees)  # (D - W) y = lambda D y
        order = np.argsort(vectors[:, 1])
        costs = [ncut(affinity, np.isin(np.arange(9), order[:count])) for count in range(1, 9)]
        side, cost = beyond.best_cut(affinity)
        assert cost == pytest.approx(min(costs), rel=1e-5) == pytest.approx(ncut(affinity, side), rel=1e-5)

    def test_groups_are_found(self):
        groups = np.array([0, 0, 1, 2, 1, 2, 2, 1, 0, 2, 1, 0])
        affinity = np.where(groups[:, None] == groups, 1.0, 0.01)
        np.testing.assert_array_equal(beyond.normalized_cut(affinity, 0.5), groups)
        assert not beyond.normalized_cut(affinity, 0).any()
        assert len(set(beyond.normalized_cut(affinity, 2.1))) > 3

    @pytest.mark.parametrize("side", [2, SIDE])
    def test_proposals(self, attention, side):
        proposals = beyond.cut_proposals(attention, side=side)
        left, right = attention[:, : SIDE // 2].mean((0, 1)), attention[:, SIDE // 2 :].mean((0, 1))
        if side == SIDE:
            torch.testing.assert_close(proposals, torch.stack([left, right]))
        assert torch.equal(suppress(proposals, SIDE)[0] > 0, torch.arange(SIDE) >= SIDE // 2)

    def test_bad_input(self, attention):
        with pytest.raises(ValueError, match="side=1 does not divide the attention's 6 x 4; try 4"):
            beyond.cut_proposals(attention[:, :4, :, :4], side=1)


def random_graph(seed, count):
    weights = np.random.default_rng(seed).random((count, count))
    return weights + weights.T


def ncut(affinity, side):
    cut = affinity[np.ix_(side, ~side)].sum()
    return cut / affinity[side].sum() + cut / affinity[~side].sum()


class TestEdges:
    def test_elementwise(self, attention):
        right, below = beyond.edges(attention)
        maps = attention.double().numpy()
        for i, j in itertools.product(range(SIDE), range(SIDE - 1)):
            p, q = maps[i, j], maps[i, j + 1]
            assert right[i, j] == pytest.approx((kl(p, q) + kl(q, p)) / 2, abs=1e-4)
            p, q = maps[j, i], maps[j + 1, i]
            assert below[j, i] == pytest.approx((kl(p, q) + kl(q, p)) / 2, abs=1e-4)

    def test_they_are_where_the_halves_meet(self, attention):
        right, below = beyond.edges(attention)
        middle = SIDE // 2 - 1
        assert right[:, middle].min() > 3 * max(right[:, :middle].max(), right[:, middle + 1 :].max(), below.max())

    def test_split(self, attention):
        """One segment is cut where the edge is; without edges it falls into what hangs together."""
        right, below = beyond.edges(attention)
        halves = beyond.split(torch.zeros(SIDE, SIDE, dtype=torch.int64), right, below, 1.0)
        assert torch.equal(halves[0], (torch.arange(SIDE) >= SIDE // 2).long()) and (halves == halves[0]).all()
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 2, (SIDE, SIDE))
        pieces = beyond.split(torch.from_numpy(labels), right, below, np.inf)
        expected = sum(ndimage.label(labels == value)[1] for value in (0, 1))
        assert len(pieces.unique()) == expected
        for piece in pieces.unique():
            inside = (pieces == piece).numpy()
            assert ndimage.label(inside)[1] == 1 and len(set(labels[inside])) == 1


class TestNoiseSinksSizes:
    def test_often(self, tmp_path):
        pipe = DiffSegPipeline(**tiny_components(tmp_path))
        image = pocket.scene(1_000_003, 128).image
        steps, seeds = (100, 300), (0, 1)
        singles = [pipe.attend(image, timestep=t, seed=s, size=128) for t in steps for s in seeds]
        found = beyond.attend_often(partial(pipe.attend, image, size=128), steps, iter(seeds))
        torch.testing.assert_close(found, sum(singles) / 4)
        with pytest.raises(ValueError, match="timesteps or seeds is empty"):
            beyond.attend_often(pipe.attend, (), seeds)

    def test_without_sinks(self, attention):
        sinking = attention.clone()
        sinking[..., 2, 3] += 1
        sinking /= 2
        kept = beyond.without_sinks(sinking, 10)
        assert (kept[..., 2, 3] == 0).all()
        expected = attention.clone()
        expected[..., 2, 3] = 0
        torch.testing.assert_close(kept, expected / expected.sum((2, 3), keepdim=True))
        torch.testing.assert_close(beyond.without_sinks(attention, SIDE**2), attention)

    def test_positions_that_attend_to_sinks_alone_stay(self):
        attention = torch.zeros(2, 2, 2, 2)
        attention[..., 0, 0] = 1
        assert torch.equal(beyond.without_sinks(attention, 2), attention)

    def test_sizes(self):
        """A map that is even over n positions has the size n."""
        maps = torch.zeros(2, 4, 4)
        maps[0, :2, :2] = 1 / 4
        maps[1] = 1 / 16
        for exponent in (0, 0.5, 1):
            heights = beyond.weigh_sizes(maps, exponent).amax((1, 2))
            torch.testing.assert_close(heights, torch.tensor([4.0, 16.0]) ** (exponent - 1))


def test_dbscan_takes_the_distance_of_merging(attention):
    """Is it the distance or the merging? The baseline's own argument answers."""
    from diffseg.baselines import dbscan

    maps = attention.flatten(2).flatten(0, 1)
    labels = dbscan(attention, 0.5, distances=symmetric_kl(maps, maps).numpy())
    assert torch.equal(labels[0], (torch.arange(SIDE) >= SIDE // 2).long())
