"""The figure of a training's story: how well the layers of each side group after so many samples.

The table is that of `diffseg.pocket.training.story`, or its file `grouping.csv`.
"""

from itertools import cycle

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame
from scipy.optimize import isotonic_regression

from diffseg.figures.layout import PAGE_WIDTH, closed_figure

_TOGETHER = {  # what is no side of layers: its label and its look
    "all": ("all layers", {"color": "black", "linewidth": 2.2}),
    "words": ("words", {"color": "0.45", "linestyle": "--"}),
}
_SIDES = (("#00429e", "o"), ("#b93409", "D"), ("#00686d", "s"), ("#7d4b95", "v"))  # colours and markers
_LINE = 0.055  # height of a label, as a part of the axis


def show_story(grouping: DataFrame) -> Figure:
    """The mIoU of each part against the samples that were seen, on a logarithmic axis; the parts' names stand at the
    ends of their lines. A dotted line marks where a stage of the training begins.

    Args:
        grouping: rows with stage, samples, part (a side of layers, such as "64", or "all", or "words") and miou.

    Raises:
        ValueError: for no rows.
    """
    if grouping.empty:
        raise ValueError("grouping is empty; measure a training's snapshots first.")
    figure, axes = closed_figure(1, 1, (PAGE_WIDTH, 3.8))
    ax = axes[0, 0]
    lines = {str(part): rows.sort_values("samples") for part, rows in grouping.groupby("part")}
    sides = sorted(lines.keys() - _TOGETHER.keys(), key=int, reverse=True)
    looks = {
        side: (f"{side}x{side}", {"color": colour, "marker": marker, "markersize": 4})
        for side, (colour, marker) in zip(sides, cycle(_SIDES))
    }
    looks |= {part: look for part, look in _TOGETHER.items() if part in lines}
    for part, (label, look) in looks.items():
        ax.plot(lines[part].samples, lines[part].miou, label=label, **look)
    ends = np.array([lines[part].miou.iloc[-1] for part in looks])
    for height, (label, look) in zip(apart(ends, _LINE), looks.values()):
        ax.text(1.01, height, label, transform=ax.get_yaxis_transform(), va="center", color=look["color"])
    _mark_stages(ax, grouping)
    ax.set(xscale="log", ylim=(0, 1), xlabel="samples seen", ylabel="mIoU")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def apart(heights: Float[np.ndarray, " n"], gap: float) -> Float[np.ndarray, " n"]:
    """Heights as close as possible to the given ones, in the same order, with a gap between any two."""
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    placed = np.empty(len(heights))
    placed[order] = isotonic_regression(heights[order] - steps).x + steps
    return placed


def _mark_stages(ax: Axes, grouping: DataFrame) -> None:
    """A dotted line where one stage ends and the next one begins, with the next one's name."""
    ends = grouping.groupby("stage", sort=False).samples.max().sort_values()
    for end, stage in zip(ends.iloc[:-1], ends.index[1:]):
        ax.axvline(end, color="0.5", linestyle=":", linewidth=1, zorder=0)
        name = f"{stage} \N{RIGHTWARDS ARROW} "
        ax.text(end, 0.98, name, transform=ax.get_xaxis_transform(), ha="right", va="top", color="0.4")
