"""Tables of notebook 12: every idea of `beyond` tuned on tuning scenes, and its gain on validation scenes."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from .. import POINTS, SEED
from ..baselines import dbscan, euclidean_distances
from ..beyond import attend_often, cut_proposals, edges, ranked_distances, split, token_rank, walk, without_sinks
from ..datasets import Dataset, Item
from ..evaluate.counting import make_row
from ..masks import enlarge, relabel, suppress
from ..merging import anchor_distances, merge, symmetric_kl
from ..pipeline import DiffSegPipeline
from ..plus import PAPER, Method, compete, draw_by_draw
from ..pocket import CLASSES
from . import load

Row = dict[str, Any]
Labels = Int[Tensor, "size size"]
Merge = Callable[[float], Float[Tensor, "proposals h w"]]  # factor on the model's threshold -> proposals
Segment = Callable[[float], Labels]

#: Thresholds in multiples of the model's own.
FACTORS = tuple(float(factor) for factor in (2 ** (np.arange(-4, 5) / 6)).round(3))
WALKED = tuple(float(factor) for factor in np.geomspace(0.18, 0.9, 9).round(3))  # of a walk: it brings maps closer
ALONE = (1.0,)  # for an idea that has no threshold

CUT_POWER = 10  # of the cosine between maps, DiffCut's
CUT_LIMITS = (0.001, 0.002, 0.005, 0.01, 0.02)  # far below DiffCut's 0.5, meant for features: maps differ by more

#: DBSCAN's eps for symmetric KL, in multiples of the model's threshold; and for Euclidean distances.
KL_EPS = (0.025, 0.035, 0.05, 0.07, 0.1)
EUCLIDEAN_EPS = tuple(float(eps) for eps in np.geomspace(0.006, 0.024, 7).round(4))

#: What of `Method` is combined, beside the paper's own steps.
COMBINED = {"draws": (1, 2), "exponent": (0.5, 1.0), "rounds": (10, 20)}


class View:
    """A picture, and what several ideas start from, computed when it is first asked for."""

    def __init__(self, pipe: DiffSegPipeline, image: Image.Image) -> None:
        self.pipe, self.image, self.size = pipe, image, image.width
        self.attend = partial(pipe.attend, image, size=self.size)
        self.mean_of = draw_by_draw(self.attend)
        self.proposals_of = cache(self._proposals_of)  # with the view; a cache of the class would keep every view

    @cached_property
    def attention(self) -> Float[Tensor, "h w h w"]:
        return self.mean_of(1)

    @cached_property
    def edges(self) -> tuple[Float[Tensor, "h w_1"], Float[Tensor, "h_1 w"]]:
        return edges(self.attention)

    @cached_property
    def euclidean(self) -> Float[np.ndarray, "positions positions"]:
        return euclidean_distances(self.attention)

    @cached_property
    def divergences(self) -> Float[np.ndarray, "positions positions"]:
        maps = self.attention.flatten(2).flatten(0, 1)
        return symmetric_kl(maps, maps).clamp_min(0).numpy()

    def merged(self, attention: Float[Tensor, "h w h w"], distances: Tensor | None = None) -> Merge:
        """Merging as in the paper."""
        distances = anchor_distances(attention, POINTS) if distances is None else distances
        return lambda factor: merge(attention, POINTS, threshold=self.pipe.threshold * factor, distances=distances)

    def _proposals_of(self, draws: int, steps: int) -> Merge:
        """Proposals of a mean attention after some steps of a walk."""
        return cache(self.merged(walk(self.mean_of(draws), steps)))


def by_method(view: View, method: Method) -> Segment:
    """The paper's steps with numbers of `Method`."""
    proposals_of = view.proposals_of(method.draws, method.steps)
    return lambda factor: relabel(compete(method, proposals_of(factor), view.size, view.image))[0]


def by_maps(view: View, proposals_of: Merge) -> Segment:
    """The paper's competition."""
    return lambda factor: relabel(suppress(proposals_of(factor), view.size))[0]


def by_steps(view: View, timesteps: tuple[int, ...]) -> Segment:
    """The mean attention over time steps."""
    return by_maps(view, view.merged(attend_often(view.attend, timesteps, (SEED,))))


def by_rank(view: View, damping: float) -> Segment:
    """Anchors of high TokenRank."""
    rank = token_rank(view.attention, damping)
    return by_maps(view, view.merged(view.attention, ranked_distances(view.attention, rank, POINTS)))


def by_sinks(view: View, share: float) -> Segment:
    """Keys that take more than `share` times what falls to each are left out."""
    return by_maps(view, view.merged(without_sinks(view.attention, share)))


def by_cuts(view: View, limit: float) -> Segment:
    """Normalised cuts in place of merging."""
    labels = relabel(suppress(cut_proposals(view.attention, limit, power=CUT_POWER), view.size))[0]
    return lambda factor: labels


