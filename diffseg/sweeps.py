"""Sweeps over settings: what a number does to the scores of several scenes, and what luck does to them (Fig. 11).

A sweep is a table with a row for each scene and setting, in the columns `scene`, `knob` (which number was turned),
`value` (to what), and any scores, such as `accuracy`, `miou` and `segments`. All but the turned number stay at their
defaults. Every scene is scored at every value, so that values can be compared scene by scene.

The number that matters most is the merging threshold (Sec. 9.6): `sweep_thresholds` turns it alone, for DiffSeg and
DinoSeg, and `best_threshold` chooses.
"""

from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Integer, Shaped
from pandas import DataFrame, Series
from PIL import Image
from scipy import stats
from torch import Tensor

from diffseg import SEED
from diffseg.merging import anchor_distances
from diffseg.metrics import image_score

#: Thresholds that are tried, in nats, evenly spaced on a logarithmic scale.
THRESHOLDS = tuple(float(tau) for tau in np.geomspace(0.02, 3.0, 31).round(3))


@runtime_checkable
class Segmenter(Protocol):
    """A method in two halves, as `DiffSegPipeline` and `DinoSegPipeline` are."""

    device: torch.device
    points: int  # anchors along one side

    def attend(self, image: Image.Image) -> Float[Tensor, "side side side side"]: ...

    def segment(self, attention: Float[Tensor, "side side side side"], points: int, **settings): ...


def sweep_thresholds(
    pipe: Segmenter,
    cases: Iterable[tuple[Image.Image, Integer[np.ndarray | Tensor, "size size"]]],
    thresholds: Sequence[Real] = THRESHOLDS,
    points: int | None = None,
) -> DataFrame:
    """Score images at many thresholds, with one pass through the model for each image.

    Args:
        pipe: a `DiffSegPipeline` or `DinoSegPipeline`.
        cases: (image, truth) pairs; a generator keeps only one of them alive.
        thresholds: in nats.
        points: anchors along one side; None: as many as the pipeline takes by default.

    Returns:
        One row per case and threshold: case (0, 1, ...), threshold, accuracy and miou (of that image), segments.

    Raises:
        ValueError: as `pipe.attend`, `pipe.segment` and `image_score`.
    """
    points = pipe.points if points is None else points
    rows = []
    for case, (image, truth) in enumerate(cases):
        attention = pipe.attend(image).to(pipe.device)
        distances = anchor_distances(attention, points)
        for tau in thresholds:
            out = pipe.segment(attention, points, threshold=tau, size=truth.shape[0], distances=distances)
            rows.append((case, tau, *image_score(out.labels, truth), len(out.labels.unique())))
    return DataFrame(rows, columns=["case", "threshold", "accuracy", "miou", "segments"])


def best_threshold(scores: DataFrame, column: str = "threshold") -> float:
    """The threshold with the highest mean of accuracy and mIoU, smoothed over its two neighbours against luck.

    `column` holds it, or any other setting that is chosen in the same way.
    """
    return float(_smooth(scores.groupby(column)[["accuracy", "miou"]].mean().mean(axis=1)).idxmax())


def leave_one_out(table: DataFrame) -> Series:
    """What each scene scores at the value that all other scenes choose, so that none is judged at its own choice.

    The others choose as in `best_threshold`: by the highest mean, smoothed over its two neighbours.

    Args:
        table: a row for each scene, a column for each value in ascending order; higher is better.

    Returns:
        A score for each scene.

    Raises:
        ValueError: for fewer than two scenes.
    """
    if len(table) < 2:
        raise ValueError(f"table has {len(table)} scenes, expected at least 2: the others choose for each.")
    others = (table.sum() - table) / (len(table) - 1)  # [scenes, values]: the mean of all but one
    chosen = _smooth(others.T).idxmax()
    return Series([table.at[scene, value] for scene, value in chosen.items()], index=table.index)


