"""Aggregate: attention maps of several resolutions to one (Eq. 2 and 3)."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from diffseg import ATTENTION_SIZE
from diffseg.arguments import check_sides

WEIGHTS = ("layer", "resolution")


def aggregate(
    maps: Sequence[Tensor],
    size: int | tuple[int, int] = ATTENTION_SIZE,
    weights: str | Mapping[int, Real] = "layer",
) -> Float[Tensor, "h w h w"]:
    """One attention map per position from the maps of all layers.

    Each map is upsampled to `size` (its last two axes, bilinear, Eq. 2) and normalised; the grid
    of maps is tiled to `size` (its first two axes, nearest); the weighted sum is the result
    (Eq. 3). Upsampling is linear and keeps the mass of a map, so the layers of one side are summed
    first and upsampled once: the largest temporary is that of the second largest side.

        with record_attention(unet) as layers:
            ...
        attention = aggregate([layer.probs for layer in layers])

    Args:
        maps: self-attention probabilities, [q, q] or [heads, q, q] (averaged over heads), whose positions are those of
            `size`, divided by a whole factor along both axes: q = side**2 for squares. Rows are normalised.
        size: the side of the result, or its (rows, columns).
        weights: "layer": R_k in proportion to the side of layer k, as the paper writes it.
            "resolution": layers of one side are averaged, then sides weigh in proportion to
            their length, as the released code does it. Or the weights of the averaged sides as
            a mapping {side: weight}, in which missing sides weigh nothing. The side of a grid that is not square is
            its shorter one.

    Returns:
        float32; result[i, j] is a map that sums to 1.

    Raises:
        TypeError: unless the maps are tensors.
        ValueError: for no maps, maps whose positions are not those of `size` divided by a whole factor, NaN or
            all-zero rows, and weights that make no sense.
    """
    grid = check_sides("size", size, f"Of the result, in positions; the paper takes {ATTENTION_SIZE}.")
    factors = _factors(maps, grid)
    per_layer = layer_weights([min(grid) // factor for factor in factors], weights)
    by_factor = {factor: weight for factor, weight in zip(factors, per_layer) if weight > 0}
    return _weigh(
        {factor: _sum_layers(maps, factors, factor, grid) for factor in by_factor}, by_factor, grid, reuse=True
    )


@dataclass(frozen=True)
class SideSums:
    """The maps of all layers, summed for each side: what of `aggregate` does not depend on the weights.

    Attributes:
        grid: rows and columns of the result.
        sums: [q, n] for each factor by which a side is coarser than the result: its q positions' maps, each the sum of
            distributions over all n positions.
        counts: how many layers each factor has.
    """

    grid: tuple[int, int]
    sums: dict[int, Float[Tensor, "_ n"]]
    counts: dict[int, int]

    @property
    def sides(self) -> tuple[int, ...]:
        """From the finest to the coarsest; what weights may name."""
        return tuple(min(self.grid) // factor for factor in sorted(self.counts))


def sum_sides(maps: Sequence[Tensor], size: int | tuple[int, int] = ATTENTION_SIZE) -> SideSums:
    """The slow part of `aggregate`, done once where many weights are tried: a slider for R is live.

        sums = sum_sides([layer.probs for layer in layers])
        attention = weigh_sides(sums, {64: 0.6, 32: 0.4})  # what `aggregate` gives, bit by bit

    Raises:
        TypeError, ValueError: as `aggregate`.
    """
    grid = check_sides("size", size, f"Of the result, in positions; the paper takes {ATTENTION_SIZE}.")
    factors = _factors(maps, grid)
    counts = dict(Counter(factors))
    return SideSums(grid, {factor: _sum_layers(maps, factors, factor, grid) for factor in counts}, counts)


def weigh_sides(sums: SideSums, weights: str | Mapping[int, Real] = "layer") -> Float[Tensor, "h w h w"]:
    """The weighted sum of the sides (Eq. 3): `aggregate` of the maps that were summed.

    Raises:
        ValueError: for weights that make no sense.
    """
    by_factor = {factor: weight for factor, weight in _layer_weights_of(sums, weights).items() if weight > 0}
    return _weigh({factor: sums.sums[factor] for factor in by_factor}, by_factor, sums.grid)


def side_weights(sums: SideSums, weights: str | Mapping[int, Real] = "layer") -> dict[int, float]:
    """R of all layers of a side together, for each side from the finest to the coarsest; they sum to 1.

    Raises:
        ValueError: for weights that make no sense.
    """
    per_layer = _layer_weights_of(sums, weights)
    return {min(sums.grid) // factor: per_layer[factor] * sums.counts[factor] for factor in sorted(per_layer)}


def _layer_weights_of(sums: SideSums, weights: str | Mapping[int, Real]) -> dict[int, float]:
    """R_k of each layer, by the factor of its side; layers of one side have the same."""
    factors = [factor for factor, count in sums.counts.items() for _ in range(count)]
    return dict(zip(factors, layer_weights([min(sums.grid) // factor for factor in factors], weights)))


def layer_weights(sides: Sequence[int], weights: str | Mapping[int, Real] = "layer") -> list[float]:
    """R_k of Eq. 3 for layers of the given sides; the weights sum to 1.

    Raises:
        ValueError: for no layers or weights that make no sense (see `aggregate`).
    """
    if not sides:
        raise ValueError("maps is empty; record a UNet pass first (see record_attention).")
    count = Counter(sides)
    check_weights(weights)
    if isinstance(weights, Mapping):
        unknown = [side for side in weights if side not in count]
        if unknown:
            raise ValueError(
                f"weights={weights!r} names the sides {unknown}; the maps have {sorted(count)}. Leave out the others."
            )
        raw = [weights.get(side, 0) / count[side] for side in sides]
    elif weights == "layer":
        raw = [float(side) for side in sides]
    else:
        raw = [side / count[side] for side in sides]
    total = sum(raw)
    return [weight / total for weight in raw]


def check_weights(weights: str | Mapping[int, Real]) -> None:
    """ValueError for weights that would make no sense whatever the layers (see `aggregate`)."""
    if not isinstance(weights, Mapping):
        if weights not in WEIGHTS:
            raise ValueError(f"weights={weights!r} must be one of {WEIGHTS} or a mapping side: weight.")
        return
    numbers = list(weights.values())
    if not all(isinstance(weight, Real) and 0 <= weight < math.inf for weight in numbers) or sum(numbers) <= 0:
        raise ValueError(
            f"weights={weights!r} must be finite, not negative, and not all zero; for example {{64: 1, 32: 0.5}}."
        )


def _factor(index: int, probs: Tensor, rows: int, columns: int) -> int:
    """How many times coarser a map's grid is than that of the result, along each axis."""
    if not isinstance(probs, Tensor):
        raise TypeError(
            f"maps[{index}] has the type {type(probs).__name__}; pass tensors: [layer.probs for layer in layers]."
        )
    shape = list(probs.shape)
    if len(shape) not in (2, 3) or shape[-1] != shape[-2] or shape[-1] == 0:
        raise ValueError(
            f"maps[{index}] has the shape {shape}; expected [q, q] or [heads, q, q]: self-attention over q positions."
        )
    factor = math.isqrt(rows * columns // shape[-1])
    if factor == 0 or rows % factor or columns % factor or (rows // factor) * (columns // factor) != shape[-1]:
        whole = f"size={rows}" if rows == columns else f"size=({rows}, {columns})"
        raise ValueError(
            f"maps[{index}] has {shape[-1]} positions, which are not those of {whole} divided by a whole factor along "
            "both axes; choose a size that is a multiple of every layer's."
        )
    return factor


def _factors(maps: Sequence[Tensor], grid: tuple[int, int]) -> list[int]:
    """How many times coarser each map's grid is than that of the result."""
    if not isinstance(maps, Sequence):
        raise TypeError(f"maps has the type {type(maps).__name__}; pass a list, [layer.probs for layer in layers].")
    return [_factor(index, probs, *grid) for index, probs in enumerate(maps)]


def _sum_layers(
    maps: Sequence[Tensor], factors: Sequence[int], factor: int, grid: tuple[int, int]
) -> Float[Tensor, "q n"]:
    """The sum of the layers of one side, each row a distribution, upsampled to the grid."""
    own = [index for index, each in enumerate(factors) if each == factor]
    total = torch.zeros(maps[own[0]].shape[-2:], device=maps[own[0]].device)
    for index in own:
        _add_normalised(total, maps[index], index)
    return total if factor == 1 else _upsample(total, factor, *grid)


def _weigh(
    sums: Mapping[int, Float[Tensor, "_ n"]], weights: Mapping[int, float], grid: tuple[int, int], reuse: bool = False
) -> Float[Tensor, "h w h w"]:
    """The weighted sum over sides, tiled to the grid.

    A side is tiled onto the next finer one where their grids nest, so that only one is tiled onto the full grid. With
    `reuse` the sums are overwritten.
    """
    rows, columns = grid
    positions = rows * columns
    carried: tuple[int, Tensor] | None = None
    result = None
    for factor in sorted({1, *sums}, reverse=True):
        if factor not in sums:  # there is no layer of the full size
            total = torch.zeros(positions, positions, device=carried[1].device)
        else:
            total = sums[factor].mul_(weights[factor]) if reuse else sums[factor] * weights[factor]
        if carried is not None and carried[0] % factor:
            result = torch.zeros(positions, positions, device=total.device) if result is None else result
            _add_tiled(result, carried[1], carried[0], rows, columns)
        elif carried is not None:
            _add_tiled(total, carried[1], carried[0] // factor, rows // factor, columns // factor)
        carried = (factor, total)
    whole = carried[1] if result is None else carried[1].add_(result)
    return rearrange(whole, "(i j) (k l) -> i j k l", i=rows, k=rows)


def _add_normalised(total: Tensor, probs: Tensor, index: int) -> None:
    """total += probs with rows that sum to 1."""
    probs = (probs.mean(dim=0) if probs.ndim == 3 else probs).float()
    mass = probs.sum(dim=-1, keepdim=True)  # [q, 1]
    if not (mass.isfinite() & (mass > 0)).all():
        raise ValueError(
            f"maps[{index}] has rows with NaN, infinity or no mass; every row must be a "
            "distribution. If the model runs in float16, try bfloat16 or float32."
        )
    total.addcmul_(probs, 1 / mass)


def _upsample(maps: Float[Tensor, "q q"], factor: int, rows: int, columns: int) -> Float[Tensor, "q n"]:
    """Bilinear upsampling of each row's map (Eq. 2), keeping its mass."""
    images = rearrange(maps, "q (h w) -> q 1 h w", h=rows // factor)
    images = F.interpolate(images, size=(rows, columns), mode="bilinear", align_corners=False)
    # For whole factors every source pixel spreads the same total weight, factor**2.
    return rearrange(images, "q 1 h w -> q (h w)") / factor**2


def _add_tiled(result: Float[Tensor, "m n"], maps: Float[Tensor, "q n"], factor: int, rows: int, columns: int) -> None:
    """result[I, J] += maps[I // factor, J // factor], without forming the tiles; rows and columns are those of I, J."""
    tiles = result.view(rows // factor, factor, columns // factor, factor, result.shape[1])
    tiles += rearrange(maps, "(i j) n -> i 1 j 1 n", i=rows // factor)
