"""An object from a few clicks: the positions whose attention maps are near those of the clicked ones (Eq. 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from diffseg.arguments import check_sides, check_threshold
from diffseg.merging import check_attention, full_precision, log_probability

Place = tuple[Real, Real]  # x and y from the upper left corner, 0 to 1


@dataclass(frozen=True)
class Maps:
    """Attention with what distances are made of, computed once for all clicks.

    Attributes:
        grid: rows and columns.
        p: maps, a row for each position.
        log_p: their logarithms, see `merging.log_probability`.
        h: p . log p of each map.
    """

    grid: tuple[int, int]
    p: Float[Tensor, "n n"]
    log_p: Float[Tensor, "n n"]
    h: Float[Tensor, " n"]


def prepare(attention: Float[Tensor, "h w h w"]) -> Maps:
    """What of the distances does not depend on where one clicks."""
    grid = check_attention(attention)
    p = rearrange(attention.float(), "i j k l -> (i j) (k l)")
    log_p = log_probability(p)
    return Maps(grid, p, log_p, torch.linalg.vecdot(p, log_p))


def distances_from(maps: Maps, places: Sequence[Place]) -> Float[Tensor, "places h w"]:
    """D of Eq. 5 between the maps of some places and all maps, nats."""
    rows, columns = maps.grid
    own = [row * columns + column for row, column in (position(place, maps.grid) for place in places)]
    with full_precision(maps.p.device.type):
        cross = maps.p[own] @ maps.log_p.T + maps.log_p[own] @ maps.p.T  # [places, n]
    distances = (0.5 * (maps.h[own, None] + maps.h - cross)).clamp_min(0)
    distances[range(len(own)), own] = 0
    return rearrange(distances, "c (h w) -> c h w", h=rows)


def position(place: Place, grid: tuple[int, int]) -> tuple[int, int]:
    """The row and column of a grid in which a place lies."""
    x, y = place
    return min(max(int(y * grid[0]), 0), grid[0] - 1), min(max(int(x * grid[1]), 0), grid[1] - 1)


def select(
    attention: Float[Tensor, "h w h w"] | Maps,
    positive: Sequence[Place],
    negative: Sequence[Place] = (),
    reach: Real = 1.0,
    size: int | tuple[int, int] | None = None,
) -> Bool[Tensor, "height width"]:
    """The object that was clicked: no new model, only distances between maps.

    A position belongs to it if its map is nearer than `reach` to that of a positive click, and nearer to that one than
    to the map of any negative click. How far a position is inside is upsampled (bilinear) and cut at zero, so edges
    are smooth.

    Args:
        attention: as `DiffSegPipeline.attend` gives it, or what `prepare` made of it.
        positive: places on the object, (x, y) from the upper left corner, 0 to 1.
        negative: places that do not belong to it.
        reach: in nats, as the merging threshold.
        size: side of the mask, or its (height, width), pixels; None: that of the attention.

    Raises:
        ValueError: without a positive place, or for a place outside of the picture.
    """
    maps = attention if isinstance(attention, Maps) else prepare(attention)
    height, width = maps.grid if size is None else check_sides("size", size, "In pixels.")
    reach = check_threshold(reach)
    if not positive:
        raise ValueError(f"positive={list(positive)!r} has no place; pass one on the object, such as [(0.5, 0.5)].")
    outside = [place for place in [*positive, *negative] if not all(0 <= each <= 1 for each in place)]
    if outside:
        raise ValueError(f"the places {outside} are outside of the picture; x and y go from 0 to 1.")
    distances = distances_from(maps, [*positive, *negative])
    near = distances[: len(positive)].amin(dim=0)
    inside = reach - near
    if negative:
        inside = torch.minimum(inside, distances[len(positive) :].amin(dim=0) - near)
    # Clamped: a border between two positions must not move because one of them is very far away.
    inside = inside.clamp(-reach, reach)
    if (height, width) != maps.grid:
        inside = F.interpolate(inside[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0]
    return inside > 0
