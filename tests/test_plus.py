"""method="plus": each step by hand from the ideas in `beyond`, and the numbers that leave the paper as it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers_models import tiny_components
from PIL import Image

from diffseg import DiffSegPipeline, beyond, merge, suppress
from diffseg.diffuse import to_tensor
from diffseg.masks import relabel
from diffseg.plus import PAPER, PLUS, Method, find_method, follow_edges
from diffseg.semantics import name_words

SIDE = 64  # pixels of the picture; 16 positions


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return DiffSegPipeline(**tiny_components(tmp_path_factory.mktemp("tokenizer")), threshold=1e-3)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    blocks = [rng.integers(0, 255, (4, 4, 3)).astype(np.uint8) for _ in range(2)]
    return [Image.fromarray(block).resize((SIDE, SIDE), Image.Resampling.NEAREST) for block in blocks]


def drawn(pipe, picture, draws, **settings):
    """The mean attention of draws that follow each other."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([pipe.attend(picture, seed=generator, **settings) for _ in range(draws)]).mean(dim=0)


def test_step_by_step(pipe, pictures):
    method = Method(draws=2, steps=2, exponent=0.5, rounds=3, factor=0.5)
    out = pipe(pictures[0], points=8, method=method)
    walked = beyond.walk(drawn(pipe, pictures[0], 2), 2)
    proposals = beyond.weigh_sizes(merge(walked, 8, threshold=5e-4), 0.5)
    half = F.interpolate(proposals[None], size=(32, 32), mode="bilinear")[0]
    small = F.interpolate(to_tensor(pictures[0]), size=(32, 32), mode="bilinear", antialias=True)[0]
    labels, _ = relabel(suppress(beyond.refine(half, small, 3), SIDE))
    assert torch.equal(out.labels, labels)
    assert out.settings["method"]["draws"] == 2 and out.settings["threshold"] == pytest.approx(5e-4)


@pytest.mark.parametrize("name", ["draws", "steps", "exponent", "rounds", "factor"])
def test_each_number_matters(pipe, pictures, name):
    changed = Method(**{name: {"exponent": 3.0, "factor": 0.3}.get(name, 3)})
    own, paper = (pipe(pictures[0], points=8, method=method) for method in (changed, PAPER))
    assert not torch.equal(own.labels, paper.labels)
    assert changed.changes().keys() == {name} and not PAPER.changes()


def test_the_paper_is_the_default(pipe, pictures):
    one, other = pipe(pictures[0], points=8), pipe(pictures[0], points=8, method="paper")
    assert torch.equal(one.labels, other.labels) and one.settings == other.settings and one.settings["method"] == {}


def test_a_batch_is_its_pictures(pipe, pictures):
    together = pipe(pictures, points=8, method=PLUS)
    for out, picture in zip(together, pictures, strict=True):
        alone = pipe(picture, points=8, method="plus")
        torch.testing.assert_close(out.attention, alone.attention, atol=1e-5, rtol=1e-4)
        assert (out.labels == alone.labels).float().mean() > 0.99


def test_without_noise_all_draws_are_one(pipe, pictures):
    out = pipe(pictures[0], points=8, noise=False, method=PLUS)
    torch.testing.assert_close(out.attention, pipe.attend(pictures[0], noise=False))


@pytest.mark.parametrize("prompted", [False, True])
def test_draws_see_the_prompt_of_the_masks(pipe, pictures, prompted):
    out = pipe(pictures[0], points=8, words=["a", "b"], prompted_masks=prompted, method=PLUS)
    prompt = name_words(["a", "b"])[0] if prompted else ""
    torch.testing.assert_close(out.attention, drawn(pipe, pictures[0], PLUS.draws, prompt=prompt))
    assert len(out.words) == int(out.labels.max()) + 1


def test_a_given_attention_is_segmented_in_the_same_way(pipe, pictures):
    attention = drawn(pipe, pictures[0], PLUS.draws)
    out = pipe.segment(attention, 8, method="plus", image=pictures[0], size=SIDE)
    assert torch.equal(out.labels, pipe(pictures[0], points=8, method="plus").labels)
    with pytest.raises(ValueError, match="image=None, but the method"):
        pipe.segment(attention, 8, method="plus")


def test_maps_follow_the_edges_of_pictures_that_are_not_square():
    picture = torch.zeros(3, 48, 96)
    picture[:, :, 44:] = 1
    left = torch.zeros(6, 12)
    left[:, :5] = 1
    refined = follow_edges(torch.stack([left, 1 - left]), picture, (48, 96), 20)
    labels = suppress(refined, (48, 96))
    assert refined.shape == (2, 24, 48) and (labels == (torch.arange(96) >= 44)).float().mean() > 0.97


@pytest.mark.parametrize(
    ("numbers", "error", "message"),
    [
        ({"draws": 0}, ValueError, "draws=0 must be at least 1"),
        ({"steps": True}, TypeError, "steps=True must be a whole number"),
        ({"rounds": -1}, ValueError, "rounds=-1 must be at least 0"),
        ({"exponent": -1}, ValueError, "exponent=-1"),
        ({"factor": 0}, ValueError, "factor=0"),
    ],
)
def test_numbers_that_make_no_sense(numbers, error, message):
    with pytest.raises(error, match=message):
        Method(**numbers)


def test_names():
    assert find_method("plus") == PLUS and find_method(replace(PLUS, draws=1)).draws == 1
    with pytest.raises(ValueError, match=r"method='best' must be one of paper, plus"):
        find_method("best")
