"""Figures of masks with names: each word is written on its regions, and has one colour everywhere (Fig. 13 and 14).

Like those of `plots`, the Figures are returned closed.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy import ndimage

from diffseg.colours import word_colours
from diffseg.figures.plots import Labels, overlay, show_images
from diffseg.pocket import class_of  # noqa: F401  (beside the names that it is about)
from diffseg.wording import count

#: A region gets its name if it covers this part of the picture, and the largest one of a mask in any case.
MIN_SHARE = 0.02

_FONT = 9  # points
_LETTER, _LINE = 0.65, 1.3  # width of a letter and height of a line of bold text, in multiples of the font's size


@runtime_checkable
class Named(Protocol):
    """What `show_named` draws; a `DiffSegOutput` with words is one."""

    labels: Any  # integers [h, w]
    image: Any  # the picture, h x w
    words: Any  # words[id] names mask id


def locate_names(
    labels: Labels, words: Sequence[str], letter: float, line: float
) -> list[tuple[str, tuple[float, float]]]:
    """Where to write the names: as deep inside of their regions as possible, the largest region first.

    Args:
        labels: masks 0, 1, ...; a mask may come in several regions.
        words: words[id] names mask id.
        letter: width of a letter, pixels.
        line: height of a line, pixels.

    Returns:
        Names, and the row and column of their middles, in pixels from the picture's upper left corner. No two overlap,
        and all lie inside of the picture (if they are not longer than it is wide). Small regions, and those too
        narrow for their name, have none.
    """
    labels = np.asarray(labels)
    height, width = labels.shape
    rows, columns = (np.arange(length) + 0.5 for length in labels.shape)
    located: list[tuple[str, tuple[float, float]]] = []
    for mask, region in _regions(labels):
        word = words[mask]
        half = letter * len(word) / 2
        # For each pixel, the middle of a name that is written there: near the edge it is moved inwards.
        middle_rows = rows.clip(min(line / 2, height / 2), max(height - line / 2, height / 2))
        middle_columns = columns.clip(min(half, width / 2), max(width - half, width / 2))
        depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]  # to the region's edge or the picture's
        for other, (row, column) in located:
            in_reach = np.abs(middle_columns - column) < half + letter * len(other) / 2
            depth[np.ix_(np.abs(middle_rows - row) < line, in_reach)] = 0
        row, column = _deepest(depth, region)
        if depth[row, column] > 0:
            located.append((word, (float(middle_rows[row]), float(middle_columns[column]))))
    return located


def show_named(
    outs: Sequence[Named], above: Sequence[Labels] | None = None, titles: Sequence[str] | None = None
) -> Figure:
    """Masks with their names, one picture in each column, and all words in a legend.

    Args:
        outs: what the pipeline returned for `words=...`.
        above: masks without names, for a first row, such as those before masks of one word were merged.
        titles: one for each picture; None counts the masks.

    Raises:
        ValueError: for nothing to draw, masks without names or without a picture, or another number of `above` or
            `titles` than of pictures.
    """
    for name, given in {"above": above, "titles": titles}.items():
        if given is not None and len(given) != len(outs):
            raise ValueError(f"{name} has {len(given)} entries for {len(outs)} pictures; pass one for each.")
    for out in outs:
        _check(out)
    palette = word_colours([word for out in outs for word in out.words])
    pictures = [overlay(out.image, labels) for out, labels in zip(outs, above or [])]
    captions = [count(_distinct(labels), "mask") for labels in above or []]
    for out in outs:
        pictures.append(overlay(out.image, out.labels, _palette_of(out, palette), alpha=0.55))
        captions.append(count(_distinct(out.labels), "name"))
    if titles is not None:
        captions[: len(titles)] = titles
    figure = show_images(pictures, captions, columns=len(outs), legend=palette)
    for out, ax in zip(outs, figure.axes[-len(outs) :]):
        _write_names(ax, out)
    return figure


def _regions(labels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(mask id, where) of all connected regions that are large enough for a name, the largest first."""
    found = []
    for mask in np.unique(labels).tolist():
        numbered, _ = ndimage.label(labels == mask)
        areas = np.bincount(numbered.ravel())[1:]  # [regions]
        large = np.flatnonzero((areas >= MIN_SHARE * labels.size) | (areas == areas.max()))
        found += [(int(areas[index]), mask, numbered == index + 1) for index in large]
    found.sort(key=lambda region: -region[0])
    return [(mask, region) for _, mask, region in found]


def _deepest(depth: Float[np.ndarray, "h w"], region: np.ndarray) -> tuple[int, int]:
    """Row and column of the greatest depth; of equals the one nearest to the region's centre of mass."""
    equals = np.argwhere(depth == depth.max())
    nearest = np.square(equals - np.argwhere(region).mean(axis=0)).sum(axis=1).argmin()
    return tuple(equals[nearest].tolist())


def _write_names(ax: Axes, out: Named) -> None:
    """Each name on its regions, in letters that can be read on any ground."""
    width = np.asarray(out.labels).shape[1]
    panel = ax.figure.get_figwidth() / ax.get_subplotspec().get_gridspec().ncols  # inches
    em = _FONT / 72 / panel * width  # the font's size in pixels of the picture
    outline = [withStroke(linewidth=2.5, foreground="white")]
    for word, (row, column) in locate_names(out.labels, out.words, _LETTER * em, _LINE * em):
        text = ax.text(column - 0.5, row - 0.5, word, size=_FONT, weight="bold", path_effects=outline)
        text.set(ha="center", va="center", color="black")


def _palette_of(out: Named, palette: dict[str, str]) -> Float[np.ndarray, "masks 3"]:
    return np.array([to_rgb(palette[word]) for word in out.words])


def _check(out: Named) -> None:
    if out.image is None:
        raise ValueError("out.image is None; call the pipeline with the picture.")
    if not out.words:
        raise ValueError(f"out.words is {out.words!r}: no names. Call the pipeline with words=, or draw with `plots`.")
    largest = int(np.asarray(out.labels).max())
    if len(out.words) <= largest:
        raise ValueError(f"out.words has {len(out.words)} names for labels from 0 to {largest}; each needs one.")


def _distinct(labels: Labels) -> int:
    return len(np.unique(np.asarray(labels)))
