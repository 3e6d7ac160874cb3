"""Notebook 01: what a pixel looks at in every layer, and in every head of one."""

from collections.abc import Sequence
from numbers import Real

import ipywidgets
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffseg.attention import RecordedLayer
from diffseg.pipeline import DiffSegPipeline
from diffseg.widgets.canvas import Canvas
from diffseg.widgets.lessons.shared import (
    Panel,
    Sheet,
    column,
    middle_of,
    photograph,
    place_at,
    ring_at,
    row,
    shade,
    times_even,
)
from diffseg.widgets.paint import encode

EVERY = -1  # the choice of all layers


def heads_at(layer: RecordedLayer, x: Real, y: Real) -> Float[Tensor, "heads rows columns"]:
    """The maps of the position at a point, one for each head that was kept, in multiples of even attention."""
    rows, columns = layer.grid
    place_row, place_column = place_at(x, y, layer.grid)
    kept = layer.probs if layer.probs.ndim == 3 else layer.probs[None]
    return times_even(kept[:, place_row * columns + place_column].reshape(-1, rows, columns)).cpu()


def map_at(layer: RecordedLayer, x: Real, y: Real) -> Float[Tensor, "rows columns"]:
    """The mean of `heads_at`."""
    return heads_at(layer, x, y).mean(dim=0)


def name_of(number: int, layer: RecordedLayer) -> str:
    """A layer in a few letters: its number, its stage and its grid."""
    return f"{number}: {layer.stage} {'x'.join(map(str, layer.grid))}"


def describe_layers(layers: Sequence[RecordedLayer], x: Real, y: Real) -> str:
    """Where the pixel looks hardest, of all layers, in words."""
    peaks = [float(map_at(layer, x, y).max()) for layer in layers]
    most, least = max(range(len(peaks)), key=peaks.__getitem__), min(range(len(peaks)), key=peaks.__getitem__)
    return (
        f"The pixel at {x:.0%} across and {y:.0%} down, in all {len(layers)} layers, each on a scale of its own. "
        f"Layer {name_of(most, layers[most])} is the most focused: one position gets {peaks[most]:.0f} times even "
        f"attention. Layer {name_of(least, layers[least])} is the least, with {peaks[least]:.1f}."
    )


def describe_layer(number: int, layer: RecordedLayer, x: Real, y: Real) -> str:
    """One layer in words: where each head looks hardest."""
    heads = heads_at(layer, x, y)
    spots = []
    for head, values in enumerate(heads, start=1):
        across, down = middle_of(divmod(int(values.argmax()), values.shape[1]), layer.grid)
        spots.append(f"head {head} {float(values.max()):.0f} times even at {across:.0%} across and {down:.0%} down")
    whom = "; ".join(spots) if len(heads) > 1 else "the mean of its heads"
    return f"Layer {name_of(number, layer)}, from {x:.0%} across and {y:.0%} down. Brightest: {whom}."


def look_from_pixel(layers: Sequence[RecordedLayer], image: Image.Image, pipe: DiffSegPipeline | None = None) -> Panel:
    """Click a pixel: its map in every layer. Click a layer, or choose it from the menu: its maps head by head.

    Args:
        layers: self-attention, as `pipe.record(image)` returns it.
        image: the picture that was recorded.
        pipe: if the layers hold means of heads, it runs once more when a single layer is asked for.

    Raises:
        ValueError: for no layers.
    """
    if not layers:
        raise ValueError("layers is empty; record a picture first: pipe.record(image).")
    aspect = image.height / image.width
    overview = Sheet(len(layers), 4, 120, aspect)
    picture, sheet = photograph(image, 320, marks=ring_at(0.5, 0.5)), Canvas()
    menu = ipywidgets.Dropdown(
        options=[("all", EVERY), *((name_of(number, layer), number) for number, layer in enumerate(layers))],
        description="layer",
    )
    panel = Panel(picture, [row(column(picture, menu), sheet)], picture=picture, sheet=sheet, menu=menu)
    apart: dict[int, RecordedLayer] = {}  # the one layer whose heads are kept

    def with_heads(number: int) -> RecordedLayer:
        rows, columns = layers[number].grid
        if layers[number].probs.ndim == 3 or pipe is None:
            return layers[number]
        if number not in apart:
            picture.show_message("One more pass through the model, to see the heads ...")
            apart.clear()
            apart[number] = pipe.record(image, heads="all", crop=rows == columns)[number]
            picture.show_message("")
        return apart[number]

    def draw_all(x: Real, y: Real) -> None:
        maps = [map_at(layer, x, y) for layer in layers]
        titles = [f"{name_of(n, layer)}, {float(m.max()):.3g}x" for n, (layer, m) in enumerate(zip(layers, maps))]
        show(overview, maps, titles, x, y)
        panel.say(describe_layers(layers, x, y))

    def draw_one(number: int, x: Real, y: Real) -> None:
        layer = with_heads(number)
        heads = heads_at(layer, x, y)
        maps = [heads.mean(dim=0), *(heads if len(heads) > 1 else ())]
        titles = ["mean of heads", *(f"head {n}, {float(m.max()):.3g}x" for n, m in enumerate(maps[1:], start=1))]
        show(Sheet(len(maps), *((2, 246) if len(maps) < 5 else (3, 162)), aspect), maps, titles, x, y)
        panel.say(describe_layer(number, layer, x, y))

    def show(form: Sheet, maps: Sequence[Tensor], titles: Sequence[str], x: Real, y: Real) -> None:
        with sheet.hold_sync():
            sheet.width, sheet.picture = form.width, encode(form.draw([shade(m) for m in maps], titles, (x, y)))
            sheet.alt = "Bright is where the pixel looks. " + ", ".join(titles)

    def draw() -> None:
        x, y = picture.marks[0]["x"], picture.marks[0]["y"]
        draw_all(x, y) if menu.value == EVERY else draw_one(menu.value, x, y)

    def choose(x: Real, y: Real, kind: str) -> None:
        number = overview.tile_at(x, y) if menu.value == EVERY else EVERY
        if number is not None:
            menu.value = number

    panel.ask(picture, draw)
    sheet.on_click(choose)
    panel.when(menu, do=draw)
    draw()
    return panel
