"""The widgets of the lessons: their logic against oracles, and what is shown when something is moved.

The model is small and has sizes, layers and heads that no embedded model has.
"""

from dataclasses import replace
from io import BytesIO
from itertools import permutations
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, StableDiffusionPipeline
from helpers_models import tiny_components
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.special import rel_entr

from diffseg import DiffSegOutput, DiffSegPipeline, aggregate, baselines, image_score, merge, suppress, widgets
from diffseg.aggregation import side_weights, sum_sides, weigh_sides
from diffseg.merging import anchor_distances, merge_passes
from diffseg.metrics import count_overlap
from diffseg.plus import Method
from diffseg.semantics import find_tokens, name_words, noun_maps
from diffseg.widgets.lessons import (
    aggregating,
    clustering,
    divergence,
    heads,
    hooking,
    limiting,
    masks,
    merging,
    naming,
    painting,
    scoring,
    segmenting,
    shared,
    tuning,
)

SIDE = 64  # pixels of the picture; 16 positions


def send(canvas, event, **content):
    """An event as the browser sends it."""
    canvas._receive(canvas, {"type": event, "view": "one", **content}, [])


def click(canvas, x, y):
    send(canvas, "click", x=x, y=y, kind="positive")


def opened(content):
    return np.asarray(Image.open(BytesIO(content)))


def healthy(panel):
    """Something is shown and said, and nothing went wrong."""
    shown = [part for part in panel.parts.values() if isinstance(part, widgets.Canvas)]
    assert all(part.picture and part.alt and part.level != "error" for part in shown), [part.message for part in shown]
    return panel.canvas.alt and panel.canvas.alt in panel.said.value.replace("&#x27;", "'").replace("&quot;", '"')


class Changes:
    """Which of some traits change within the block."""

    def __init__(self, *watched):
        self.watched = watched

    def __enter__(self):
        self.before = [getattr(owner, trait) for owner, trait in self.watched]
        return self

    def __exit__(self, *_):
        self.found = [
            getattr(owner, trait) != value for (owner, trait), value in zip(self.watched, self.before, strict=True)
        ]


