"""Figures of how a miniature was made: results in the panels of the paper's Figs. 15 to 18, and losses over steps."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from pandas import DataFrame, Series

from diffseg.colours import Labels, Picture, overlay
from diffseg.figures.layout import PAGE_WIDTH, closed_figure
from diffseg.figures.plots import paint, show_images, show_results
from diffseg.wording import count

_SMOOTH = 10  # logged losses in a running median, or a quarter of all if these are few: it must not lag behind
_COLUMNS = 4
_WIDE = 10  # times the smallest loss: above it, ticks at 1, 2, 5, 10, ...


def show_panels(
    images: Sequence[Picture],
    found: Sequence[Labels],
    truths: Sequence[Labels] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Overlay, input, and in the third row the truth, or the segments of pictures that have none.

    Args:
        images: pictures, of any data set.
        found: the segments of each.
        truths: the classes of each, as for `show_results`; the titles then give accuracy and mIoU. None: there is no
            truth, as of pictures that were generated.
        names: of the pictures, above their columns.

    Raises:
        ValueError: for no images, or other numbers of results, truths or names.
    """
    if truths is not None:
        return show_results(images, found, truths, ("overlay", "image", "truth"), names)
    for what, given in {"found": found, "names": names}.items():
        if given is not None and len(given) != len(images):
            raise ValueError(f"{what} has {len(given)} entries for {len(images)} images; pass one for each.")
    overlays = [overlay(image, labels) for image, labels in zip(images, found)]
    titles = [*(names or [""] * len(images)), *[""] * len(images)]
    titles += [count(len(set(labels.flatten().tolist())), "segment") for labels in found]
    return show_images([*overlays, *images, *map(paint, found)], titles, columns=len(images))


def show_losses(training: DataFrame) -> Figure:
    """The loss over the steps of each stage, on a logarithmic axis of its own, with a running median.

    Losses of two stages cannot be compared: their pictures have other sizes, or their tasks are others.

    Args:
        training: rows with stage, step and loss, such as `training.csv` in a model's folder. Where the steps of a stage
            begin anew, they are counted on.

    Raises:
        ValueError: for no rows.
    """
    if training.empty:
        raise ValueError("training is empty; pass the log of a training with one stage or more.")
    stages = list(training.groupby("stage", sort=False))
    columns = min(len(stages), _COLUMNS)
    rows = -(-len(stages) // columns)
    figure, axes = closed_figure(rows, columns, (PAGE_WIDTH, 2.4 * rows))
    for ax, (stage, log) in zip(axes.flat, stages):
        steps = _one_after_another(log.step)
        ax.plot(steps, log.loss, color="0.75", linewidth=1)
        window = min(_SMOOTH, max(1, len(log) // 4))
        ax.plot(steps, log.loss.rolling(window, min_periods=1).median(), color="black")
        ax.set(title=stage, xlabel="step", yscale="log")
        _tick_plainly(ax, log.loss)
    for empty in axes.flat[len(stages) :]:
        empty.set_axis_off()
    axes[0, 0].set_ylabel("loss")
    return figure


def _tick_plainly(ax: Axes, values: Series) -> None:
    """A few plain numbers along a logarithmic axis, which by itself has none between two powers of ten."""
    wide = values.max() > _WIDE * values.min()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(4))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def _one_after_another(steps: Series) -> Series:
    """Steps of several runs, counted through."""
    ahead = steps.diff().fillna(steps.iloc[0])
    return ahead.where(ahead > 0, steps).cumsum()
