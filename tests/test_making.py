"""Figures of how a miniature was made: panels with and without a truth, and losses stage by stage."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from diffseg.figures import plots
from diffseg.figures.making import show_losses, show_panels
from diffseg.pocket import CLASSES

SIDE = 24


@pytest.fixture
def truth():
    labels = np.full((SIDE, SIDE), CLASSES.index("grass"), np.uint8)
    labels[:8] = CLASSES.index("sky")
    return labels


@pytest.fixture
def segments(truth):
    return (truth == CLASSES.index("sky")).astype(np.int64)


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def titles_of(figure):
    return [ax.get_title() for ax in figure.axes]


def test_panels_with_a_truth_have_scores(picture, segments, truth):
    figure = show_panels([picture] * 2, [segments, 0 * segments], [truth] * 2, ["a", "b"])
    assert titles_of(figure) == ["a: 100% / 100%", "b: 67% / 33%", "", "", "truth", "truth"]
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), picture)


def test_panels_without_a_truth_have_segments(picture, segments):
    figure = show_panels([picture] * 2, [segments, 0 * segments], names=["a", "b"])
    assert titles_of(figure) == ["a", "b", "", "", "2 segments", "1 segment"]
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), picture)
    np.testing.assert_array_equal(figure.axes[4].images[0].get_array(), plots.paint(segments))
    assert titles_of(show_panels([picture], [segments])) == ["", "", "2 segments"]


def test_numbers_of_panels_must_agree(picture, segments, truth):
    with pytest.raises(ValueError, match="found has 1 entries for 2 images"):
        show_panels([picture] * 2, [segments])
    with pytest.raises(ValueError, match="names has 2 entries for 1 images"):
        show_panels([picture], [segments], names=["a", "b"])
    with pytest.raises(ValueError, match="1 images, 1 found and 2 truths"):
        show_panels([picture], [segments], [truth] * 2)
    with pytest.raises(ValueError, match="nothing to draw"):
        show_panels([], [])


@pytest.mark.parametrize("stages", [1, 4, 5])
def test_each_stage_has_its_own_losses(stages):
    names = [f"stage {number}" for number in reversed(range(stages))]
    rows = [(name, step, 1 / (step + 1)) for name in names for step in range(9, 400, 10)]
    figure = show_losses(pd.DataFrame(rows, columns=["stage", "step", "loss"]))
    assert [title for title in titles_of(figure) if title] == names  # in the order of the training
    for ax in figure.axes[:stages]:
        logged, median = ax.lines
        np.testing.assert_allclose(logged.get_ydata(), [1 / (step + 1) for step in range(9, 400, 10)])
        assert median.get_ydata()[2] == pytest.approx(1 / 20) and ax.get_yscale() == "log"


def test_a_short_log_is_not_smoothed():
    figure = show_losses(pd.DataFrame({"stage": "words", "step": [9, 19, 29, 39], "loss": [4.0, 3.0, 2.0, 1.0]}))
    logged, median = figure.axes[0].lines
    np.testing.assert_array_equal(median.get_ydata(), logged.get_ydata())


def test_no_losses_are_refused():
    with pytest.raises(ValueError, match="training is empty"):
        show_losses(pd.DataFrame(columns=["stage", "step", "loss"]))


def test_runs_of_one_stage_follow_each_other():
    steps = [9, 19, 29, 9, 19]
    figure = show_losses(pd.DataFrame({"stage": "words", "step": steps, "loss": 1.0}))
    assert figure.axes[0].lines[0].get_xdata().tolist() == [9, 19, 29, 38, 48]


@pytest.mark.parametrize("losses", [[0.31, 0.24, 0.28], [4.2, 1.1, 0.03]])
def test_losses_have_plain_numbers_beside_them(losses):
    ax = show_losses(pd.DataFrame({"stage": "nouns", "step": [9, 19, 29], "loss": losses})).axes[0]
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    seen = [label.get_text() for tick, label in zip(ax.get_yticks(), ax.get_yticklabels()) if low <= tick <= high]
    assert 2 <= len(seen) <= 9 and all(float(text) > 0 for text in seen)
    assert not any(label.get_text() for label in ax.get_yticklabels(minor=True))
