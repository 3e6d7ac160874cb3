"""Colours that mean the same everywhere: a class has one; a segment without a class takes one by its rank in area."""

import numpy as np
from jaxtyping import Float, Integer
from torch import Tensor

from diffseg.pocket import CLASSES

Labels = Integer[np.ndarray | Tensor, "h w"]
Palette = Float[np.ndarray, "n 3"]  # one RGB colour from 0 to 1 per label

# One colour per class, near the natural one where there is one. Found by a search for colours
# that differ in CIELAB by at least 26, and by at least 14 for red-green-blind eyes. No greys:
# those are for segments without a class.
_CLASS_COLOURS = (
    "#ed4e63", "#fcbd60", "#e721d4", "#6724ff", "#ffc700", "#940042", "#f0879d", "#00429e", "#b93409",
    "#443200", "#500043", "#d5a6ff", "#605af7", "#bcff4d", "#00686d", "#ff9871", "#0de48d", "#8ccfca",
    "#938fb8", "#063721", "#954736", "#33b92e", "#ffe4be", "#008de5", "#7d4b95", "#c6ddff", "#d17e00",
)  # fmt: skip
# The same, each as different as possible from all before it, so that few are told apart best.
_BY_CONTRAST = (23, 4, 0, 3, 17, 24, 22, 9, 26, 18, 8, 15, 5, 11, 14, 12, 10, 6, 2, 7, 19, 20, 25, 1, 21, 16, 13)
_PALETTE = np.array([[int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)] for colour in _CLASS_COLOURS])


def class_colours(n: int = len(CLASSES)) -> Palette:
    """The colours of classes 0 to n - 1, always the same."""
    return _PALETTE[np.arange(n) % len(_PALETTE)]


def colours(n: int) -> Palette:
    """n colours, the first ones easiest to tell apart; beyond the palette's length they grow paler."""
    rounds, index = np.divmod(np.arange(n), len(_PALETTE))
    vivid = _PALETTE[np.array(_BY_CONTRAST)[index]]  # [n, 3]
    return 1 - (1 - vivid) * 0.6 ** rounds[:, None]


def colours_by_area(labels: Labels) -> Palette:
    """A colour for each segment by its rank in area, so that similar segmentations look alike.

    Raises:
        ValueError: if there is no segment or a negative id.
    """
    areas = np.bincount(label_ids(labels).ravel())  # [segments]
    palette = np.empty((len(areas), 3))
    palette[np.argsort(-areas, kind="stable")] = colours(len(areas))
    return palette


def label_ids(labels: Labels, unlabelled: bool = False) -> Integer[np.ndarray, "h w"]:
    """Labels as a numpy array, not empty and (unless -1 may stand for "not labelled") not negative."""
    labels = np.asarray(labels).astype(np.int64)
    if labels.size == 0:
        raise ValueError(f"labels has the shape {labels.shape}; it must not be empty.")
    if not unlabelled and labels.min() < 0:
        raise ValueError(f"labels holds {labels.min()}; segment ids start at 0.")
    return labels
