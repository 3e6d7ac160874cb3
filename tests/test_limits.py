"""What a grid cannot see, doubt, and windows: against oracles written from their definitions."""

import numpy as np
import pytest
import torch
from helpers_models import tiny_components
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffseg import DiffSegPipeline, limits, pocket
from diffseg.boundaries import band_width

HALVES = np.array([[0, 1]]).repeat(32, 0).repeat(16, 1)  # [32, 32]


# ---- what the grid cannot see


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_a_mirrored_picture_is_the_same_from_both_sides_of_each_seam(times, height, width):
    picture = np.arange(height * width * 2).reshape(height, width, 2)
    found = limits.mirror(picture, times)
    assert found.shape == (times * height, times * width, 2) and np.array_equal(found[:height, :width], picture)
    for seam in range(1, times):
        assert np.array_equal(found[seam * height - 1], found[seam * height])
        assert np.array_equal(found[:, seam * width - 1], found[:, seam * width])


def test_a_fine_grid_lets_everything_through_and_a_coarse_one_what_is_large():
    truth = np.zeros((64, 64), int)
    truth[16:48, 16:48], truth[2, 2] = 7, 3
    assert torch.equal(limits.through_grid(truth, 64), torch.from_numpy(truth))
    coarse = limits.through_grid(truth, 16)
    assert set(coarse.unique().tolist()) == {0, 7} and ((coarse == 7).numpy() == (truth == 7)).mean() > 0.97


def test_pieces_are_those_of_a_plain_count():
    truth = np.zeros((40, 60), int)
    truth[5:15, 5:15], truth[25:35, 40:50] = 2, 2
    found = truth.copy()
    found[5:15, 5:10] = -1  # half of the first piece is lost
    pieces = list(limits.find_pieces(found, truth))
    assert [(piece.label, piece.area) for piece in pieces] == [(0, 2200), (2, 100), (2, 100)]
    assert [piece.recall for piece in pieces] == [1, 0.5, 1]
    assert pieces[2].boundary == 1 and pieces[1].boundary < 0.6
    assert [piece.area for piece in limits.find_pieces(found, truth, smallest=101)] == [2200]


def test_boundary_of_a_piece_is_that_of_its_two_masks():
    """Of one piece, the bands by erosion, pixel by pixel."""
    from scipy.ndimage import binary_erosion

    truth, found = np.zeros((2, 100, 100), int)
    truth[20:80, 20:80], found[22:80, 20:82] = 1, 1
    width = band_width(100, 100)
    bands = []
    for mask in (truth == 1, found == 1):
        bands.append(mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=width))
    expected = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
    assert list(limits.find_pieces(found, truth))[1].boundary == pytest.approx(expected)


def test_segments_are_named_one_to_one():
    segments = np.array([[0, 0, 1, 1, 2, 2]])
    assert limits.named(segments, np.array([[5, 5, 9, 9, 9, 5]])).tolist() == [[5, 5, 9, 9, -1, -1]]


# ---- other clothes, and doubt


def test_domains_keep_size_and_things():
    image = pocket.scene(1_000_000, 64).image
    seen = {name: np.asarray(change(image), float) for name, change in limits.DOMAINS.items()}
    assert all(picture.shape == (64, 64, 3) for picture in seen.values())
    assert np.array_equal(seen["as it is"], np.asarray(image)) and (seen["negative"] + seen["as it is"] == 255).all()
    assert (np.ptp(seen["grey"], axis=2) == 0).all() and seen["drawing"].mean() > 128


def test_doubt_is_what_is_not_found_again():
    labels = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]])
    assert limits.doubt(labels, [labels, 1 - labels]).tolist() == [0, 0]
    assert limits.doubt(labels, [torch.zeros(2, 4, dtype=torch.int64)]).tolist() == [0.5, 0.5]
    split = torch.tensor([[0, 1, 2, 2], [0, 1, 2, 2]])
    assert limits.doubt(labels, [labels, split]).tolist() == [0.25, 0]
    with pytest.raises(ValueError, match="others is empty; pass one"):
        limits.doubt(labels, [])


# ---- windows


@given(st.integers(20, 600), st.integers(1, 4), st.floats(0, 0.6))
def test_windows_cover_everything_and_are_of_one_size(length, count, overlap):
    sides = limits.window_sides(length, count, overlap)
    assert len(sides) == count and sides[0][0] == 0 and sides[-1][1] == length
    assert len({end - start for start, end in sides}) == 1
    assert all(after[0] <= before[1] + 1 for before, after in zip(sides, sides[1:]))


@pytest.mark.parametrize(("count", "overlap"), [(0, 0.2), (2, 1.0), (2, -0.1)])
def test_windows_that_make_no_sense(count, overlap):
    with pytest.raises(ValueError, match=f"count={count}, overlap={overlap}: .*try 2 and 0.25"):
        limits.window_sides(64, count, overlap)


def test_segments_are_joined_nearest_first_and_never_within_a_window():
    distances = torch.tensor([[0, 9, 1, 2], [9, 0, 9, 0.5], [1, 9, 0, 9], [2, 0.5, 9, 0]])
    assert limits.join(distances, [0, 0, 1, 1], 3).tolist() == [0, 1, 0, 1]
    assert limits.join(distances, [0, 0, 1, 1], 0.9).tolist() == [0, 1, 2, 1]
    # 0 and 3 are near, but 0 has a partner in the window of 3 already
    assert limits.join(torch.tensor([[0, 1.0, 2], [1, 0, 9], [2, 9, 0]]), [0, 1, 1], 3).tolist() == [0, 0, 2]
    assert limits.join(torch.zeros(3, 3), [0, 1, 2], 1).tolist() == [0, 0, 0]


def block_attention(labels, sharpness=6.0):
    """Every position looks at those of its own label."""
    flat = labels.flatten()
    grid = labels.shape
    return (sharpness * (flat[:, None] == flat)).softmax(dim=1).view(*grid, *grid)


def test_one_thing_across_windows_gets_one_label(tmp_path):
    pipe = DiffSegPipeline(**tiny_components(tmp_path), threshold=0.5)
    halves = torch.from_numpy(HALVES[::2, ::2].copy())  # [16, 16]
    # Upper and lower window see the same two halves; the left one is one thing in the whole picture, too.
    windows = [limits.Window((0, top, 32, top + 20), block_attention(halves)) for top in (0, 12)]
    found = limits.segment_windows(pipe, block_attention(halves), windows, (32, 32))
    assert torch.equal(found, torch.from_numpy(HALVES))
    four = halves + 2 * (torch.arange(16)[:, None] >= 8)
    assert len(limits.segment_windows(pipe, block_attention(four), windows, (32, 32)).unique()) == 4


def test_windows_go_through_the_model(tmp_path):
    pipe = DiffSegPipeline(**tiny_components(tmp_path), threshold=1e-3)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    windows = limits.attend_windows(pipe, image, 2, 0.5)
    assert [window.box for window in windows] == [(0, 0, 43, 43), (21, 0, 64, 43), (0, 21, 43, 64), (21, 21, 64, 64)]
    assert torch.equal(windows[1].attention, pipe.attend(image.crop((21, 0, 64, 43))))
    found = limits.segment_windows(pipe, pipe.attend(image), windows, (64, 64))
    assert found.shape == (64, 64) and found.unique().tolist() == list(range(int(found.max()) + 1))
