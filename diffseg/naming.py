"""Ways to name masks: the paper's, and what the authors' program does otherwise, each difference a switch, Sec. 9.8."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from diffseg.attention import RecordedLayer
from diffseg.semantics import Noun, find_tokens, label_scores, noun_maps, overlap, word_spans

#: Words in the captions of PocketScenes that the vocabulary of Stable Diffusion's tokenizer cuts, and into how many
#: tokens; all others are whole.
CLIP_PIECES = {"sailboat": 2}

Span = tuple[int, int]


@dataclass(frozen=True)
class Offer:
    """What the masks of a picture may be called, and where a pass through the network looked for it.

    Attributes:
        prompt: a sentence, or a list of words.
        nouns: those of the prompt.
        layers: of cross-attention, recorded with the prompt.
    """

    prompt: str
    nouns: list[Noun]
    layers: Sequence[RecordedLayer]


@dataclass(frozen=True)
class Way:
    """One way from masks and cross-attention to names; the defaults are those of `diffseg`, the paper's with the right
    tokens.

    Attributes:
        rule: how the tokens of a noun are found: by the characters that they came from, or by the rule "number of the
            word plus one", with the model's own tokenizer or with that of Stable Diffusion.
        sides_alike: layers of one side are averaged before they are added up.
        l2: maps are divided by the root of their sum of squares, not by their sum (Eq. 10).
        median: each pixel votes, and the median of the nouns' numbers wins, not the largest sum (Eq. 11).
        prompted: masks are from the pass with the caption, not from that with an empty prompt.
        side: the layers of this side alone; None: all.
    """

    rule: Literal["characters", "words", "words, CLIP"] = "characters"
    sides_alike: bool = False
    l2: bool = False
    median: bool = False
    prompted: bool = False
    side: int | None = None


#: Each difference alone, and all of them.
WAYS = {
    "diffseg": Way(),
    "word number + 1": Way(rule="words"),
    "the same, CLIP's vocabulary": Way(rule="words, CLIP"),
    "resolutions count alike": Way(sides_alike=True),
    "L2 norm": Way(l2=True),
    "median of votes": Way(median=True),
    "masks with the caption": Way(prompted=True),
    "all, CLIP's vocabulary": Way("words, CLIP", sides_alike=True, l2=True, median=True, prompted=True),
}


def sides_alone(layers: Sequence[RecordedLayer]) -> dict[str, Way]:
    """A way for each side among the layers, the finest first."""
    return {f"{side} x {side} alone": Way(side=side) for side in sorted({layer.size for layer in layers}, reverse=True)}


def name_in(way: Way, labels: Int[Tensor, "h w"], offer: Offer, tokenizer) -> list[str]:
    """A noun for each mask.

    Args:
        way: see `Way`; whose masks are given is the caller's.
        labels: masks 0, 1, ... without gaps.
        offer: holds a noun.
        tokenizer: of the diffusion model.

    Raises:
        ValueError: as `find_tokens` and `noun_maps`.
    """
    layers = [layer for layer in offer.layers if way.side in (None, layer.size)]
    layers = _averaged_by_side(layers) if way.sides_alike else layers
    maps = noun_maps(layers, _tokens(way, offer, tokenizer), tuple(labels.shape)).cpu()
    if way.l2:
        maps = maps / maps.norm(dim=(1, 2), keepdim=True)
    winners = median_vote(labels, maps) if way.median else label_scores(labels, maps).argmax(dim=1)
    return [offer.nouns[int(winner)].word for winner in winners]


def tokens_by_rule(text: str, noun: Noun) -> list[int]:
    """The tokens of a noun by the rule of Sec. 9.8: the number of each of its words, from 0 on, plus one for the start
    marker."""
    return [number + 1 for number in _word_numbers(text, noun)]


def spans_by_clip_rule(text: str, noun: Noun) -> tuple[Span, ...]:
    """The words that the rule really finds with Stable Diffusion's tokenizer, as far as `CLIP_PIECES` knows it."""
    words = word_spans(text)
    pieces = [CLIP_PIECES.get(text[start:end], 1) for start, end in words]
    owners = np.repeat(np.arange(len(words)), pieces)  # the word of each token, markers left out
    return tuple(words[owners[number]] for number in _word_numbers(text, noun))


def median_vote(labels: Int[Tensor, "h w"], maps: Float[Tensor, "nouns h w"]) -> list[int]:
    """For each mask the median of the numbers of the nouns that its pixels vote for; of an even number of votes the
    mean of the middle two, rounded down."""
    votes = maps.argmax(dim=0)
    return [int(np.median(votes[labels == mask])) for mask in labels.unique()]


def _tokens(way: Way, offer: Offer, tokenizer) -> list[list[int]]:
    if way.rule == "words":
        return [tokens_by_rule(offer.prompt, noun) for noun in offer.nouns]
    nouns = offer.nouns
    if way.rule == "words, CLIP":
        nouns = [replace(noun, spans=spans_by_clip_rule(offer.prompt, noun)) for noun in nouns]
    return find_tokens(tokenizer, offer.prompt, nouns)


def _word_numbers(text: str, noun: Noun) -> Iterator[int]:
    """Which words of a text the noun is, counted from 0."""
    for number, span in enumerate(word_spans(text)):
        if any(overlap(span, own) for own in noun.spans):
            yield number


def _averaged_by_side(layers: Sequence[RecordedLayer]) -> list[RecordedLayer]:
    """Layers whose sum is the sum of the means over the layers of one side."""
    count = Counter(layer.size for layer in layers)
    return [replace(layer, probs=layer.probs / count[layer.size]) for layer in layers]
