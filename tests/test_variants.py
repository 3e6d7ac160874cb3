"""What the released code does otherwise, and remedies: against the formula, pixel by pixel."""

import numpy as np
import pytest
import torch

from diffseg.aggregation import aggregate
from diffseg.masks import suppress
from diffseg.merging import anchor_distances, merge
from diffseg.variants import DRAWS, VARIANTS, fill_specks, propose, refine_by_kmeans, remedies, weigh_by_size

SIDE, THRESHOLD = 8, 0.5


def maps(seed, side):
    """Maps of a layer: two halves of a picture, each place with a whim of its own."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.arange(side) < side // 2
    classes = half.repeat(side)  # [side * side], left or right
    scores = 3.0 * (classes[:, None] == classes) + torch.randn(side**2, side**2, generator=generator)
    return scores.softmax(dim=1)


@pytest.fixture(scope="module")
def passes():
    return {name: [maps(number, side) for side in (SIDE, SIDE, SIDE // 2)] for number, name in enumerate(DRAWS)}


class TestProposals:
    def test_the_paper_is_what_the_pipeline_does(self, passes):
        expected = merge(aggregate(passes["noisy"]), threshold=THRESHOLD)
        assert torch.equal(propose(passes, VARIANTS["paper"], THRESHOLD), expected)

    def test_each_switch_does_what_it_says(self, passes):
        by_side = aggregate(passes["noisy"], weights="resolution")
        noisy = aggregate(passes["noisy"])
        expected = {
            "no noise": merge(aggregate(passes["clean"]), threshold=THRESHOLD),
            "another draw": merge(aggregate(passes["noisy again"]), threshold=THRESHOLD),
            "weights per side": merge(by_side, threshold=THRESHOLD),
            "merged ones stay": merge(noisy, threshold=THRESHOLD, remove_merged=False),
            "float16": merge(noisy, threshold=THRESHOLD, distances=anchor_distances(noisy.half().float())),
        }
        for name, proposals in expected.items():
            torch.testing.assert_close(propose(passes, VARIANTS[name], THRESHOLD), proposals)

    def test_all_four_are_the_four(self):
        changes = [VARIANTS[name] for name in ("no noise", "weights per side", "merged ones stay", "float16")]
        plain, released = VARIANTS["paper"], VARIANTS["released: all four"]
        for field in ("draw", "weights", "remove_merged", "half"):
            (changed,) = {getattr(each, field) for each in changes} - {getattr(plain, field)}
            assert getattr(released, field) == changed
        assert VARIANTS["released, K-Means"].kmeans and not released.kmeans

    def test_means_of_kmeans_are_means_of_what_is_nearest_to_them(self):
        attention = maps(0, SIDE).view(SIDE, SIDE, SIDE, SIDE)
        starts = torch.stack([attention[0, 0], attention[0, -1]])
        means = refine_by_kmeans(attention, starts).flatten(1)
        rows = attention.flatten(2).flatten(0, 1)
        nearest = torch.cdist(rows, means).argmin(dim=1)
        for number, mean in enumerate(means):
            torch.testing.assert_close(rows[nearest == number].mean(dim=0), mean, atol=1e-6, rtol=1e-4)


class TestRemedies:
    def test_specks_take_the_label_of_the_nearest_pixel_in_none(self):
        labels = torch.randint(0, 3, (12, 12), generator=torch.Generator().manual_seed(0))
        labels[:6], labels[6:, :5] = 0, 1  # large pieces, beside noise
        filled = fill_specks(labels, 4)
        small = torch.zeros_like(labels, dtype=torch.bool)
        for row, column in np.ndindex(12, 12):  # pieces by flooding, one pixel at a time
            piece, border = {(row, column)}, [(row, column)]
            while border:
                y, x = border.pop()
                for at in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                    if max(at) < 12 and min(at) >= 0 and at not in piece and labels[at] == labels[row, column]:
                        piece.add(at)
                        border.append(at)
            small[row, column] = len(piece) < 4
        assert small.any() and torch.equal(filled[~small], labels[~small])
        kept = (~small).nonzero()
        for place in small.nonzero():
            away = (kept - place).square().sum(dim=1)
            nearest = kept[away == away.min()]
            assert filled[tuple(place)] in labels[nearest[:, 0], nearest[:, 1]]

    def test_where_all_are_specks_nothing_changes(self):
        labels = torch.arange(9).view(3, 3)
        assert torch.equal(fill_specks(labels, 4), labels)

    def test_weights_are_shares_to_a_power(self):
        proposals = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(1))
        won = suppress(proposals, 32)
        shares = torch.tensor([(won == number).float().mean() for number in range(3)])
        enlarged = torch.nn.functional.interpolate(proposals[None], size=32, mode="bilinear")[0]
        for power in (0, 0.5, 1):
            expected = (enlarged * shares[:, None, None] ** power).argmax(dim=0)
            assert (weigh_by_size(proposals, power, 32) == expected).float().mean() > 0.999  # ties of rounding

    def test_names_say_what_is_done(self):
        proposals = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(2))
        ways = remedies(per_position=64, size=32)
        assert torch.equal(ways["as it is"](proposals), suppress(proposals, 32))
        assert torch.equal(ways["fill below 4"](proposals), fill_specks(suppress(proposals, 32), 4 * 64))
        assert torch.equal(ways["weigh, a = 0.5"](proposals), weigh_by_size(proposals, 0.5, 32))
