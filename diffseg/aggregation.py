"""Aggregate: attention maps of several resolutions to one (Eq. 2 and 3)."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
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
    rows, columns = check_sides("size", size, f"Of the result, in positions; the paper takes {ATTENTION_SIZE}.")
    if not isinstance(maps, Sequence):
        raise TypeError(f"maps has the type {type(maps).__name__}; pass a list, [layer.probs for layer in layers].")
    factors = [_factor(index, probs, rows, columns) for index, probs in enumerate(maps)]
    per_layer = layer_weights([min(rows, columns) // factor for factor in factors], weights)
    totals: dict[int, Tensor] = {}
    for index, (probs, factor, weight) in enumerate(zip(maps, factors, per_layer, strict=True)):
        if weight > 0:
            if factor not in totals:
                totals[factor] = torch.zeros(probs.shape[-2:], device=probs.device)
            _add_normalised(totals[factor], probs, weight, index)

    # The largest grid needs no upsampling: its sum becomes the result, the others are added.
    result = totals.pop(1, None)
    if result is None:
        result = torch.zeros(rows * columns, rows * columns, device=maps[0].device)
    for factor, total in totals.items():
        _add_tiled(result, _upsample(total, factor, rows, columns), factor, rows, columns)
    return rearrange(result, "(i j) (k l) -> i j k l", i=rows, k=rows)


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


def _add_normalised(total: Tensor, probs: Tensor, weight: float, index: int) -> None:
    """total += weight * (probs with rows that sum to 1)."""
    probs = (probs.mean(dim=0) if probs.ndim == 3 else probs).float()
    mass = probs.sum(dim=-1, keepdim=True)  # [q, 1]
    if not (mass.isfinite() & (mass > 0)).all():
        raise ValueError(
            f"maps[{index}] has rows with NaN, infinity or no mass; every row must be a "
            "distribution. If the model runs in float16, try bfloat16 or float32."
        )
    total.addcmul_(probs, weight / mass)


def _upsample(maps: Float[Tensor, "q q"], factor: int, rows: int, columns: int) -> Float[Tensor, "q n"]:
    """Bilinear upsampling of each row's map (Eq. 2), keeping its mass."""
    images = rearrange(maps, "q (h w) -> q 1 h w", h=rows // factor)
    images = F.interpolate(images, size=(rows, columns), mode="bilinear", align_corners=False)
    # For whole factors every source pixel spreads the same total weight, factor**2.
    return rearrange(images, "q 1 h w -> q (h w)") / factor**2


def _add_tiled(result: Float[Tensor, "n n"], maps: Float[Tensor, "q n"], factor: int, rows: int, columns: int) -> None:
    """result[I, J] += maps[I // factor, J // factor], without forming the tiles."""
    tiles = result.view(rows // factor, factor, columns // factor, factor, rows * columns)
    tiles += rearrange(maps, "(i j) n -> i 1 j 1 n", i=rows // factor)
