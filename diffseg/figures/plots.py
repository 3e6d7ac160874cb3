"""Figures: arrays in, a matplotlib Figure out.

Every function returns its Figure closed, so that a notebook shows it once, as the value of a
cell's last line. What draws one picture also takes the `ax` to draw it into. Colours mean the
same everywhere: a class has one colour, a segment takes that of the class it is matched to or,
without a truth, one by its rank in area, and attention is drawn in viridis.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from IPython import get_ipython
from IPython.core.pylabtools import print_figure
from jaxtyping import Float, Integer, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib_inline.config import InlineBackend
from torch import Tensor

from diffseg.colours import (  # noqa: F401  (all of `plots`)
    BRIGHTEST,
    Labels,
    Palette,
    Picture,
    check_range,
    class_colours,
    colours,
    colours_by_area,
    label_ids,
    match_colours,
    overlay,
    rgb_array,
    to_uint8,
)
from diffseg.figures.layout import PAGE_WIDTH, closed_figure
from diffseg.metrics import IGNORE, image_score
from diffseg.pocket import CLASSES
from diffseg.wording import count

_UNLABELLED = (1.0, 1.0, 1.0)

ROWS = ("image", "overlay", "segments", "truth")  # what `show_results` can show

_QUALITY = 60  # of JPEG
_LARGEST = 3.2  # inches: side of a panel
_TITLE = 0.3  # inches: room for a panel's title


@runtime_checkable
class Segmented(Protocol):
    """What `show_segmentation` draws; a `DiffSegOutput` is one."""

    labels: Any  # integers [h, w]
    image: Any  # the picture, h x w


def style() -> None:
    """One style for all notebooks: call it once, in the first cell."""
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.figsize": (PAGE_WIDTH, 3.2),
            "figure.constrained_layout.use": True,
            "font.family": "DejaVu Sans",  # comes with matplotlib
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "image.cmap": "viridis",
            "legend.frameon": False,
        }
    )
    shell = get_ipython()
    if shell is not None:
        inline = InlineBackend.instance(parent=shell)
        inline.figure_formats = {"jpeg"}
        shell.display_formatter.formatters["image/jpeg"].for_type(Figure, _sharp_jpeg)


def _sharp_jpeg(figure: Figure) -> tuple[str, dict[str, int]]:
    """A figure with twice as many pixels as it is wide, base64, and the size that it is shown at.

    Photographs in PNG are five times as large, and notebooks are kept with their figures. On a screen with small pixels
    nothing is soft; at this quality the file is as large as one of half the side at quality 85.
    """
    pillow = {"quality": _QUALITY, "optimize": True, "progressive": True}
    encoded = print_figure(figure, "jpeg", base64=True, dpi=2 * figure.dpi, pil_kwargs=pillow)
    width, height = PIL.Image.open(io.BytesIO(base64.b64decode(encoded))).size
    return encoded, {"width": round(width / 2), "height": round(height / 2)}


# ---- colours --------------------------------------------------------------------------------------------------------


def legend_of(truth: Labels, names: Sequence[str] = CLASSES) -> dict[str, tuple[float, ...]]:
    """The name and colour of each class that can be seen, in the order of the classes."""
    present = np.setdiff1d(label_ids(truth, unlabelled=True), IGNORE)
    check_range(present, len(names), "truth", f"the {len(names)} names")
    palette = class_colours(len(names))
    return {names[label]: tuple(palette[label].tolist()) for label in present}


# ---- label maps to pictures -----------------------------------------------------------------------------------------


def paint(labels: Labels, palette: Palette | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """The label map as a picture: palette[label] in each pixel, white where the label is -1 or 255.

    Args:
        labels: segments or classes.
        palette: None colours segments by area.

    Raises:
        ValueError: if a label has no colour.
    """
    labels = label_ids(labels, unlabelled=palette is not None)
    palette = colours_by_area(labels) if palette is None else palette
    unlabelled = np.isin(labels, IGNORE) & ((labels < 0) | (labels >= len(palette)))
    check_range(labels[~unlabelled], len(palette), "labels", f"the palette of {len(palette)} colours")
    coloured = palette[np.where(unlabelled, 0, labels)]  # [h, w, 3]
    coloured[unlabelled] = _UNLABELLED
    return to_uint8(coloured)


# ---- figures --------------------------------------------------------------------------------------------------------


def show_image(image: Picture, title: str = "", ax: Axes | None = None) -> Figure:
    """One picture without axes."""
    ax = _grid(1, 1)[1][0] if ax is None else ax
    ax.imshow(rgb_array(image))
    return _bare(ax, title).figure


def show_images(
    images: Sequence[Picture],
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    legend: Mapping[str, Any] | None = None,
) -> Figure:
    """A grid of pictures, row by row.

    Args:
        images: pictures; turn label maps into pictures with `paint` or `overlay`.
        titles: one for each picture.
        columns: None: at most 4.
        legend: name -> colour, below the pictures; see `legend_of`.

    Raises:
        ValueError: for no images, fewer than one column, or another number of titles.
    """
    if titles is not None and len(images) != len(titles):
        raise ValueError(f"titles has {len(titles)} entries for {len(images)} images; pass one for each.")
    figure, axes = _grid(len(images), columns, titles is not None, bool(legend))
    for ax, image, title in zip(axes, images, titles or [""] * len(images)):
        show_image(image, title, ax)
    if legend:
        _add_legend(figure, legend)
    return figure


def show_segmentation(out: Segmented, truth: Labels | None = None, names: Sequence[str] = CLASSES) -> Figure:
    """The input, the overlay with boundaries, the segments, and the truth if it is known.

    Args:
        out: what the pipeline returned.
        truth: class of each pixel; the segments then take the colours of the classes they are
            matched to, and grey where none is left for them.
        names: of the classes.

    Raises:
        ValueError: for an output without its image, or a truth of another size.
    """
    if out.image is None:
        raise ValueError("out.image is None; hand the picture to `pipe.segment(attention, image=picture)`.")
    if truth is None:
        palette, legend = colours_by_area(out.labels), None
    else:
        palette, legend = match_colours(out.labels, truth, len(names)), legend_of(truth, names)
    painted = paint(out.labels, palette)
    images = [out.image, overlay(out.image, out.labels, palette), painted]
    titles = ["input", "overlay", count(len(np.unique(label_ids(out.labels))), "segment")]
    if truth is not None:
        images.append(paint(truth, class_colours(len(names))))
        titles.append(f"truth: {count(len(legend), 'class', 'classes')}")
        if (_grey(palette)[np.unique(label_ids(out.labels))]).any():
            legend["(no class left)"] = (0.6, 0.6, 0.6)
    return show_images(images, titles, legend=legend)


def show_results(
    images: Sequence[Picture],
    found: Sequence[Labels],
    truths: Sequence[Labels],
    rows: Sequence[str] = ROWS,
    names: Sequence[str] | None = None,
) -> Figure:
    """Several results, one column each: segments in the colours of the classes they are matched to.

    Args:
        images: pictures.
        found: the segments of each.
        truths: the classes of each.
        rows: what to show, from "image", "overlay", "segments" and "truth"; results are titled "accuracy / mIoU".
        names: of the results, before their scores.

    Raises:
        ValueError: for no images, other numbers of results, truths or names, or an unknown row.
    """
    if not len(images) == len(found) == len(truths):
        raise ValueError(f"{len(images)} images, {len(found)} found and {len(truths)} truths; pass one of each.")
    if names is not None and len(names) != len(images):
        raise ValueError(f"names has {len(names)} entries for {len(images)} images; pass one for each.")
    if unknown := set(rows) - set(ROWS):
        raise ValueError(f"rows names {sorted(unknown)}; expected some of {ROWS}.")
    palettes = [match_colours(labels, truth) for labels, truth in zip(found, truths)]
    scores = [image_score(labels, truth) for labels, truth in zip(found, truths)]
    scored = [f"{accuracy:.0%} / {miou:.0%}" for accuracy, miou in scores]
    if names is not None:
        scored = [f"{name}: {score}" for name, score in zip(names, scored)]
    panels = {
        "image": (images, [""] * len(images)),
        "overlay": ([overlay(*given) for given in zip(images, found, palettes)], scored),
        "segments": ([paint(*given) for given in zip(found, palettes)], scored),
        "truth": ([paint(truth, class_colours()) for truth in truths], ["truth"] * len(truths)),
    }
    pictures = [picture for row in rows for picture in panels[row][0]]
    titles = [title for row in rows for title in panels[row][1]]
    return show_images(pictures, titles, columns=len(images))


def show_truth(truth: Labels, names: Sequence[str] = CLASSES, title: str = "truth", ax: Axes | None = None) -> Figure:
    """The classes in their fixed colours, with a legend of their names on the right.

    Raises:
        ValueError: if a class has no name; the values -1 and 255 mean "not labelled".
    """
    legend = legend_of(truth, names)
    figure = show_image(paint(truth, class_colours(len(names))), title, ax)
    ax = figure.axes[0] if ax is None else ax
    ax.legend(handles=_handles(legend), loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, frameon=False)
    return figure


def show_attention(
    maps: Float[np.ndarray | Tensor, "n h w"],
    image: Picture | None = None,
    points: Integer[np.ndarray | Tensor, "points 2"] | Sequence[tuple[int, int]] | None = None,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
) -> Figure:
    """Heat maps on one shared scale, in multiples of what even attention would give.

    Args:
        maps: not negative; `attention[rows, columns]` gives n maps.
        image: if given, the first panel, with all queries marked and numbered.
        points: row and column, in the maps, of the query that each map belongs to.
        titles: one for each map; None numbers them.
        columns: panels side by side, the picture included; None: at most 4.

    Raises:
        ValueError: for maps that are negative, NaN or empty, and for another number of points or
            titles than of maps.
    """
    maps = np.asarray(maps, dtype=float)
    sums = maps.sum(axis=(1, 2), keepdims=True)  # [n, 1, 1]
    if maps.size == 0 or not ((maps >= 0).all() and (sums > 0).all() and np.isfinite(sums).all()):
        raise ValueError("maps must be one or more maps of finite numbers that are not negative and not all zero.")
    titles = [f"pixel {n + 1} looks at" for n in range(len(maps))] if titles is None else titles
    points = None if points is None else np.asarray(points)
    for name, given in {"titles": titles, "points": points}.items():
        if given is not None and len(given) != len(maps):
            raise ValueError(f"{name} has {len(given)} entries for {len(maps)} maps; pass one for each.")

    relative = maps / sums * maps[0].size
    figure, axes = _grid(len(maps) + (image is not None), columns)
    if image is not None:
        show_image(image, "the picture", axes[0])
        height, width = rgb_array(image).shape[:2]
        scale = np.array([height, width]) / maps.shape[1:]
        for number, point in enumerate([] if points is None else points, start=1):
            _mark(axes[0], (point + 0.5) * scale - 0.5, str(number) if len(np.unique(points, axis=0)) > 1 else "")
    top = np.quantile(relative, BRIGHTEST)
    map_axes = axes[image is not None :]
    for number, (ax, values, title) in enumerate(zip(map_axes, relative, titles)):
        drawn = ax.imshow(values, cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
        _bare(ax, title)
        if points is not None:
            _mark(ax, points[number])
    bar = figure.colorbar(drawn, ax=axes, extend="max", shrink=0.8, pad=0.01, aspect=30)
    bar.set_label("times even attention")
    return figure


# ---- helpers --------------------------------------------------------------------------------------------------------


def _grid(
    panels: int, columns: int | None = None, titled: bool = True, legend: bool = False
) -> tuple[Figure, list[Axes]]:
    """A closed figure of `panels` square panels, at most a page wide."""
    columns = min(panels, 4) if columns is None else columns
    if panels < 1 or columns < 1:
        raise ValueError(f"nothing to draw: {panels} pictures in {columns} columns.")
    rows = -(-panels // columns)
    side = min(PAGE_WIDTH / columns, _LARGEST)
    size = (columns * side, rows * (side + _TITLE * titled) + _TITLE * legend)
    figure, axes = closed_figure(rows, columns, size)
    for empty in axes.flat[panels:]:
        empty.set_axis_off()
    return figure, list(axes.flat[:panels])


def _bare(ax: Axes, title: str) -> Axes:
    """No ticks, no frame: the pixels are the axes."""
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    return ax


def _mark(ax: Axes, point: np.ndarray, text: str = "") -> None:
    """A ring around a pixel (row, column), legible on any ground."""
    row, column = point
    inwards = 1 if column < 0.8 * ax.get_xlim()[1] else -1  # keeps the text in the panel
    outline = [withStroke(linewidth=3, foreground="black")]
    ax.plot(column, row, "o", mfc="none", mec="white", ms=9, mew=1.5, path_effects=outline)
    ax.annotate(
        text,
        xy=(column, row),
        xytext=(7 * inwards, 4),
        textcoords="offset points",
        ha="left" if inwards > 0 else "right",
        color="white",
        weight="bold",
        path_effects=outline,
    )


def _handles(legend: Mapping[str, Any]) -> list[Patch]:
    return [Patch(facecolor=colour, edgecolor="0.5", label=name) for name, colour in legend.items()]


def _add_legend(figure: Figure, legend: Mapping[str, Any]) -> None:
    figure.legend(handles=_handles(legend), loc="outside lower center", ncols=min(len(legend), 8), frameon=False)


def _grey(palette: Palette) -> np.ndarray:
    return np.ptp(palette, axis=1) == 0
