"""The rows of one scene of the tables about the method, computed with the models in the box."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .. import ITERATIONS, POINTS, TIMESTEP
from ..aggregation import aggregate
from ..baselines import dbscan, euclidean_distances, true_k
from ..datasets import Dataset, Item, Sample, open_dataset, read_truths
from ..dino import DinoSegPipeline
from ..evaluate.counting import make_row, schema
from ..evaluate.methods import METHODS, Named
from ..evaluate.report import Report
from ..heads import divergence_map
from ..masks import suppress
from ..merging import anchor_distances, merge, merge_passes
from ..metrics import PROTOCOLS, image_score
from ..models.captioner import BLIP, Captioner
from ..models.fingerprint import fingerprint
from ..models.loading import find_model
from ..models.paths import POCKET
from ..pipeline import DiffSegPipeline
from ..sweeps import THRESHOLDS

TIMESTEPS = (1, 100, 200, 300, 400, 500)
SIDES = (4, 8, 16, 24, 32)  # anchors along one side
PASSES = (2, 3, 4, 5, 6, 7)
NOISES = (0, 1, 2, 3, 4)  # seeds
_PERCENTILES = (0.5, 1, 2, 5, 10, 20)  # of distances between maps, tried for DBSCAN's eps
_CHOOSING = 12  # tuning scenes that eps is chosen on

Row = dict[str, Any]


class Models:
    """The models in the box, each loaded when it is first asked for."""

    @cached_property
    def diffusion(self) -> DiffSegPipeline:
        pipe = DiffSegPipeline.from_pretrained(POCKET)
        pipe.captioner = self.captioner
        return pipe

    @cached_property
    def dino(self) -> DinoSegPipeline:
        return DinoSegPipeline.from_pretrained(POCKET)

    @cached_property
    def captioner(self) -> Captioner:
        return Captioner.from_pretrained(find_model(POCKET, {})[1].captioner or BLIP)

    def fingerprints(self, roles: Sequence[str]) -> dict[str, str]:
        """Of the models that a table depends on."""
        return {role: fingerprint(getattr(self, role)) for role in roles}

    def thresholds(self, roles: Sequence[str]) -> dict[str, float]:
        """The merging thresholds of those models that have one: they stand beside the weights, not in them."""
        models = {role: getattr(self, role) for role in roles}
        return {role: model.threshold for role, model in models.items() if hasattr(model, "threshold")}


def own_threshold(models: Models, data: Dataset, size: int) -> dict[str, Any]:
    """The threshold that the model's folder names."""
    return {"threshold": models.diffusion.threshold}


