"""Checks of notebook 03: weights of the layers, enlarging a layer's maps, the aggregated map of one position."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffseg import aggregation

from ._exercise import Case, Check, Mistake, distributions

# ---- resolution_weights ---------------------------------------------------------------------------------------------


def _shares(values: Sequence[Real]) -> list[float]:
    return [value / sum(values) for value in values]


resolution_weights = Check(
    "resolution_weights",
    lambda sides: aggregation.layer_weights(sides, "resolution"),
    cases=[
        Case("three layers of 64 and two of 32", ([64, 64, 64, 32, 32],)),
        Case("a single layer", ([16],)),
        Case("three layers of one side", ([32, 32, 32],)),
        Case(
            "the layers of Stable Diffusion", ([64] * 2 + [32] * 2 + [16] * 2 + [8] + [16] * 3 + [32] * 3 + [64] * 3,)
        ),
    ],
    mistakes=[
        Mistake(
            "That is the paper's reading, in which every layer has a weight of its own. In the code's, the layers of "
            "one side share the weight of the side.",
            lambda sides: aggregation.layer_weights(sides),
        ),
        Mistake(
            "Every layer has the weight of its whole side, so the weights do not sum to 1. The layers must share it.",
            lambda sides: [side / sum(set(sides)) for side in sides],
        ),
        Mistake(
            "Here all sides weigh the same. A larger side should weigh more, in proportion to its length.",
            lambda sides: _shares([1 / sides.count(side) for side in sides]),
        ),
        Mistake(
            "Is that the area? The weight goes with the side, not with its square.",
            lambda sides: _shares([side**2 / sides.count(side) for side in sides]),
        ),
        Mistake(
            "The weights must sum to 1: divide each by the sum of all.",
            lambda sides: [side / sides.count(side) for side in sides],
        ),
    ],
)

# ---- enlarge --------------------------------------------------------------------------------------------------------


def _upsample(maps: Float[Tensor, "n s s"], size: int, mode: str = "bilinear", **more) -> Float[Tensor, "n size size"]:
    return F.interpolate(maps[:, None], size=(size, size), mode=mode, **more)[:, 0]


def _upsample_map(maps: Float[Tensor, "n s s"], size: int, **mode) -> Float[Tensor, "n size size"]:
    larger = _upsample(maps, size, **mode)
    return larger / larger.sum(dim=(1, 2), keepdim=True)


def _tile(maps: Float[Tensor, "_ _ k l"], size: int) -> Float[Tensor, "_ _ k l"]:
    factor = size // len(maps)
    return maps.repeat_interleave(factor, dim=0).repeat_interleave(factor, dim=1)


def _in_turn(maps: Float[Tensor, "_ _ k l"], size: int) -> Float[Tensor, "_ _ k l"]:
    return maps.repeat(size // len(maps), size // len(maps), 1, 1)


def _enlarge(
    maps: Float[Tensor, "s s s s"], size: int, upsample: Callable = _upsample_map, tile: Callable = _tile
) -> Float[Tensor, "size size size size"]:
    return tile(upsample(maps.flatten(0, 1), size).view(*maps.shape[:2], size, size), size)


def _all_to_one(maps: Float[Tensor, "n s s"], size: int) -> Float[Tensor, "n size size"]:
    return _upsample_map(maps, size) / len(maps)


def _over_maps(maps: Float[Tensor, "n s s"], size: int) -> Float[Tensor, "n size size"]:
    larger = _upsample(maps, size)
    return larger / larger.sum(dim=0)


def _mixed_queries(maps: Float[Tensor, "s s s s"], size: int) -> Float[Tensor, "size size size size"]:
    larger = _upsample_map(maps.flatten(0, 1), size).view(*maps.shape[:2], -1)  # [s, s, size * size]
    return _upsample(larger.permute(2, 0, 1), size).permute(1, 2, 0).reshape(size, size, size, size)


def _square(side: int, seed: int = 0) -> Float[Tensor, "side side side side"]:
    return distributions(side**2, side**2, seed=seed).view(side, side, side, side)


enlarge = Check(
    "enlarge",
    _enlarge,
    cases=[
        Case("2x2 positions, to 4x4", (_square(2), 4)),
        Case("3x3 positions, to 6x6", (_square(3), 6)),
        Case("2x2 positions, to 6x6", (_square(2, seed=1), 6)),
        Case("maps that have the right size already", (_square(4), 4)),
        Case("a single position, to 3x3", (_square(1), 3)),
    ],
    mistakes=[
        Mistake(
            "Both mistakes are still in it. All maps together sum to 1; each of them should. And the maps come in the "
            "order 0 1 0 1, where neighbours should share one: 0 0 1 1.",
            lambda maps, size: _enlarge(maps, size, _all_to_one, _in_turn),
        ),
        Mistake(
            "Each map sums to 1 now. But they come in the order 0 1 0 1, where neighbours should share one: 0 0 1 1.",
            lambda maps, size: _enlarge(maps, size, tile=_in_turn),
        ),
        Mistake(
            "Neighbours share their maps now. But all maps together sum to 1; each of them should.",
            lambda maps, size: _enlarge(maps, size, _all_to_one),
        ),
        Mistake(
            "Did you forget to normalise? Each map must sum to 1 again.",
            lambda maps, size: _enlarge(maps, size, _upsample),
        ),
        Mistake(
            "Which axis is a map's? Its values are in the last two axes, and their sum is to be 1.",
            lambda maps, size: _enlarge(maps, size, _over_maps),
        ),
        Mistake(
            "Did you divide by the factor? A map grows along two axes.",
            lambda maps, size: _enlarge(maps, size, _upsample) * len(maps) / size,
        ),
        Mistake(
            "That copies the nearest value. Eq. 2 is bilinear.",
            lambda maps, size: _enlarge(maps, size, partial(_upsample_map, mode="nearest")),
        ),
        Mistake(
            "Is that align_corners=True? Then the middles of the corner positions are pulled into the corners.",
            lambda maps, size: _enlarge(maps, size, partial(_upsample_map, align_corners=True)),
        ),
        Mistake(
            "Do you interpolate between the maps of neighbours, too? The first two axes are tiled: copies only.",
            _mixed_queries,
        ),
        Mistake(
            "Rows and columns of the positions are swapped.",
            lambda maps, size: _enlarge(maps, size).transpose(0, 1),
        ),
    ],
)

# ---- map_at ---------------------------------------------------------------------------------------------------------


def _map_at(maps: Sequence[Float[Tensor, "_ _"]], row: int, column: int, size: int) -> Float[Tensor, "side side"]:
    return aggregation.aggregate(maps, size)[row, column]


def _sides(maps: Sequence[Float[Tensor, "_ _"]]) -> list[int]:
    return [round(len(probs) ** 0.5) for probs in maps]


def _by_remainder(maps, row, column, size):
    sides = _sides(maps)
    rows = [(row % side) * side + column % side for side in sides]
    picked = [_upsample_map(probs[i].view(1, s, s), size)[0] for probs, i, s in zip(maps, rows, sides)]
    return sum(weight * each for weight, each in zip(aggregation.layer_weights(sides), picked))


def _alike(maps, row, column, size):
    return torch.stack([_map_at([probs], row, column, size) for probs in maps]).mean(dim=0)


def _unweighted_sum(maps, row, column, size):
    return _alike(maps, row, column, size) * len(maps)


def _weighted_by_sides(maps, row, column, size):
    return _map_at(maps, row, column, size) * sum(_sides(maps))


def _column_of_the_table(maps, row, column, size):
    return _map_at([probs.T / probs.sum(dim=0)[:, None] for probs in maps], row, column, size)


map_at = Check(
    "map_at",
    _map_at,
    cases=[
        Case("layers of 4x4 and 2x2, at row 1 and column 2", ([distributions(16, 16), distributions(4, 4)], 1, 2, 4)),
        Case(
            "layers of 2x2, 4x4 and 2x2, enlarged to 8x8, at row 5 and column 2",
            ([distributions(4, 4), distributions(16, 16), distributions(4, 4, seed=1)], 5, 2, 8),
        ),
        Case("a single layer, in the last corner", ([distributions(9, 9)], 5, 5, 6)),
        Case("a layer of one position", ([distributions(4, 4), torch.ones(1, 1)], 1, 0, 2)),
    ],
    mistakes=[
        Mistake(
            "Which position of the coarse grid contains this one? Divide by the factor; do not take a remainder.",
            _by_remainder,
        ),
        Mistake("Here every layer weighs the same. R goes with its side.", _alike),
        Mistake("Is that the plain sum of the layers? The weights sum to 1, and so must the map.", _unweighted_sum),
        Mistake("The weights must sum to 1: divide each side by the sum of all sides.", _weighted_by_sides),
        Mistake(
            "Row and column are swapped: position (row, column) is number row * side + column.",
            lambda maps, row, column, size: _map_at(maps, column, row, size),
        ),
        Mistake(
            "That is a column of the table: the attention that this position receives. Its own map is a row.",
            _column_of_the_table,
        ),
    ],
)
