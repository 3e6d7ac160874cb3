"""Notebook 07: DBSCAN, K-Means and DiffSeg on one picture, each with its knob."""

from collections.abc import Callable
from functools import cache

import ipywidgets
import numpy as np
from jaxtyping import Float, Integer
from PIL import Image
from torch import Tensor

from diffseg import ITERATIONS, POINTS, baselines
from diffseg.colours import colours_by_area, match_colours
from diffseg.merging import anchor_distances, check_attention
from diffseg.metrics import image_score
from diffseg.plus import segment_attention
from diffseg.widgets.lessons.shared import Panel, column, photograph, row, threshold_slider
from diffseg.widgets.paint import encode, tint
from diffseg.wording import count

#: Percent of all distances that are below the values of eps that are tried; the notebook sweeps over most of them.
PERCENTILES = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
LARGEST_K = 12
_SAMPLED = 16  # every so many rows of the distances stand for all

Truth = Integer[np.ndarray | Tensor, "height width"]


def radii(distances: Float[np.ndarray, "n n"]) -> list[float]:
    """The values of eps that are tried: percentiles of the distances, each once."""
    return sorted(set(np.percentile(distances[::_SAMPLED], PERCENTILES).tolist()) - {0.0})


def describe_result(name: str, labels: Tensor, truth: Truth | None) -> str:
    """One method's masks in words."""
    text = f"{name}: {count(len(labels.unique()), 'segment')}"
    if truth is None:
        return text
    accuracy, miou = image_score(labels, truth)
    return f"{text}, accuracy {accuracy:.0%}, mIoU {miou:.2f}"


def clustering_knobs(
    attention: Float[Tensor, "h w h w"],
    image: Image.Image,
    threshold: float,
    truth: Truth | None = None,
    distances: Float[np.ndarray, "positions positions"] | None = None,
) -> Panel:
    """Turn eps of DBSCAN, k of K-Means and the threshold of DiffSeg on one picture.

    Args:
        attention: of the picture, as `pipe.attend` returns it.
        image: the picture.
        threshold: the model's own, nats.
        truth: the class of each pixel; segments then take the colours of the classes that they are matched to, and
            are scored.
        distances: those of `baselines.euclidean_distances(attention)`, if they are at hand.

    Raises:
        ValueError: for attention of a wrong shape.
    """
    grid, size = check_attention(attention), (image.height, image.width)
    distances = baselines.euclidean_distances(attention) if distances is None else distances
    points = min(POINTS, *grid)
    asked = anchor_distances(attention, points)
    choices = radii(distances)

    @cache
    def dbscan(eps: float) -> Tensor:
        return baselines.dbscan(attention, eps, size, distances=distances)

    @cache
    def kmeans(k: int) -> Tensor:
        return baselines.kmeans(attention, k, size=size)

    @cache
    def diffseg(tau: float) -> Tensor:
        return segment_attention(attention, size, points, [tau] * ITERATIONS, distances=asked)[0].cpu()

    eps = ipywidgets.SelectionSlider(
        options=[(f"{radius:.2g}", radius) for radius in choices], value=choices[len(choices) // 2], description="eps"
    )
    k = ipywidgets.IntSlider(value=min(5, LARGEST_K), min=1, max=LARGEST_K, description="k")
    tau = threshold_slider(threshold)
    methods = {"DBSCAN": (eps, dbscan), "K-Means": (k, kmeans), "DiffSeg": (tau, diffseg)}
    pictures = {name: photograph(image, 290) for name in methods}
    captions = {name: ipywidgets.HTML() for name in methods}
    stacks = [column(captions[name], pictures[name], knob) for name, (knob, _) in methods.items()]
    panel = Panel(pictures["DiffSeg"], [row(*stacks)], eps=eps, k=k, tau=tau, pictures=pictures, captions=captions)
    said: dict[str, str] = {}

    def draw(name: str) -> None:
        knob, segment = methods[name]
        labels = segment(knob.value)
        palette = colours_by_area(labels) if truth is None else match_colours(labels, truth)
        pictures[name].overlay = encode(tint(labels, palette, opacity=0.6))
        said[name] = pictures[name].alt = describe_result(name, labels, truth)
        captions[name].value = f"<b>{said[name]}</b>"
        panel.say(". ".join(said.values()) + ".")

    def drawer(name: str) -> Callable[[], None]:
        return lambda: draw(name)

    for name, (knob, _) in methods.items():
        panel.when(knob, do=drawer(name))
        draw(name)
    return panel
