"""The film of Algorithm 1: its steps, and that it can be played."""

import io

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import pytest
import torch
from matplotlib.colors import to_rgb

from diffseg.figures import plots
from diffseg.figures.animate import merge_steps, merging_film

SIDE = 4
ANCHORS = torch.tensor([[0, 0], [0, 3], [3, 0], [3, 3]])


def rows(*members):
    """Groups of proposals as the rows of a boolean matrix."""
    table = torch.zeros(len(members), 1 + max(map(max, members)), dtype=torch.bool)
    for row, group in zip(table, members):
        row[group] = True
    return table


def maps(n):
    """n different maps that each sum to 1."""
    return torch.arange(1.0, 1 + n * SIDE**2).reshape(n, -1).softmax(1).reshape(n, SIDE, SIDE)


# Pass 2 unites proposals 1, 2 and 3 and leaves 0 alone; pass 3 unites the two that are left.
PASSES = [maps(4), maps(2), maps(1)]
GROUPS = [rows([0], [1, 2, 3]), rows([0, 1])]


def test_steps_tell_how_many_are_left_and_who_is_together():
    steps = merge_steps(PASSES, GROUPS)
    assert [step.title for step in steps] == ["pass 1: 4 proposals", "pass 2: 2 proposals", "pass 3: 1 proposal"]
    # In pass 3 the lone anchor takes the number of the larger group.
    assert [step.group.tolist() for step in steps] == [[-1] * 4, [0, 1, 1, 1], [1, 1, 1, 1]]
    assert [step.members for step in steps] == [1, 3, 2]
    assert torch.equal(steps[1].newest, PASSES[1][1]) and torch.equal(steps[2].newest, PASSES[2][0])


def test_proposals_that_wait_are_counted():
    steps = merge_steps([maps(5), maps(2)], [rows([0, 3], [1, 2, 4])])
    assert [step.title[8:] for step in steps] == ["5 proposals", "4 proposals", "2 proposals"]
    assert steps[1].group.tolist() == [0, -1, -1, 0, -1]


def test_a_pass_without_groups_adds_no_step():
    assert len(merge_steps([maps(2), maps(2)], [rows([0], [1])])) == 1


def test_groups_must_go_with_the_passes():
    with pytest.raises(ValueError, match="groups has 1 entries for 3 passes"):
        merge_steps(PASSES, GROUPS[:1])


def pictures(film):
    """The frames, as integers [h, w, 3]; before them, the still."""
    with PIL.Image.open(io.BytesIO(film.data)) as file:
        assert file.default_image and file.info["loop"] == 0
        for number in range(file.n_frames):
            file.seek(number)
            yield np.asarray(file.convert("RGB")).astype(int)


def has_colour(picture, colour, tolerance=12):
    target = np.round(255 * np.array(to_rgb(colour)))
    return (np.abs(picture - target).max(axis=2) <= tolerance).any()


def test_film_plays_and_paints_groups():
    white = np.full((32, 32, 3), 255, np.uint8)
    film = merging_film(white, ANCHORS, PASSES, GROUPS)
    still, first, middle, last = pictures(film)
    assert np.array_equal(still, last)
    assert film.format == "png" and len(film.data) < 100_000
    most, fewest = plots.colours(2)
    assert not has_colour(first, most)
    assert has_colour(middle, most) and has_colour(middle, fewest)
    assert has_colour(last, most)


def test_film_is_as_long_as_asked():
    white = np.full((32, 32, 3), 255, np.uint8)
    assert len(list(pictures(merging_film(white, ANCHORS, PASSES, GROUPS, frames=2)))) == 1 + 2


def test_the_figure_is_closed():
    merging_film(np.zeros((32, 32, 3), np.uint8), ANCHORS, PASSES, GROUPS)
    assert not plt.get_fignums()
