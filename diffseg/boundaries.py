"""Boundary IoU: how well the outlines agree, whatever the size of what they surround (Cheng et al., 2021).

The IoU of a large thing hardly notices a ragged outline. Boundary IoU compares only the pixels of each mask that lie
close to its own outline.
"""

import math

import numpy as np
from jaxtyping import Bool, Int, Integer
from scipy.ndimage import maximum_filter, minimum_filter

BAND = 0.02  # the width of the band as a share of the picture's diagonal, the paper's (Sec. 5)

_OUTSIDE = -2  # what lies beyond the picture: no label


def band_width(height: int, width: int, share: float = BAND) -> int:
    """The width of the band of a picture, in pixels, at least 1."""
    return max(round(share * math.hypot(height, width)), 1)


def boundary_band(labels: Integer[np.ndarray, "h w"], width: int) -> Bool[np.ndarray, "h w"]:
    """Which pixels lie closer than `width` to the outline of their own label, diagonal steps counting as one.

    That is what `width` erosions by a square of 3 x 3 take away from the mask of each label, all labels at once: a
    pixel stays if the square of 2 width + 1 around it holds nothing else. The picture's border is an outline, too.

    Args:
        labels: from -1 on.
        width: in pixels, see `band_width`.
    """
    side = 2 * width + 1
    low = minimum_filter(labels, side, mode="constant", cval=_OUTSIDE)
    high = maximum_filter(labels, side, mode="constant", cval=_OUTSIDE)
    return low != high


def count_boundary(
    pred: Integer[np.ndarray, "h w"], truth: Integer[np.ndarray, "h w"], classes: int, width: int | None = None
) -> tuple[Int[np.ndarray, " classes"], Int[np.ndarray, " classes"], Int[np.ndarray, " classes"]]:
    """The pixels that boundary IoU is made of, for each class; sums over images are its counts over a data set.

    Args:
        pred, truth: class ids; -1 for what belongs to no class or is not labelled.
        classes: how many there are.
        width: of the band, pixels; None: 2% of the diagonal.

    Returns:
        hits: in both bands, and both say this class.
        predicted, actual: in the band of the prediction, of the truth. Boundary IoU is hits / (predicted + actual -
        hits).
    """
    width = band_width(*truth.shape) if width is None else width
    predicted, actual = (np.where(boundary_band(labels, width), labels, -1) for labels in (pred, truth))
    agreed = np.where(predicted == actual, actual, -1)
    return tuple(np.bincount(labels.ravel() + 1, minlength=classes + 1)[1:] for labels in (agreed, predicted, actual))
