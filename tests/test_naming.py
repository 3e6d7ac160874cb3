"""Ways to name masks: against the formulas, written another way."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffseg import DiffSegPipeline
from diffseg.attention import RecordedLayer
from diffseg.naming import (
    CLIP_PIECES,
    WAYS,
    Offer,
    Way,
    median_vote,
    name_in,
    sides_alone,
    spans_by_clip_rule,
    tokens_by_rule,
)
from diffseg.pocket import scene
from diffseg.pocket.scenes import VALIDATION_SEED
from diffseg.results.naming import best_names
from diffseg.semantics import find_nouns, find_tokens, noun_maps, overlap, word_spans

SIZE, CAPTION = 8, "a house on the grass"
LABELS = torch.arange(SIZE).div(2, rounding_mode="floor").repeat(SIZE, 1)  # four masks, side by side


@pytest.fixture(scope="module")
def tokenizer():
    return DiffSegPipeline.from_pretrained().tokenizer


def layer(seed, side, tokens=77):
    probs = torch.rand(side**2, tokens, generator=torch.Generator().manual_seed(seed)).pow(8)
    return RecordedLayer("x", "cross", "up", 1, side, probs / probs.sum(dim=1, keepdim=True))


@pytest.fixture
def offer():
    return Offer(CAPTION, find_nouns(CAPTION), [layer(seed, side) for seed, side in enumerate((4, 4, 4, 2))])


def winners(maps, choose):
    """Nouns by a rule that gets the numbers of all nouns in a mask, [nouns, pixels]."""
    return [("house", "grass")[choose(maps[:, LABELS == mask])] for mask in LABELS.unique()]


def largest_sum(inside):
    return int(inside.sum(dim=1).argmax())


def summed(layers, tokens, weights=None):
    """Maps enlarged and added up, not divided by anything."""
    weights = weights or [1] * len(layers)
    return sum(
        weight
        * F.interpolate(
            torch.stack([each.probs[:, own].mean(dim=1).view(each.size, -1) for own in tokens])[None],
            size=(SIZE, SIZE), mode="bilinear",
        )[0]
        for each, weight in zip(layers, weights, strict=True)
    )  # fmt: skip


class TestSwitches:
    def test_defaults_are_those_of_the_pipeline(self, offer, tokenizer):
        maps = noun_maps(offer.layers, find_tokens(tokenizer, CAPTION, offer.nouns), SIZE)
        assert name_in(Way(), LABELS, offer, tokenizer) == winners(maps, largest_sum)

    def test_tokens_by_the_rule(self, offer, tokenizer):
        total = summed(offer.layers, [[2], [5]])  # a house on the grass: words 1 and 4
        maps = total / total.sum(dim=(1, 2), keepdim=True)
        assert name_in(Way(rule="words"), LABELS, offer, tokenizer) == winners(maps, largest_sum)

    def test_layers_of_a_side_count_as_one(self, offer, tokenizer):
        tokens = find_tokens(tokenizer, CAPTION, offer.nouns)
        total = summed(offer.layers, tokens, [1 / 3, 1 / 3, 1 / 3, 1])
        maps = total / total.sum(dim=(1, 2), keepdim=True)
        assert name_in(Way(sides_alike=True), LABELS, offer, tokenizer) == winners(maps, largest_sum)

    def test_root_of_squares(self, offer, tokenizer):
        total = summed(offer.layers, find_tokens(tokenizer, CAPTION, offer.nouns))
        maps = total / total.square().sum(dim=(1, 2), keepdim=True).sqrt()
        assert name_in(Way(l2=True), LABELS, offer, tokenizer) == winners(maps, largest_sum)

    def test_one_side_alone(self, offer, tokenizer):
        total = summed(offer.layers[3:], find_tokens(tokenizer, CAPTION, offer.nouns))
        maps = total / total.sum(dim=(1, 2), keepdim=True)
        assert name_in(Way(side=2), LABELS, offer, tokenizer) == winners(maps, largest_sum)
        assert sides_alone(offer.layers) == {"4 x 4 alone": Way(side=4), "2 x 2 alone": Way(side=2)}

    def test_median(self):
        labels = torch.tensor([[0] * 8 + [1] * 3])
        votes = torch.tensor([0, 0, 0, 0, 2, 4, 4, 4, 1, 2, 2])
        maps = F.one_hot(votes, 5).T[:, None].float()
        assert median_vote(labels, maps) == [1, 2]  # nobody voted for 1 in the first mask

    def test_the_median_is_asked(self, offer, tokenizer):
        total = summed(offer.layers, find_tokens(tokenizer, CAPTION, offer.nouns))
        maps = total / total.sum(dim=(1, 2), keepdim=True)
        votes = [("house", "grass")[index] for index in median_vote(LABELS, maps)]
        assert name_in(Way(median=True), LABELS, offer, tokenizer) == votes

    def test_all_are_the_four(self):
        alone = [WAYS[name] for name in list(WAYS)[2:-1]]
        changed = {field: value for way in alone for field, value in vars(way).items() if value != vars(Way())[field]}
        assert WAYS["all, CLIP's vocabulary"] == Way(**changed)


class TestTokensByTheRule:
    def test_numbers_of_words(self):
        (dog,) = [noun for noun in find_nouns("A dog, and two dogs") if noun.word == "dog"]
        assert tokens_by_rule("A dog, and two dogs", dog) == [2, 6]  # the comma is a word, too

    def test_a_word_of_two_pieces_shifts_what_follows(self):
        text = "a sailboat on the water"
        assert CLIP_PIECES["sailboat"] == 2
        sailboat, water = find_nouns(text)
        assert [text[start:end] for start, end in spans_by_clip_rule(text, sailboat)] == ["sailboat"]
        assert [text[start:end] for start, end in spans_by_clip_rule(text, water)] == ["the"]

    @pytest.mark.parametrize("number", range(8))
    def test_right_before_the_first_word_that_is_cut(self, number):
        text = scene(VALIDATION_SEED + number, 64).caption
        whole = [text[start:end] for start, end in word_spans(text)]
        cut = min([whole.index(word) for word in whole if word in CLIP_PIECES], default=len(whole))
        for noun in find_nouns(text):
            found = spans_by_clip_rule(text, noun)
            right = [any(overlap(span, own) for own in noun.spans) for span in found]
            before = [word_spans(text).index(own) <= cut for own in noun.spans if own in word_spans(text)]
            assert all(right) or not all(before)


def test_ranges_that_share_a_character():
    spans = [(start, end) for start in range(5) for end in range(start + 1, 5)]
    for one in spans:
        for other in spans:
            assert overlap(one, other) == bool(set(range(*one)) & set(range(*other)))


def test_best_names_are_those_of_most_pixels():
    truth = np.zeros((SIZE, SIZE), int)
    truth[:, 4:] = 3
    truth[:3, 0] = 5  # a minority of the first mask
    names = best_names(LABELS, truth)
    assert names[0] == names[1] and names[2] == names[3] != names[0]
