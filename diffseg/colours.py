"""Colours that mean the same everywhere: a class has one; a segment without a class takes one by its rank in area."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image
from skimage.color import label2rgb
from skimage.segmentation import mark_boundaries
from torch import Tensor

from diffseg.metrics import UNMATCHED, match_segments
from diffseg.pocket import CLASSES, class_of

Picture = Any  # a PIL image, or a uint8 array [h, w, 3] or [h, w]
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

#: The quantile of attention that is drawn in the brightest colour. A few values may be far above all others; a scale
#: that went up to them would leave the rest in the dark.
BRIGHTEST = 0.995


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


def match_colours(labels: Labels, truth: Labels, classes: int = len(CLASSES)) -> Palette:
    """A colour for each segment: its class's, in the one-to-one matching by which it is scored.

    Segments are matched to the classes in the picture such that the most pixels agree (see
    `metrics.match_segments`). A segment left over is grey: its pixels count as wrong.

    Raises:
        ValueError: for shapes that differ, negative segments, or classes out of range.
    """
    matched = match_segments(labels, truth, classes, protocol="clean")  # [segments]
    palette = class_colours(classes)[matched]
    left_over = matched == UNMATCHED
    palette[left_over] = np.linspace(0.6, 0.35, left_over.sum())[:, None]
    return palette


def word_colours(words: Sequence[str]) -> dict[str, str]:
    """A colour for each different word, as "#rrggbb": that of its class, or one that no class among them has."""
    distinct = list(dict.fromkeys(words))
    of_class = [css_colour(colour) for colour in class_colours()]
    known = {word: of_class[index] for word in distinct if (index := class_of(word)) is not None}
    by_contrast = map(css_colour, colours(len(of_class) + len(distinct)))
    free = (colour for colour in by_contrast if colour not in known.values())
    return {word: known.get(word) or next(free) for word in distinct}


def brightest(values: Float[np.ndarray, "*n"]) -> float:
    """What the brightest colour stands for in a drawing of attention: its quantile `BRIGHTEST`, if that is not 0."""
    return float(np.quantile(values, BRIGHTEST)) or float(values.max())


def css_colour(colour: Float[np.ndarray, "3"]) -> str:
    """A colour from 0 to 1 as "#rrggbb"."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour.tolist())


def overlay(
    image: Picture, labels: Labels, palette: Palette | None = None, alpha: Real = 0.55
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture, tinted by its labels, with a white line, edged in black, where one ends and the next begins.

    Args:
        image: as large as `labels`.
        labels: segments or classes, 0 and up.
        palette: None colours segments by area.
        alpha: 0 leaves the picture as it is, 1 hides it.

    Raises:
        ValueError: for sizes that differ, or if a label has no colour.
    """
    picture, labels = rgb_array(image), label_ids(labels)
    if picture.shape[:2] != labels.shape:
        raise ValueError(
            f"image is {picture.shape[0]}x{picture.shape[1]} and labels {labels.shape[0]}x{labels.shape[1]} "
            "(height x width); they must be equal. Draw on `out.image`, the square that was segmented."
        )
    palette = colours_by_area(labels) if palette is None else palette
    check_range(labels, len(palette), "labels", f"the palette of {len(palette)} colours")
    present = np.unique(labels)
    tinted = label2rgb(labels, picture, colors=palette[present], alpha=alpha, bg_label=-1, saturation=0.6)
    return to_uint8(mark_boundaries(tinted, labels, color=(1, 1, 1), outline_color=(0, 0, 0), mode="thick"))


def label_ids(labels: Labels, unlabelled: bool = False) -> Integer[np.ndarray, "h w"]:
    """Labels as a numpy array, not empty and (unless -1 may stand for "not labelled") not negative."""
    labels = np.asarray(labels).astype(np.int64)
    if labels.size == 0:
        raise ValueError(f"labels has the shape {labels.shape}; it must not be empty.")
    if not unlabelled and labels.min() < 0:
        raise ValueError(f"labels holds {labels.min()}; segment ids start at 0.")
    return labels


def rgb_array(image: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """A PIL image or a uint8 array as a uint8 RGB array."""
    array = np.asarray(image)
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(
            f"image is an array of shape {array.shape} and type {array.dtype}; expected a PIL image, or uint8 "
            "[height, width, 3] or [height, width]. For a label map use `paint`, for attention `show_attention`."
        )
    return array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)


def check_range(labels: np.ndarray, size: int, name: str, what: str) -> None:
    """ValueError if a label is not below `size`."""
    if labels.size and not (labels.min() >= 0 and labels.max() < size):
        raise ValueError(f"{name} holds {labels.min()} to {labels.max()}, which {what} does not cover.")


def to_uint8(colour: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colours from 0 to 1 as bytes."""
    return (255 * colour).round().astype(np.uint8)
