"""Segment, second half: from overlapping proposals to one label per pixel (Eq. 6)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffseg import IMAGE_SIZE
from diffseg.arguments import check_sides

_BLOCK = 2**22  # upsampled values alive at once: 16 MB in float32


def suppress(
    proposals: Float[Tensor, "proposals h w"], size: int | tuple[int, int] = IMAGE_SIZE
) -> Int[Tensor, "height width"]:
    """Non-maximum suppression: upsample every proposal, then the largest wins each pixel (Eq. 6).

    Bilinear upsampling comes first and argmax after it, so edges are smooth. On a tie the lower
    index wins. Memory is bounded: a few proposals at a time compete with the best so far.

    Args:
        proposals: maps that each sum to 1.
        size: side of the result, or its (height, width), pixels.

    Returns:
        int64 indices into `proposals`. Some may win nowhere: see `relabel`.

    Raises:
        TypeError: unless proposals is a tensor and size one or two whole numbers.
        ValueError: for no proposals, NaN, or a size below 1.
    """
    if not isinstance(proposals, Tensor):
        raise TypeError(f"proposals has the type {type(proposals).__name__}; pass a tensor, as `merge` returns it.")
    if proposals.ndim != 3 or proposals.numel() == 0:
        raise ValueError(
            f"proposals has the shape {list(proposals.shape)}; expected [proposals, h, w] with "
            "at least one, as `merge` returns them."
        )
    height, width = check_sides("size", size, f"In pixels; try {IMAGE_SIZE}.")
    if not proposals.isfinite().all():
        raise ValueError("proposals holds NaN or infinity; every proposal must be a distribution, as of `merge`.")
    count = max(1, _BLOCK // (height * width))
    best = labels = None
    for start in range(0, len(proposals), count):
        some = proposals[None, start : start + count].float()
        upsampled = F.interpolate(some, size=(height, width), mode="bilinear", align_corners=False)
        values, winners = upsampled[0].max(dim=0)  # [height, width] each
        winners += start
        if best is None:
            best, labels = values, winners
        else:
            labels = torch.where(values > best, winners, labels)
            best = torch.maximum(best, values)
    return labels


def relabel(
    labels: Int[Tensor, "h w"],
) -> tuple[Int[Tensor, "h w"], Int[Tensor, " kept"]]:
    """Number the labels that occur 0, 1, ... without gaps, in their old order.

    Returns:
        The new labels, and kept[new id] = old id, so that `proposals[kept]` goes with them.
    """
    present = torch.bincount(labels.flatten()) > 0
    new_ids = present.cumsum(0) - 1  # [old ids]
    return new_ids[labels], present.nonzero().flatten()


def enlarge(labels: Int[Tensor, "h w"], size: int | tuple[int, int]) -> Int[Tensor, "height width"]:
    """Labels of positions for pixels, without gaps; memberships are upsampled, as proposals are, for smooth outlines.

    Args:
        labels: from 0 on.
        size: side of the result, or its (height, width), pixels.
    """
    members = F.one_hot(labels).permute(2, 0, 1).float()
    return relabel(suppress(members, size))[0]


def binary_masks(labels: Int[Tensor, "h w"]) -> Bool[Tensor, "masks h w"]:
    """One binary mask per label, 0 to the largest: each pixel is in exactly one (Eq. 6)."""
    ids = torch.arange(int(labels.max()) + 1, device=labels.device)
    return labels == ids[:, None, None]
