"""The rows of one scene of the table about heads apart and averaged (notebook 02)."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from .. import POINTS
from ..aggregation import aggregate
from ..datasets import Item
from .rows import at_thresholds

#: Name -> from the maps of a layer, [heads, queries, keys], those that are aggregated.
WAYS = {
    "mean of the heads": lambda probs: probs.mean(dim=0),
    "first head": lambda probs: probs[0],
    "last head": lambda probs: probs[-1],
}


@torch.no_grad()
def heads_apart(models: Any, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    """Scores at each threshold, of the mean of all heads and of one head of each layer."""
    sample = item.read(size)
    layers = models.diffusion.record(sample.image, heads="all", size=size)
    for name, choose in WAYS.items():
        attention = aggregate([choose(layer.probs) for layer in layers], max(layer.size for layer in layers))
        yield from at_thresholds(item, sample, attention, POINTS, way=name)
