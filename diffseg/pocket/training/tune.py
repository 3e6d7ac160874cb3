"""Choosing pocket-sd's merging threshold on tuning seeds, and scoring it on others (Sec. 9.6)."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from ...masks import suppress
from ...merging import anchor_distances, merge
from ...metrics import image_score
from ...pipeline import DiffSegPipeline
from ...progress import progress
from ..scenes import scene

#: Thresholds that are tried, in nats, evenly spaced on a logarithmic scale.
THRESHOLDS = tuple(float(tau) for tau in np.geomspace(0.02, 1.5, 27).round(3))


def sweep(pipe: DiffSegPipeline, seeds: Iterable[int], thresholds: Sequence[float] = THRESHOLDS) -> pd.DataFrame:
    """Score scenes at many thresholds with one UNet pass per scene.

    Returns:
        One row per scene and threshold: seed, threshold, accuracy, miou (of that image), segments.
    """
    rows = []
    for seed in progress(list(seeds), "scoring scenes"):
        drawn = scene(seed)
        attention = pipe.attend(drawn.image)
        distances = anchor_distances(attention)
        for threshold in thresholds:
            labels = suppress(merge(attention, threshold=threshold, distances=distances), drawn.image.width)
            accuracy, miou = image_score(labels, drawn.labels)
            rows.append((seed, threshold, accuracy, miou, len(labels.unique())))
    return pd.DataFrame(rows, columns=["seed", "threshold", "accuracy", "miou", "segments"])


def best_threshold(scores: pd.DataFrame) -> float:
    """The threshold with the highest mean of accuracy and mIoU, smoothed over its two neighbours against luck."""
    means = scores.groupby("threshold")[["accuracy", "miou"]].mean().mean(axis=1)
    return float(means.rolling(3, center=True, min_periods=1).mean().idxmax())
