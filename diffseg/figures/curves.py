"""Figures of sweeps over settings (Fig. 11); `diffseg.sweeps` defines what a sweep is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator
from pandas import DataFrame, Series

from diffseg.figures.layout import PAGE_WIDTH, closed_figure
from diffseg.sweeps import by_scene, gains, half_width

_SCORES = ("accuracy", "miou")
_LABELS = {"accuracy": "accuracy", "miou": "mIoU", "segments": "segments"}
_LINES = {
    "accuracy": {"color": "#00429e", "marker": "o"},
    "miou": {"color": "#b93409", "marker": "D"},
    "segments": {"color": "#00686d", "marker": "s"},
}
_BOUNDS = {"accuracy": (0, 1), "miou": (0, 1), "segments": (1, np.inf)}  # what a mean can be at all
_FEW = 6  # values that all get a tick of their own


@dataclass(frozen=True)
class Panel:
    """How one setting is drawn.

    Attributes:
        knob: its name in the table.
        title: what to write above.
        default: the value that is marked, and that others are compared with.
        log: whether equal factors are equal distances.
        marked: a range to be shaded, such as the paper's.
    """

    knob: str
    title: str
    default: Real
    log: bool = False
    marked: tuple[Real, Real] | None = None


def show_sweep(scores: DataFrame, panels: Sequence[Panel]) -> Figure:
    """Accuracy and mIoU above, the number of segments below: means over scenes with bands of 95% confidence.

    A dashed line marks the default, shade the marked range.

    Raises:
        ValueError: as `by_scene`, and for no panels.
    """
    figure, axes = _panels(panels, rows=2, height=4.6, ratios=(1.7, 1))
    for row, names in zip(axes, (_SCORES, ("segments",))):
        for ax, panel in zip(row, panels):
            for name in names:
                table = by_scene(scores, panel.knob, name)
                _line(ax, table.mean(), half_width(table), name)
            _furnish(ax, panel, list(table.columns))
    for ax, panel in zip(axes[0], panels):
        ax.set(title=panel.title, xlabel="")
    axes[0, 0].set_ylabel("mean over scenes")
    axes[1, 0].set_ylabel("segments")
    axes[1, 0].set_yscale("log", base=2)
    axes[1, 0].yaxis.set_major_formatter("{x:g}")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(_SCORES))
    return figure


def show_gains(scores: DataFrame, panels: Sequence[Panel], column: str = "miou") -> Figure:
    """Paired differences to the default: grey dots are scenes, the line their mean, with its 95% confidence interval.

    Raises:
        ValueError: as `gains`, and for no panels.
    """
    figure, axes = _panels(panels, rows=1, height=2.9)
    for ax, panel in zip(axes[0], panels):
        table = 100 * gains(scores, panel.knob, panel.default, column)
        for _, values in table.iterrows():
            ax.plot(table.columns, values, "o", color="0.7", ms=4, zorder=1)
        look, mean = _LINES[column], table.mean()
        ax.errorbar(mean.index, mean, half_width(table), fmt="none", capsize=3, ecolor=look["color"])
        mean = pd.concat([mean, pd.Series({panel.default: 0.0})]).sort_index()  # the default gains nothing over itself
        ax.plot(mean.index, mean, ms=4, **look)
        ax.axhline(0, color="black", linewidth=0.8)
        _furnish(ax, panel, [*table.columns, panel.default])
        ax.set_title(panel.title)
    bottom, top = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(max(bottom, -100), min(top, 100))  # of very few scenes, intervals are wider than scores
    axes[0, 0].set_ylabel(f"points of {_LABELS[column]} gained")
    return figure


def show_tables(tables: Mapping[str, DataFrame], formats: Sequence[str], framed: str | None = None) -> Figure:
    """Tables as heat maps with their numbers, side by side; a frame marks the highest number of each row.

    Args:
        tables: title -> numbers; the index and the columns are written at the sides, `index.name` and
            `columns.name` beside them.
        formats: how the numbers of each table are written, such as "{:.0f}".
        framed: the title of the only table that gets frames; None: all of them do.

    Raises:
        ValueError: for no tables, or another number of formats.
    """
    if not tables or len(tables) != len(formats):
        raise ValueError(f"{len(tables)} tables and {len(formats)} formats; pass one format for each table.")
    height = 0.9 + 0.34 * max(map(len, tables.values()))
    figure, axes = closed_figure(1, len(tables), (PAGE_WIDTH, height))
    for ax, (title, table), written in zip(axes[0], tables.items(), formats):
        values = table.to_numpy(dtype=float)
        ax.imshow(values, aspect="auto", cmap="viridis")
        middle = (values.min() + values.max()) / 2
        for (row, column), value in np.ndenumerate(values):
            colour = "black" if value > middle else "white"
            ax.text(column, row, written.format(value), ha="center", va="center", color=colour, fontsize=9)
        if framed in (None, title):
            for row, column in enumerate(values.argmax(axis=1)):
                ax.add_patch(plt.Rectangle((column - 0.47, row - 0.44), 0.94, 0.88, fill=False, ec="red", lw=2))
        ax.set(title=title, xlabel=table.columns.name, ylabel=table.index.name)
        ax.set_xticks(range(table.shape[1]), [_short(value) for value in table.columns])
        ax.set_yticks(range(table.shape[0]), [_short(value) for value in table.index])
        ax.spines[:].set_visible(False)
    return figure


# ---- helpers --------------------------------------------------------------------------------------------------------


def _panels(
    panels: Sequence[Panel], rows: int, height: Real, ratios: Sequence[Real] | None = None
) -> tuple[Figure, np.ndarray]:
    """A closed figure, and its axes [rows, panels]; those of one row share their vertical axis."""
    if not panels:
        raise ValueError("panels is empty; pass a Panel for each number to be drawn.")
    return closed_figure(rows, len(panels), (PAGE_WIDTH, height), height_ratios=ratios, sharex="col", sharey="row")


def _line(ax: Axes, mean: Series, half: Series, name: str) -> None:
    ax.plot(mean.index, mean, ms=4, label=_LABELS[name], **_LINES[name])
    lower, upper = ((mean + sign * half).clip(*_BOUNDS[name]) for sign in (-1, 1))
    ax.fill_between(mean.index, lower, upper, color=_LINES[name]["color"], alpha=0.15, linewidth=0)


def _furnish(ax: Axes, panel: Panel, values: Sequence[Real]) -> None:
    """The horizontal axis, the default and the marked range."""
    if panel.log:
        ax.set_xscale("log", base=2 if len(values) <= _FEW else 10)
    if len(values) <= _FEW:
        ax.xaxis.set_major_locator(FixedLocator(sorted(values)))
    elif panel.log:
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter("{x:g}")
    ax.axvline(panel.default, color="0.5", linestyle="--", linewidth=1, zorder=0)
    if panel.marked is not None:
        ax.axvspan(*panel.marked, color="0.92", zorder=-1)
    ax.set_xlabel(panel.knob)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, Real) else str(value)
