"""Checks of notebook 03: weights of the layers, upsampling, tiling, the aggregated map of one position."""

from collections.abc import Sequence
from numbers import Real

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffseg import aggregation

from ._exercise import Case, Check, Mistake, distributions

# ---- layer_weights --------------------------------------------------------------------------------------------------


def _shares(values: Sequence[Real]) -> list[float]:
    return [value / sum(values) for value in values]


layer_weights = Check(
    "layer_weights",
    lambda sides: aggregation.layer_weights(sides),
    cases=[
        Case("four layers, of the sides 8, 4, 4 and 2", ([8, 4, 4, 2],)),
        Case("a single layer", ([16],)),
        Case("three layers of one side", ([32, 32, 32],)),
        Case(
            "the layers of Stable Diffusion", ([64] * 2 + [32] * 2 + [16] * 2 + [8] + [16] * 3 + [32] * 3 + [64] * 3,)
        ),
    ],
    mistakes=[
        Mistake("The weights must sum to 1: divide each by the sum of all.", lambda sides: [float(s) for s in sides]),
        Mistake(
            "That is the released code's reading, in which the layers of one side share a weight. "
            "In the paper's, every layer counts.",
            lambda sides: aggregation.layer_weights(sides, "resolution"),
        ),
        Mistake(
            "Here every layer weighs the same. A larger side should weigh more.",
            lambda sides: _shares([1] * len(sides)),
        ),
        Mistake(
            "Is that the area? The weight goes with the side, not with its square.",
            lambda sides: _shares([side**2 for side in sides]),
        ),
    ],
)

# ---- upsample_map ---------------------------------------------------------------------------------------------------


def _enlarge(maps: Float[Tensor, "n s s"], size: int, **mode) -> Float[Tensor, "n size size"]:
    return F.interpolate(maps[:, None], size=(size, size), **mode)[:, 0]


def _normalise(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    return maps / maps.sum(dim=(1, 2), keepdim=True)


def _upsample_map(maps: Float[Tensor, "n s s"], size: int) -> Float[Tensor, "n size size"]:
    return _normalise(_enlarge(maps, size, mode="bilinear"))


_UNEVEN = torch.tensor([[[0.7, 0.1], [0.2, 0.0]], [[0.1, 0.2], [0.3, 0.4]]])

upsample_map = Check(
    "upsample_map",
    _upsample_map,
    cases=[
        Case("two maps of 2x2, to 4x4", (_UNEVEN, 4)),
        Case("three maps of 3x3, to 12x12", (distributions(3, 9).view(3, 3, 3), 12)),
        Case("maps that have the right size already", (distributions(2, 16).view(2, 4, 4), 4)),
        Case("a map of a single position, to 2x2", (torch.ones(1, 1, 1), 2)),
    ],
    mistakes=[
        Mistake(
            "Did you forget to normalise? Each map must sum to 1 again.",
            lambda maps, size: _enlarge(maps, size, mode="bilinear"),
        ),
        Mistake(
            "All maps together sum to 1 here. Each of them should.",
            lambda maps, size: _upsample_map(maps, size) / len(maps),
        ),
        Mistake(
            "Did you divide by the factor? A map grows along two axes.",
            lambda maps, size: _enlarge(maps, size, mode="bilinear") * maps.shape[-1] / size,
        ),
        Mistake(
            "That copies the nearest value. Eq. 2 is bilinear.",
            lambda maps, size: _normalise(_enlarge(maps, size, mode="nearest")),
        ),
        Mistake(
            "Is that align_corners=True? Then the middles of the corner positions are pulled into the corners.",
            lambda maps, size: _normalise(_enlarge(maps, size, mode="bilinear", align_corners=True)),
        ),
    ],
)

# ---- tile -----------------------------------------------------------------------------------------------------------


def _tile(maps: Float[Tensor, "_ _ k l"], size: int) -> Float[Tensor, "_ _ k l"]:
    factor = size // len(maps)
    return maps.repeat_interleave(factor, dim=0).repeat_interleave(factor, dim=1)


tile = Check(
    "tile",
    _tile,
    cases=[
        Case("2x2 positions, to 4x4", (torch.arange(4.0).reshape(2, 2, 1, 1).expand(2, 2, 2, 3).contiguous(), 4)),
        Case("3x3 positions, to 6x6", (distributions(3, 3, 2, 2), 6)),
        Case("2x2 positions, to 6x6", (distributions(2, 2, 1, 4), 6)),
        Case("as many positions as there are already", (distributions(4, 4, 2, 2), 4)),
        Case("one position, to 3x3", (distributions(1, 1, 3, 3), 3)),
    ],
    mistakes=[
        Mistake(
            "The maps come in the order 0 1 0 1. Neighbouring positions should share a map: 0 0 1 1.",
            lambda maps, size: maps.repeat(size // len(maps), size // len(maps), 1, 1),
        ),
        Mistake(
            "You tiled the rows of positions. What about the columns?",
            lambda maps, size: maps.repeat_interleave(size // len(maps), dim=0),
        ),
        Mistake(
            "You tiled the columns of positions. What about the rows?",
            lambda maps, size: maps.repeat_interleave(size // len(maps), dim=1),
        ),
        Mistake(
            "The first two axes are the queries, whose maps these are. Tile those, not the last two.",
            lambda maps, size: _tile(maps.permute(2, 3, 0, 1), maps.shape[2] * size // len(maps)).permute(2, 3, 0, 1),
        ),
        Mistake(
            "Rows and columns of the positions are swapped.",
            lambda maps, size: _tile(maps, size).transpose(0, 1),
        ),
    ],
)

# ---- map_at ---------------------------------------------------------------------------------------------------------


def _map_at(maps: Sequence[Float[Tensor, "_ _"]], row: int, column: int, size: int) -> Float[Tensor, "side side"]:
    return aggregation.aggregate(maps, size)[row, column]


def _by_remainder(maps, row, column, size):
    sides = [round(len(probs) ** 0.5) for probs in maps]
    rows = [(row % side) * side + column % side for side in sides]
    picked = [_upsample_map(probs[i].view(1, s, s), size)[0] for probs, i, s in zip(maps, rows, sides)]
    return sum(weight * each for weight, each in zip(aggregation.layer_weights(sides), picked))


def _alike(maps, row, column, size):
    return torch.stack([_map_at([probs], row, column, size) for probs in maps]).mean(dim=0)


def _unweighted_sum(maps, row, column, size):
    return _alike(maps, row, column, size) * len(maps)


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
