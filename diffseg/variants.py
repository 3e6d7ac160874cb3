"""What the authors' program does otherwise than the paper, each difference a switch, and two remedies beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import ndimage
from skimage.measure import label
from torch import Tensor

from diffseg import IMAGE_SIZE
from diffseg.aggregation import aggregate
from diffseg.masks import suppress
from diffseg.merging import anchor_distances, merge

#: Passes through the network, as arguments of `pipe.record`.
DRAWS: dict[str, dict[str, Any]] = {"noisy": {}, "clean": {"noise": False}, "noisy again": {"seed": 1}}


@dataclass(frozen=True)
class Variant:
    """One way from the layers' attention to proposals; the defaults are the paper's.

    Attributes:
        draw: one of `DRAWS`. The program adds no noise to the latent, although it tells the network a time step.
        weights: of layers, see `aggregate`.
        remove_merged: see `merge`.
        half: whether the first pass measures distances between numbers of 16 bits.
        kmeans: whether the proposals start a K-Means over all maps, whose means replace them.
    """

    draw: str = "noisy"
    weights: Literal["layer", "resolution"] = "layer"
    remove_merged: bool = True
    half: bool = False
    kmeans: bool = False


_RELEASED = Variant("clean", "resolution", remove_merged=False, half=True)

#: Each difference alone, all of them, and as a yardstick the paper's own way with another draw of noise.
VARIANTS = {
    "paper": Variant(),
    "no noise": Variant(draw="clean"),
    "weights per side": Variant(weights="resolution"),
    "merged ones stay": Variant(remove_merged=False),
    "float16": Variant(half=True),
    "released: all four": _RELEASED,
    "released, K-Means": replace(_RELEASED, kmeans=True),
    "another draw": Variant(draw="noisy again"),
}


def propose(
    passes: Mapping[str, Sequence[Float[Tensor, "*_"]]], variant: Variant, threshold: Real
) -> Float[Tensor, "proposals h w"]:
    """The proposals of a variant.

    Args:
        passes: draw -> the maps of the layers, as `pipe.record` returns them.
        variant: see `Variant`.
        threshold: of the merging, nats.
    """
    attention = aggregate(passes[variant.draw], weights=variant.weights).cpu()
    distances = anchor_distances(attention.half().float() if variant.half else attention)  # of the first pass
    merged = merge(attention, threshold=threshold, remove_merged=variant.remove_merged, distances=distances)
    return refine_by_kmeans(attention, merged) if variant.kmeans else merged


def refine_by_kmeans(
    attention: Float[Tensor, "h w h w"], proposals: Float[Tensor, "proposals h w"]
) -> Float[Tensor, "proposals h w"]:
    """The means of a K-Means over all maps that starts from the proposals."""
    from sklearn.cluster import KMeans

    kmeans = KMeans(len(proposals), init=proposals.flatten(1).numpy(), n_init=1)
    kmeans.fit(attention.flatten(2).flatten(0, 1).numpy())  # one row for each position
    return torch.from_numpy(kmeans.cluster_centers_).reshape(proposals.shape)


# ---- remedies -------------------------------------------------------------------------------------------------------


def fill_specks(labels: Int[Tensor, "h w"], smallest: int) -> Int[Tensor, "h w"]:
    """Each pixel of a piece with fewer than `smallest` pixels takes the label of the nearest pixel that is in none."""
    pieces = label(labels.numpy(), background=-1, connectivity=1)
    small = np.bincount(pieces.ravel())[pieces] < smallest  # [h, w]
    if small.all():
        return labels
    nearest = ndimage.distance_transform_edt(small, return_distances=False, return_indices=True)
    return labels[tuple(torch.from_numpy(nearest).long())]


def weigh_by_size(
    proposals: Float[Tensor, "proposals h w"], power: Real, size: int | tuple[int, int] = IMAGE_SIZE
) -> Int[Tensor, "height width"]:
    """Non-maximum suppression of proposals times the share of the picture that each won before, to a power.

    0 is Eq. 6 as it is. With 1, each pixel takes the most probable proposal by Bayes' rule.
    """
    won = suppress(proposals, size)
    shares = won.flatten().bincount(minlength=len(proposals)) / won.numel()
    return suppress(proposals * shares[:, None, None] ** power, size)


def remedies(per_position: int, size: int = IMAGE_SIZE) -> dict[str, Callable[[Tensor], Tensor]]:
    """Name -> a last step, from proposals to labels.

    Args:
        per_position: pixels of the picture that one position of the maps stands for.
        size: of the labels, pixels.
    """
    filled = {
        f"fill below {count}": partial(_suppress_and_fill, size=size, smallest=count * per_position)
        for count in (1, 4, 16, 64)
    }
    weighed = {f"weigh, a = {power:g}": partial(weigh_by_size, power=power, size=size) for power in (0.25, 0.5, 1)}
    return {"as it is": partial(suppress, size=size)} | filled | weighed


def _suppress_and_fill(proposals: Tensor, size: int, smallest: int) -> Tensor:
    return fill_specks(suppress(proposals, size), smallest)
