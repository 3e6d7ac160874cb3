"""Aggregation against the formula, and its properties."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffseg.aggregation import aggregate, layer_weights, sum_sides, weigh_sides


def random_maps(sides, seed=0, heads=None):
    generator = torch.Generator().manual_seed(seed)
    for side in sides:
        shape = (side**2, side**2) if heads is None else (heads, side**2, side**2)
        yield (3 * torch.randn(shape, generator=generator)).softmax(-1)


@pytest.mark.parametrize("weights", ["layer", "resolution"])
@pytest.mark.parametrize(("sides", "size"), [((8, 4, 4, 2, 1, 4, 8), 8), ((2, 3, 6), 6), ((4, 2, 2), 8)])
def test_equals_the_formula(sides, size, weights):
    maps = list(random_maps(sides))
    expected = oracles.aggregate([m.numpy() for m in maps], size, weights)
    result = aggregate(maps, size, weights)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-8)


def test_heads_are_averaged():
    maps = list(random_maps((4, 2), heads=3))
    expected = oracles.aggregate([m.numpy() for m in maps], 4, "layer")
    np.testing.assert_allclose(aggregate(maps, 4), expected, rtol=1e-4, atol=1e-8)


def test_half_precision_rows_are_normalised():
    maps = [m.to(torch.bfloat16) for m in random_maps((4, 2))]
    expected = oracles.aggregate([m.double().numpy() for m in maps], 4, "layer")
    # the layer at full size and the other one: both scaled to rows of one before weighing
    result = aggregate(maps, 4)
    assert torch.allclose(result.sum((2, 3)), torch.ones(4, 4), atol=1e-5)
    np.testing.assert_allclose(result, expected, rtol=2e-2)


@settings(max_examples=25, deadline=None)
@given(
    sides=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=6),
    weights=st.sampled_from(["layer", "resolution"]),
    seed=st.integers(0, 1000),
)
def test_every_map_sums_to_one_and_order_does_not_matter(sides, weights, seed):
    maps = list(random_maps(sides, seed))
    result = aggregate(maps, 8, weights)
    assert torch.allclose(result.sum((2, 3)), torch.ones(8, 8), atol=1e-5)
    assert torch.allclose(result, aggregate(maps[::-1], 8, weights), atol=1e-7)


def test_weights_of_stable_diffusion():
    sides = [64, 64, 32, 32, 16, 16, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    for rule, expected in {
        "layer": [320 / 568, 160 / 568, 80 / 568, 8 / 568],
        "resolution": [64 / 120, 32 / 120, 16 / 120, 8 / 120],
        # only ratios count
        "mapping": [0.5, 0, 0.25, 0.25],
    }.items():
        weights = {64: 2, 16: 1, 8: 1} if rule == "mapping" else rule
        per_layer = layer_weights(sides, weights)
        sums = [sum(w for w, s in zip(per_layer, sides, strict=True) if s == side) for side in (64, 32, 16, 8)]
        assert sums == pytest.approx(expected)


def test_one_side_alone():
    maps = list(random_maps((4, 2, 2)))
    alone = aggregate(maps, 4, weights={2: 1})
    assert torch.allclose(alone, aggregate(maps[1:], 4), atol=1e-7)
    # nearest tiling: positions that share a coarse cell share a map
    assert torch.equal(alone[0, 0], alone[1, 1])


def test_inputs_stay_as_they_are():
    maps = list(random_maps((4, 2)))
    copies = [m.clone() for m in maps]
    aggregate(maps, 4)
    assert all(torch.equal(m, c) for m, c in zip(maps, copies, strict=True))


def spoiled(value):
    probs = torch.full((4, 4), 0.25)
    probs[1] = value
    return probs


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        ([], {}, "maps is empty"),
        ([torch.rand(4, 5)], {}, r"maps\[0\] has the shape \[4, 5\]"),
        ([torch.rand(5, 5)], {}, r"maps\[0\] has 5 positions, which are not those of size=4"),
        ([torch.rand(4)], {}, r"maps\[0\] has the shape \[4\]"),
        ([torch.rand(9, 9)], {}, "has 9 positions, which are not those of size=4"),
        ([torch.rand(64, 64)], {}, "has 64 positions, which are not those of size=4"),
        ([spoiled(float("nan"))], {}, r"maps\[0\] has rows with NaN"),
        ([spoiled(0.0)], {}, "no mass"),
        ([torch.rand(4, 4)], {"weights": "heavy"}, "weights='heavy' must be one of"),
        ([torch.rand(4, 4)], {"weights": {4: 1}}, r"names the sides \[4\]; the maps have \[2\]"),
        ([torch.rand(4, 4)], {"weights": {2: 0}}, "not all zero"),
        ([torch.rand(4, 4)], {"weights": {2: float("nan")}}, "must be finite"),
        ([torch.rand(4, 4), torch.rand(1, 1)], {"weights": {2: 2, 1: -1}}, "not negative"),
    ],
)
def test_errors_name_the_trouble(maps, options, message):
    with pytest.raises(ValueError, match=message):
        aggregate(maps, 4, **options)


# ---- pictures that are not square -----------------------------------------------------------------------------------


def wide_maps(grids, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for rows, columns in grids:
        yield (3 * torch.randn(rows * columns, rows * columns, generator=generator)).softmax(-1)


def test_a_wide_picture_by_the_formula():
    grids, size = [(4, 6), (2, 3), (4, 6)], (4, 6)
    maps = list(wide_maps(grids))
    weights = np.array([4, 2, 4]) / 10  # the shorter sides
    result = aggregate(maps, size)
    for i, j in np.ndindex(*size):
        expected = np.zeros(size)
        for probs, (rows, columns), weight in zip(maps, grids, weights):
            factor = 4 // rows
            picture = probs[(i // factor) * columns + j // factor].reshape(1, 1, rows, columns)
            upsampled = torch.nn.functional.interpolate(picture, size, mode="bilinear")[0, 0].numpy()
            expected += weight * upsampled / upsampled.sum()
        np.testing.assert_allclose(result[i, j], expected, rtol=1e-4, atol=1e-8)


def test_a_turned_picture_gives_turned_attention():
    def turned(probs, rows, columns):
        return probs.reshape(rows, columns, rows, columns).permute(1, 0, 3, 2).reshape(probs.shape)

    grids = [(8, 12), (4, 6), (2, 3)]
    maps = list(wide_maps(grids))
    wide = aggregate(maps, (8, 12))
    tall = aggregate([turned(probs, *grid) for probs, grid in zip(maps, grids)], (12, 8))
    torch.testing.assert_close(tall, wide.permute(1, 0, 3, 2))


def test_a_grid_that_does_not_divide_the_size():
    with pytest.raises(ValueError, match=r"24 positions, which are not those of size=\(12, 4\)"):
        aggregate(list(wide_maps([(4, 6)])), (12, 4))


# ---- many weights on the same maps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [(8, 4, 4, 2, 1), (2, 3, 6), (4, 2)], ids=str)
def test_sums_of_the_sides_take_any_weights(sides):
    maps = list(random_maps(sides))
    size = 12 if 3 in sides else 8
    sums = sum_sides(maps, size)
    assert sums.sides == tuple(sorted(set(sides), reverse=True))
    before = [total.clone() for total in sums.sums.values()]
    for rule in ("layer", "resolution"):
        np.testing.assert_allclose(
            weigh_sides(sums, rule), oracles.aggregate([m.numpy() for m in maps], size, rule), rtol=1e-4, atol=1e-8
        )
    chosen = {sides[0]: 0.3, sides[1]: 2.0}
    assert torch.equal(weigh_sides(sums, chosen), aggregate(maps, size, chosen))
    assert all(torch.equal(a, b) for a, b in zip(before, sums.sums.values(), strict=True))
    with pytest.raises(ValueError, match="names the sides"):
        weigh_sides(sums, {5: 1.0})
