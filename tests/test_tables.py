"""Figures of scores show what they are given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from diffseg.figures.tables import show_classes, show_differences, show_matching

OVERLAP = np.array([[4, 1, 0], [0, 0, 0], [0, 2, 3]])
NAMES = ("sky", "car", "road")


def texts(ax):
    return [text.get_text() for text in ax.texts]


def frames(ax):
    """Class and segment of each framed cell, and whether the frame is solid."""
    patches = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    return {(round(p.get_y() + 0.44), round(p.get_x() + 0.46)): p.get_linestyle() in ("-", "solid") for p in patches}


def test_matching():
    figure = show_matching({"paper": (OVERLAP, np.array([0, 1, 2])), "clean": (OVERLAP, np.array([0, -1, 2]))}, NAMES)
    paper, clean = figure.axes
    assert paper.get_title() == "paper" and clean.get_title() == "clean"
    assert texts(paper) == [str(count) for count in OVERLAP.ravel()]
    assert frames(paper) == {(0, 0): True, (1, 1): False, (2, 2): True}
    assert frames(clean) == {(0, 0): True, (2, 2): True}
    labels = [tick.get_text() for tick in clean.get_xticklabels()]
    assert labels == ["segment 0\nsky", "segment 1\n(nobody)", "segment 2\nroad"]


def test_matching_of_another_size():
    with pytest.raises(ValueError, match=r"'a': the table has the shape \[3, 3\], expected \[3, 2\]"):
        show_matching({"a": (OVERLAP, np.array([0, 1]))}, NAMES)
    with pytest.raises(ValueError, match="matchings is empty"):
        show_matching({}, NAMES)


def test_differences():
    table = pd.DataFrame({"a": [1.0, 3.0, 2.0], "b": [-4.0, -6.0, -5.0]})
    figure = show_differences({"accuracy": table, "mIoU": -table}, reference="c")
    accuracy, miou = figure.axes
    assert [tick.get_text() for tick in accuracy.get_yticklabels()] == ["a", "b"]
    assert miou.get_xlabel() == "points of mIoU gained over c"
    means = next(line for line in accuracy.lines if line.get_marker() == "D")
    assert means.get_xdata().tolist() == [2, -5]
    with pytest.raises(ValueError, match="differences is empty"):
        show_differences({})


def test_classes_are_sorted_and_those_that_never_occurred_left_out():
    iou = pd.DataFrame({"mine": [0.2, np.nan, 0.9], "other": [0.5, np.nan, 0.1]}, index=NAMES)
    share = pd.Series([0.7, 0.0, 0.3], index=NAMES)
    above, below = show_classes(iou, share).axes
    assert [tick.get_text() for tick in below.get_xticklabels()] == ["road", "sky"]
    assert [line.get_ydata().tolist() for line in above.lines] == [[0.9, 0.2], [0.1, 0.5]]
    assert [bar.get_height() for bar in below.patches] == pytest.approx([30, 70])
    with pytest.raises(ValueError, match="NaN in all classes"):
        show_classes(iou * np.nan, share)
