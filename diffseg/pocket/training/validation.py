"""Choosing thresholds on tuning scenes, and scores on validation scenes, of the models in a folder."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
from PIL import Image

from ...dino import DinoSegPipeline
from ...metrics import SegmentationScore
from ...models.captioner import Captioner
from ...models.settings import read_settings, write_settings
from ...pipeline import DiffSegPipeline
from ...progress import progress
from ...semantics import find_nouns
from ...sweeps import best_threshold, sweep_thresholds
from ..catalogue import THING_BY_NAME, class_of
from ..scenes import TUNING_SEED, VALIDATION_SEED, Scene, scene


def tune(target: Path, scenes: int) -> float:
    """Choose pocket-sd's threshold on the first tuning scenes and write it into the model's folder."""
    pipe = DiffSegPipeline.from_pretrained(target)
    return _write_best(sweep_thresholds(pipe, _cases(TUNING_SEED, scenes)), target)


def tune_dino(target: Path, scenes: int) -> float:
    """`tune` for pocket-dino."""
    pipe = DinoSegPipeline.from_pretrained(target)
    return _write_best(sweep_thresholds(pipe, _cases(TUNING_SEED, scenes)), target)


def validate(target: Path, scenes: int) -> pd.Series:
    """Mean per-image accuracy and mIoU on the first validation scenes, with the pipeline's defaults."""
    pipe = DiffSegPipeline.from_pretrained(target)
    return _means(sweep_thresholds(pipe, _cases(VALIDATION_SEED, scenes), [pipe.threshold]))


def validate_dino(target: Path, scenes: int) -> pd.Series:
    """`validate` for pocket-dino."""
    pipe = DinoSegPipeline.from_pretrained(target)
    return _means(sweep_thresholds(pipe, _cases(VALIDATION_SEED, scenes), [pipe.threshold]))


def validate_captions(target: Path, scenes: int) -> pd.Series:
    """On the first validation scenes: how many of the visible things are named, how many of the named are not there."""
    seeds = range(VALIDATION_SEED, VALIDATION_SEED + scenes)
    sums = caption_rates(Captioner.from_pretrained(target), seeds).sum(numeric_only=True)
    return pd.Series({"named": sums.named / sums.visible, "absent": sums.absent / (sums.named + sums.absent)})


def caption_rates(captioner: Callable[[Image.Image], str], seeds: Iterable[int]) -> pd.DataFrame:
    """Which things the captions of scenes name and which they miss; stuff does not count.

    Returns:
        One row per scene: seed, caption, visible, named (of the visible ones), absent (named, but not there).
    """
    rows = []
    for seed in progress(list(seeds), "captioning"):
        drawn = scene(seed)
        caption = captioner(drawn.image)
        named = {noun.word for noun in find_nouns(caption)} & THING_BY_NAME.keys()
        visible = set(drawn.nouns) & THING_BY_NAME.keys()
        rows.append((seed, caption, len(visible), len(named & visible), len(named - visible)))
    return pd.DataFrame(rows, columns=["seed", "caption", "visible", "named", "absent"])


def validate_words(target: Path, scenes: int) -> pd.Series:
    """On the first validation scenes: scores of named masks, with the true nouns and with the captioner's own."""
    pipe = DiffSegPipeline.from_pretrained(target)
    pipe.captioner = Captioner.from_pretrained(target.parent / "pocket-blip")
    scores = {"true nouns": SegmentationScore(), "own caption": SegmentationScore()}
    for drawn in _scenes(VALIDATION_SEED, scenes):
        for score, words in zip(scores.values(), (drawn.nouns, "caption"), strict=True):
            out = pipe(drawn.image, words=words)
            score.update_named(out.labels, drawn.labels, [class_of(word) for word in out.words])
    results = {name: score.compute() for name, score in scores.items()}
    return pd.Series(
        {f"{name}, {kind}": getattr(result, kind) for name, result in results.items() for kind in ("accuracy", "miou")}
    )


def _scenes(first: int, number: int) -> Iterator[Scene]:
    """Scenes of seeds in a row, one after the other, with a bar."""
    return (scene(seed) for seed in progress(range(first, first + number), "scoring scenes"))


def _cases(first: int, number: int) -> Iterator[tuple]:
    return ((drawn.image, drawn.labels) for drawn in _scenes(first, number))


def _means(scores: pd.DataFrame) -> pd.Series:
    return scores[["threshold", "accuracy", "miou", "segments"]].mean()


def _write_best(scores: pd.DataFrame, target: Path) -> float:
    """Write the best threshold, and the mean scores of all, into a model's folder."""
    scores.groupby("threshold")[["accuracy", "miou", "segments"]].mean().round(4).to_csv(target / "tuning.csv")
    threshold = best_threshold(scores)
    write_settings(target, replace(read_settings(target), threshold=threshold))
    return threshold
