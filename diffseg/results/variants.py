"""The rows of one scene of the table about variants of the last steps (notebook 05)."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..datasets import Item, Sample
from ..masks import suppress
from ..metrics import image_score
from ..variants import DRAWS, VARIANTS, propose, remedies


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
        yield _row(item, sample, "variant", name, suppress(maps, size), paper)
    per_position = paper.numel() // proposals["paper"][0].numel()
    for name, repair in remedies(per_position, size).items():
        yield _row(item, sample, "remedy", name, repair(proposals["paper"]), paper)


def _row(item: Item, sample: Sample, kind: str, way: str, labels: Tensor, paper: Tensor) -> dict[str, Any]:
    accuracy, miou = image_score(labels, sample.truth)
    return {"scene": item.name, "kind": kind, "way": way, "accuracy": accuracy, "miou": miou,
            "segments": len(labels.unique()), "moved": 1 - image_score(labels, paper)[0]}  # fmt: skip
