"""Names for masks: nouns, their tokens, Eq. 9 to 11, and the pipeline's `words`."""

import sys

import numpy as np
import pytest
import torch
from helpers_models import tiny_components
from PIL import Image
from scipy.ndimage import zoom

from diffseg import DiffSegPipeline
from diffseg.attention import RecordedLayer
from diffseg.pocket import scene
from diffseg.pocket.training.text import build_tokenizer
from diffseg.semantics import find_nouns, find_tokens, label_scores, merge_by_word, name_words, noun_maps

CAPTIONS = [scene(seed, 64).caption for seed in range(300)]
IN_CAPTIONS = {"wall": "brick wall"}  # the class's name -> the words of a caption


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(CAPTIONS)


# ---- nouns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A red car parked in front of a building", ["car", "building"]),
        ("a group of cars racing down a track", ["group", "car", "track"]),
        ("Two buses and three sheep on the left of the brick wall", ["bus", "sheep", "brick wall"]),
        ("the front of a house", ["front", "house"]),
        ("A dog beside a dog, and the dogs on the grass", ["dog", "grass"]),
        ("Running fast!", []),
        ("", []),
    ],
)
def test_nouns_of_a_caption(text, words):
    assert [noun.word for noun in find_nouns(text)] == words


def test_nouns_keep_every_occurrence():
    text = "Ducks on the grass and a duck on the water"
    (duck, *_) = find_nouns(text)
    assert [text[start:end] for start, end in duck.spans] == ["Ducks", "duck"]


@pytest.mark.parametrize("seed", range(120))
def test_nouns_of_a_scene_are_what_can_be_seen(seed):
    drawn = scene(seed, 64)
    assert {noun.word for noun in find_nouns(drawn.caption)} == {IN_CAPTIONS.get(name, name) for name in drawn.nouns}


def test_the_taggers_of_both_libraries_are_asked_alike(monkeypatch):
    """With NLTK's data there, NLTK's tagger is taken, and gets the same words."""
    import nltk

    asked = []
    monkeypatch.setattr(nltk.data, "find", lambda path: path)
    monkeypatch.setattr(nltk, "pos_tag", lambda words: asked.append(words) or [(word, "NNP") for word in words])
    assert [noun.word for noun in find_nouns("Tom, a cat.")] == ["tom", "a cat"]
    assert asked == [["tom", ",", "a", "cat", "."]]


