"""Notebook 03: how much each resolution counts, and what becomes of a map and of the masks."""

from collections.abc import Mapping, Sequence
from numbers import Real

import ipywidgets
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from diffseg import POINTS
from diffseg.aggregation import aggregate, layer_weights
from diffseg.attention import RecordedLayer
from diffseg.masks import relabel, suppress
from diffseg.merging import anchor_distances, merge
from diffseg.metrics import image_score
from diffseg.widgets.lessons.shared import (
    Panel,
    column,
    count,
    middle_of,
    photograph,
    place_at,
    ring_at,
    row,
    shade,
    times_even,
)
from diffseg.widgets.paint import encode, tint

READINGS = {"by layer (paper)": "layer", "by resolution (code)": "resolution"}


def by_side(layers: Sequence[RecordedLayer]) -> dict[int, Float[Tensor, "h w h w"]]:
    """The layers of each side aggregated on their own, at the size of the finest; the largest side first.

    Their weighted sum is `aggregate` with these weights, since enlarging and averaging are linear.
    """
    size = max(layer.grid for layer in layers)
    sides = sorted({min(layer.grid) for layer in layers}, reverse=True)
    return {side: aggregate([each.probs for each in layers if min(each.grid) == side], size) for side in sides}


def weights_of(layers: Sequence[RecordedLayer], reading: str) -> dict[int, float]:
    """The weight R of all layers of a side together, in one of the two readings; they sum to 1."""
    sides = [min(layer.grid) for layer in layers]
    per_layer = layer_weights(sides, reading)
    return {side: sum(w for w, s in zip(per_layer, sides) if s == side) for side in sorted(set(sides), reverse=True)}


def shares(weights: Mapping[int, float]) -> dict[int, float]:
    """Weights that sum to 1.

    Raises:
        ValueError: if all are zero.
    """
    total = sum(weights.values())
    if total <= 0:
        raise ValueError("All weights are zero: there is nothing to average. Move one of the sliders up.")
    return {side: weight / total for side, weight in weights.items()}


def weighed(alone: Mapping[int, Float[Tensor, "h w h w"]], weights: Mapping[int, float]) -> Float[Tensor, "h w h w"]:
    """The weighted mean of what `by_side` returns."""
    parts = [(alone[side], share) for side, share in shares(weights).items() if share > 0]
    result = parts[0][0] * parts[0][1]
    for attention, share in parts[1:]:
        result.add_(attention, alpha=share)
    return result


def masks_of(
    attention: Float[Tensor, "h w h w"], threshold: float, size: tuple[int, int], points: int
) -> Int[Tensor, "height width"]:
    """Segments without gaps."""
    distances = anchor_distances(attention, points)
    return relabel(suppress(merge(attention, points, threshold=threshold, distances=distances), size))[0].cpu()


def describe_weights(weights: Mapping[int, float], labels: Tensor, reference: Tensor) -> str:
    """Weights and what came of them, in words."""
    parts = ", ".join(f"{side}x{side} {share:.0%}" for side, share in shares(weights).items())
    agreement, _ = image_score(labels, reference)
    return (
        f"Weights: {parts}. {count(int(labels.max()) + 1, 'segment')}; after pairing, they agree with those of the "
        f"paper's weights on {agreement:.0%} of the pixels."
    )


def weigh_resolutions(layers: Sequence[RecordedLayer], image: Image.Image, threshold: float) -> Panel:
    """A slider for the weight of each resolution: the masks and the map of a place follow. Click to choose the place.

    Args:
        layers: self-attention, as `pipe.record(image)` returns it.
        image: the picture that was recorded.
        threshold: of the merging, nats, such as the model's own.

    Raises:
        ValueError: for no layers.
    """
    if not layers:
        raise ValueError("layers is empty; record a picture first: pipe.record(image).")
    alone, size = by_side(layers), (image.height, image.width)
    grid = next(iter(alone.values())).shape[:2]
    points = min(POINTS, *grid)
    paper = weights_of(layers, "layer")
    reference = masks_of(weighed(alone, paper), threshold, size, points)

    picture = photograph(image, 330, marks=ring_at(0.5, 0.5))
    looked = photograph(image, 330, smooth=False)
    sliders = {
        side: ipywidgets.FloatSlider(
            value=paper[side], min=0, max=1, step=0.01, description=f"{side} x {side}", readout_format=".2f"
        )
        for side in alone
    }
    readings = ipywidgets.ToggleButtons(options=READINGS, description="reading", style={"button_width": "auto"})
    panel = Panel(
        picture,
        [readings, row(picture, looked, column(*sliders.values()))],
        picture=picture, looked=looked, sliders=sliders, readings=readings,
    )  # fmt: skip
    attention, setting = torch.empty(0), False

    def draw_map() -> None:
        x, y = picture.marks[0]["x"], picture.marks[0]["y"]
        looked.picture = encode(shade(times_even(attention[place_at(x, y, grid)])))
        looked.marks = ring_at(*middle_of(place_at(x, y, grid), grid))
        looked.alt = f"What the place at {x:.0%} across and {y:.0%} down looks at: bright is much."

    def draw() -> None:
        nonlocal attention
        if setting:
            return
        weights = {side: slider.value for side, slider in sliders.items()}
        attention = weighed(alone, weights)
        draw_map()
        labels = masks_of(attention, threshold, size, points)
        picture.overlay = encode(tint(labels))
        panel.say(describe_weights(weights, labels, reference))

    def read() -> None:
        nonlocal setting
        setting = True  # all sliders move, then the masks follow once
        for side, weight in weights_of(layers, readings.value).items():
            sliders[side].value = weight
        setting = False
        draw()

    def ask(x: Real, y: Real, kind: str) -> None:
        picture.marks = ring_at(x, y)
        draw_map()

    picture.on_click(ask)
    panel.when(*sliders.values(), do=draw)
    panel.when(readings, do=read)
    draw()
    return panel
