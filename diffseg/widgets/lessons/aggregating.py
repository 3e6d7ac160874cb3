"""Notebook 03: how much each resolution counts, and what becomes of a map and of the masks."""

from collections.abc import Mapping, Sequence

import ipywidgets
import torch
from PIL import Image
from torch import Tensor

from diffseg import ITERATIONS, POINTS
from diffseg.aggregation import side_weights, sum_sides, weigh_sides
from diffseg.attention import RecordedLayer
from diffseg.metrics import image_score
from diffseg.plus import segment_attention
from diffseg.widgets.lessons.shared import (
    Panel,
    column,
    middle_of,
    photograph,
    place_at,
    ring_at,
    row,
    shade,
    times_even,
)
from diffseg.widgets.paint import encode, tint
from diffseg.wording import count

READINGS = {"by layer (paper)": "layer", "by resolution (code)": "resolution"}


def shares(weights: Mapping[int, float]) -> dict[int, float]:
    """Weights that sum to 1.

    Raises:
        ValueError: if all are zero.
    """
    total = sum(weights.values())
    if total <= 0:
        raise ValueError("All weights are zero: there is nothing to average. Move one of the sliders up.")
    return {side: weight / total for side, weight in weights.items()}


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
    sums = sum_sides([layer.probs for layer in layers], max(layer.grid for layer in layers))
    paper = side_weights(sums)

    def masks_of(attention: Tensor) -> Tensor:
        size, points = (image.height, image.width), min(POINTS, *sums.grid)
        return segment_attention(attention, size, points, [threshold] * ITERATIONS)[0].cpu()

    reference = masks_of(weigh_sides(sums))

    picture = photograph(image, 330, marks=ring_at(0.5, 0.5))
    looked = photograph(image, 330, smooth=False)
    sliders = {
        side: ipywidgets.FloatSlider(
            value=paper[side], min=0, max=1, step=0.01, description=f"{side} x {side}", readout_format=".2f"
        )
        for side in sums.sides
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
        looked.picture = encode(shade(times_even(attention[place_at(x, y, sums.grid)])))
        looked.marks = ring_at(*middle_of(place_at(x, y, sums.grid), sums.grid))
        looked.alt = f"What the place at {x:.0%} across and {y:.0%} down looks at: bright is much."

    def draw() -> None:
        nonlocal attention
        if setting:
            return
        weights = {side: slider.value for side, slider in sliders.items()}
        attention = weigh_sides(sums, shares(weights))
        draw_map()
        labels = masks_of(attention)
        picture.overlay = encode(tint(labels))
        panel.say(describe_weights(weights, labels, reference))

    def read() -> None:
        nonlocal setting
        setting = True  # all sliders move, then the masks follow once
        for side, weight in side_weights(sums, readings.value).items():
            sliders[side].value = weight
        setting = False
        draw()

    panel.ask(picture, draw_map)
    panel.when(*sliders.values(), do=draw)
    panel.when(readings, do=read)
    draw()
    return panel
