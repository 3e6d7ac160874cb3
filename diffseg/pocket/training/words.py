"""How pocket-sd learns words: cross-attention has to say which noun of its prompt belongs where.

A small denoiser learns to ignore its prompt: even in strong noise the mean colour of a region reveals its class, so the
prompt adds little information, and cross-attention gets no gradient. So it has a task of its own: of the attention that
a position gives to a prompt, half is to go to the nouns, to each as much as it is probable there (`places`). What the
other half looks at is free. The loss is the Kullback-Leibler divergence of the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTokenizer

from ...semantics import Noun, find_nouns, find_tokens, name_words
from .non_local_means import QueryAndKey, draw_queries, side_of
from .vocabulary import POCKET_WORLD, Vocabulary

#: How often a caption is replaced by the empty prompt, which DiffSeg uses, and by the list of its nouns.
DROPPED, LISTED = 0.3, 0.2

#: Part of the attention to a prompt that goes to its nouns.
TO_NOUNS = 0.5


@dataclass(frozen=True)
class Prompt:
    """A prompt, and the tokens of each class that it names."""

    text: str
    tokens: tuple[tuple[int, tuple[int, ...]], ...]  # (class, indices into the prompt)


EMPTY = Prompt("", ())


def read_prompt(
    text: str, nouns: Sequence[Noun], tokenizer: CLIPTokenizer, vocabulary: Vocabulary = POCKET_WORLD
) -> Prompt:
    """A text with nouns, of which those of the vocabulary are classes."""
    classes, tokens = [vocabulary.find(noun.word) for noun in nouns], find_tokens(tokenizer, text, nouns)
    found = zip(classes, map(tuple, tokens), strict=True)
    return Prompt(text, tuple((number, own) for number, own in found if number is not None))


def choose_prompt(
    caption: str, tokenizer: CLIPTokenizer, rng: np.random.Generator, vocabulary: Vocabulary = POCKET_WORLD
) -> Prompt:
    """The caption, or the list of its nouns in random order as `words=[...]` writes them, or the empty prompt."""
    chance = rng.random()
    if chance < DROPPED:
        return EMPTY
    nouns = find_nouns(caption)
    if chance < DROPPED + LISTED:
        names = [noun.word for noun in nouns if vocabulary.find(noun.word) is not None]
        listed = name_words([names[index] for index in rng.permutation(len(names))])
        return read_prompt(*listed, tokenizer, vocabulary)
    return read_prompt(caption, nouns, tokenizer, vocabulary)


def classes_of_tokens(
    prompts: Sequence[Prompt], context: int, classes: int = len(POCKET_WORLD)
) -> Float[Tensor, "n context columns"]:
    """1 where a token belongs to a class; the last column holds the tokens of none."""
    table = torch.zeros(len(prompts), context, classes + 1)
    table[:, :, -1] = 1
    for row, prompt in zip(table, prompts, strict=True):
        for number, tokens in prompt.tokens:
            row[list(tokens), -1] = 0
            row[list(tokens), number] = 1
    return table


def words_loss(
    layers: Sequence[QueryAndKey],
    classes: Float[Tensor, "n context columns"],
    places: Float[Tensor, "n classes side side"],
    rng: np.random.Generator,
) -> Float[Tensor, ""]:
    """The mean, over layers and positions, of KL(wanted || attention to each class and to the rest).

    Args:
        layers: of cross-attention; the mean over the heads of each is asked, so that heads may differ.
        classes: see `classes_of_tokens`; of prompts that are not empty.
        places: see `places_in`.
        rng: of the positions that are asked.
    """
    queries, losses = {}, []
    for query, key in layers:
        side = side_of((query, key))
        if side not in queries:
            queries[side] = draw_queries(side, rng).to(query.device)
        chosen = queries[side]
        scores = query[:, :, chosen].float() @ key.float().mT / query.shape[-1] ** 0.5
        given = scores.softmax(dim=-1).mean(dim=1) @ classes  # [n, queries, columns]
        nouns = rearrange(F.adaptive_avg_pool2d(places, side), "n k h w -> n (h w) k")[:, chosen]
        nouns = nouns / nouns.sum(dim=-1, keepdim=True)
        wanted = torch.cat([TO_NOUNS * nouns, torch.full_like(nouns[..., :1], 1 - TO_NOUNS)], dim=-1)
        losses.append((wanted * (_log(wanted) - _log(given))).sum(dim=-1).mean())
    return torch.stack(losses).mean()


def _log(probability: Tensor) -> Tensor:
    return probability.clamp_min(1e-6).log()
