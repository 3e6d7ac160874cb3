"""Scores from counts, with intervals that say how much they owe to the choice of images.

An interval is the middle 95% of the scores of many data sets, each drawn from the images with replacement (the
bootstrap's percentiles). Two methods are compared on the same draws: what makes an image hard for both cancels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Integer
from scipy.optimize import linear_sum_assignment

from .. import SEED
from ..metrics import PROTOCOLS, score_counts
from .counting import DATASET, NAMED, Counts, Key, Row, is_there, stack
from .features import group
from .results import key_of

DRAWS = 1000  # data sets that are drawn for an interval
LEVEL = 0.95  # how often such intervals hold the true score

#: Upper limits of the share of the picture that a class takes in an image: COCO's 32 x 32 and 96 x 96 pixels, of a
#: picture of 512 x 512.
SIZES = {"small": (32 / 512) ** 2, "medium": (96 / 512) ** 2, "large": 1.0}

Weights = Integer[np.ndarray, "draws images"]  # how often each image is in each draw
Statistic = Callable[[Weights], Float[np.ndarray, " draws"]]


class Tally:
    """The running score, for the bar: sums over images of what the first protocol that applies counts."""

    def __init__(self, classes: int, rows: Sequence[Row] = ()):
        self.classes, self._sums = classes, {}
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Count one image."""
        protocol = PROTOCOLS[0] if is_there(row.get(f"hits_{PROTOCOLS[0]}")) else NAMED
        sums = self._sums.setdefault(key_of(row), np.zeros((3, self.classes), dtype=np.int64))
        sums += np.stack([row[f"hits_{protocol}"], row[f"predicted_{protocol}"], row["actual"]])

    def best(self) -> str:
        """The method and setting with the highest mIoU so far, in words."""
        scores = {label(*key): score_counts(*sums)[:2] for key, sums in self._sums.items()}
        scores = {name: score for name, score in scores.items() if not np.isnan(score[1])}
        if not scores:
            return ""
        name, (accuracy, miou) = max(scores.items(), key=lambda pair: pair[1][1])
        return f"{name}: ACC {accuracy:.3f}, mIoU {miou:.3f}"


def label(method: str, setting: Any) -> str:
    """A method with its setting, as the command line has it."""
    return method if setting is None or pd.isna(setting) else f"{method}={setting:g}"


