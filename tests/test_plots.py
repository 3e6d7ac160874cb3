"""Figures are drawn from real arrays; what is checked is what a reader would see: pixels, colours, titles, legends."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from diffseg.figures import plots
from diffseg.pocket import CLASSES

SIDE = 24
CAR, SKY, ROAD = (CLASSES.index(name) for name in ("car", "sky", "road"))


@pytest.fixture
def truth():
    """Sky above a road; a car on it. The road is the largest."""
    labels = np.full((SIDE, SIDE), ROAD, np.uint8)
    labels[:8] = SKY
    labels[12:18, 4:12] = CAR
    return labels


@pytest.fixture
def segments(truth):
    """A segment for each class, and a fourth that took a corner of the road."""
    ids = np.select([truth == CAR, truth == SKY], [2, 0], 1)
    ids[-4:, -4:] = 3
    return torch.from_numpy(ids)


@pytest.fixture
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.fixture
def out(picture, segments):
    return SimpleNamespace(image=picture, labels=segments)


def drawn(ax):
    """The pixels of a panel."""
    return ax.images[0].get_array()


def legend_names(legend):
    return [text.get_text() for text in legend.get_texts()]


# ---- colours --------------------------------------------------------------------------------------------------------


def test_class_colours_differ_and_none_is_grey():
    palette = plots.class_colours()
    assert palette.shape == (len(CLASSES), 3)
    assert len({tuple(colour) for colour in palette}) == len(CLASSES)
    assert (np.ptp(palette, axis=1) > 0.1).all()
    assert (palette[:5] == plots.class_colours(5)).all(), "a class keeps its colour however many there are"


def test_many_colours_are_all_different():
    palette = plots.colours(81)
    assert len({tuple(colour) for colour in palette}) == 81
    assert palette.min() >= 0 and palette.max() <= 1


def test_colours_go_by_area_not_by_number(segments):
    palette = plots.colours_by_area(segments)
    renumbered = 3 - segments
    assert (plots.colours_by_area(renumbered) == palette[::-1]).all()
    assert (plots.paint(renumbered) == plots.paint(segments)).all()
    assert (palette[1] == plots.colours(1)[0]).all(), "the largest segment, here 1, has the first colour"


def test_matched_segments_take_the_colours_of_their_classes(segments, truth):
    palette = plots.match_colours(segments, truth)
    assert (palette[[0, 1, 2]] == plots.class_colours()[[SKY, ROAD, CAR]]).all()
    assert np.ptp(palette[3]) == 0, "the segment that no class is left for is grey"


def test_legend_names_the_classes_that_can_be_seen(truth):
    truth[0, 0] = 255
    legend = plots.legend_of(truth)
    assert list(legend) == ["car", "sky", "road"]
    assert legend["sky"] == tuple(plots.class_colours()[SKY])


# ---- label maps to pictures -----------------------------------------------------------------------------------------


def test_paint_gives_each_label_its_colour(truth):
    painted = plots.paint(truth, plots.class_colours())
    assert painted.dtype == np.uint8 and painted.shape == (SIDE, SIDE, 3)
    for label in (CAR, SKY, ROAD):
        expected = (255 * plots.class_colours()[label]).round()
        assert (painted[truth == label] == expected).all()


@pytest.mark.parametrize("unlabelled", [-1, 255])
def test_paint_leaves_unlabelled_pixels_white(truth, unlabelled):
    truth = truth.astype(int)
    truth[0, 0] = unlabelled
    assert (plots.paint(truth, plots.class_colours())[0, 0] == 255).all()


def test_segment_255_of_many_has_a_colour():
    many = np.arange(256).reshape(16, 16)
    assert (plots.paint(many)[-1, -1] != 255).any()


def test_overlay_shows_both_the_picture_and_the_labels(picture, segments):
    pixels = np.asarray(picture).astype(float)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[2:6, 2:-2] = True  # well within the sky
    apart = [np.abs(plots.overlay(picture, segments, alpha=a)[inside] - pixels[inside]).mean() for a in (0.2, 0.8)]
    assert 0 < apart[0] < apart[1]
    assert (plots.overlay(picture, segments)[8, 0] == 255).all(), "sky and road meet in a white line"


def test_overlay_and_paint_agree_on_colours(picture, segments):
    """Opaque, an overlay is the painted map, even where a number is missing between the labels."""
    segments[segments == 0] = 6
    opaque, painted = plots.overlay(picture, segments, alpha=1), plots.paint(segments)
    white, black = ((opaque == value).all(axis=2) for value in (255, 0))
    assert white.any() and black.any() and (white | black).mean() < 0.5
    inside = ~(white | black)
    assert np.abs(opaque[inside].astype(int) - painted[inside]).max() <= 1


def test_overlay_takes_greyscale(segments):
    grey = np.full((SIDE, SIDE), 100, np.uint8)
    assert (plots.overlay(grey, segments) == plots.overlay(Image.fromarray(grey), segments)).all()


# ---- figures --------------------------------------------------------------------------------------------------------


def test_figures_are_closed(out, truth):
    """An open figure would be shown a second time by the notebook."""
    figures = [
        plots.show_image(out.image),
        plots.show_images([out.image]),
        plots.show_segmentation(out),
        plots.show_truth(truth),
        plots.show_attention(np.ones((1, 4, 4))),
    ]
    assert plt.get_fignums() == []
    assert all(isinstance(figure, Figure) for figure in figures)


def test_images_are_laid_out_row_by_row(picture):
    figure = plots.show_images([picture] * 5, list("abcde"), columns=3)
    assert figure.get_size_inches()[0] < 10
    assert [ax.get_title() for ax in figure.axes] == [*"abcde", ""]
    assert [len(ax.images) for ax in figure.axes] == [1, 1, 1, 1, 1, 0]


def test_segmentation_without_truth(out):
    figure = plots.show_segmentation(out)
    assert [ax.get_title() for ax in figure.axes] == ["input", "overlay", "4 segments"]
    assert (drawn(figure.axes[0]) == np.asarray(out.image)).all()
    assert (drawn(figure.axes[2]) == plots.paint(out.labels)).all()
    assert not figure.legends


def test_segmentation_with_truth_shares_colours(out, truth):
    figure = plots.show_segmentation(out, truth)
    assert figure.axes[3].get_title() == "truth: 3 classes"
    mine, theirs = drawn(figure.axes[2]), drawn(figure.axes[3])
    same = (mine == theirs).all(axis=2)
    assert (same == (out.labels.numpy() != 3)).all(), "right where, and only where, the match is right"
    assert legend_names(figure.legends[0]) == ["car", "sky", "road", "(no class left)"]


def test_no_class_left_is_said_only_where_it_is_so(out, truth):
    out.labels[out.labels == 3] = 1
    figure = plots.show_segmentation(out, truth)
    assert legend_names(figure.legends[0]) == ["car", "sky", "road"]


def test_results_stand_in_columns_with_their_scores(picture, segments, truth):
    figure = plots.show_results([picture] * 2, [segments, torch.zeros_like(segments)], [truth] * 2)
    titles = [ax.get_title() for ax in figure.axes]
    share = f"{(truth == ROAD).mean():.0%} / {(truth == ROAD).mean() / 3:.0%}"
    assert titles == ["", "", "97% / 98%", share, "97% / 98%", share, "truth", "truth"]
    np.testing.assert_array_equal(drawn(figure.axes[6]), plots.paint(truth, plots.class_colours()))
    np.testing.assert_array_equal(drawn(figure.axes[4])[0, 0], drawn(figure.axes[6])[0, 0])  # the sky's colour
    (ax,) = plots.show_results([picture], [segments], [truth], rows=("segments",), names=["mine"]).axes
    assert ax.get_title() == "mine: 97% / 98%"


def test_truth_into_a_given_ax(truth):
    figure, (left, right) = plt.subplots(1, 2)
    plt.close(figure)
    assert plots.show_truth(truth, title="what is there", ax=right) is figure
    assert not left.images and right.get_title() == "what is there"
    assert (drawn(right) == plots.paint(truth, plots.class_colours())).all()
    assert legend_names(right.get_legend()) == ["car", "sky", "road"]


def test_attention_on_one_scale(picture):
    maps = torch.ones(2, 8, 8)
    maps[1, 2, 3] = 65  # 128 in all
    figure = plots.show_attention(maps / maps.sum(dim=(1, 2), keepdim=True), picture, [(0, 0), (2, 3)])
    image_ax, even, uneven, bar = figure.axes
    np.testing.assert_allclose(drawn(even), 1, err_msg="even attention is 1")
    assert drawn(uneven)[2, 3] == pytest.approx(32.5) and drawn(uneven)[0, 0] == pytest.approx(0.5)
    assert even.images[0].get_clim() == uneven.images[0].get_clim()
    assert "even attention" in bar.get_ylabel()


def test_attention_marks_the_asked_pixels(picture):
    figure = plots.show_attention(np.ones((2, 8, 8)), picture, [(0, 7), (2, 3)])
    image_ax, first, second, _ = figure.axes
    assert [list(line.get_xydata()[0]) for line in (*first.lines, *second.lines)] == [[7, 0], [3, 2]]
    # the middle of the 3x3 pixels of the picture that one pixel of the map stands for
    assert [list(line.get_xydata()[0]) for line in image_ax.lines] == [[22, 1], [10, 7]]
    assert [text.get_text() for text in image_ax.texts] == ["1", "2"]


def test_attention_without_a_picture():
    figure = plots.show_attention(np.ones((3, 4, 4)), titles=["a", "b", "c"], columns=2)
    assert [ax.get_title() for ax in figure.axes][:3] == ["a", "b", "c"]


def test_style_is_plain():
    before = plt.rcParams.copy()
    try:
        plots.style()
        assert plt.rcParams["figure.dpi"] == 100
        assert plt.rcParams["image.cmap"] == "viridis"
        plots.show_image(np.zeros((4, 4), np.uint8)).canvas.draw()  # without a warning about a missing font
    finally:
        plt.rcParams.update(before)


# ---- wrong arguments ------------------------------------------------------------------------------------------------


def test_sizes_that_differ(picture, segments, truth):
    with pytest.raises(ValueError, match="image is 24x24 and labels 12x24"):
        plots.overlay(picture, segments[:12])
    with pytest.raises((ValueError, TypeError), match="truth"):
        plots.match_colours(segments, truth[:12])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plots.paint(np.array([[0, 3]]), plots.colours(2)), "labels holds 0 to 3"),
        (lambda: plots.paint(np.array([[0, -2]]), plots.colours(2)), "labels holds -2"),
        (lambda: plots.paint(np.array([[0, -1]])), "segment ids start at 0"),
        (lambda: plots.paint(np.zeros((0, 4), int)), "must not be empty"),
        (lambda: plots.show_truth(np.array([[27]])), "truth holds 27 to 27"),
        (lambda: plots.show_image(np.zeros((4, 4))), "type float64"),
        (lambda: plots.show_image(np.zeros((3, 4, 4), np.uint8)), "shape"),
        (lambda: plots.show_images([]), "nothing to draw"),
        (lambda: plots.show_images([np.zeros((4, 4), np.uint8)], columns=0), "nothing to draw"),
        (lambda: plots.show_images([np.zeros((4, 4), np.uint8)], ["a", "b"]), "2 entries for 1 images"),
        (lambda: plots.show_attention(np.zeros((1, 4, 4))), "not all zero"),
        (lambda: plots.show_attention(-np.ones((1, 4, 4))), "not negative"),
        (lambda: plots.show_attention(np.full((1, 4, 4), np.nan)), "finite"),
        (lambda: plots.show_attention(np.ones((0, 4, 4))), "one or more"),
        (lambda: plots.show_attention(np.ones((2, 4, 4)), titles=["a"]), "titles has 1"),
        (lambda: plots.show_attention(np.ones((2, 4, 4)), points=[(0, 0)]), "points has 1"),
    ],
)
def test_errors_say_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_results_that_do_not_fit(picture, segments, truth):
    with pytest.raises(ValueError, match="2 images, 1 found and 1 truths"):
        plots.show_results([picture] * 2, [segments], [truth])
    with pytest.raises(ValueError, match="names has 2 entries for 1 images"):
        plots.show_results([picture], [segments], [truth], names=["a", "b"])
    with pytest.raises(ValueError, match=r"rows names \['masks'\]"):
        plots.show_results([picture], [segments], [truth], rows=("masks",))


def test_an_output_without_its_image(out):
    out.image = None
    with pytest.raises(ValueError, match="image=picture"):
        plots.show_segmentation(out)
