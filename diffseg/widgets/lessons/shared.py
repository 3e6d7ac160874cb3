"""What the widgets of the lessons share: a panel that says what is seen, tiles of maps, places and numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Real
from typing import Any

import ipywidgets
import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from torch import Tensor

from diffseg.colours import brightest
from diffseg.output import DiffSegOutput
from diffseg.widgets.canvas import Canvas, guard
from diffseg.widgets.paint import encode, heat
from diffseg.widgets.selecting import position

#: What thresholds are tried, in multiples of the model's own: from an eighth to eight times, four to each doubling.
FACTORS = tuple(2.0 ** (step / 4) for step in range(-12, 13))

_INK, _PAPER = (32, 33, 36), (255, 255, 255)
_SCALE = 2  # pixels of a drawn tile for each of the page, so that letters are sharp on fine screens
_CAPTION, _GAP = 18, 6  # css pixels


class Panel(ipywidgets.VBox):
    """Rows of controls and pictures, and below them what is seen, in words.

    Attributes:
        canvas: the picture on which errors are shown, and whose text is spoken.
        said: the sentence below, as HTML.
        parts: the controls and pictures by name; each is an attribute, too: `panel.tau.value = 0.3`.
    """

    def __init__(self, canvas: Canvas, rows: Sequence[ipywidgets.Widget], **parts: Any):
        self.canvas, self.parts, self.said = canvas, {}, ipywidgets.HTML()
        self.said.add_class("diffseg-said")
        self.add(**parts)
        super().__init__([*rows, self.said])
        self.add_class("diffseg-lesson")

    def add(self, **parts: Any) -> None:
        """More controls and pictures by name."""
        self.parts |= parts
        for name, part in parts.items():
            setattr(self, name, part)

    def say(self, text: str) -> None:
        """What is seen, for eyes and ears."""
        self.canvas.alt = text
        self.said.value = f'<p style="margin: 4px 0; max-width: 60em; line-height: 1.4">{escape(text)}</p>'

    def when(self, *controls: ipywidgets.Widget, do: Callable[[], None]) -> None:
        """Call a function whenever the value of a control changes; its errors are shown."""
        follow = guard(self.canvas)(lambda change: do())
        for control in controls:
            control.observe(follow, "value")

    def ask(self, picture: Canvas, do: Callable[[], None]) -> None:
        """Mark each pixel of a picture that is clicked, and call a function; its errors are shown."""

        def asked(x: Real, y: Real, kind: str) -> None:
            picture.marks = ring_at(x, y)
            do()

        picture.on_click(asked)

    def press(self, button: ipywidgets.Button, do: Callable[[], None]) -> None:
        """Call a function whenever a button is pressed; its errors are shown."""
        button.on_click(guard(self.canvas)(lambda _: do()))


def row(*widgets: ipywidgets.Widget) -> ipywidgets.HBox:
    """Widgets side by side, which wrap where the page is narrow."""
    return ipywidgets.HBox(widgets, layout=ipywidgets.Layout(flex_flow="row wrap", grid_gap="12px"))


def column(*widgets: ipywidgets.Widget) -> ipywidgets.VBox:
    """Widgets below one another."""
    return ipywidgets.VBox(widgets, layout=ipywidgets.Layout(grid_gap="4px"))


def photograph(image: Image.Image, width: int = 320, **traits: Any) -> Canvas:
    """A canvas with a picture on it."""
    return Canvas(picture=encode(image, lossy=True), width=width, **traits)


def threshold_slider(own: float) -> ipywidgets.SelectionSlider:
    """A slider over multiples of a model's own threshold; its value is the threshold, nats."""
    return ipywidgets.SelectionSlider(
        options=[(f"{factor * own:.2g}", factor * own) for factor in FACTORS],
        value=own,
        description="threshold",
        tooltip=f"how near is near, nats; the model's own is {own:.2g}",
        style={"description_width": "90px"},
    )


def picture_of(out: DiffSegOutput) -> Image.Image:
    """The picture that an output was made from.

    Raises:
        ValueError: if it was made from attention alone.
    """
    if out.image is None:
        raise ValueError("out.image is None; hand the picture to `pipe.segment(attention, image=picture)`.")
    return out.image


# ---- places ---------------------------------------------------------------------------------------------------------


