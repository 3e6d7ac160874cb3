"""How the miniature behaves where the lessons need it: one table of means, 95% intervals and targets."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Integer

from ... import ATTENTION_SIZE, TIMESTEP
from ...baselines import dbscan, kmeans, kmeans_colours
from ...heads import class_distances, head_divergence
from ...merging import anchor_grid
from ...metrics import SegmentationScore
from ...models.settings import SETTINGS_FILE
from ...semantics import find_nouns
from ...sweeps import THRESHOLDS
from ..catalogue import CLASSES, THING_BY_NAME, class_of
from ..scenes import VALIDATION_SEED, scene
from .look import BLIP, DINO, SD, Look, Models
from .measuring import (
    Group,
    Line,
    Measured,
    Row,
    Store,
    Target,
    Way,
    mean_line,
    measure_groups,
    pooled_line,
    share_line,
)

_COUNTS = ["hits", "predicted", "actual"]  # what a `SegmentationScore` adds up
_WORLD = 4  # scenes that tell whether the world has been changed
_MODEL_FILES = {".safetensors", ".json"}


@dataclass(frozen=True)
class Settings:
    """What is tried, and how pictures are painted.

    Attributes:
        thresholds: of merging, in nats.
        eps: of DBSCAN, as close to each other as the thresholds are, so that neither has a coarser choice.
        sides: of the layers that are taken alone, the finest first.
        timesteps: the first one is what the best is compared with.
        guidance, steps: of `StableDiffusionPipeline`.
        paintings: how many pictures are painted at most.
    """

    thresholds: tuple[float, ...] = THRESHOLDS
    eps: tuple[float, ...] = tuple(float(eps) for eps in np.geomspace(0.002, 0.06, 25).round(5))
    sides: tuple[int, ...] = tuple(ATTENTION_SIZE // factor for factor in (1, 2, 4, 8))
    timesteps: tuple[int, ...] = (1, 100, 200, TIMESTEP, 400, 500)
    guidance: float = 4.0
    steps: int = 30
    paintings: int = 50


def behaviour(
    models: Models,
    settings: Settings,
    scenes: int,
    runs: Path,
    names: Sequence[str] | None = None,
    deadline: float = math.inf,
) -> pd.DataFrame:
    """Measure what is not yet on disk, and judge all of it.

    Args:
        models: see `Models`.
        settings: see `Settings`.
        scenes: how many tuning scenes, and how many validation scenes.
        runs: folder of the files; the name of each holds a digest of what it depends on.
        names: of the groups, see `GROUPS`; None: all.
        deadline: value of `time.monotonic()` after which the measuring stops, to be resumed.

    Returns:
        One row per measurement: row, mean, low, high (the ends of the 95% interval), target, reached ("yes", "no", or
        "" without a target). It is written to `behaviour.csv`, too.

    Raises:
        OutOfTime: see `measure_groups`.
    """
    groups = {name: make(models, settings) for name, make in GROUPS.items() if names is None or name in names}
    world = world_digest()
    stores = {
        name: Store(runs / f"behaviour-{name}-{_fingerprint(models.folder, group, world)}.csv")
        for name, group in groups.items()
    }
    table = measure_groups(groups, stores, partial(Look, models), scenes, deadline)
    table.round(4).to_csv(runs / "behaviour.csv", index=False)
    return table


def _fingerprint(folder: Path, group: Group, world: str) -> str:
    """A digest of what all measurements of a group depend on.

    A model's own threshold is not among it: it is the setting of a way, and kept with each row.
    """
    digest = sha256(json.dumps([world, dict(group.about)], sort_keys=True).encode())
    for name in group.models:
        for file in sorted((folder / name).rglob("*")):
            if file.suffix in _MODEL_FILES and file.name != SETTINGS_FILE:
                digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def world_digest() -> str:
    """A digest of some small scenes, which changes with the way that scenes are drawn."""
    drawn = [scene(VALIDATION_SEED + index, 64) for index in range(_WORLD)]
    parts = [part for one in drawn for part in (one.image.tobytes(), one.labels.tobytes(), one.caption.encode())]
    return sha256(b"".join(parts)).hexdigest()


# ---- groups ---------------------------------------------------------------------------------------------------------


def _masks(models: Models, settings: Settings) -> Group:
    """DiffSeg as it is by default, and colours alone."""

    def judge(measured: Measured) -> list[Line]:
        miou = measured.scores()
        return [
            mean_line("DiffSeg: accuracy", measured.scores("accuracy")["DiffSeg"], Target(0.90)),
            mean_line("DiffSeg: mIoU", miou["DiffSeg"], Target(0.80)),
            mean_line("K-Means on colours: mIoU", miou["colours"], Target(at_most=0.50)),
            mean_line("DiffSeg minus K-Means on colours: mIoU", miou["DiffSeg"] - miou["colours"], Target(0.28)),
        ]

    ways = {"DiffSeg": Way(Look.diffseg, (models.threshold(SD),)), "colours": Way(_kmeans_colours)}
    return Group(ways, judge, (SD,))


def _rivals(models: Models, settings: Settings) -> Group:
    """What else can be done with the same attention."""

    def judge(measured: Measured) -> list[Line]:
        miou = measured.scores()
        return [
            mean_line("DBSCAN: mIoU", miou["DBSCAN"]),
            mean_line("K-Means-S: mIoU", miou["K-Means-S"]),
            mean_line("DiffSeg minus DBSCAN: mIoU", miou["DiffSeg"] - miou["DBSCAN"], Target(0.05, above_zero=True)),
            mean_line(
                "DiffSeg minus K-Means-S: mIoU", miou["DiffSeg"] - miou["K-Means-S"], Target(0.10, above_zero=True)
            ),
        ]

    ways = {
        "DiffSeg": Way(Look.diffseg, (models.threshold(SD),)),
        "DBSCAN": Way(_dbscan, settings.eps),
        "K-Means-S": Way(_kmeans),
    }
    return Group(ways, judge, (SD,))


def _layers(models: Models, settings: Settings) -> Group:
    """The layers of each side alone, and all together."""
    names = {side: f"{side}x{side} alone" for side in settings.sides}
    finest = names[settings.sides[0]]
    targets = {ATTENTION_SIZE // 2: Target(0.60), ATTENTION_SIZE // 4: Target(0.40)}

    def judge(measured: Measured) -> list[Line]:
        miou = measured.scores()
        return [
            *(mean_line(f"{name}: mIoU", miou[name], targets.get(side)) for side, name in names.items()),
            mean_line(f"all layers minus {finest}: mIoU", miou["all"] - miou[finest], Target(above_zero=True)),
        ]

    return Group(ways_of_layers(settings, names), judge, (SD,))


def ways_of_layers(settings: Settings, names: Mapping[int, str]) -> dict[str, Way]:
    """DiffSeg with all layers, "all", and with those of one side alone; `names` says what each side is called."""
    alone = {name: Way(partial(Look.diffseg, side=side), settings.thresholds) for side, name in names.items()}
    return {"all": Way(Look.diffseg, settings.thresholds)} | alone


def _timesteps(models: Models, settings: Settings) -> Group:
    """How much noise helps."""
    names = {timestep: f"t = {timestep}" for timestep in settings.timesteps}
    first = names[settings.timesteps[0]]

    def judge(measured: Measured) -> list[Line]:
        miou, tuned = measured.scores(), measured.tuning.groupby("way").miou.mean()
        best = max(names, key=lambda timestep: tuned[names[timestep]])
        return [
            *(mean_line(f"{name}: mIoU", miou[name]) for name in names.values()),
            Line("best t on the tuning scenes", float(best), target=Target(100.0, 400.0)),
            mean_line(f"{names[best]} minus {first}: mIoU", miou[names[best]] - miou[first], Target(above_zero=True)),
        ]

    ways = {name: Way(partial(Look.diffseg, timestep=t), settings.thresholds) for t, name in names.items()}
    return Group(ways, judge, (SD,))


def _heads(models: Models, settings: Settings) -> Group:
    """Whether the heads of a layer agree, measured by the threshold and by what two classes are apart."""

    def judge(measured: Measured) -> list[Line]:
        rows = measured.validation
        ratios = pd.DataFrame(
            {"seed": rows.seed, "threshold": rows.heads / models.threshold(SD), "classes": rows.heads / rows.classes}
        )
        medians = ratios.groupby("seed").median()
        return [
            mean_line("heads / threshold, median of layers", medians.threshold, Target(at_most=1.0)),
            mean_line("heads / two classes in a head, median of layers", medians.classes, Target(at_most=0.2)),
        ]

    return Group({"heads": Way(_head_distances)}, judge, (SD,))


def _words(models: Models, settings: Settings) -> Group:
    """Masks with names, pixels of all scenes pooled."""
    targets = {"true nouns": Target(0.62), "own caption": Target(0.58)}

    def judge(measured: Measured) -> list[Line]:
        rows = measured.validation
        return [
            pooled_line(f"words, {way}: pooled mIoU", counts_of_classes(rows[rows.way == way]), pooled_miou, target)
            for way, target in targets.items()
        ]

    own = (models.threshold(SD),)
    ways = {way: Way(partial(named_masks, own_caption=way == "own caption"), own) for way in targets}
    return Group(ways, judge, (SD, BLIP))


def _captions(models: Models, settings: Settings) -> Group:
    """Whether captions name the things that are there, and no others; stuff does not count."""

    def judge(measured: Measured) -> list[Line]:
        rows = measured.validation
        return [
            share_line("captions: visible things named", rows.named, rows.visible, Target(0.95)),
            share_line("captions: named things absent", rows.absent, rows.named + rows.absent, Target(at_most=0.03)),
        ]

    return Group({"caption": Way(_named_things)}, judge, (BLIP,))


def _dino(models: Models, settings: Settings) -> Group:
    """The same merging on the attention of a vision transformer."""

    def judge(measured: Measured) -> list[Line]:
        miou = measured.scores()
        return [
            mean_line("DinoSeg: accuracy", measured.scores("accuracy")["DinoSeg"], Target(0.65)),
            mean_line("DinoSeg: mIoU", miou["DinoSeg"], Target(0.45)),
            mean_line("DiffSeg minus DinoSeg: mIoU", miou["DiffSeg"] - miou["DinoSeg"], Target(above_zero=True)),
        ]

    ways = {
        "DiffSeg": Way(Look.diffseg, (models.threshold(SD),)),
        "DinoSeg": Way(_dinoseg, (models.threshold(DINO),)),
    }
    return Group(ways, judge, (SD, DINO))


def _paintings(models: Models, settings: Settings) -> Group:
    """Whether the captioner finds the nouns of a prompt in the picture that is painted from it."""

    def judge(measured: Measured) -> list[Line]:
        rows = measured.validation
        return [share_line("paintings: nouns of the prompt named", rows.named, rows.asked, Target(0.70))]

    painted = {"painting": Way(partial(_painted_nouns, guidance=settings.guidance, steps=settings.steps))}
    about = {"guidance": settings.guidance, "steps": settings.steps}
    return Group(painted, judge, (SD, BLIP), about, settings.paintings)


#: Name -> the group, from the models and settings. Those that start from the same attention follow each other.
GROUPS: dict[str, Callable[[Models, Settings], Group]] = {
    "masks": _masks,
    "rivals": _rivals,
    "layers": _layers,
    "timesteps": _timesteps,
    "dino": _dino,
    "heads": _heads,
    "words": _words,
    "captions": _captions,
    "paintings": _paintings,
}


# ---- ways -----------------------------------------------------------------------------------------------------------


def _kmeans_colours(look: Look, setting: float) -> list[Row]:
    return look.score(kmeans_colours(look.drawn.image, len(look.drawn.nouns), size=look.drawn.image.width))


def _kmeans(look: Look, setting: float) -> list[Row]:
    return look.score(kmeans(look.attention(), len(look.drawn.nouns), size=look.drawn.image.width))


def _dbscan(look: Look, eps: float) -> list[Row]:
    return look.score(dbscan(look.attention(), eps, look.drawn.image.width, distances=look.euclidean()))


def _dinoseg(look: Look, threshold: float) -> list[Row]:
    return look.score(look.models.dino(look.drawn.image, threshold=threshold).labels)


def _head_distances(look: Look, setting: float) -> list[Row]:
    """For each layer: D between heads at one place, and between places of different classes in one head."""
    rows = []
    for layer in look.models.pipe.record(look.drawn.image, heads="all"):
        places = anchor_grid(layer.size, min(look.models.pipe.points, layer.size))  # enough of them
        pixels = len(look.drawn.labels) // layer.size
        row, column = (pixels * places + pixels // 2).T
        classes = torch.from_numpy(look.drawn.labels)[row, column]
        _, apart = class_distances(layer.probs[:, places[:, 0] * layer.size + places[:, 1]], classes)
        rows.append({"layer": layer.name, "heads": head_divergence(layer.probs), "classes": apart})
    return rows


def named_masks(look: Look, threshold: float, own_caption: bool = False) -> list[Row]:
    """One row for each class that is there or is named: pixels that are hit, predicted and actual.

    The words are the nouns of the scene, or those of the captioner's caption.
    """
    pipe, drawn, score = look.models.pipe, look.drawn, SegmentationScore()
    if own_caption:
        pipe.captioner = look.models.captioner
    out = pipe(drawn.image, words="caption" if own_caption else drawn.nouns, threshold=threshold)
    names = [class_of(word) for word in out.words] or [None] * (int(out.labels.max()) + 1)
    score.update_named(out.labels, drawn.labels, names)
    counts = np.stack([score.hits, score.predicted, score.actual], axis=1)  # [classes, 3]
    return [
        {"class": CLASSES[index], **dict(zip(_COUNTS, counts[index].tolist(), strict=True))}
        for index in counts.any(axis=1).nonzero()[0]
    ]


def counts_of_classes(rows: pd.DataFrame) -> Integer[np.ndarray, "scenes classes 3"]:
    """The rows of `named_masks` of all scenes; classes that a scene has nothing of are 0."""
    scenes, seeds = pd.factorize(rows.seed)
    counts = np.zeros((len(seeds), len(CLASSES), len(_COUNTS)), np.int64)
    counts[scenes, rows["class"].map(CLASSES.index)] = rows[_COUNTS]
    return counts


def pooled_miou(counts: Integer[np.ndarray, "scenes classes 3"]) -> float:
    """The mean IoU over the pixels of all scenes, from the hits, predicted and actual pixels of each class."""
    score = SegmentationScore()
    score.hits, score.predicted, score.actual = counts.sum(axis=0).T
    return score.compute().miou


def _named_things(look: Look, setting: float) -> list[Row]:
    caption = look.models.captioner(look.drawn.image)
    named, visible = _classes_of(caption) & THING_BY_NAME.keys(), set(look.drawn.nouns) & THING_BY_NAME.keys()
    return [
        {
            "caption": caption,
            "visible": len(visible),
            "named": len(named & visible),
            "absent": len(named - visible),
        }
    ]


def _painted_nouns(look: Look, setting: float, guidance: float, steps: int) -> list[Row]:
    painted = look.models.painter(
        look.drawn.caption,
        guidance_scale=guidance,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(look.seed),
    ).images[0]
    caption, asked = look.models.captioner(painted), _classes_of(look.drawn.caption)
    named = len(_classes_of(caption) & asked)
    return [{"prompt": look.drawn.caption, "caption": caption, "asked": len(asked), "named": named}]


def _classes_of(caption: str) -> set[str]:
    """The names of the classes that a caption's nouns stand for."""
    found = {class_of(noun.word) for noun in find_nouns(caption)}
    return {CLASSES[index] for index in found - {None}}
