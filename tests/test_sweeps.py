"""Sweeps: paired by scene, intervals as a t test gives them, and figures that draw what is in the table."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.patches import Rectangle
from PIL import Image
from scipy import stats

from diffseg import DiffSegPipeline, pocket
from diffseg.figures.curves import Panel, show_gains, show_sweep, show_tables
from diffseg.merging import anchor_distances
from diffseg.metrics import image_score
from diffseg.pipeline import DiffSegOutput
from diffseg.sweeps import (
    Interval,
    best_threshold,
    by_scene,
    gains,
    half_width,
    leave_one_out,
    mean_interval,
    sweep_thresholds,
    tuned_scores,
)

MIOU = {"a": (0.2, 0.5, 0.4), "b": (0.6, 0.7, 0.9), "c": (0.1, 0.4, 0.3), "d": (0.5, 0.5, 0.6)}
POINTS = (4, 8, 16)
TAUS = (0.1, 0.2, 0.4)
M, TAU = Panel("M", "anchors", 8, log=True), Panel("tau", "threshold", 0.2, log=True, marked=(0.3, 0.5))


@pytest.fixture
def scores():
    """Two knobs; scenes and values in an order that is not theirs."""
    rows = [
        (scene, knob, value, miou / 2, miou, round(32 / value))
        for knob, values in (("tau", TAUS), ("M", POINTS))
        for scene, mious in reversed(MIOU.items())
        for value, miou in zip(values, mious)
    ]
    columns = ["scene", "knob", "value", "accuracy", "miou", "segments"]
    return pd.DataFrame(rows[::2] + rows[1::2], columns=columns)


def lines_of(ax):
    return {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in ax.lines}


class SplitInTwo:
    """A method whose threshold is the column at which it cuts a picture in two."""

    device, points = torch.device("cpu"), 3

    def __init__(self):
        self.attended, self.distances = [], []

    def attend(self, image):
        self.attended.append(image)
        rows = torch.rand(16, 16, generator=torch.Generator().manual_seed(len(self.attended))) + 0.1
        return (rows / rows.sum(dim=1, keepdim=True)).reshape(4, 4, 4, 4)

    def segment(self, attention, points, threshold, size, distances):
        self.distances.append((anchor_distances(attention, points), distances))
        labels = (torch.arange(size) >= threshold).long().expand(size, size)
        return DiffSegOutput(labels, attention[0], attention, None)


# ---- thresholds -----------------------------------------------------------------------------------------------------


def test_each_image_is_scored_at_each_threshold_after_one_pass():
    pipe, images = SplitInTwo(), [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    truths = [np.tile(np.arange(8) >= column, (8, 1)).astype(np.uint8) for column in (2, 5)]
    scores = sweep_thresholds(pipe, zip(images, truths), [2, 5, 9])
    assert pipe.attended == images
    assert list(scores.columns) == ["case", "threshold", "accuracy", "miou", "segments"]
    assert scores.case.tolist() == [0, 0, 0, 1, 1, 1] and scores.threshold.tolist() == [2, 5, 9, 2, 5, 9]
    assert scores.accuracy.tolist() == [1, 5 / 8, 6 / 8, 5 / 8, 1, 5 / 8]
    assert scores.miou[1] == pytest.approx((2 / 5 + 3 / 6) / 2)
    assert scores.segments.tolist() == [2, 2, 1] * 2
    for expected, given in pipe.distances:
        assert torch.equal(expected, given)
    assert len(sweep_thresholds(pipe, zip(images, truths), [2], points=2)) == 2
    assert [len(given) for _, given in pipe.distances] == [9] * 6 + [4] * 2


def test_distances_at_hand_change_no_score():
    """The sweep is no more than calling the pipeline once for each threshold."""
    pipe, drawn = DiffSegPipeline.from_pretrained("pocket"), pocket.scene(3, 256)
    thresholds = [0.2, pipe.threshold]
    scores = sweep_thresholds(pipe, [(drawn.image, drawn.labels)], thresholds)
    attention = pipe.attend(drawn.image)
    for row, tau in zip(scores.itertuples(), thresholds):
        out = pipe.segment(attention, threshold=tau, size=256)
        assert (row.accuracy, row.miou) == image_score(out.labels, drawn.labels)
        assert row.segments == len(out.proposals)


def test_best_threshold_is_smoothed_over_its_neighbours():
    """A lucky peak between two bad neighbours loses to a hill."""
    means = {0.1: 0.1, 0.2: 0.9, 0.3: 0.1, 0.4: 0.6, 0.5: 0.7, 0.6: 0.6, 0.7: 0.2}
    rows = [
        (case, tau, mean + shift, mean - shift) for case, shift in enumerate((0.1, 0.0)) for tau, mean in means.items()
    ]
    assert best_threshold(pd.DataFrame(rows, columns=["case", "threshold", "accuracy", "miou"])) == 0.5


def test_each_scene_is_scored_where_the_others_are_best():
    """As choosing by `best_threshold` without the scene, for each of six."""
    scored = np.random.default_rng(0).random((6, 9))
    table = pd.DataFrame(scored, index=list("abcdef"), columns=np.arange(1, 10) / 10)
    for scene, score in leave_one_out(table).items():
        rows = table.drop(scene).melt(var_name="threshold", value_name="accuracy")
        assert score == table.at[scene, best_threshold(rows.assign(miou=rows.accuracy))]
    with pytest.raises(ValueError, match="table has 1 scenes, expected at least 2"):
        leave_one_out(table[:1])


def test_each_way_is_scored_at_its_own_threshold():
    """Two ways that are best at the two ends: each gets its own end, scene by scene."""
    taus, scenes = (0.1, 0.2, 0.4, 0.8), list("abc")
    best = {"low": (0.9, 0.8, 0.2, 0.1), "high": (0.1, 0.2, 0.6, 0.7)}
    rows = [
        (name, way, tau, value + shift / 100)
        for shift, name in enumerate(scenes)
        for way, values in best.items()
        for tau, value in zip(taus, values, strict=True)
    ]
    scores = tuned_scores(pd.DataFrame(rows, columns=["scene", "way", "threshold", "score"]), "way", "score")
    assert scores.index.tolist() == scenes and set(scores) == {"low", "high"}
    np.testing.assert_allclose(scores.low, [0.9, 0.91, 0.92])
    np.testing.assert_allclose(scores.high, [0.7, 0.71, 0.72])


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_rows_are_scenes_and_columns_values(scores):
    table = by_scene(scores, "M")
    assert list(table.index) == list(MIOU) and list(table.columns) == list(POINTS)
    assert table.to_numpy().tolist() == [list(mious) for mious in MIOU.values()]
    assert np.allclose(by_scene(scores, "M", "accuracy") * 2, table)


def test_gains_are_differences_on_the_same_scene(scores):
    table = gains(scores, "tau", 0.2)
    assert list(table.columns) == [0.1, 0.4], "the default gains nothing over itself, and is left out"
    for scene, (low, default, high) in MIOU.items():
        assert table.loc[scene].tolist() == pytest.approx([low - default, high - default])


def test_what_all_settings_share_does_not_matter_to_gains(scores):
    shifted = scores.assign(miou=scores.miou + scores.scene.map({"a": 0.3, "b": -0.2, "c": 0.1, "d": 0}))
    assert np.allclose(gains(shifted, "M", 8), gains(scores, "M", 8))


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_interval_is_that_of_a_t_test(scores, level):
    table = by_scene(scores, "M")
    for value, half in half_width(table, level).items():
        interval = stats.ttest_1samp(table[value], 0).confidence_interval(level)
        assert (interval.high - interval.low) / 2 == pytest.approx(half)


def test_interval_holds_the_truth_as_often_as_it_says():
    draws = pd.DataFrame(np.random.default_rng(0).normal(3, 2, size=(5, 4000)))  # 4000 experiments with five scenes
    held = (draws.mean() - 3).abs() < half_width(draws)
    assert held.mean() == pytest.approx(0.95, abs=0.015)


def test_one_scene_has_no_interval():
    assert half_width(pd.DataFrame({"x": [0.5]})).isna().all()


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ((0.2, 0.3, 0.25), "better"),
        ((-0.2, -0.3, -0.25), "worse"),
        ((-0.2, 0.3, 0.1), "undecided"),
        ((0.0, 0.0, 0.0), "the same"),
    ],
)
def test_a_verdict_is_what_a_t_test_says(differences, said):
    assert mean_interval(pd.Series(differences)).verdict() == said
    p = stats.ttest_1samp(differences, 0).pvalue
    assert (p < 0.05) == (said in ("better", "worse"))


def test_a_verdict_has_the_words_that_it_is_given():
    words = ("ahead", "behind", "open")
    ends = ((1, 3), (-3, -1), (-1, 3))
    assert tuple(Interval(sum(end) / 2, *end).verdict(*words) for end in ends) == words


def test_an_interval_is_written_as_its_mean_and_its_ends():
    assert f"{Interval(2, -1.5, 5.54):+.1f}" == "+2.0, from -1.5 to +5.5"
    assert f"{Interval(-0.04, -0.06, -0.0):+.1f}" == "+0.0, from -0.1 to +0.0"
    assert f"{Interval(-0.001, -0.5, 0.001):.0%}" == "0%, from -50% to 0%"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda scores: by_scene(scores, "N"), "knob='N' is not among those of the sweep: tau, M"),
        (lambda scores: by_scene(scores[1:], "tau"), "knob='tau': some scenes have no miou at some values"),
        (lambda scores: gains(scores, "M", 5), "default=5 was not tried; M took 4, 8, 16"),
        (lambda scores: show_sweep(scores, []), "panels is empty"),
        (lambda scores: show_gains(scores, []), "panels is empty"),
        (lambda scores: show_tables({}, []), "0 tables and 0 formats"),
        (lambda scores: show_tables({"a": by_scene(scores, "M")}, []), "1 tables and 0 formats"),
    ],
)
def test_errors_say_what_to_do(scores, call, message):
    with pytest.raises(ValueError, match=message):
        call(scores.sort_values(["knob", "value"], ascending=[False, True]))


# ---- figures --------------------------------------------------------------------------------------------------------


def test_sweep_draws_the_means(scores):
    figure = show_sweep(scores, [M, TAU])
    assert len(figure.axes) == 4 and not plt.get_fignums()
    upper = lines_of(figure.axes[0])
    assert list(upper["mIoU"][0]) == list(POINTS)
    assert upper["mIoU"][1] == pytest.approx(np.mean(list(MIOU.values()), axis=0))
    assert np.allclose(upper["accuracy"][1] * 2, upper["mIoU"][1])
    assert lines_of(figure.axes[3])["segments"][1] == pytest.approx([320, 160, 80])
    assert [ax.get_title() for ax in figure.axes] == ["anchors", "threshold", "", ""]


def test_bands_stay_where_means_can_be(scores):
    figure = show_sweep(scores[scores.scene < "c"], [M])  # of two scenes: intervals wider than 1
    for ax, (lowest, highest) in zip(figure.axes, [(0, 1), (1, np.inf)]):
        for band in ax.collections:
            heights = band.get_paths()[0].vertices[:, 1]
            assert heights.min() >= lowest and heights.max() <= highest


def test_default_and_range_are_marked(scores):
    figure = show_sweep(scores, [M, TAU])
    dashed = [line.get_xdata()[0] for ax in figure.axes for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed == [8, 0.2, 8, 0.2]
    assert [len(ax.patches) for ax in figure.axes] == [0, 1, 0, 1]
    assert figure.axes[1].patches[0].get_x() == pytest.approx(0.3)


def test_few_values_have_a_tick_each(scores):
    figure = show_gains(scores, [M])
    figure.draw_without_rendering()
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["4", "8", "16"]


def test_gains_are_drawn_in_points(scores):
    ax = show_gains(scores, [TAU]).axes[0]
    dots = sorted(tuple(line.get_ydata()) for line in ax.lines if line.get_marker() == "o")
    expected = sorted((100 * (low - mid), 100 * (high - mid)) for low, mid, high in MIOU.values())
    assert np.allclose(dots, expected)
    assert ax.get_ylim()[0] >= -100 and ax.get_ylim()[1] <= 100


def test_one_scene_is_drawn_without_intervals(scores):
    one = scores[scores.scene == "a"]
    sweep, gained = (show(one, [M]) for show in (show_sweep, show_gains))
    assert lines_of(sweep.axes[0])["mIoU"][1] == pytest.approx(MIOU["a"])
    for ax in sweep.axes:
        for band in ax.collections:
            assert not [path for path in band.get_paths() if len(path.vertices)]
    dots = [line.get_ydata() for line in gained.axes[0].lines if line.get_marker() == "o"]
    assert np.allclose(dots, [[100 * (0.2 - 0.5), 100 * (0.4 - 0.5)]])
    for figure in (sweep, gained):
        figure.draw_without_rendering()


@pytest.mark.parametrize(("framed", "frames"), [(None, [2, 2]), ("right", [0, 2])])
def test_tables_frame_the_highest_of_each_row(framed, frames):
    table = pd.DataFrame([[1.0, 3.0, 2.0], [9.0, 5.0, 4.0]], columns=TAUS, index=pd.Index([2, 3], name="N"))
    figure = show_tables({"left": table, "right": table}, ["{:.0f}", "{:.1f}"], framed)
    boxes = [[patch for patch in ax.patches if isinstance(patch, Rectangle)] for ax in figure.axes]
    assert [len(found) for found in boxes] == frames
    centres = [(box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2) for box in boxes[1]]
    assert np.allclose(centres, [(1, 0), (0, 1)])
    assert [text.get_text() for text in figure.axes[1].texts] == ["1.0", "3.0", "2.0", "9.0", "5.0", "4.0"]
    assert figure.axes[0].get_ylabel() == "N"
