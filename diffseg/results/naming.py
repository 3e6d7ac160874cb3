"""The rows of one scene of the table about names for masks (notebook 06): which part costs what, and ways to name."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..aggregation import aggregate
from ..datasets import Item
from ..metrics import SegmentationScore
from ..naming import WAYS, Offer, name_in, sides_alone
from ..pocket import CLASSES, class_of, scene
from ..semantics import find_nouns, name_words


@torch.no_grad()
def name_all(models: Any, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    """Scores of names with more and more parts of the pipeline's own, and of other ways to name by the true caption.

    Kind "offer": what the masks of the empty prompt may be called; with an absent word, `absent` says whether it took a
    mask. Kind "way": see `WAYS`.
    """
    sample, drawn, pipe, rng = (
        item.read(size),
        scene(item.seed, size),
        models.diffusion,
        np.random.default_rng(item.seed),
    )
    absent = str(rng.choice([name for name in CLASSES if name not in drawn.nouns]))
    own = pipe.captioner(sample.image)
    recorded = pipe.record(sample.image, prompt=drawn.caption, kinds=("self", "cross"), size=size)
    true = Offer(drawn.caption, find_nouns(drawn.caption), [layer for layer in recorded if layer.kind == "cross"])
    lists = {"true nouns": name_words(drawn.nouns), "and an absent one": name_words([*drawn.nouns, absent]),
             "own caption": (own, find_nouns(own))}  # fmt: skip
    offers = {"true caption": true} | {
        name: Offer(prompt, nouns, pipe.record(sample.image, prompt=prompt, kinds=("cross",), size=size))
        for name, (prompt, nouns) in lists.items()
    }
    masks = {False: pipe.attend(sample.image, size=size)}
    masks[True] = aggregate([layer.probs for layer in recorded if layer.kind == "self"], size=len(masks[False]))
    masks = {
        prompted: pipe.segment(attention, threshold=settings["threshold"], size=size).labels
        for prompted, attention in masks.items()
    }
    labels = masks[False]
    names = {"best names possible": best_names(labels, sample.truth)}
    names |= {name: name_in(WAYS["diffseg"], labels, offer, pipe.tokenizer) for name, offer in offers.items()}
    names["by lot"] = rng.choice(drawn.nouns, int(labels.max()) + 1).tolist()
    for name, words in names.items():
        took = float(absent in words) if name == "and an absent one" else None
        yield _scored(item, labels, words, sample.truth, kind="offer", way=name) | {"absent": took}
    for name, way in (WAYS | sides_alone(true.layers)).items():
        words = name_in(way, masks[way.prompted], true, pipe.tokenizer)
        yield _scored(item, masks[way.prompted], words, sample.truth, kind="way", way=name) | {"absent": None}


def best_names(labels: Tensor, truth: Any) -> list[str]:
    """Each mask's name after the class that most of its pixels belong to."""
    return [CLASSES[np.bincount(np.asarray(truth)[labels == mask]).argmax()] for mask in labels.unique()]


def _scored(item: Item, labels: Tensor, words: Sequence[str], truth: Any, **columns: Any) -> dict[str, Any]:
    score = SegmentationScore(len(CLASSES))
    score.update_named(labels, truth, [class_of(word) for word in words])
    found = score.compute()
    return {"scene": item.name, **columns, "accuracy": found.accuracy, "miou": found.miou, "named": len(set(words))}
