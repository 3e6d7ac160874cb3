"""The rows of one scene of the table about variants of the last steps (notebook 05)."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..datasets import Item
from ..masks import suppress
from ..variants import DRAWS, VARIANTS, propose, remedies
from .rows import moved, scored


@torch.no_grad()
def compare_all(models: Any, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    """Scores of each variant and of each remedy, and the share of pixels that it moves to another segment."""
    sample, pipe, threshold = item.read(size), models.diffusion, settings["threshold"]
    passes = {
        name: [layer.probs for layer in pipe.record(sample.image, size=size, **draw)] for name, draw in DRAWS.items()
    }
    proposals = {name: propose(passes, variant, threshold) for name, variant in VARIANTS.items()}
    paper = suppress(proposals["paper"], size)
    for name, maps in proposals.items():
        labels = suppress(maps, size)
        yield scored(item, sample, labels, kind="variant", way=name) | {"moved": moved(labels, paper)}
    per_position = paper.numel() // proposals["paper"][0].numel()
    for name, repair in remedies(per_position, size).items():
        labels = repair(proposals["paper"])
        yield scored(item, sample, labels, kind="remedy", way=name) | {"moved": moved(labels, paper)}