@torch.no_grad()
def sweep(models: Models, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[Row]:
    """One number is turned, the others stay at their defaults (Fig. 11)."""
    pipe, sample, own = models.diffusion, item.read(size), settings["threshold"]
    for t in TIMESTEPS:
        attention = pipe.attend(sample.image, timestep=t, size=size)
        distances = anchor_distances(attention)
        yield _scored_proposals(item, sample, merge(attention, threshold=own, distances=distances), knob="t", value=t)
        if t != TIMESTEP:
            continue
        passes = merge_passes(attention, iterations=max(PASSES), threshold=own, distances=distances)
        for count in PASSES:
            yield _scored_proposals(item, sample, passes[count - 1], knob="N", value=count)
        for tau in THRESHOLDS:
            yield _scored_proposals(
                item, sample, merge(attention, threshold=tau, distances=distances), knob="tau", value=tau
            )
        for points in (side for side in SIDES if side <= attention.shape[0]):
            yield _scored_proposals(item, sample, merge(attention, points, threshold=own), knob="M", value=points)


@torch.no_grad()
def timesteps(models: Models, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[Row]:
    """Every time step at many thresholds, so that each can have its own."""
    sample = item.read(size)
    for t in TIMESTEPS:
        attention = models.diffusion.attend(sample.image, timestep=t, size=size)
        yield from at_thresholds(item, sample, attention, POINTS, timestep=t)


@torch.no_grad()
def resolutions(models: Models, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[Row]:
    """The layers of one resolution alone, at many thresholds; and all of them together, as side 0."""
    sample = item.read(size)
    layers = models.diffusion.record(sample.image, size=size)
    for side in [0, *sorted({layer.size for layer in layers}, reverse=True)]:
        chosen = [layer.probs for layer in layers if side in (0, layer.size)]
        attention = aggregate(chosen, side or max(layer.size for layer in layers))
        yield from at_thresholds(item, sample, attention, min(POINTS, attention.shape[0]), side=side)


@torch.no_grad()
def heads(models: Models, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[Row]:
    """How far the heads of each layer disagree (Table 4)."""
    for number, layer in enumerate(models.diffusion.record(item.read(size).image, heads="all", size=size)):
        nats = divergence_map(layer.probs).mean().item()
        yield {"scene": item.name, "layer": number, "place": layer.place, "side": layer.size, "heads": layer.heads,
               "nats": nats}  # fmt: skip


@torch.no_grad()
def noises(models: Models, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[Row]:
    """Other draws of noise, and none (seed -1): scores, and the share of pixels that change their segment."""
    sample, usual = item.read(size), None
    for seed in (*NOISES, -1):
        attention = models.diffusion.attend(sample.image, seed=max(seed, 0), noise=seed >= 0, size=size)
        labels = suppress(merge(attention, threshold=settings["threshold"]), size)
        usual = labels if usual is None else usual
        yield scored(item, sample, labels, seed=seed) | {"moved": moved(labels, usual)}


def words(models: Models, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[Row]:
    """Names from a caption, and from the truth; masks from an empty prompt, and from the words as the prompt."""
    data, pipe = open_dataset("pocket"), models.diffusion
    sample = item.read(size)
    true = [data.classes[index] for index in np.unique(sample.truth)]
    for kind, given in (("caption", "caption"), ("true", true)):
        for prompted in (False, True):
            out = pipe(sample.image, size=size, words=given, prompted_masks=prompted, threshold=settings["threshold"])
            row = make_row(
                item.name, (kind, None), Named(out.labels, out.words), sample.truth, len(data.classes), data.words
            )
            yield {"scene": item.name, "words": kind, "prompted": prompted, "accuracy": row["accuracy"],
                   "miou": row["miou"], "named": len(out.words), "caption": out.caption}  # fmt: skip


def validation(models: Models, item: Item, settings: Mapping[str, Any], size: int) -> Iterator[Row]:
    """All methods: what scores over any scenes are made of."""
    data = open_dataset("pocket")
    sample = item.read(size)
    sample = Sample(sample.image, sample.truth, data.spoken)
    of_role = {"dinoseg": models.dino, "kmeans-rgb": None}
    encodings: dict[Any, Any] = {}
    for name, setting in settings.items():
        method, model = METHODS[name], of_role.get(name, models.diffusion)
        if method.encoder not in encodings:
            encodings[method.encoder] = method.encoder.encode(model, sample)
        (labels,) = method.segment(model, encodings[method.encoder], sample, (setting,))
        yield make_row(item.name, (name, setting), labels, sample.truth, len(data.classes), data.words)


def validation_settings(models: Models, data: Dataset, size: int) -> dict[str, Any]:
    """Thresholds from the models' folders, the number of clusters from the truths, eps from tuning scenes."""
    own = models.diffusion.threshold
    return {
        "diffseg": own,
        "kmeans-c": float(true_k(read_truths(data, size))),
        "kmeans-s": None,
        "dbscan": _choose_eps(models.diffusion, size, min(len(data), _CHOOSING)),
        "dinoseg": models.dino.threshold,
        "kmeans-rgb": None,
        "diffseg+caption": own,
        "diffseg+true": own,
    }


def validation_tables(rows: list[Row], data: Dataset) -> dict[str, pd.DataFrame]:
    """Scores with their intervals, the difference to DiffSeg, and rows of scenes, classes and sizes."""
    import pyarrow as pa

    frame = pa.Table.from_pylist(rows, schema=schema()).to_pandas()
    keys = list(dict.fromkeys((row["method"], row["setting"]) for row in rows))
    report = Report(frame, data, keys, PROTOCOLS, {}, {})
    others = [name for name, _ in keys if not name.startswith("diffseg")]  # masks with names are scored in another way
    differences = [report.compare("diffseg", name).assign(other=name) for name in others]
    scenes = report.images.rename(columns={"image": "scene"})
    tables = {"": report.scores, "-scenes": scenes, "-classes": report.classes, "-sizes": report.sizes}
    return tables | {"-differences": pd.concat(differences, ignore_index=True)}


def at_thresholds(item: Item, sample: Sample, attention: Any, points: int, **columns: Any) -> Iterator[Row]:
    """The rows of a scene at each threshold; the columns stand after the scene's name."""
    distances = anchor_distances(attention, points)
    for tau in THRESHOLDS:
        proposals = merge(attention, points, ITERATIONS, tau, distances=distances)
        yield _scored_proposals(item, sample, proposals, **columns, threshold=tau)


def scored(item: Item, sample: Sample, labels: Tensor, **columns: Any) -> Row:
    """The row of one segmentation of a scene; the columns stand after the scene's name."""
    accuracy, miou = image_score(labels, sample.truth)
    return {"scene": item.name, **columns, "accuracy": accuracy, "miou": miou, "segments": len(labels.unique())}


def moved(labels: Tensor, usual: Tensor) -> float:
    """The share of pixels that are in another segment than usual, segments matched."""
    return 1 - image_score(labels, usual)[0]


def _scored_proposals(item: Item, sample: Sample, proposals: Any, **columns: Any) -> Row:
    return scored(item, sample, suppress(proposals, sample.truth.shape[0]), **columns)


def _choose_eps(pipe: DiffSegPipeline, size: int, scenes: int) -> float:
    """The best eps on tuning scenes, of percentiles of the first one's distances, by the mean of accuracy and mIoU."""
    tried: dict[float, list[float]] = {}
    for item in open_dataset("pocket", split="tune").head(scenes):
        sample = item.read(size)
        attention = pipe.attend(sample.image, size=size)
        distances = euclidean_distances(attention)
        if not tried:
            tried = {float(eps): [] for eps in np.percentile(distances, _PERCENTILES).round(5)}
        for eps, scores in tried.items():
            scores.append(np.mean(image_score(dbscan(attention, eps, size, distances=distances), sample.truth)))
    return max(tried, key=lambda eps: np.mean(tried[eps]))
