"""Figures of scores: the matching behind them, methods compared on the same images, and classes one by one."""

from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np
from jaxtyping import Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pandas import DataFrame, Series

from diffseg.figures.layout import PAGE_WIDTH, closed_figure
from diffseg.figures.plots import class_colours
from diffseg.metrics import UNMATCHED
from diffseg.sweeps import half_width

_CHOSEN, _WASTED = "#b93409", "0.45"  # frames: a cell that counts as right, and one without any pixel
_MARKERS = "oDs^vPX"


def show_matching(
    matchings: Mapping[str, tuple[Integer[np.ndarray, "classes _"], Integer[np.ndarray, " _"]]],
    classes: Sequence[str],
) -> Figure:
    """Tables of shared pixels, side by side, with a frame around each cell that a matching has chosen.

    A solid frame holds pixels that count as right. A dashed one holds none: that segment was matched to a class that it
    does not share a pixel with. Below a column is the class of its segment.

    Args:
        matchings: title -> the table, as `metrics.count_overlap` gives it, and the class of each segment or -1, as
            `metrics.match_segments` does.
        classes: their names.

    Raises:
        ValueError: for no tables, or one of another size than its names or its matching.
    """
    if not matchings:
        raise ValueError("matchings is empty; pass a title, a table and a matching.")
    for title, (overlap, matched) in matchings.items():
        if overlap.shape != (len(classes), len(matched)):
            raise ValueError(
                f"{title!r}: the table has the shape {list(overlap.shape)}, expected {[len(classes), len(matched)]}: "
                "a row for each name, a column for each segment."
            )
    size = min(PAGE_WIDTH, 4.2 * len(matchings)), 1.1 + 0.42 * len(classes)
    figure, axes = closed_figure(1, len(matchings), size)
    for ax, (title, (overlap, matched)) in zip(axes[0], matchings.items()):
        _draw_matching(ax, overlap, matched, classes)
        ax.set_title(title)
    return figure


def show_differences(differences: Mapping[str, DataFrame], level: Real = 0.95, reference: str = "the first") -> Figure:
    """What methods gain over a reference on the same images: grey dots are images, the bar a confidence interval.

    Args:
        differences: name of a score -> points gained, a row for each image and a column for each method.
        level: of the intervals, see `sweeps.half_width`.
        reference: its name.

    Raises:
        ValueError: for no scores.
    """
    if not differences:
        raise ValueError("differences is empty; pass a table for each score.")
    methods = max(table.shape[1] for table in differences.values())
    figure, axes = closed_figure(1, len(differences), (PAGE_WIDTH, 0.9 + 0.4 * methods), sharey=True)
    for ax, (name, table) in zip(axes[0], differences.items()):
        rows = np.arange(table.shape[1])
        for row, (_, values) in zip(rows, table.items()):
            ax.plot(values, np.full(len(values), row), "o", color="0.7", ms=4, zorder=1)
        ax.errorbar(table.mean(), rows, xerr=half_width(table, level), fmt="D", color="#00429e", ms=5, capsize=4)
        ax.axvline(0, color="black", linewidth=0.8)
        left, right = ax.get_xlim()
        ax.set_xlim(max(left, -100), min(right, 100))  # of very few images, intervals are wider than scores
        ax.set_yticks(rows, list(table.columns))
        ax.set(xlabel=f"points of {name} gained over {reference}", ylim=(len(rows) - 0.5, -0.5))
    return figure


def show_classes(iou: DataFrame, share: Series) -> Figure:
    """IoU of each class for some methods, and below how many of all pixels the class has.

    Args:
        iou: a row for each class, a column for each method, 0 to 1. Rows that are NaN throughout are left out; the
            rest is sorted by the first method.
        share: of each class in all labelled pixels, 0 to 1, with the index of `iou`.

    Raises:
        ValueError: if no row is left.
    """
    kept = iou.dropna(how="all")
    if kept.empty:
        raise ValueError("iou is NaN in all classes; score an image first.")
    kept = kept.sort_values(kept.columns[0], ascending=False)
    figure, [[above], [below]] = closed_figure(2, 1, (PAGE_WIDTH, 4.4), height_ratios=(3, 1), sharex=True)
    columns = np.arange(len(kept))
    shades = class_colours(len(kept.columns) + 7)[7:]  # the palette from its first dark blue on
    for number, (method, values) in enumerate(kept.items()):
        marker = _MARKERS[number % len(_MARKERS)]
        above.plot(columns, values, marker, color=shades[number], ms=6, alpha=0.9, label=method, clip_on=False)
    above.vlines(columns, 0, kept.max(axis=1), color="0.9", zorder=0)
    above.set(ylabel="IoU", ylim=(0, 1))
    above.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(kept.columns))
    below.bar(columns, 100 * share.loc[kept.index], color="0.6")
    below.set(ylabel="% of pixels", xlim=(-0.7, len(kept) - 0.3))
    below.set_xticks(columns, list(kept.index), rotation=60, ha="right", rotation_mode="anchor")
    return figure


def _draw_matching(ax: Axes, overlap: np.ndarray, matched: np.ndarray, classes: Sequence[str]) -> None:
    ax.imshow(overlap, cmap="Blues", vmin=0, vmax=1.6 * max(overlap.max(), 1), aspect="auto")
    for (row, column), count in np.ndenumerate(overlap):
        ax.text(column, row, count, ha="center", va="center", color="black" if count else "0.6")
    for segment, label in enumerate(matched):
        if label != UNMATCHED:
            right = overlap[label, segment] > 0
            look = {"ec": _CHOSEN, "ls": "-"} if right else {"ec": _WASTED, "ls": "--"}
            ax.add_patch(Rectangle((segment - 0.46, label - 0.44), 0.92, 0.88, fill=False, lw=2, **look))
    names = ["(nobody)" if label == UNMATCHED else classes[label] for label in matched]
    ax.set_xticks(range(len(matched)), [f"segment {segment}\n{name}" for segment, name in enumerate(names)])
    ax.set_yticks(range(len(classes)), classes)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
