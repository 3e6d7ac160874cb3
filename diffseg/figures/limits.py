"""Figures of notebook 10: scores by size, where time goes, and how cost grows.

Like those of `plots`, the Figures are returned closed.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from diffseg.colours import colours
from diffseg.figures.layout import PAGE_WIDTH, closed_figure

_LOOKS = (("#00429e", "o", "-"), ("#b93409", "D", "--"), ("#00686d", "s", ":"))


def show_by_size(summary: DataFrame, sizes: Sequence[str], xlabel: str) -> Figure:
    """Means with intervals by size: a panel for each measure, a line for each of `who`.

    Args:
        summary: rows with measure, who, size (one of `sizes`), mean, low and high.
        sizes: from small to large.
        xlabel: what they are.
    """
    measures = list(dict.fromkeys(summary.measure))
    figure, axes = closed_figure(1, len(measures), (PAGE_WIDTH, 3.0), sharey=True)
    for ax, measure in zip(axes[0], measures):
        of_measure = summary[summary.measure == measure]
        for (who, rows), (colour, marker, line) in zip(of_measure.groupby("who", sort=False), _LOOKS):
            rows = rows.set_index("size").reindex([size for size in sizes if size in set(rows["size"])])
            places = [sizes.index(size) for size in rows.index]
            ax.plot(places, rows["mean"], color=colour, marker=marker, ls=line, ms=5, label=who)
            ax.fill_between(places, rows.low.clip(0, 1), rows.high.clip(0, 1), color=colour, alpha=0.15, linewidth=0)
        ax.set(title=measure, xlabel=xlabel, ylim=(0, 1.02), xlim=(-0.3, len(sizes) - 0.7))
        ax.set_xticks(range(len(sizes)), sizes)
    axes[0, 0].set_ylabel("mean over pieces")
    axes[0, 0].legend(loc="lower right")
    return figure


def show_bars(panels: Mapping[str, DataFrame], labels: Sequence[str]) -> Figure:
    """Bars for each stage (row), a colour for each model (column), a panel for each table; numbers at their ends.

    Args:
        panels: title -> a table of numbers, a row for each stage, a column for each model; NaN has no bar.
        labels: of the horizontal axis of each panel.
    """
    stages = max(map(len, panels.values()))
    models = max(table.shape[1] for table in panels.values())
    figure, axes = closed_figure(1, len(panels), (PAGE_WIDTH, 1.0 + 0.34 * stages * max(models, 1.2) ** 0.6))
    height = 0.8 / models
    for ax, (title, table), label in zip(axes[0], panels.items(), labels):
        for number, ((model, values), colour) in enumerate(zip(table.items(), colours(models))):
            rows = np.arange(len(values)) + (number - (models - 1) / 2) * height
            bars = ax.barh(rows, values, 0.92 * height, color=colour, label=model)
            written = [
                "" if np.isnan(value) else f" {value:.2g}" if value < 100 else f" {value:.0f}" for value in values
            ]
            ax.bar_label(bars, written, fontsize=8)
        ax.set_yticks(range(len(table)), list(table.index))
        ax.set(title=title, xlabel=label, ylim=(len(table) - 0.5, -0.5))
        ax.margins(x=0.15)
        ax.locator_params(axis="x", nbins=5)
    if models > 1:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=models)
    return figure


def show_growth(panels: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[float]]]], ylabel: str) -> Figure:
    """Costs against sizes, both on logarithmic scales, so that a power is a straight line.

    Args:
        panels: what is turned -> its values, and name -> the costs at these values.
        ylabel: what the costs are.
    """
    figure, axes = closed_figure(1, len(panels), (PAGE_WIDTH, 3.2), sharey=True)
    names = list(dict.fromkeys(name for _, lines in panels.values() for name in lines))
    looks = dict(zip(names, zip(colours(len(names)), "oDsv^<>P")))
    for ax, (title, (values, lines)) in zip(axes[0], panels.items()):
        for name, costs in lines.items():
            colour, marker = looks[name]
            ax.plot(values, costs, color=colour, marker=marker, ms=5)
        ax.set(xscale="log", yscale="log", xlabel=title)
        ax.set_xticks(values, [f"{value:g}" for value in values])
        ax.minorticks_off()
    axes[0, 0].set_ylabel(ylabel)
    handles = [
        Line2D([], [], color=colour, marker=marker, ms=5, label=name) for name, (colour, marker) in looks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure
