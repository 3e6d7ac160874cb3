"""Semantics: names for masks, from a caption's nouns and cross-attention (Sec. 9.8, Eq. 7 to 11)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import shorten
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from diffseg import IMAGE_SIZE
from diffseg.attention import RecordedLayer
from diffseg.masks import relabel

_REMEDY = "the nouns of a caption need NLTK and TextBlob: pip install 'diffseg[words]'; a list of words needs neither."
_TAGGER_DATA = "taggers/averaged_perceptron_tagger_eng/"
_LEADS = (["in"], ["on"], ["at"], ["to"])
_POSITION_NOUNS = {"back", "bottom", "center", "centre", "end", "front", "left", "middle", "right", "side", "top"}


@dataclass(frozen=True)
class Noun:
    """A noun and where it occurs in a text.

    Attributes:
        word: singular and in small letters; neighbouring nouns are one: "brick wall".
        spans: [start, end) in characters, one for each occurrence.
    """

    word: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Vocabulary:
    """What the masks of one picture may be called.

    Attributes:
        prompt: the caption, or the list of words.
        nouns: those of the prompt.
        tokens: of each noun, see `find_tokens`.
    """

    prompt: str
    nouns: list[Noun]
    tokens: list[list[int]]


def find_nouns(text: str) -> list[Noun]:
    """The nouns of a caption, in the order of their first occurrences.

    Not counted are nouns that are part of a preposition, as "front" in "in front of". The tagger is NLTK's, as in the
    paper, if its data has been downloaded (`nltk.download("averaged_perceptron_tagger_eng")`), else TextBlob's, which
    needs none.

    Raises:
        ImportError: if NLTK or TextBlob is missing.
    """
    _, textblob = _libraries()
    spans = word_spans(text)
    words = [text[start:end].lower() for start, end in spans]
    tags = [tag if tag.startswith("NN") and word.isalpha() else "" for word, tag in _tag(words)]
    counted = [bool(tag) and not _is_preposition(words, index) for index, tag in enumerate(tags)]
    found: dict[str, list[tuple[int, int]]] = {}
    for is_noun, run in groupby(range(len(words)), counted.__getitem__):
        if is_noun:
            *before, last = indices = list(run)
            head = str(textblob.Word(words[last]).singularize()) if tags[last] == "NNS" else words[last]
            name = " ".join([*(words[index] for index in before), head])
            found.setdefault(name, []).append((spans[indices[0]][0], spans[last][1]))
    return [Noun(name, tuple(occurrences)) for name, occurrences in found.items()]


def word_spans(text: str) -> list[tuple[int, int]]:
    """[start, end) in characters of each word of a text, and of each mark of punctuation.

    Raises:
        ImportError: if NLTK or TextBlob is missing.
    """
    nltk, _ = _libraries()
    return list(nltk.tokenize.NLTKWordTokenizer().span_tokenize(text))


def overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two ranges [start, end) share a character."""
    return one[0] < other[1] and other[0] < one[1]


def name_words(words: Sequence[str]) -> tuple[str, list[Noun]]:
    """A prompt that names the words of a vocabulary, and where each occurs in it.

    Raises:
        TypeError: for what is not a list of words.
        ValueError: for no words, an empty or a repeated one.
    """
    if isinstance(words, str) or not isinstance(words, Iterable) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"words={words!r} must be a list of nouns, such as ['car', 'road'].")
    cleaned = [word.strip() for word in words]
    if not cleaned or not all(cleaned) or len(set(cleaned)) < len(cleaned):
        raise ValueError(f"words={list(words)!r} must be one or more different words, none of them empty.")
    starts = [sum(len(word) + 2 for word in cleaned[:index]) for index in range(len(cleaned))]
    return ", ".join(cleaned), [
        Noun(word, ((start, start + len(word)),)) for word, start in zip(cleaned, starts, strict=True)
    ]


def find_tokens(tokenizer, text: str, nouns: Sequence[Noun]) -> list[list[int]]:
    """The tokens that spell each noun: indices into the prompt as the text encoder gets it.

    A word may be several tokens, so its index among the words does not give its tokens: the rule "index of
    the word plus one" fails after the first word that is split. The tokenizer gives the characters of each token.

    Args:
        tokenizer: of the diffusion model; a fast one, which gives offsets.
        text: the prompt.
        nouns: with spans in `text`.

    Raises:
        ValueError: if a noun lies beyond the tokenizer's context.
    """
    offsets = tokenizer(text, return_offsets_mapping=True, truncation=False, verbose=False).offset_mapping
    limit = tokenizer.model_max_length - 1  # the last position belongs to the end marker
    tokens = []
    for noun in nouns:
        own = [index for index, token in enumerate(offsets) if any(overlap(token, span) for span in noun.spans)]
        if not own or own[-1] >= limit:
            raise ValueError(
                f"the noun {shorten(noun.word, 40)!r} does not fit: the prompt has {len(offsets)} tokens with its "
                f"two markers, and the model reads {tokenizer.model_max_length}. Pass fewer or shorter words."
            )
        tokens.append(own)
    return tokens


def noun_maps(
    layers: Sequence[RecordedLayer], tokens: Sequence[Sequence[int]], size: int | tuple[int, int] = IMAGE_SIZE
) -> Float[Tensor, "nouns height width"]:
    """The attention to each noun: cross-attention summed over layers, each map normalised over space (Eq. 9, 10).

    Args:
        layers: recorded with kinds=("cross",), with the prompt that the tokens belong to.
        tokens: of each noun; those of one noun are averaged.
        size: side of the maps, or their (height, width), pixels.

    Raises:
        ValueError: without cross-attention layers or nouns.
    """
    layers = [layer for layer in layers if layer.kind == "cross"]
    if not layers or not tokens:
        raise ValueError(
            f"layers has {len(layers)} cross-attention layers and tokens {len(tokens)} nouns; both need one."
        )
    height, width = (size, size) if isinstance(size, int) else size
    total = torch.zeros(len(tokens), height, width, device=layers[0].probs.device)
    for layer in layers:
        probs = layer.probs.mean(0) if layer.probs.ndim == 3 else layer.probs  # [queries, keys]
        maps = torch.stack([probs[:, own].mean(dim=1) for own in tokens])
        maps = rearrange(maps, "n (h w) -> 1 n h w", h=layer.grid[0])
        total += F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)[0]
    return total / total.sum(dim=(1, 2), keepdim=True)


def label_scores(labels: Int[Tensor, "h w"], maps: Float[Tensor, "nouns h w"]) -> Float[Tensor, "masks nouns"]:
    """The mean of each noun's map inside each mask: the prediction vectors of Eq. 11, per pixel.

    Dividing by the mask's area, which Eq. 11 does not, changes no argmax and makes masks comparable.
    """
    masks = int(labels.max()) + 1
    flat = rearrange(maps, "n h w -> (h w) n")
    sums = torch.zeros(masks, len(maps), device=maps.device).index_add_(0, labels.flatten(), flat)
    return sums / torch.bincount(labels.flatten(), minlength=masks).clamp(min=1)[:, None]


def merge_by_word(
    labels: Int[Tensor, "h w"], proposals: Float[Tensor, "masks rows columns"], maps: Float[Tensor, "nouns h w"]
) -> tuple[Int[Tensor, "h w"], Float[Tensor, "words rows columns"], list[int], Float[Tensor, " words"]]:
    """Give each mask the noun with the largest score, and make masks of one noun into one mask.

    Args:
        labels: masks 0, 1, ... without gaps.
        proposals: the map behind each mask.
        maps: of the nouns, see `noun_maps`.

    Returns:
        labels: masks 0, 1, ... in the order of their nouns.
        proposals: the mean of the merged ones, by area.
        kept: kept[new mask] = noun.
        confidence: the noun's score in the new mask, divided by the sum of all nouns' scores there: 1 / nouns is
            chance, 1 is certainty.
    """
    winners = label_scores(labels, maps).argmax(dim=1)  # [masks]
    merged, kept = relabel(winners[labels])
    areas = torch.bincount(labels.flatten()).to(proposals.dtype)
    members = (winners[None, :] == kept[:, None]) * areas  # [words, masks]
    joined = torch.einsum("wm, mij -> wij", members / members.sum(dim=1, keepdim=True), proposals)
    scores = label_scores(merged, maps)
    own = scores[torch.arange(len(kept)), kept]
    return merged, joined, kept.tolist(), own / scores.sum(dim=1)


def name_masks(
    labels: Int[Tensor, "h w"],
    proposals: Float[Tensor, "masks rows columns"],
    layers: Sequence[RecordedLayer],
    vocabulary: Vocabulary | None,
) -> dict[str, Any]:
    """Masks with their names, as the fields of an output, on the CPU: `noun_maps`, then `merge_by_word`.

    Args:
        labels, proposals: see `merge_by_word`.
        layers: recorded with the prompt of the vocabulary.
        vocabulary: None leaves the masks as they are, as does one without nouns.
    """
    named: dict[str, Any] = {}
    if vocabulary is not None:
        named = {"words": (), "caption": vocabulary.prompt}
        if vocabulary.nouns:
            maps = noun_maps(layers, vocabulary.tokens, tuple(labels.shape))
            labels, proposals, kept, confidence = merge_by_word(labels, proposals, maps)
            words = tuple(vocabulary.nouns[index].word for index in kept)
            named |= {"words": words, "confidence": confidence.cpu()}
    return {"labels": labels.cpu(), "proposals": proposals.cpu(), **named}


def _libraries() -> tuple[ModuleType, ModuleType]:
    """NLTK and TextBlob, which nothing but the nouns of a caption needs."""
    try:
        import nltk.tokenize
        import textblob.en.taggers
    except ImportError as error:
        raise ImportError(_REMEDY) from error
    return nltk, textblob


def _tag(words: list[str]) -> list[tuple[str, str]]:
    """Each word with its Penn tag."""
    nltk, textblob = _libraries()
    try:
        nltk.data.find(_TAGGER_DATA)
    except LookupError:
        return textblob.en.taggers.PatternTagger().tag(" ".join(words), tokenize=False)
    return nltk.pos_tag(words)


def _is_preposition(words: list[str], index: int) -> bool:
    """Whether a noun is part of a preposition, as in "in front of" or "on the left of"."""
    before = [word for word in words[max(index - 2, 0) : index] if word != "the"]
    return words[index] in _POSITION_NOUNS and before[-1:] in _LEADS and words[index + 1 : index + 2] == ["of"]
