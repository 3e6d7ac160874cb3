"""K-Means and DBSCAN against their definitions, point by point in float64."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffseg.baselines import dbscan, euclidean_distances, kmeans, kmeans_colours, true_k


def random_attention(side, seed=0, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(side**2, side**2, generator=generator)).softmax(-1).reshape([side] * 4)


def planted_attention(regions, seed=0, blur=0.02):
    """Positions of one region have the same random map, up to a little."""
    regions = torch.as_tensor(regions)
    side, generator = len(regions), torch.Generator().manual_seed(seed)
    kinds = (3 * torch.randn(int(regions.max()) + 1, side, side, generator=generator)).flatten(1).softmax(-1)
    noise = blur * torch.rand(side, side, side**2, generator=generator)
    maps = kinds[regions] * (1 + noise)
    return (maps / maps.sum(-1, keepdim=True)).reshape([side] * 4)


def partition(labels):
    """The same array for the same groups, whatever their numbers: each group is named by its first position."""
    flat = np.asarray(labels).ravel()
    return np.array([np.flatnonzero(flat == value)[0] for value in flat])


def as_points(attention):
    return attention.flatten(2).flatten(0, 1).double().numpy()


REGIONS = np.array([[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 2, 2, 2, 1]] + [[3, 3, 2, 2, 2, 2]] * 3)


class TestKMeans:
    def test_finds_planted_regions(self):
        labels = kmeans(planted_attention(REGIONS), k=4)
        assert (labels.dtype, labels.shape) == (torch.int64, (6, 6))
        assert labels.unique().tolist() == [0, 1, 2, 3]
        assert (partition(labels) == partition(REGIONS)).all()

    @pytest.mark.parametrize("k", [1, 2, 5])
    def test_every_map_is_nearest_to_the_mean_of_its_cluster(self, k):
        attention = random_attention(5, seed=k)
        labels, points = kmeans(attention, k).flatten().numpy(), as_points(attention)
        means = np.stack([points[labels == cluster].mean(0) for cluster in range(k)])
        for point, label in zip(points, labels, strict=True):
            to_means = [((point - mean) ** 2).sum() for mean in means]
            assert to_means[label] == pytest.approx(min(to_means), rel=1e-5)

    def test_the_seed_is_all_that_chance_decides(self):
        attention = random_attention(6)
        first, again = kmeans(attention, 7, seed=3), kmeans(attention, 7, seed=3)
        assert torch.equal(first, again)
        assert any((partition(kmeans(attention, 7, seed=seed)) != partition(first)).any() for seed in range(4, 8))

    def test_more_starts_are_not_worse(self):
        attention = random_attention(6)
        points = as_points(attention)

        def spread(labels):
            labels = labels.flatten().numpy()
            return sum(((points[labels == c] - points[labels == c].mean(0)) ** 2).sum() for c in np.unique(labels))

        # scikit-learn draws the first of ten starts from another stream than a single one, so compare with the mean
        single = np.mean([spread(kmeans(attention, 6, seed=seed)) for seed in range(5)])
        assert spread(kmeans(attention, 6, n_init=10)) <= single

    @pytest.mark.filterwarnings("ignore:Number of distinct clusters")
    def test_fewer_maps_than_clusters_leave_no_gaps(self):
        attention = torch.zeros(3, 3, 3, 3)
        attention[:, :, 0, 0] = 1
        attention[2, :, 0, 0], attention[2, :, 1, 1] = 0, 1
        labels = kmeans(attention, 4)
        assert (partition(labels) == partition([[0] * 3, [0] * 3, [1] * 3])).all()
        assert labels.unique().tolist() == [0, 1]


class TestTrueK:
    @pytest.mark.parametrize(
        ("truths", "k"),
        [
            ([[[0, 0], [3, 3]]], 2),
            ([[[0, 255], [3, -1]]], 2),
            ([[[255, 255], [255, 255]]], 1),
            ([[[1, 1], [1, 1]], [[1, 2], [3, 4]], [[1, 1], [2, 2]]], 2),  # 7 / 3
            ([[[1, 1], [2, 2]], [[1, 2], [3, 3]]], 3),  # 5 / 2
        ],
    )
    def test_examples(self, truths, k):
        assert true_k(np.array(truth) for truth in truths) == k

    @given(st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=1, max_size=6))
    def test_is_the_rounded_mean_of_distinct_values(self, rows):
        exact = sum(len(set(row) - {5}) for row in rows) / len(rows)
        k = true_k([np.array(row).reshape(2, 2) for row in rows], ignore=5)
        assert k >= 1 and (abs(k - exact) <= 0.5 or (exact < 1 and k == 1))

    def test_tensors_are_truths_too(self):
        assert true_k([torch.tensor([[0, 4], [255, 4]])]) == 2

    def test_no_truth(self):
        with pytest.raises(ValueError, match="truths is empty"):
            true_k([])


class TestDBSCAN:
    def test_finds_planted_regions(self):
        attention = planted_attention(REGIONS)
        points = as_points(attention)
        same = REGIONS.ravel()[:, None] == REGIONS.ravel()
        distances = np.array([[np.sqrt(((p - q) ** 2).sum()) for q in points] for p in points])
        eps = (distances[same].max() + distances[~same].min()) / 2
        labels = dbscan(attention, eps)
        assert (labels.dtype, labels.shape) == (torch.int64, (6, 6))
        assert (partition(labels) == partition(REGIONS)).all()

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 10**6), st.floats(0.02, 0.6), st.integers(1, 5))
    def test_follows_the_definition(self, seed, quantile, min_samples):
        """Ester et al. 1996: clusters are the connected core points, and what lies within eps of them."""
        attention = random_attention(4, seed, sharpness=0.5)
        points = as_points(attention)
        distances = np.array([[np.sqrt(((p - q) ** 2).sum()) for q in points] for p in points])
        eps = float(np.quantile(distances[distances > 0], quantile)) * (1 + 1e-5)  # none lies on the border
        labels = dbscan(attention, eps, min_samples=min_samples).flatten().tolist()

        near = distances <= eps
        cores = [point for point in range(16) if near[point].sum() >= min_samples]
        if not cores:
            assert labels == [0] * 16
            return
        components = []
        for core in cores:
            touched = [group for group in components if any(near[core, other] for other in group)]
            components = [group for group in components if group not in touched] + [[core, *sum(touched, [])]]
        assert len(set(labels)) == len(components) == max(labels) + 1
        for group in components:
            assert len({labels[core] for core in group}) == 1
        for point in range(16):
            reached = [labels[core] for core in cores if near[point, core]]
            if reached:
                assert labels[point] in reached
            else:  # noise
                assert labels[point] == labels[min(cores, key=lambda core: distances[point, core])]

    def test_distances(self):
        attention = random_attention(3)
        points = as_points(attention)
        expected = [[np.sqrt(((p - q) ** 2).sum()) for q in points] for p in points]
        np.testing.assert_allclose(euclidean_distances(attention), expected, rtol=1e-4, atol=1e-6)

    def test_distances_at_hand_are_used(self):
        attention, other = random_attention(4), planted_attention(np.kron([[0, 1], [2, 3]], np.ones((2, 2), int)))
        distances = euclidean_distances(other)
        eps = float(np.median(distances)) / 2
        assert torch.equal(dbscan(attention, eps, min_samples=2, distances=distances), dbscan(other, eps, None, 2))


class TestSizes:
    @pytest.mark.parametrize("size", [6, 20, 48])
    def test_upsampling_is_that_of_memberships(self, size):
        attention = planted_attention(REGIONS)
        eps = float(np.median(euclidean_distances(attention))) / 4
        for cluster in (lambda **given: kmeans(attention, 4, **given), lambda **given: dbscan(attention, eps, **given)):
            small, large = cluster().numpy(), cluster(size=size)
            members = [oracles.bilinear((small == cluster_id).astype(float), size) for cluster_id in np.unique(small)]
            clear = np.diff(np.sort(members, axis=0), axis=0)[-1] > 1e-6  # not on a tie, which rounding decides
            assert clear.mean() > 0.5
            assert large.shape == (size, size)
            assert (large.numpy()[clear] == np.argmax(members, axis=0)[clear]).all()

    def test_colours_in_blocks(self):
        colours = np.array([[200, 30, 30], [30, 200, 30], [35, 30, 210], [240, 240, 240]], np.uint8)
        regions = np.kron(np.array([[0, 1, 1, 2], [0, 3, 3, 2], [0, 0, 3, 2], [1, 1, 1, 1]]), np.ones((16, 16), int))
        image = Image.fromarray(colours[regions].repeat(8, axis=0).repeat(8, axis=1))  # 512 x 512
        grid = kmeans_colours(image, 4)
        assert (partition(grid) == partition(regions)).all()
        assert torch.equal(kmeans_colours(image, 4, side=64), grid)
        full = kmeans_colours(np.asarray(image), 4, size=512)
        assert (full.dtype, full.shape) == (torch.int64, (512, 512))
        assert torch.equal(full[4::8, 4::8], grid)

    def test_colours_see_nothing_but_colour(self):
        """Pixels in any order fall into the same groups."""
        rng = np.random.default_rng(0)
        cells = rng.choice([[250, 10, 10], [10, 250, 10], [10, 10, 250]], (8, 8)).astype(np.uint8)
        shuffled = rng.permutation(cells.reshape(64, 3)).reshape(8, 8, 3)
        for grid in (cells, shuffled):
            image = grid.repeat(64, axis=0).repeat(64, axis=1)  # 512 x 512
            expected = partition(grid.reshape(64, 3).astype(int) @ [1, 256, 65536])
            assert (partition(kmeans_colours(image, 3, side=8)) == expected).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: kmeans(a, 0), "k=0 must be from 1 to the number of positions, 16"),
        (lambda a: kmeans(a, 17), "k=17 must be from 1 to the number of positions, 16"),
        (lambda a: kmeans(a, 2, n_init=0), "n_init=0 must be at least 1"),
        (lambda a: kmeans(a, 2, size=0), "size=0 must be at least 1"),
        (lambda a: kmeans(a * float("nan"), 2), "attention holds NaN"),
        (lambda a: dbscan(a, 0.0), "eps=0.0 must be above 0"),
        (lambda a: dbscan(a, float("inf")), "eps=inf must be above 0 and finite"),
        (lambda a: dbscan(a, 0.1, min_samples=0), "min_samples=0 must be at least 1"),
        (lambda a: dbscan(a, 0.1, distances=np.zeros((4, 4), np.float32)), r"\[4, 4\], expected \[16, 16\]"),
        (lambda a: dbscan(a * float("nan"), 0.1), "attention holds NaN"),
        (lambda a: kmeans_colours(np.zeros((8, 8, 3), np.uint8), 2, side=0), "side=0 must be a positive number"),
    ],
)
def test_errors_name_the_trouble(call, message):
    with pytest.raises(Exception, match=message):
        call(random_attention(4))
