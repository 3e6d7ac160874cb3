"""What all figures share: the width of a page, how a figure is closed, and how a number is written with its noun."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Shaped
from matplotlib.figure import Figure

PAGE_WIDTH = 9.6  # inches: of a figure that fills the page


def closed_figure(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, Shaped[np.ndarray, "rows columns"]]:
    """A figure to be returned, and its axes: left open, a notebook would show it a second time.

    Args:
        rows, columns: how many axes.
        size: width and height, inches.
        options: see `matplotlib.pyplot.subplots`.
    """
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    plt.close(figure)
    return figure, axes