def place_at(x: Real, y: Real, grid: Sequence[int]) -> tuple[int, int]:
    """Row and column of the position in a grid of (rows, columns) that a point from 0 to 1 lies in."""
    return position((x, y), grid)


def middle_of(place: Sequence[int], grid: Sequence[int]) -> tuple[float, float]:
    """The point (x, y) from 0 to 1 in the middle of a position."""
    return (place[1] + 0.5) / grid[1], (place[0] + 0.5) / grid[0]


def ring_at(x: Real, y: Real) -> list[dict[str, Any]]:
    """The mark of the pixel that is asked, for a canvas."""
    return [{"x": x, "y": y, "kind": "query"}]


# ---- maps -----------------------------------------------------------------------------------------------------------


def times_even(maps: Float[Tensor, "*n h w"]) -> Float[Tensor, "*n h w"]:
    """Maps in multiples of what even attention would give each position."""
    return maps.float() / maps.float().sum(dim=(-2, -1), keepdim=True) * (maps.shape[-2] * maps.shape[-1])


def shade(values: Float[Tensor, "h w"], top: float | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """A map in viridis; top is drawn brightest, by default its own `brightest`."""
    values = values.cpu().numpy()
    top = brightest(values) if top is None else top
    return heat(values, top)[..., :3]


@dataclass(frozen=True)
class Sheet:
    """Pictures in rows, each with its title above it.

    Attributes:
        count: how many pictures.
        columns: how many stand side by side at most.
        side: width of a tile, css pixels; it is drawn with twice as many.
        aspect: height of a tile / its width.
    """

    count: int
    columns: int
    side: int = 120
    aspect: float = 1.0

    @property
    def width(self) -> int:
        """Css pixels."""
        return min(self.count, self.columns) * (self.side + _GAP) - _GAP

    @property
    def height(self) -> int:
        """Css pixels."""
        return -(-self.count // self.columns) * self._step - _GAP

    @property
    def _tall(self) -> int:
        return round(self.side * self.aspect)

    @property
    def _step(self) -> int:
        return _CAPTION + self._tall + _GAP

    def draw(
        self,
        pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        titles: Sequence[str],
        ring: tuple[float, float] | None = None,
    ) -> UInt8[np.ndarray, "height width 3"]:
        """The sheet as a picture.

        Args:
            pictures: as many as `count`, of any sizes; their pixels become squares.
            titles: in plain ASCII, which is what the font of Pillow has.
            ring: (x, y) from 0 to 1, marked in each picture.
        """
        sheet = Image.new("RGB", (_SCALE * self.width, _SCALE * self.height), _PAPER)
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_SCALE * 12)
        size = _SCALE * self.side, _SCALE * self._tall
        for number, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
            line, place = divmod(number, self.columns)
            left, top = _SCALE * place * (self.side + _GAP), _SCALE * line * self._step
            draw.text((left, top + _SCALE * _CAPTION // 2), title, fill=_INK, font=font, anchor="lm")
            top += _SCALE * _CAPTION
            sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST), (left, top))
            if ring is not None:
                _draw_ring(draw, left + ring[0] * size[0], top + ring[1] * size[1])
        return np.asarray(sheet)

    def tile_at(self, x: Real, y: Real) -> int | None:
        """The number of the tile at a point from 0 to 1 of the sheet; None where there is none."""
        place, beside = divmod(x * self.width, self.side + _GAP)
        number = int(y * self.height // self._step) * self.columns + int(place)
        return number if beside < self.side and number < self.count else None


def _draw_ring(draw: ImageDraw.ImageDraw, x: Real, y: Real) -> None:
    for radius, colour, width in ((4.5, (0, 0, 0), 3), (4, _PAPER, 1.5)):
        reach = _SCALE * radius
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=round(_SCALE * width))


# ---- segments -------------------------------------------------------------------------------------------------------


def areas_of(labels: Integer[np.ndarray | Tensor, "h w"], segments: int) -> Int[np.ndarray, " {segments}"]:
    """Pixels of each segment."""
    return np.bincount(np.asarray(labels).ravel(), minlength=segments)


def deepest(mask: Bool[np.ndarray, "h w"]) -> tuple[float, float]:
    """The point (x, y), pixels, of a mask that is farthest from its edge."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row_of, column_of = np.unravel_index(depth.argmax(), depth.shape)
    return float(column_of), float(row_of)