def tuned_scores(rows: DataFrame, by: str, column: str = "miou") -> DataFrame:
    """What each scene scores in each way, at the threshold that all other scenes choose for that way.

    Args:
        rows: of each scene, way and threshold, such as `results.load("timesteps")`, with columns scene and threshold.
        by: the column that tells the ways.
        column: the score; higher is better.

    Returns:
        A row for each scene, a column for each way.

    Raises:
        ValueError: for fewer than two scenes.
    """
    tables = {way: own.pivot(index="scene", columns="threshold", values=column) for way, own in rows.groupby(by)}
    return DataFrame({way: leave_one_out(table) for way, table in tables.items()})


def by_scene(scores: DataFrame, knob: str, column: str = "miou") -> DataFrame:
    """One column of a sweep as a table: a row for each scene, a column for each value of the knob.

    Raises:
        ValueError: if the knob was not turned, or not every scene has been scored at every value.
    """
    rows = scores[scores.knob == knob]
    if rows.empty:
        raise ValueError(f"knob={knob!r} is not among those of the sweep: {', '.join(scores.knob.unique())}.")
    table = rows.pivot(index="scene", columns="value", values=column)
    if table.isna().any(axis=None):
        raise ValueError(f"knob={knob!r}: some scenes have no {column} at some values; score all scenes at all values.")
    return table


def half_width(table: DataFrame, level: Real = 0.95) -> Series:
    """Half the width of the confidence interval of each column's mean, by Student's t distribution.

    Args:
        table: a row for each scene; NaN comes out if there is only one.
        level: how often such intervals hold the true mean.
    """
    return stats.t.ppf((1 + level) / 2, len(table) - 1) * table.sem()


class Interval(NamedTuple):
    """A mean and the two ends of its confidence interval: of differences, a paired comparison.

    f"{interval:+.1f}"    # +2.0, from -1.5 to +5.5
    """

    mean: float
    low: float
    high: float

    def verdict(self, above: str = "better", below: str = "worse", between: str = "undecided") -> str:
        """`above` or `below` 0; `between` if it holds 0, "the same" if it is nothing but 0."""
        if self.low == self.high == 0:
            return "the same"
        return above if self.low > 0 else below if self.high < 0 else between

    def __format__(self, spec: str) -> str:
        mean, low, high = (_format(value, spec) for value in self)
        return f"{mean}, from {low} to {high}"


def _format(value: Real, spec: str) -> str:
    """-0.0, which rounding leaves of a small number, is written as 0.0."""
    text = format(value, spec)
    return text if float(text.rstrip("%")) else format(abs(value), spec)


def mean_interval(values: Series, level: Real = 0.95) -> Interval:
    """The mean over scenes, and the two ends of its confidence interval, see `half_width`."""
    mean, half = float(values.mean()), float(half_width(values.to_frame(), level).iloc[0])
    return Interval(mean, mean - half, mean + half)


def bootstrap_interval(
    scenes: Shaped[np.ndarray, "scenes ..."],
    statistic: Callable[[np.ndarray], float],
    level: Real = 0.95,
    resamples: int = 2000,
    seed: int = SEED,
) -> tuple[float, float]:
    """The two ends of the confidence interval of a number that is no mean over scenes, by the bootstrap's percentiles.

    Args:
        scenes: what is known of each scene, such as its counts of pixels.
        statistic: the number, of all scenes together.
        level: as in `half_width`.
        resamples: how often as many scenes are drawn from the scenes, with replacement.
        seed: of the draws.
    """
    chosen = np.random.default_rng(seed).integers(len(scenes), size=(resamples, len(scenes)))
    tail = (1 - level) / 2
    low, high = np.nanquantile([statistic(scenes[draw]) for draw in chosen], [tail, 1 - tail])
    return float(low), float(high)


def gains(scores: DataFrame, knob: str, default: Real, column: str = "miou") -> DataFrame:
    """Paired differences: what each value gains over the default on the same scene, as `by_scene`, without the default.

    Raises:
        ValueError: as `by_scene`, and if the default was not tried.
    """
    table = by_scene(scores, knob, column)
    if default not in table:
        raise ValueError(
            f"default={default!r} was not tried; {knob} took {', '.join(f'{value:g}' for value in table)}."
        )
    return table.sub(table[default], axis=0).drop(columns=default)


def _smooth(means: Series | DataFrame) -> Series | DataFrame:
    """Each row averaged with the one before and the one after it."""
    return means.rolling(3, center=True, min_periods=1).mean()