def by_edges(view: View, limit: float) -> Segment:
    """Segments in pieces where neighbouring maps are further apart than `limit` times the threshold."""
    proposals_of = view.proposals_of(1, 1)

    def segment(factor: float) -> Labels:
        grid = suppress(proposals_of(factor), view.attention.shape[0])
        return enlarge(split(grid, *view.edges, limit * view.pipe.threshold), view.size)

    return segment


def by_dbscan(view: View, eps: float) -> Segment:
    """DBSCAN, Euclidean."""
    labels = dbscan(view.attention, eps, view.size, distances=view.euclidean)
    return lambda factor: labels


def by_dbscan_kl(view: View, eps: float) -> Segment:
    """DBSCAN with the distance of merging."""
    labels = dbscan(view.attention, eps * view.pipe.threshold, view.size, distances=view.divergences)
    return lambda factor: labels


@dataclass(frozen=True)
class Idea:
    """What is tried: `segment` with each of some values, at each of some factors on the model's threshold."""

    segment: Callable[[View, Any], Segment]
    values: tuple[Any, ...]
    factors: tuple[float, ...] = FACTORS


IDEAS = {
    "DiffSeg": Idea(by_method, (PAPER,)),
    "edges of the picture": Idea(by_method, (Method(rounds=5), Method(rounds=10), Method(rounds=20))),
    "walk": Idea(by_method, (Method(steps=2), Method(steps=3)), WALKED),
    "rank": Idea(by_rank, (0.85,)),
    "cuts": Idea(by_cuts, CUT_LIMITS, ALONE),
    "edges of maps": Idea(by_edges, (0.5, 1.0, 2.0)),
    "draws": Idea(by_method, (Method(draws=2),)),
    "time steps": Idea(by_steps, ((100, 300), (200, 300, 400))),
    "sinks": Idea(by_sinks, (3.0, 10.0, 30.0)),
    "sizes": Idea(by_method, tuple(Method(exponent=power) for power in (0.25, 0.5, 1.0, 1.5))),
    "DBSCAN": Idea(by_dbscan, EUCLIDEAN_EPS, ALONE),
    "DBSCAN with KL": Idea(by_dbscan_kl, KL_EPS, ALONE),
    "combined": Idea(
        by_method, tuple(Method(**dict(zip(COMBINED, chosen, strict=True))) for chosen in product(*COMBINED.values()))
    ),
}

PLAIN = "DiffSeg"


def describe(value: Any) -> str:
    """A value as the tables write it."""
    if isinstance(value, Method):
        return " ".join(f"{name}={number:g}" for name, number in value.changes().items()) or "paper"
    return " ".join(f"{number:g}" for number in (value if isinstance(value, tuple) else (value,)))


@torch.no_grad()
def tuning(models: Any, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[Row]:
    """Every idea with every value at every threshold."""
    sample = item.read(size)
    view = View(models.diffusion, sample.image)
    for name, idea in IDEAS.items():
        for value in idea.values:
            segment = idea.segment(view, value)
            for factor in idea.factors:
                yield {"scene": item.name, "idea": name, "value": describe(value), "factor": factor,
                       **_scores(segment(factor), sample.truth)}  # fmt: skip


@torch.no_grad()
def gains(models: Any, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[Row]:
    """Every idea as the tuning scenes choose it, each from the picture on, with the seconds that it takes."""
    sample = item.read(size)
    for name, (written, factor) in settings.items():
        (value,) = (value for value in IDEAS[name].values if describe(value) == written)
        begun = time.perf_counter()
        labels = IDEAS[name].segment(View(models.diffusion, sample.image), value)(factor)
        seconds = time.perf_counter() - begun
        gc.collect()  # the view refers to itself, and holds hundreds of megabytes
        yield {"scene": item.name, "idea": name, "value": written, "factor": factor,
               **_scores(labels, sample.truth), "seconds": seconds}  # fmt: skip


def chosen(models: Any, data: Dataset, size: int) -> dict[str, Any]:
    """Of each idea the value and the factor that table "beyond-tuning" chooses."""
    return choose(load("beyond-tuning"))


def choose(tuned: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """Of each idea the value and the factor with the highest mean of accuracy and mIoU.

    Not smoothed as in `best_threshold`: the means fall faster above the best factor than below it, which would draw the
    choice down.
    """
    both = tuned.groupby(["idea", "value", "factor"], sort=False)[["accuracy", "miou"]].mean().mean(axis=1)
    return {idea: means.droplevel("idea").idxmax() for idea, means in both.groupby("idea", sort=False)}


def _scores(labels: Labels, truth: np.ndarray) -> Row:
    row = make_row("", ("", None), labels, truth, len(CLASSES))
    return {name: row[name] for name in ("accuracy", "miou", "boundary")} | {"segments": len(labels.unique())}