@pytest.fixture(scope="module")
def image():
    """Four areas of different colours with some grain."""
    blocks = np.array([[[220, 40, 40], [40, 60, 200]], [[40, 160, 60], [240, 220, 80]]]).repeat(32, 0).repeat(32, 1)
    grain = np.random.default_rng(0).integers(-12, 13, blocks.shape)
    return Image.fromarray((blocks + grain).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def truth():
    return np.array([[0, 1], [2, 3]]).repeat(32, 0).repeat(32, 1)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return DiffSegPipeline(**tiny_components(tmp_path_factory.mktemp("tokenizer")), threshold=1e-3)


@pytest.fixture(scope="module")
def attention(truth):
    """Maps that know the four areas, each place with a whim of its own."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.from_numpy(truth[::4, ::4].copy()).flatten()
    scores = 2.0 * (classes[:, None] == classes) + 0.3 * torch.randn(256, 256, generator=generator)
    return scores.softmax(dim=1).view(16, 16, 16, 16)


@pytest.fixture(scope="module")
def out(pipe, attention, image):
    return pipe.segment(attention, threshold=0.3, image=image)


@pytest.fixture(scope="module")
def layers(pipe, image):
    return pipe.record(image)


@pytest.fixture(scope="module")
def apart(pipe, image):
    return pipe.record(image, heads="all")


# ---- what all share -------------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 9), st.floats(0.5, 2))
def test_a_tile_is_found_where_it_is_drawn(count, columns, chosen, aspect):
    chosen = chosen % count
    sheet = shared.Sheet(count, columns, 40, aspect)
    pictures = [np.full((2, 2, 3), 100 if number == chosen else 200, np.uint8) for number in range(count)]
    drawn = sheet.draw(pictures, [""] * count)
    assert drawn.shape[1] == 2 * sheet.width and drawn.shape[0] == 2 * sheet.height
    rows, columns_of = np.nonzero((drawn == 100).all(axis=2))
    for row, column in ((rows.min(), columns_of.min()), (rows.max(), columns_of.max())):
        assert sheet.tile_at((column + 0.5) / drawn.shape[1], (row + 0.5) / drawn.shape[0]) == chosen


def test_places_and_their_middles_agree():
    for grid in ((4, 4), (3, 7)):
        for place in np.ndindex(*grid):
            assert shared.place_at(*shared.middle_of(place, grid), grid) == place
    assert shared.place_at(1.0, 1.0, (3, 7)) == (2, 6)


def test_the_deepest_pixel_is_within():
    mask = np.zeros((9, 12), bool)
    mask[2:7, 1:6] = True
    assert shared.deepest(mask) == (3.0, 4.0)


def test_an_error_in_a_callback_is_shown_and_goes_away():
    panel = widgets.matching_toy()
    numbers = iter([1 / 2])
    panel.when(panel.sliders["road"], do=lambda: next(numbers))
    panel.sliders["road"].value = 5
    assert panel.canvas.level != "error"
    panel.sliders["road"].value = 6
    assert panel.canvas.level == "error" and "StopIteration" in panel.canvas.message


# ---- 00 -------------------------------------------------------------------------------------------------------------


def test_hover_shows_the_proposal_of_the_segment(out):
    panel = widgets.hover_segments(out)
    assert healthy(panel)
    places = {int(out.labels[row, column]): (column / SIDE, row / SIDE) for row in (5, 60) for column in (5, 60)}
    assert len(places) > 1
    seen = set()
    for number, (x, y) in places.items():
        send(panel.picture, "hover", x=x, y=y)
        assert f"({number + 1} of {len(out.proposals)})" in panel.canvas.alt
        shown = opened(panel.proposal.picture)
        assert shown.shape[:2] == tuple(out.proposals[number].shape)
        brightest = shown.astype(int).sum(axis=2) >= shown.astype(int).sum(axis=2).max() - 1
        assert brightest[np.unravel_index(int(out.proposals[number].argmax()), brightest.shape)]
        seen.add(panel.proposal.picture)
    assert len(seen) == len(places)


def test_a_click_shows_the_map_of_the_position(out):
    panel = widgets.click_pixels(out)
    assert healthy(panel)
    rows, columns = out.attention.shape[:2]
    for x, y in ((0.1, 0.2), (0.9, 0.7)):
        with Changes((panel.looked, "picture"), (panel.canvas, "alt")) as changes:
            click(panel.picture, x, y)
        assert all(changes.found) and f"at {x:.0%} across and {y:.0%} down" in panel.canvas.alt and healthy(panel)
        shown = opened(panel.looked.picture).astype(int).sum(axis=2)
        map_of_it = out.attention[int(y * rows), int(x * columns)]
        assert shown.flat[int(map_of_it.argmax())] >= shown.max() - 1


def test_share_inside_is_all_or_nothing_for_whole_positions():
    proposal, inside = torch.rand(4, 4), torch.zeros(8, 8, dtype=torch.bool)
    inside[:4] = True
    assert segmenting.share_inside(proposal, inside) == pytest.approx(float(proposal[:2].sum() / proposal.sum()))


def test_an_output_without_its_picture_is_refused(out):
    for widget in (widgets.click_pixels, widgets.hover_segments, widgets.cursor_line):
        with pytest.raises(ValueError, match="out.image is None"):
            widget(replace(out, image=None))


# ---- 01 -------------------------------------------------------------------------------------------------------------


def test_maps_are_rows_of_the_layers(layers, apart):
    for mean, each in zip(layers, apart, strict=True):
        side = mean.size
        row, column = int(0.3 * side), int(0.8 * side)
        expected = mean.probs[row * side + column].reshape(side, side) * side**2
        assert torch.allclose(hooking.map_at(mean, 0.8, 0.3), expected, rtol=1e-4)
        assert torch.allclose(hooking.map_at(each, 0.8, 0.3), expected, rtol=1e-3)
        assert len(hooking.heads_at(each, 0.8, 0.3)) == each.heads


def test_a_click_asks_another_pixel_in_every_layer(layers, image, pipe):
    panel = widgets.look_from_pixel(layers, image, pipe)
    assert healthy(panel) and f"all {len(layers)} layers" in panel.canvas.alt
    with Changes((panel.sheet, "picture"), (panel.canvas, "alt"), (panel.picture, "marks")) as changes:
        click(panel.picture, 0.1, 0.9)
    assert all(changes.found) and panel.picture.marks == [{"x": 0.1, "y": 0.9, "kind": "query"}]
    click(panel.sheet, 0.01, 0.2)  # the first layer
    assert panel.menu.value == 0 and f"head {layers[0].heads}" in panel.canvas.alt and healthy(panel)
    click(panel.sheet, 0.5, 0.5)  # and back
    assert panel.menu.value == hooking.EVERY and "all" in panel.canvas.alt


def test_without_a_pipeline_a_layer_is_shown_by_its_mean(layers, image):
    panel = widgets.look_from_pixel(layers, image)
    panel.menu.value = len(layers) - 1
    assert "the mean of its heads" in panel.canvas.alt and healthy(panel)
    with pytest.raises(ValueError, match="layers is empty"):
        widgets.look_from_pixel([], image)


# ---- 02 -------------------------------------------------------------------------------------------------------------


def test_distances_of_heads_are_mean_kl(apart):
    layer = apart[0]
    probs = layer.probs[:, 5 * layer.size + 3].double().numpy()
    expected = [[(rel_entr(p, q).sum() + rel_entr(q, p).sum()) / 2 for q in probs] for p in probs]
    found = heads.distances_at(layer, 3.5 / layer.size, 5.5 / layer.size)
    assert np.allclose(found, expected, atol=1e-5)
    pairs = found[np.triu_indices(len(probs), 1)]
    assert f"{pairs.mean():.2f} nats apart" in heads.describe_heads(found, None)
    assert "single head" in heads.describe_heads(np.zeros((1, 1)), 1.0)


def test_a_layer_and_a_pixel_are_chosen(apart, layers, image, pipe):
    panel = widgets.compare_heads(apart, image, pipe.threshold)
    assert healthy(panel)
    table = ElementTree.fromstring(panel.table.value)
    assert len(table.findall("tr")) == apart[-1].heads + 1
    with Changes((panel.sheet, "picture"), (panel.canvas, "alt"), (panel.table, "value")) as changes:
        click(panel.picture, 0.2, 0.2)
    assert all(changes.found)
    with Changes((panel.sheet, "picture"), (panel.canvas, "alt")) as changes:
        panel.menu.value = 0
    assert all(changes.found)
    with pytest.raises(ValueError, match='heads="all"'):
        widgets.compare_heads(layers, image)


# ---- 03 -------------------------------------------------------------------------------------------------------------


def test_weighted_sides_are_what_aggregate_gives(layers):
    maps = [layer.probs for layer in layers]
    size = max(layer.size for layer in layers)
    sums = sum_sides(maps, size)
    for weights in ({side: 1.0 / side for side in sums.sides}, {max(sums.sides): 0.3, min(sums.sides): 0.9}):
        expected = aggregate(maps, size, weights)
        found = weigh_sides(sums, aggregating.shares(weights))
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-8)
    for reading in ("layer", "resolution"):
        found = weigh_sides(sums, side_weights(sums, reading))
        assert torch.allclose(found, aggregate(maps, size, reading), rtol=1e-4, atol=1e-8)


def test_weights_move_masks_and_map(layers, image, pipe):
    panel = widgets.weigh_resolutions(layers, image, pipe.threshold)
    assert healthy(panel) and "100% of the pixels" in panel.canvas.alt
    fine, coarse = panel.sliders[max(panel.sliders)], panel.sliders[min(panel.sliders)]
    with Changes((panel.looked, "picture"), (panel.canvas, "alt")) as changes:
        fine.value = 0
    assert all(changes.found)
    with Changes((panel.looked, "picture")) as changes:
        click(panel.picture, 0.1, 0.1)
    assert all(changes.found)
    shown = panel.picture.overlay
    coarse.value = 0
    assert panel.canvas.level == "error" and "zero" in panel.canvas.message and panel.picture.overlay == shown
    panel.readings.value = "resolution"  # goes on, and takes the message away
    assert panel.canvas.message == "" and sum(slider.value for slider in panel.sliders.values()) == pytest.approx(1)


# ---- 04 -------------------------------------------------------------------------------------------------------------

SHARES = arrays(float, 5, elements=st.floats(0.01, 1)).map(lambda values: values / values.sum())


@given(SHARES, SHARES)
def test_divergences_are_those_of_scipy(p, q):
    assert np.allclose(divergence.terms_of_kl(p, q), rel_entr(p, q) - 0, atol=1e-12)
    assert divergence.distance(p, q) == pytest.approx((rel_entr(p, q) + rel_entr(q, p)).sum() / 2, abs=1e-5)


def test_a_place_that_is_ruled_out_is_infinitely_far():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.3, 0.5])
    assert divergence.terms_of_kl(p, q)[2] == 0 and np.isinf(divergence.terms_of_kl(q, p)[2])
    assert "inf" in divergence.describe(p, q) and np.isfinite(divergence.distance(p, q))


@given(SHARES, st.integers(0, 4), st.floats(0, 1))
def test_a_bar_is_set_and_the_others_keep_their_ratios(shares, index, value):
    found = divergence.set_bar(shares, index, value)
    assert found[index] == pytest.approx(value) and found.sum() == pytest.approx(1) and (found >= 0).all()
    others, before = np.delete(found, index), np.delete(shares, index)
    assert np.allclose(others * before[0], before * others[0])


def test_bars_follow_the_hand():
    panel = widgets.distributions([3, 1, 1], [1, 1, 1])
    assert healthy(panel) and np.allclose(panel.state[0], [0.6, 0.2, 0.2])
    bars = opened(panel.bars.picture)
    top = int(np.nonzero((bars[:, int(0.1 * bars.shape[1])] == divergence._COLOURS[0]).all(axis=1))[0].min())
    assert divergence.value_at(top / len(bars)) == pytest.approx(0.6, abs=0.01)
    with Changes((panel.bars, "picture"), (panel.canvas, "alt")) as changes:
        send(panel.bars, "drag", x=0.25, y=0.5, phase="start")  # the first bar of q
        send(panel.bars, "drag", x=0.9, y=0.08, phase="move")  # far away it is still that bar
    assert all(changes.found) and np.allclose(panel.state[1], [1, 0, 0])
    send(panel.bars, "drag", x=0.9, y=0.86, phase="end")
    assert np.allclose(panel.state[1], [0, 0.5, 0.5])
    p, q = [np.copy(each) for each in panel.state]
    panel.swap.click()
    assert np.array_equal(panel.state[0], q) and np.array_equal(panel.state[1], p)
    panel.even.click()
    assert np.allclose(panel.state[1], 1 / 3)
    with pytest.raises(ValueError, match="as many numbers"):
        widgets.distributions([1, 2], [1, 2, 3])


def test_stages_are_the_passes_of_merge(attention):
    distances = anchor_distances(attention, 4)
    for threshold in (0.05, 0.3, 2.0):
        stages = merging.stages_of(attention, distances, 4, 4, threshold)
        expected = merge_passes(attention, 4, 4, threshold)
        assert len(stages) == 5 and all(torch.equal(s.maps, e) for s, e in zip(stages[1:], expected, strict=True))
        assert stages[-1].family.tolist() == list(range(len(expected[-1])))
        assert all(set(stage.family.tolist()) == set(stages[-1].family.tolist()) for stage in stages)


def test_families_join_what_is_averaged(attention):
    stages = merging.stages_of(attention, anchor_distances(attention, 4), 4, 2, 0.3)
    before, after = stages[1], stages[2]
    for number, proposal in enumerate(after.maps):
        assert torch.allclose(before.maps[before.family == number].mean(dim=0), proposal, atol=1e-7)


def test_passes_and_thresholds_are_stepped_through(attention, image):
    panel = widgets.merging_steps(attention, image, 0.3, points=4)
    assert healthy(panel) and "16 maps left" in panel.canvas.alt
    with Changes((panel.picture, "overlay"), (panel.canvas, "alt")) as changes:
        panel.step.value = 3
    left = len(merge(attention, 4, threshold=0.3))
    assert all(changes.found) and f": {left} map" in panel.canvas.alt
    panel.tau.index = len(shared.FACTORS) - 1
    assert "1 map left" in panel.canvas.alt
    assert panel.tau.value == pytest.approx(8 * 0.3)
    distances = anchor_distances(attention, 4)
    assert widgets.merging_steps(attention, image, 0.3, distances, points=4).canvas.alt.startswith("Before")


# ---- 05 -------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 59), st.booleans())
def test_a_line_is_that_of_the_enlarged_proposals(index, across):
    proposals = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(index))
    size = (60, 70) if across else (70, 60)
    enlarged = F.interpolate(proposals[None], size=size, mode="bilinear")[0] * 35
    expected = enlarged[:, index] if across else enlarged[:, :, index]
    found = masks.values_along(proposals, (index + 0.5) / 60, 70, across)
    assert np.allclose(found, expected.numpy(), atol=1e-4)


def test_the_line_follows_the_pointer(out):
    panel = widgets.cursor_line(out)
    assert healthy(panel)
    with Changes((panel.chart, "value"), (panel.canvas, "alt"), (panel.picture, "overlay")) as changes:
        send(panel.picture, "hover", x=10.5 / SIDE, y=50.5 / SIDE)
    assert all(changes.found) and f"proposal {int(out.labels[50, 10])} wins" in panel.canvas.alt
    with Changes((panel.chart, "value")) as changes:
        panel.direction.value = False
    assert all(changes.found) and f"proposal {int(out.labels[50, 10])} wins" in panel.canvas.alt
    drawing = ElementTree.fromstring(panel.chart.value)
    assert drawing.get("role") == "img" and "wins" in drawing.get("aria-label")
    assert len(drawing.findall("rect")) == len(masks.runs(suppress(out.proposals, SIDE)[:, 10].numpy()))


def test_the_line_is_drawn_where_it_runs():
    clear = np.zeros((40, 30, 4), np.uint8)
    for across, place in ((True, 20), (False, 15)):
        drawn = masks.draw_line_on(clear, 0.5, across)[..., 3].astype(bool)
        rows = np.nonzero(drawn if across else drawn.T)[0]
        assert set(rows.tolist()) == {place - 1, place} and not clear.any()
    assert masks.draw_line_on(clear, 1.0, True)[39].any() and masks.draw_line_on(clear, 0.0, True)[0].any()


def test_lead_and_ticks():
    assert "Lead: 25%" in masks.describe_claims(np.array([3.0, 4.0, 1.0]), 0, 0)
    assert "only one" in masks.describe_claims(np.array([3.0]), 0, 0)
    for top in (0.03, 0.7, 1.0, 8.3, 95.0):
        levels = masks.ticks(top)
        assert 2 <= len(levels) <= 5 and max(levels) <= top
    assert masks.runs(np.array([4, 4, 1, 4])) == [(0, 2, 4), (2, 3, 1), (3, 4, 4)]


# ---- 06 -------------------------------------------------------------------------------------------------------------


def test_words_name_the_masks(pipe, out, image):
    words = ["ab", "c", "d"]
    named = naming.name_masks_with(pipe, out, words)
    prompt, nouns = name_words(words)
    recorded = pipe.record(image, prompt=prompt, kinds=("cross",))
    maps = noun_maps(recorded, find_tokens(pipe.tokenizer, prompt, nouns), SIDE)
    for mask in range(len(out.proposals)):
        inside = out.labels == mask
        best = words[int(maps[:, inside].sum(dim=1).argmax())]
        assert {named.words[label] for label in named.labels[inside].unique()} == {best}


def test_typed_words_are_written_on_the_masks(pipe, out):
    panel = widgets.typed_words(pipe, out, ("ab", "c"))
    assert healthy(panel)
    with Changes((panel.picture, "overlay"), (panel.sheet, "picture"), (panel.canvas, "alt")) as changes:
        panel.text.value = "c, d , e"
    assert all(changes.found) and set(panel.picture.names) <= {"c", "d", "e"} and panel.picture.message == ""
    shown = panel.picture.overlay
    panel.text.value = "c, c"
    assert "different words" in panel.picture.message and panel.picture.overlay == shown
    panel.text.value = "a, b, c, d, e, f, g, h"
    assert "does not fit" in panel.picture.message
    panel.text.value = " , "
    assert "one or more" in panel.picture.message
    panel.text.value = "c, d , e"
    assert panel.picture.message == "" and panel.picture.overlay == shown


# ---- 07 -------------------------------------------------------------------------------------------------------------


def test_knobs_turn_each_method(attention, image, truth):
    panel = widgets.clustering_knobs(attention, image, 0.3, truth)
    assert healthy(panel)
    for name, knob, position in (("DBSCAN", panel.eps, 0), ("DiffSeg", panel.tau, 0)):
        with Changes((panel.pictures[name], "overlay"), (panel.captions[name], "value")) as changes:
            knob.index = position
        assert all(changes.found)
    panel.k.value = 4
    accuracy, miou = image_score(baselines.kmeans(attention, 4, size=SIDE), truth)
    expected = f"K-Means: 4 segments, accuracy {accuracy:.0%}, mIoU {miou:.2f}"
    assert expected in panel.captions["K-Means"].value and expected in panel.canvas.alt
    assert "accuracy" not in widgets.clustering_knobs(attention, image, 0.3).canvas.alt


def test_radii_are_distances_that_occur(attention):
    distances = baselines.euclidean_distances(attention)
    found = clustering.radii(distances)
    assert found == sorted(set(found)) and found[0] > 0 and found[-1] < distances.max()


# ---- 08 -------------------------------------------------------------------------------------------------------------


def test_every_number_is_turned(pipe, image, truth, attention):
    panel = widgets.hyperparameters(pipe, image, truth, {300: attention})
    assert healthy(panel) and max(option[1] for option in panel.points._options_full) <= 16
    for knob, value in ((panel.t, 100), (panel.points, 4), (panel.passes, 1)):
        with Changes((panel.canvas, "alt")) as changes:
            knob.value = value
        assert all(changes.found) and panel.canvas.message == ""
    panel.tau.index = 0
    labels = pipe.segment(pipe.attend(image, timestep=100), 4, 1, panel.tau.value).labels
    accuracy, miou = image_score(labels, truth)
    assert f"accuracy {accuracy:.0%}, mIoU {miou:.2f}. With" in panel.canvas.alt
    assert f'<b style="width: 3em">{accuracy:.2f}</b>' in panel.bars.value


def test_pictures_and_truths_of_two_sizes_are_refused(pipe, image):
    with pytest.raises(ValueError, match="truth is 8x8"):
        widgets.hyperparameters(pipe, image, np.zeros((8, 8), int))
    assert tuning.PASSES[0] == 1


# ---- 09 -------------------------------------------------------------------------------------------------------------

BORDERS = st.builds(
    scoring.Borders, st.integers(0, scoring.COLUMNS), st.integers(0, scoring.ROWS), st.integers(0, scoring.COLUMNS)
)


@given(BORDERS)
def test_the_matching_is_the_best_of_all(borders):
    segments, truth = scoring.segments_of(borders), scoring.draw_truth()
    found = scoring.mark(segments, truth)
    counted = np.zeros_like(found.overlap)
    np.add.at(counted, (truth, segments), 1)
    assert np.array_equal(found.overlap, counted)
    table = np.zeros((3, 4), int)
    table[:, : counted.shape[1]] = counted[:3]
    best = max(table[range(3), way].sum() for way in permutations(range(4), 3))
    for score in found.scores.values():
        assert score.accuracy == pytest.approx(best / truth.size)
    assert scoring.greedy_agreement(counted) <= best
    assert f"Accuracy {best} of {truth.size} pixels" in scoring.describe_marks(found)


def test_borders_part_the_segments():
    segments = scoring.segments_of(scoring.Borders(sky=5, horizon=10, road=20))
    assert (np.bincount(segments.ravel()) == [10 * 19, 10 * 5, 8 * 20, 8 * 4]).all()
    assert scoring.nearest_border(scoring.Borders(5, 10, 20), 5 / 24, 0.2) == "sky"
    assert scoring.nearest_border(scoring.Borders(5, 10, 20), 20 / 24, 0.9) == "road"
    assert scoring.nearest_border(scoring.Borders(5, 10, 20), 0.5, 10 / 18) == "horizon"


def test_borders_follow_hand_and_sliders():
    panel = widgets.matching_toy()
    assert healthy(panel)
    with Changes((panel.found, "picture"), (panel.canvas, "alt"), (panel.table, "value")) as changes:
        send(panel.found, "drag", x=6 / 24, y=0.2, phase="start")
        send(panel.found, "drag", x=12 / 24, y=0.9, phase="move")
    assert all(changes.found) and panel.sliders["sky"].value == 12 and panel.sliders["horizon"].value == 12
    with Changes((panel.found, "picture"), (panel.canvas, "alt")) as changes:
        panel.sliders["horizon"].value = 0
    assert all(changes.found)
    rows = ElementTree.fromstring(panel.table.value.split("<small>")[0]).findall("tr")
    assert [row.find("th").text for row in rows] == ["pixels", *scoring.NAMES, "mIoU"]
    assert count_overlap(scoring.segments_of(scoring.Borders(12, 0, 16)), scoring.draw_truth(), 5).shape == (5, 4)


# ---- 10 -------------------------------------------------------------------------------------------------------------


def test_things_have_the_sizes_that_they_are_given():
    for diameter in (32, 64):
        disc, ring, pole = (limiting.draw_thing(shape, diameter).sum() for shape in ("disc", "ring", "pole"))
        assert disc == pytest.approx(np.pi * diameter**2 / 4, rel=0.02)
        assert ring == pytest.approx(disc * 3 / 4, rel=0.03) and pole == pytest.approx(diameter**2 / 4, rel=0.02)


def test_a_finer_grid_lets_more_through():
    mask = limiting.draw_thing("disc", 24, 0.4, 0.43)
    shares, found = limiting.seen_through(mask, 32)
    blocks = mask.reshape(32, 8, 32, 8).mean(axis=(1, 3))
    assert np.allclose(shares, blocks, atol=1e-6)
    ious = [limiting.overlap_of(limiting.seen_through(mask, grid)[1], mask) for grid in (8, 32, 128)]
    assert ious[0] == 0 and ious[1] < ious[2] and limiting.overlap_of(mask, mask) == 1
    assert "gone" in limiting.describe_thing("disc", 24, 8, 0.0) and "0.75 positions" in limiting.describe_thing(
        "disc", 24, 8, 0.0
    )


def test_the_thing_follows_hand_and_sliders():
    panel = widgets.small_things()
    assert healthy(panel)
    with Changes((panel.picture, "picture"), (panel.looked, "picture")) as changes:
        click(panel.picture, 0.2, 0.7)
    assert all(changes.found)
    for knob, value in ((panel.shape, "ring"), (panel.diameter, 48), (panel.grid, 64)):
        with Changes((panel.picture, "picture"), (panel.canvas, "alt")) as changes:
            knob.value = value
        assert all(changes.found)


# ---- 12 -------------------------------------------------------------------------------------------------------------


def test_ideas_are_turned_together(pipe, image):
    truth = np.zeros((image.height, image.width), int)
    truth[:, image.width // 2 :] = 1
    panel = widgets.after_the_paper(pipe, image, truth)
    assert healthy(panel)
    for knob, value in ((panel.draws, 2), (panel.steps, 2), (panel.exponent, 1.0), (panel.rounds, 10)):
        knob.value = value
        assert panel.canvas.message == ""
    panel.tau.index = 3
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([pipe.attend(image, seed=generator) for _ in range(2)]).mean(dim=0)
    method = Method(steps=2, exponent=1.0, rounds=10)
    out = pipe.segment(drawn, 16, threshold=panel.tau.value, image=image, method=method, size=truth.shape)
    accuracy, miou = image_score(out.labels, truth)
    assert f"accuracy {accuracy:.0%}, mIoU {miou:.2f}. The paper's" in panel.canvas.alt
    with pytest.raises(ValueError, match="truth is 8x8"):
        widgets.after_the_paper(pipe, image, np.zeros((8, 8), int))


# ---- painting -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def painters(tmp_path_factory):
    """What paints, and what segments, of the same tiny model; it reads captions of some words."""
    parts = tiny_components(tmp_path_factory.mktemp("painter"), tokens=24)
    pipe = DiffSegPipeline(**parts, threshold=1e-3)
    painter = StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    painter.scheduler = DDIMScheduler.from_config(painter.scheduler.config)
    painter.set_progress_bar_config(disable=True)
    return painter, pipe


def test_a_painting_depends_on_caption_strength_and_seed(painters):
    painter, seen = painters[0], []
    first = painting.paint(painter, "a dog", steps=8, show=lambda done, picture: seen.append((done, picture)))
    assert [done for done, _ in seen] == [3, 6] and all(picture.size == first.size for _, picture in seen)
    assert first.size == (SIDE, SIDE) and np.array(seen[-1][1]).std() > 0
    assert painting.paint(painter, "a dog", steps=8) == first
    others = ({"caption": "a cat"}, {"strength": 8.0}, {"seed": 1})
    assert all(painting.paint(painter, **{"caption": "a dog", "steps": 8} | other) != first for other in others)
    generator = torch.Generator().manual_seed(0)
    (expected,) = painter("a dog", guidance_scale=4.0, num_inference_steps=8, generator=generator).images
    assert first == expected
    assert painting.paint(painter, "a dog", steps=2, size=32).size == (32, 32)


def test_a_caption_is_painted_segmented_and_named(painters):
    painter, pipe = painters
    first = painting.paint(painter, "a dog", steps=2)
    panel = widgets.painted_caption(painter, pipe, pipe(first), "a dog", steps=4)
    assert healthy(panel) and "“a dog”" in panel.canvas.alt and "dog 100%" in panel.canvas.alt
    panel.text.value, panel.strength.value, panel.seed.value = "a cat on grass", 8.0, 5
    with Changes((panel.painting, "picture"), (panel.masks, "picture"), (panel.said, "value")) as changes:
        panel.button.click()
    assert changes.found == [True] * 3 and panel.painting.message == ""
    assert "“a cat on grass”, guidance 8, seed 5" in panel.canvas.alt
    painted = painting.paint(painter, "a cat on grass", 8.0, 5, steps=4)
    named = naming.name_masks_with(pipe, pipe(painted), ["cat", "grass"])
    assert naming.describe_names(named) in panel.canvas.alt
    np.testing.assert_array_equal(opened(panel.masks.overlay), naming.draw_names(named))


def test_a_caption_without_a_noun_is_refused_before_anything_is_painted(painters):
    painter, pipe = painters
    panel = widgets.painted_caption(painter, pipe, pipe(painting.paint(painter, "a dog", steps=2)), "a dog", steps=2)
    before, panel.text.value = panel.painting.picture, "very slowly"
    panel.button.click()
    assert "has no noun" in panel.painting.message and panel.painting.picture == before
    panel.text.value = "a cat"
    panel.button.click()
    assert panel.painting.message == "" and "“a cat”" in panel.canvas.alt


# ---- other shapes ---------------------------------------------------------------------------------------------------


def test_pictures_that_are_no_squares(pipe, image):
    wide = image.resize((128, 64))
    out = pipe(wide, crop=False)
    assert isinstance(out, DiffSegOutput) and out.image.size == (128, 64)
    layers = pipe.record(wide, crop=False)
    for panel in (
        widgets.click_pixels(out),
        widgets.hover_segments(out),
        widgets.look_from_pixel(layers, out.image),
        widgets.compare_heads(pipe.record(wide, crop=False, heads="all"), out.image),
        widgets.weigh_resolutions(layers, out.image, pipe.threshold),
        widgets.merging_steps(out.attention, out.image, pipe.threshold),
        widgets.cursor_line(out),
        widgets.typed_words(pipe, out, ("a", "b")),
        widgets.clustering_knobs(out.attention, out.image, pipe.threshold),
    ):
        assert healthy(panel)
