"""Tables of notebook 10: what is lost with size and domain, and what the remedies win."""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from .. import POINTS
from ..datasets import Item
from ..limits import DOMAINS, attend_windows, doubt, find_pieces, mirror, named, segment_windows, through_grid
from ..merging import anchor_distances
from ..metrics import count_overlap, image_score, pairwise_iou
from ..pipeline import DiffSegPipeline

Row = dict[str, Any]

TIMES = (1, 2, 4)  # a scene is drawn so many times smaller, and mirrored to fill the picture
#: Thresholds in multiples of the model's own.
FACTORS = tuple(float(factor) for factor in np.geomspace(0.5, 2, 5).round(3))
SMALLEST = 1 / 2**14  # the share of a picture below which a piece is not counted: a quarter of a position of 64 x 64


def draw_small(item: Item, times: int, size: int) -> tuple[Image.Image, np.ndarray]:
    """A scene, drawn `times` smaller and mirrored to fill a picture of `size`; and its truth."""
    sample = item.read(size // times)
    return Image.fromarray(mirror(np.asarray(sample.image), times)), mirror(sample.truth, times)


@torch.no_grad()
def things(models: Any, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[Row]:
    """Each piece of a truth: what DiffSeg finds of it, and what the grid alone lets through (ceiling)."""
    pipe = models.diffusion
    for times in TIMES:
        image, truth = draw_small(item, times, size)
        out = pipe(image, size=size, threshold=settings["threshold"])
        smallest = round(SMALLEST * size**2)
        found = find_pieces(named(out.labels, truth), truth, smallest)
        ceilings = find_pieces(through_grid(truth, out.attention.shape[0]), truth, smallest)
        for piece, ceiling in zip(found, ceilings, strict=True):
            yield {"scene": item.name, "times": times, "label": piece.label, "share": piece.area / size**2,
                   "accuracy": piece.recall, "boundary": piece.boundary, "ceiling_accuracy": ceiling.recall,
                   "ceiling_boundary": ceiling.boundary}  # fmt: skip


@torch.no_grad()
def domains(models: Any, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[Row]:
    """Each segment of the same scene in several domains: its IoU with the class it fits best, and its doubt (moved)."""
    pipe, sample, own = models.diffusion, item.read(size), settings["threshold"]
    for domain, change in DOMAINS.items():
        image = change(sample.image)
        attention = pipe.attend(image, size=size)
        labels = pipe.segment(attention, threshold=own).labels
        others = [pipe.segment(attention, threshold=own * factor).labels for factor in (0.7, 1.4)]
        others.append(pipe(image, size=size, threshold=own, seed=1).labels)
        best = pairwise_iou(count_overlap(labels, sample.truth)).max(axis=0)
        scene_accuracy, scene_miou = image_score(labels, sample.truth)
        for segment, moved in enumerate(doubt(labels, others)):
            yield {"scene": item.name, "domain": domain, "segment": segment, "accuracy": scene_accuracy,
                   "miou": scene_miou, "iou": best[segment], "moved": moved}  # fmt: skip


@torch.no_grad()
def remedies(models: Any, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[Row]:
    """Large things and small ones (every scene 1 x 1 and 2 x 2), with each remedy at several thresholds."""
    for times in TIMES[:2]:
        image, truth = draw_small(item, times, size)
        ways = remedies_for(models.diffusion, image)
        for (remedy, segment), factor in product(ways.items(), FACTORS):
            labels = segment(settings["threshold"] * factor)
            pieces = find_pieces(named(labels, truth), truth, round(SMALLEST * size**2))
            accuracy, miou = image_score(labels, truth)
            yield {"scene": item.name, "times": times, "remedy": remedy, "factor": factor, "accuracy": accuracy,
                   "miou": miou, "boundary": float(np.mean([piece.boundary for piece in pieces])),
                   "segments": len(labels.unique())}  # fmt: skip


def remedies_for(pipe: DiffSegPipeline, image: Image.Image) -> dict[str, Callable[[float], Int[Tensor, "h w"]]]:
    """Name -> threshold to labels of a square picture; the passes through the model have been made."""
    size = image.width
    usual, windows = pipe.attend(image, size=size), attend_windows(pipe, image, size=size)
    larger = pipe.attend(image, size=size * 3 // 2 // pipe.size_step * pipe.size_step)
    finer = min(2 * POINTS, usual.shape[0])
    distances = {points: anchor_distances(usual, points) for points in (POINTS, finer)}
    return {
        "as usual": lambda tau: pipe.segment(usual, threshold=tau, distances=distances[POINTS]).labels,
        "M doubled": lambda tau: pipe.segment(usual, finer, threshold=tau, distances=distances[finer]).labels,
        "larger input": lambda tau: pipe.segment(larger, threshold=tau, size=size).labels,
        "windows": lambda tau: segment_windows(pipe, usual, windows, (size, size), tau),
    }
