"""Names on regions: their locations, their colours, and what is drawn."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.colors import to_rgb
from PIL import Image

from diffseg.figures.named import locate_names, show_named, word_colours
from diffseg.figures.plots import class_colours
from diffseg.pocket import CLASSES, class_of

WORDS = ("car", "road", "sky", "brick wall")
LETTER, LINE = 2.0, 4.0


def halves(size=64):
    """Mask 0 on the left, mask 1 on the right."""
    return np.repeat([[0, 1]], size, axis=0).repeat(size // 2, axis=1)


def named(labels, words=WORDS):
    picture = Image.new("RGB", labels.shape[::-1], "white")
    return SimpleNamespace(labels=labels, image=picture, words=words)


def box(word, row, column):
    """top, bottom, left, right."""
    return row - LINE / 2, row + LINE / 2, column - LETTER * len(word) / 2, column + LETTER * len(word) / 2


# ---- classes and colours --------------------------------------------------------------------------------------------


def test_class_of_a_word_is_that_of_its_head():
    assert CLASSES[class_of("brick wall")] == CLASSES[class_of("wall")] == "wall"
    assert class_of("wall painting") is class_of("building") is class_of("") is None


def test_words_of_a_class_have_its_colour():
    assert to_rgb(word_colours(["dog", "brick wall"])["dog"]) == pytest.approx(class_colours()[CLASSES.index("dog")])


@given(st.lists(st.sampled_from([*CLASSES, *(f"word {n}" for n in range(40))]), unique=True, max_size=60))
def test_different_words_have_different_colours(words):
    found = word_colours(words + words)
    assert list(found) == words and len(set(found.values())) == len(words)


# ---- locations ------------------------------------------------------------------------------------------------------


def test_a_name_stands_in_the_middle_of_its_region():
    names = locate_names(halves(), WORDS, LETTER, LINE)
    assert [word for word, _ in names] == ["car", "road"]
    np.testing.assert_allclose([location for _, location in names], [(32, 16), (32, 48)], atol=1)


def test_a_name_stands_on_its_region_not_at_its_centre_of_mass():
    letter_u = np.ones((40, 40), dtype=int)
    letter_u[:30, 10:30] = 0
    ((_, (row, column)),) = [name for name in locate_names(letter_u, WORDS, 1.0, LINE) if name[0] == "road"]
    assert letter_u[int(row), int(column)] == 1


def test_large_regions_have_names_and_small_ones_none():
    labels = np.zeros((100, 100), dtype=int)
    labels[10:30, 10:30] = labels[60:90, 60:90] = 1  # 4 % and 9 % of the picture
    labels[80:85, 10:15] = 1  # a speck
    assert [word for word, _ in locate_names(labels, WORDS, LETTER, LINE)] == ["car", "road", "road"]


def test_the_largest_region_of_a_small_mask_has_a_name():
    labels = np.zeros((100, 100), dtype=int)
    labels[10:14, 10:14] = labels[50, 50] = 1
    assert [word for word, _ in locate_names(labels, WORDS, LETTER, LINE)] == ["car", "road"]


def test_a_name_without_room_is_left_out():
    labels = np.zeros((10, 10), dtype=int)
    labels[4:6, 4:6] = 1
    assert [word for word, _ in locate_names(labels, ("a", "bb"), 4.0, 20.0)] == ["a"]


@settings(deadline=None, max_examples=60)
@given(arrays(np.int64, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=4), elements=st.integers(0, 3)))
def test_names_overlap_nowhere_touch_their_regions_and_stay_inside(coarse):
    labels = coarse.repeat(11, axis=0).repeat(11, axis=1)
    height, width = labels.shape
    names = locate_names(labels, WORDS, LETTER, LINE)
    assert names
    boxes = [box(word, *location) for word, location in names]
    for index, (top, bottom, left, right) in enumerate(boxes):
        assert 0 <= top and bottom <= height
        assert (0 <= left and right <= width) or right - left > width
        under = labels[int(top) : int(np.ceil(bottom)), max(int(left), 0) : int(np.ceil(right))]
        assert WORDS.index(names[index][0]) in under
        for other in boxes[:index]:
            apart = bottom <= other[0] or other[1] <= top or right <= other[2] or other[3] <= left
            assert apart, (names, labels)


# ---- the figure -----------------------------------------------------------------------------------------------------


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_one_picture():
    figure = show_named([named(halves())])
    (ax,) = figure.axes
    assert texts(ax) == ["car", "road"] and ax.get_title() == "2 names"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(WORDS)


def test_two_columns_with_masks_above():
    above = [np.zeros((64, 64), dtype=int), halves()]
    figure = show_named([named(halves()), named(1 - halves())], above=above)
    assert [ax.get_title() for ax in figure.axes] == ["1 mask", "2 masks", "2 names", "2 names"]
    assert [texts(ax) for ax in figure.axes] == [[], [], ["car", "road"], ["car", "road"]]
    titled = show_named([named(halves())] * 2, above=above, titles=["one", "two"])
    assert [ax.get_title() for ax in titled.axes] == ["one", "two", "2 names", "2 names"]


def test_regions_have_the_colours_of_the_legend():
    figure = show_named([named(halves(), ("car", "road"))])
    drawn = figure.axes[0].images[0].get_array()[5, [5, 58]] / 255.0  # [car, road]
    for colour, patch in zip(drawn, figure.legends[0].get_patches()):
        tint = np.array(patch.get_facecolor()[:3])
        assert np.corrcoef(colour, tint)[0, 1] > 0.9


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        (named(halves(), None), {}, "out.words is None: no names"),
        (named(halves(), ()), {}, r"out.words is \(\): no names"),
        (named(halves(), ("car",)), {}, "out.words has 1 names for labels from 0 to 1"),
        (SimpleNamespace(labels=halves(), image=None, words=WORDS), {}, "out.image is None"),
        (named(halves()), {"above": []}, "above has 0 entries for 1 pictures"),
        (named(halves()), {"titles": ["a", "b"]}, "titles has 2 entries for 1 pictures"),
    ],
)
def test_what_cannot_be_drawn(out, options, message):
    with pytest.raises(ValueError, match=message):
        show_named([out], **options)


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="nothing to draw"):
        show_named([])