@pytest.mark.parametrize("library", ["nltk", "textblob"])
def test_only_captions_need_libraries_for_language(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    assert name_words(["car"])[0] == "car"
    with pytest.raises(ImportError, match=r"pip install 'diffseg\[words\]'"):
        find_nouns("A car")


def test_words_of_a_vocabulary():
    prompt, nouns = name_words(["car", " hot air balloon "])
    assert prompt == "car, hot air balloon"
    assert [prompt[start:end] for noun in nouns for start, end in noun.spans] == ["car", "hot air balloon"]
    for bad in ([], ["car", ""], ["car", "car"]):
        with pytest.raises(ValueError, match="one or more different words"):
            name_words(bad)


# ---- tokens ---------------------------------------------------------------------------------------------------------


def test_tokens_spell_their_nouns(tokenizer):
    """Oracle: the text of the tokens themselves, glued together, over more than a hundred captions."""
    split = 0
    for caption in CAPTIONS:
        ids = tokenizer(caption).input_ids
        nouns = find_nouns(caption)
        for noun, tokens in zip(nouns, find_tokens(tokenizer, caption, nouns)):
            spelled = tokenizer.decode([ids[token] for token in tokens]).replace(" ", "")
            assert spelled == "".join(caption[start:end] for start, end in noun.spans).lower().replace(" ", "")
            split += len(tokens) > len(noun.spans)
    assert split > 50, "no word was split: the test would not notice the rule of the appendix"


def test_the_rule_of_the_appendix_misses(tokenizer):
    """Word index plus one, as in Sec. 9.8, points at the wrong token once a word before the noun is split."""
    caption = "Two elephants and a penguin on the snow"
    (*_, snow) = find_nouns(caption)
    (tokens,) = find_tokens(tokenizer, caption, [snow])
    assert caption.split().index("snow") + 1 not in tokens


def test_nouns_beyond_the_context_are_refused(tokenizer):
    prompt, nouns = name_words([f"thing number {index}" for index in range(40)])
    with pytest.raises(ValueError, match=r"'thing number \d+' does not fit.*the model reads 77"):
        find_tokens(tokenizer, prompt, nouns)


# ---- maps and scores ------------------------------------------------------------------------------------------------


def cross_layer(side, tokens, seed):
    probs = torch.rand(side**2, tokens, generator=torch.Generator().manual_seed(seed))
    return RecordedLayer("x", "cross", "up", 1, side, probs / probs.sum(1, keepdim=True))


def test_noun_maps_follow_equations_9_and_10():
    layers, tokens = [cross_layer(4, 5, 0), cross_layer(8, 5, 1)], [[1], [2, 4]]
    found = noun_maps(layers, tokens, size=16).numpy()
    for maps, own in zip(found, tokens):
        total = np.zeros((16, 16))
        for layer in layers:
            single = layer.probs[:, own].mean(1).reshape(layer.size, layer.size).numpy()
            total += zoom(single, 16 / layer.size, order=1, mode="nearest", grid_mode=True)  # bilinear, of scipy
        np.testing.assert_allclose(maps, total / total.sum(), rtol=1e-4)


def test_noun_maps_average_heads_and_leave_self_attention_out():
    one = cross_layer(4, 3, 0)
    heads = RecordedLayer("x", "cross", "up", 2, 4, torch.stack([one.probs, one.probs]))
    self_layer = RecordedLayer("x", "self", "up", 1, 4, torch.rand(16, 16))
    torch.testing.assert_close(noun_maps([self_layer, heads], [[1]], 8), noun_maps([one], [[1]], 8))
    with pytest.raises(ValueError, match="0 cross-attention layers"):
        noun_maps([self_layer], [[1]])
    with pytest.raises(ValueError, match="tokens 0 nouns"):
        noun_maps([one], [])


LABELS = torch.tensor([[0, 0, 1], [2, 2, 1]])
MAPS = torch.tensor([[[0.4, 0.2, 0.0], [0.1, 0.1, 0.2]], [[0.0, 0.0, 0.5], [0.2, 0.2, 0.1]]])


def test_label_scores_follow_equation_11():
    scores = label_scores(LABELS, MAPS)
    for mask in range(3):
        binary = LABELS == mask  # Eq. 11: the elementwise product, summed, here per pixel
        torch.testing.assert_close(scores[mask], (binary * MAPS).sum((1, 2)) / binary.sum())


def test_masks_of_one_word_become_one():
    proposals = torch.stack([torch.full((2, 2), value) for value in (0.0, 1.0, 3.0)])
    labels, joined, kept, confidence = merge_by_word(LABELS, proposals, MAPS)
    assert labels.tolist() == [[0, 0, 1], [1, 1, 1]] and kept == [0, 1]
    torch.testing.assert_close(joined[:, 0, 0], torch.tensor([0.0, (2 * 1 + 2 * 3) / 4]))
    torch.testing.assert_close(confidence, torch.tensor([1.0, 0.25 / (0.25 + 0.1)]))


# ---- the pipeline ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return DiffSegPipeline(**tiny_components(tmp_path_factory.mktemp("tokenizer")))


OPTIONS = {"size": 64, "points": 4, "threshold": 1e-4}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


class TestPipeline:
    def test_words_name_the_masks(self, pipe):
        plain, out = pipe(PICTURE, **OPTIONS), pipe(PICTURE, words=["a", "b"], **OPTIONS)
        assert plain.words is plain.caption is plain.confidence is None
        assert set(out.words) <= {"a", "b"} and len(out.words) == len(out.proposals) == len(out.confidence)
        assert out.labels.unique().tolist() == list(range(len(out.words)))
        torch.testing.assert_close(out.proposals.sum((1, 2)), torch.ones(len(out.words)))
        tokens = find_tokens(pipe.tokenizer, "a, b", name_words(["a", "b"])[1])
        layers = pipe.record(PICTURE, "a, b", size=64, kinds=("cross",))
        expected, *_ = merge_by_word(plain.labels, plain.proposals, noun_maps(layers, tokens, 64))
        assert torch.equal(out.labels, expected)
        assert "words " in repr(out)

    def test_caption_comes_from_the_captioner(self, pipe):
        pipe.captioner = lambda image: "a dog" if image.size == (64, 64) else "another picture"
        out = pipe(PICTURE, words="caption", **OPTIONS)
        assert (out.caption, out.words) == ("a dog", ("dog",))
        assert (out.labels == 0).all() and out.confidence.tolist() == [1.0]

    def test_caption_without_nouns_leaves_the_masks_as_they_are(self, pipe):
        pipe.captioner = lambda image: "running fast"
        with pytest.warns(UserWarning, match="'running fast' has no noun"):
            out = pipe(PICTURE, words="caption", **OPTIONS)
        assert out.words == () and torch.equal(out.labels, pipe(PICTURE, **OPTIONS).labels)

    def test_masks_may_come_from_the_prompted_pass(self, pipe):
        out = pipe(PICTURE, words=["a"], prompted_masks=True, **OPTIONS)
        assert torch.equal(out.attention, pipe.attend(PICTURE, prompt="a", size=64))
        assert not torch.equal(out.attention, pipe(PICTURE, words=["a"], **OPTIONS).attention)

    def test_words_are_checked_before_the_pass(self, pipe, monkeypatch):
        monkeypatch.setattr(DiffSegPipeline, "record", None)
        with pytest.raises(ValueError, match="words='car' must be 'caption', a list"):
            pipe(PICTURE, words="car", **OPTIONS)
        with pytest.raises(ValueError, match="does not fit"):
            pipe(PICTURE, words=["a", "b c d e f g h i j k"], **OPTIONS)
