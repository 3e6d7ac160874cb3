"""Notebook 02: the heads of a layer side by side, and how far apart they are at one position."""

from collections.abc import Sequence
from numbers import Real

import ipywidgets
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from diffseg.attention import RecordedLayer
from diffseg.colours import brightest
from diffseg.merging import symmetric_kl
from diffseg.widgets.canvas import Canvas
from diffseg.widgets.lessons.hooking import heads_at, name_of
from diffseg.widgets.lessons.shared import (
    Panel,
    Sheet,
    column,
    photograph,
    place_at,
    ring_at,
    row,
    shade,
)
from diffseg.widgets.paint import encode, heat


def distances_at(layer: RecordedLayer, x: Real, y: Real) -> Float[np.ndarray, "heads heads"]:
    """The distance D (Eq. 5) between the maps of every pair of heads, at the position of a point, nats."""
    place_row, place_column = place_at(x, y, layer.grid)
    probs = layer.probs[:, place_row * layer.grid[1] + place_column].float()  # [heads, keys]
    return symmetric_kl(probs, probs).cpu().numpy()


def describe_heads(distances: Float[np.ndarray, "heads heads"], threshold: float | None) -> str:
    """How far apart the heads are, in words; the mean is the statistic of the notebook, at one position."""
    heads = len(distances)
    if heads < 2:
        return "This layer has a single head: there is nothing to compare."
    first, second = np.triu_indices(heads, 1)
    pairs = distances[first, second]
    near, far = int(pairs.argmin()), int(pairs.argmax())
    text = f"Here the {heads} heads are {pairs.mean():.2f} nats apart on average"
    if threshold is not None:
        text += f", {pairs.mean() / threshold:.1f} times the threshold"
    if len(pairs) == 1:
        return text + "."
    return (
        f"{text}. Nearest: heads {first[near] + 1} and {second[near] + 1}, {pairs[near]:.2f}; farthest: heads "
        f"{first[far] + 1} and {second[far] + 1}, {pairs[far]:.2f}."
    )


def table_of(distances: Float[np.ndarray, "heads heads"]) -> str:
    """The distances as a table in HTML, darker where heads are farther apart."""
    names = [f"head {number}" for number in range(1, len(distances) + 1)]
    lines = ["<tr><th>nats</th>" + "".join(f'<th scope="col">{name}</th>' for name in names) + "</tr>"]
    colours = heat(distances, max(float(distances.max()), 1e-6))[..., :3]  # [heads, heads, 3]
    for name, values, shades in zip(names, distances, colours, strict=True):
        cells = "".join(
            f'<td style="background: rgb({r}, {g}, {b}); color: {"#000" if g > 140 else "#fff"}">{value:.2f}</td>'
            for value, (r, g, b) in zip(values, shades.tolist(), strict=True)
        )
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return f'<table class="diffseg-table" style="text-align: right">{"".join(lines)}</table>'


def draw_heads(
    maps: Float[Tensor, "heads rows columns"], x: Real, y: Real, aspect: float = 1
) -> tuple[Sheet, UInt8[np.ndarray, "height width 3"]]:
    """The heads and their mean, all on one scale: the `Sheet` and its picture."""
    shown = [*maps, maps.mean(dim=0)]
    top = brightest(maps.numpy())
    titles = [*(f"head {number}" for number in range(1, len(maps) + 1)), "mean"]
    form = Sheet(len(shown), 3 if len(maps) < 6 else 5, 170 if len(maps) < 6 else 110, aspect)
    return form, form.draw([shade(one, top) for one in shown], titles, (x, y))


def compare_heads(layers: Sequence[RecordedLayer], image: Image.Image, threshold: float | None = None) -> Panel:
    """Choose a layer and click a pixel: the maps of its heads side by side, and the distance of every pair.

    Args:
        layers: recorded with heads="all".
        image: the picture that was recorded.
        threshold: of the model, nats, for comparison.

    Raises:
        ValueError: for no layers, or layers whose heads were averaged.
    """
    if not layers or any(layer.probs.ndim != 3 for layer in layers):
        raise ValueError('layers must hold one or more layers whose heads are kept: pipe.record(image, heads="all").')
    picture, sheet = photograph(image, 300, marks=ring_at(0.5, 0.5)), Canvas()
    menu = ipywidgets.Dropdown(
        options=[(name_of(number, layer), number) for number, layer in enumerate(layers)],
        value=len(layers) - 1,
        description="layer",
    )
    table = ipywidgets.HTML()
    panel = Panel(
        picture, [row(column(picture, menu, table), sheet)], picture=picture, sheet=sheet, menu=menu, table=table
    )

    def draw() -> None:
        layer, x, y = layers[menu.value], picture.marks[0]["x"], picture.marks[0]["y"]
        distances = distances_at(layer, x, y)
        form, drawn = draw_heads(heads_at(layer, x, y), x, y, image.height / image.width)
        with sheet.hold_sync():
            sheet.width, sheet.picture = form.width, encode(drawn)
            sheet.alt = f"Where the {len(distances)} heads of this layer look, and their mean: bright is much."
        table.value = table_of(distances)
        where = f"Layer {name_of(menu.value, layer)}, {x:.0%} across, {y:.0%} down."
        panel.say(f"{where} {describe_heads(distances, threshold)}")

    panel.ask(picture, draw)
    panel.when(menu, do=draw)
    draw()
    return panel
