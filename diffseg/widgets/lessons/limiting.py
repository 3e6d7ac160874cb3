"""Notebook 10: a small thing, and the grid through which it is seen."""

from numbers import Real

import ipywidgets
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from diffseg.limits import through_grid
from diffseg.widgets.canvas import Canvas
from diffseg.widgets.lessons.shared import Panel, column, row, shade
from diffseg.widgets.paint import encode

PIXELS = 256  # side of the toy picture
SHAPES = ("disc", "pole", "ring")
DIAMETERS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96)
GRIDS = (8, 16, 32, 64, 128)
_THING, _GROUND, _LINE, _FOUND = (176, 60, 20), (236, 228, 208), (190, 186, 178), (0, 66, 157)
_SCALE = 2  # drawn pixels for each of the toy's


def draw_thing(shape: str, diameter: int, x: Real = 0.5, y: Real = 0.5) -> Bool[np.ndarray, "pixels pixels"]:
    """The mask of a thing whose middle is at (x, y), from 0 to 1. A pole is a quarter as wide as it is high."""
    rows, columns = np.mgrid[:PIXELS, :PIXELS] + 0.5 - np.array([y, x])[:, None, None] * PIXELS
    if shape == "pole":
        return (np.abs(rows) <= diameter / 2) & (np.abs(columns) <= max(diameter / 8, 0.5))
    away = np.hypot(rows, columns)
    return (away <= diameter / 2) & (away >= (diameter / 4 if shape == "ring" else 0))


def seen_through(mask: Bool[np.ndarray, "h w"], grid: int) -> tuple[Float[Tensor, "g g"], Bool[np.ndarray, "h w"]]:
    """The share of the thing in each position, and the best mask that can be made of them."""
    shares = F.adaptive_avg_pool2d(torch.from_numpy(mask).float()[None], grid)[0]
    return shares, through_grid(mask.astype(int), grid).numpy() == 1


def overlap_of(found: Bool[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> float:
    """IoU."""
    return float((found & mask).sum() / max((found | mask).sum(), 1))


def describe_thing(shape: str, diameter: int, grid: int, iou: float) -> str:
    """What is seen, in words."""
    side = PIXELS / grid
    return (
        f"A {shape} of {diameter} pixels on a grid of {grid} x {grid}, whose positions are {side:g} pixels wide: "
        f"{diameter / side:.2g} positions across. The best mask that the grid lets through has an IoU of {iou:.2f}"
        f"{': the thing is gone' if iou == 0 else ''}."
    )


def draw_scene(
    mask: Bool[np.ndarray, "h w"], found: Bool[np.ndarray, "h w"], grid: int
) -> UInt8[np.ndarray, "height width 3"]:
    """The thing, the lines of the grid, and what is found of it in blue with its outline."""
    picture = np.where(mask[..., None], _THING, _GROUND).astype(np.uint8).repeat(_SCALE, 0).repeat(_SCALE, 1)
    large = found.repeat(_SCALE, 0).repeat(_SCALE, 1)
    inside = large & np.roll(large, 3, 0) & np.roll(large, -3, 0) & np.roll(large, 3, 1) & np.roll(large, -3, 1)
    sheet = Image.fromarray(picture)
    draw, side = ImageDraw.Draw(sheet), _SCALE * PIXELS / grid
    if side >= 2 * _SCALE:
        for line in range(1, grid):
            place = line * side
            draw.line((place, 0, place, sheet.height), fill=_LINE)
            draw.line((0, place, sheet.width, place), fill=_LINE)
    drawn = np.array(sheet)
    drawn[large & ~inside] = _FOUND
    return drawn


def small_things() -> Panel:
    """Shape, size and place of a thing (click), and how fine the grid is: what comes through, and its IoU."""
    picture, looked = Canvas(width=360), Canvas(width=360, smooth=False)
    place = [0.5, 0.5]
    style = {"description_width": "90px"}
    shape = ipywidgets.ToggleButtons(options=SHAPES, description="shape", style={"button_width": "60px"} | style)
    diameter = ipywidgets.SelectionSlider(options=DIAMETERS, value=16, description="pixels", style=style)
    grid = ipywidgets.SelectionSlider(options=GRIDS, value=32, description="positions", style=style)
    panel = Panel(
        picture,
        [row(picture, looked, column(shape, diameter, grid))],
        picture=picture, looked=looked, shape=shape, diameter=diameter, grid=grid,
    )  # fmt: skip

    def draw() -> None:
        mask = draw_thing(shape.value, diameter.value, *place)
        shares, found = seen_through(mask, grid.value)
        picture.picture = encode(draw_scene(mask, found, grid.value))
        looked.picture = encode(shade(shares, 1.0))
        looked.alt = f"The share of the thing in each of {grid.value} x {grid.value} positions."
        panel.say(describe_thing(shape.value, diameter.value, grid.value, overlap_of(found, mask)))

    def move(x: Real, y: Real, kind: str) -> None:
        place[:] = x, y
        draw()

    picture.on_click(move)
    panel.when(shape, diameter, grid, do=draw)
    draw()
    return panel