def draw(images: int, draws: int = DRAWS, seed: int = SEED) -> Weights:
    """How often each image is in each of the data sets that are drawn; the same seed gives the same draws."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=draws)


def interval(values: Float[np.ndarray, " draws"], level: float = LEVEL) -> tuple[float, float]:
    """The two ends of the middle `level` of values; NaN if there are none."""
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def statistics(rows: pd.DataFrame, protocol: str, shared: bool = False) -> dict[str, Statistic]:
    """The scores of a data set as functions of how often each of its images counts.

    Args:
        rows: a row for each image, of one method and setting.
        protocol: see `diffseg.metrics.POLICIES`.
        shared: whether segment ids mean the same in all images; only "dataset" asks.

    Returns:
        accuracy, miou and boundary (the mean boundary IoU, which "dataset" does not have).

    Raises:
        KeyError: if the rows were not scored under that protocol.
    """
    if protocol == DATASET:
        tables = _group_overlaps(rows, shared)
        return {"accuracy": lambda w: _match_all(tables, w)[0], "miou": lambda w: _match_all(tables, w)[1]}
    areas, edges = stack(rows, protocol), stack(rows, protocol, boundary=True)
    return {
        "accuracy": lambda w: _score(areas, w)[0],
        "miou": lambda w: _score(areas, w)[1],
        "boundary": lambda w: _score(edges, w)[1],
    }


def size_statistics(rows: pd.DataFrame, protocol: str) -> dict[str, Statistic]:
    """The mean IoU of things of one size: a thing is a class in an image, its size the share of the picture it takes.

    Returns:
        One for each of `SIZES` that occurs.
    """
    counts = stack(rows, protocol)
    union = counts.actual + counts.predicted - counts.hits
    iou = counts.hits / np.maximum(union, 1)
    shares = counts.actual / np.maximum(counts.actual.sum(axis=1, keepdims=True), 1)  # [images, classes]
    found, lower = {}, 0.0
    for name, upper in SIZES.items():
        inside = (counts.actual > 0) & (shares > lower) & (shares <= upper)
        lower = upper
        if inside.any():
            found[name] = _ratio(np.where(inside, iou, 0).sum(axis=1), inside.sum(axis=1))
    return found


def class_table(rows: pd.DataFrame, protocol: str, classes: Sequence[str]) -> pd.DataFrame:
    """A row for each class: in how many images it is, its share of all labelled pixels, recall, IoU, boundary IoU.

    A class that does not occur has NaN.
    """
    counts = stack(rows, protocol)
    hits, actual = counts.hits.sum(axis=0), counts.actual.sum(axis=0)
    return pd.DataFrame(
        {
            "class": list(classes),
            "images": (counts.actual > 0).sum(axis=0),
            "share": actual / max(actual.sum(), 1),
            "recall": np.divide(hits, actual, out=np.full(len(hits), np.nan), where=actual > 0),
            "iou": score_counts(hits, counts.predicted.sum(axis=0), actual)[2],
            "boundary": _boundary_iou(stack(rows, protocol, boundary=True)),
        }
    )


def _boundary_iou(edges: Counts) -> Float[np.ndarray, " classes"]:
    return score_counts(edges.hits.sum(axis=0), edges.predicted.sum(axis=0), edges.actual.sum(axis=0))[2]


def _score(counts: Counts, weights: Weights) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
    """Accuracy and mean IoU of each draw."""
    return score_counts(*(weights @ part for part in (counts.hits, counts.predicted, counts.actual)))[:2]


def _ratio(numerator: Float[np.ndarray, " images"], denominator: Integer[np.ndarray, " images"]) -> Statistic:
    """A mean over things whose number differs from image to image."""

    def mean(weights: Weights) -> Float[np.ndarray, " draws"]:
        total = np.asarray(weights @ denominator, dtype=float)
        return np.divide(weights @ numerator, total, out=np.full(len(total), np.nan), where=total > 0)

    return mean


def _group_overlaps(rows: pd.DataFrame, shared: bool) -> Int[np.ndarray, "images classes groups"]:
    """The pixels that each class and each group of segments share, image by image."""
    classes = len(rows.actual.iloc[0])
    overlaps = [np.asarray(each).reshape(classes, -1) for each in rows.overlap]
    if shared:
        groups = [np.arange(each.shape[1]) for each in overlaps]
        count = max(each.shape[1] for each in overlaps)
    else:
        if rows.descriptors.isna().any():
            raise KeyError(DATASET)
        looks = [np.asarray(each).reshape(overlap.shape[1], -1) for each, overlap in zip(rows.descriptors, overlaps)]
        areas = np.concatenate([each.sum(axis=0) for each in overlaps]) + 1e-9  # K-Means wants some weight
        found = group(np.concatenate(looks), areas, classes)
        groups = np.split(found, np.cumsum([each.shape[1] for each in overlaps])[:-1])
        count = classes
    tables = np.zeros((len(rows), classes, count), dtype=np.int64)
    for table, overlap, own in zip(tables, overlaps, groups):
        np.add.at(table.T, own, overlap.T)
    return tables


def _match_all(
    tables: Int[np.ndarray, "images classes groups"], weights: Weights
) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
    """Accuracy and mean IoU of each draw, with a matching of its own for all of its images together."""
    images, classes, groups = tables.shape
    sums = (weights @ tables.reshape(images, -1)).reshape(-1, classes, groups)
    scores = [score_counts(*_match(table))[:2] for table in sums]
    accuracies, mious = np.array(scores, dtype=float).T
    return accuracies, mious


def _match(table: Int[np.ndarray, "classes groups"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, predicted and actual of each class, with the one-to-one matching that has the most pixels in agreement."""
    rows, columns = linear_sum_assignment(table, maximize=True)
    hits, predicted = np.zeros((2, len(table)), dtype=np.int64)
    hits[rows], predicted[rows] = table[rows, columns], table.sum(axis=0)[columns]
    return hits, predicted, table.sum(axis=1)


def select(frame: pd.DataFrame, key: Key) -> pd.DataFrame:
    """The rows of a method and setting."""
    method, setting = key
    same = frame.setting.isna() if setting is None else frame.setting == setting
    return frame[(frame.method == method) & same]
