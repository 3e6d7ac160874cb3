"""Notebook 05: proposals compete along a line across the picture."""

from html import escape
from numbers import Real

import ipywidgets
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

from diffseg.colours import Palette, colours_by_area, css_colour
from diffseg.output import DiffSegOutput
from diffseg.widgets.lessons.shared import Panel, column, photograph, picture_of, place_at, ring_at, row
from diffseg.widgets.paint import encode, tint

_WIDTH, _HEIGHT, _STRIP = 480, 240, 14  # css pixels: the chart, and the strip of winners below it
_DASH = 8  # pixels of the picture
_SHOWN = 8  # lines that are drawn; the others lie below them


def values_along(
    proposals: Float[Tensor, "proposals h w"], at: Real, length: int, across: bool = True
) -> Float[np.ndarray, "proposals length"]:
    """The enlarged proposals along one line of the picture, in multiples of an even proposal.

    Bilinear, as in `suppress`, and only where it is needed: first between two rows, then along the line.

    Args:
        proposals: maps that each sum to 1.
        at: where the line crosses the other axis, 0 to 1.
        length: pixels along the line.
        across: whether it runs across the picture (a row) or down (a column).
    """
    maps = proposals.float() if across else proposals.float().transpose(1, 2)
    rows = maps.shape[1]
    place = min(max(at * rows - 0.5, 0.0), rows - 1.0)
    low = min(int(place), rows - 2)
    line = torch.lerp(maps[:, low], maps[:, low + 1], place - low)  # [proposals, w]
    enlarged = F.interpolate(line[:, None], size=length, mode="linear", align_corners=False)[:, 0]
    return (enlarged * proposals.shape[1] * proposals.shape[2]).cpu().numpy()


def describe_claims(values: Float[np.ndarray, " proposals"], x: Real, y: Real) -> str:
    """Who wins at the cursor, and by how much, in words."""
    order = np.argsort(-values, kind="stable")
    best = values[order[0]]
    text = f"At {x:.0%} across and {y:.0%} down, proposal {order[0]} wins with {best:.1f} times even"
    if len(order) == 1:
        return text + "; it is the only one."
    second = values[order[1]]
    lead = (best - second) / best
    return f"{text}; next is proposal {order[1]} with {second:.1f}. Lead: {lead:.0%} of the strongest claim."


def strongest(values: Float[np.ndarray, "proposals length"], shown: int = _SHOWN) -> list[int]:
    """The proposals that come highest anywhere along the line, at most so many, winners first."""
    winners = np.unique(values.argmax(axis=0))
    order = sorted(range(len(values)), key=lambda number: (number not in winners, -values[number].max()))
    return order[:shown]


def draw_chart(values: Float[np.ndarray, "proposals length"], at: Real, palette: Palette, title: str) -> str:
    """The claims along the line as an SVG: a line for each of the strongest, winners in a strip below, the cursor.

    Args:
        values: of all proposals along the line.
        at: the cursor, 0 to 1.
        palette: a colour for each proposal.
        title: what the chart shows, for those who hear it.
    """
    top, length = max(float(values.max()), 1e-6) * 1.1, values.shape[1]
    chosen = strongest(values)[::-1]  # the first ones are drawn last, on top
    here = values[:, min(int(at * length), length - 1)]
    parts = [_draw_level(level, top) for level in ticks(top)]
    parts += [_draw_line(values[number], top, css_colour(palette[number])) for number in chosen]
    for start, end, number in runs(values.argmax(axis=0)):
        left, width = start / length * _WIDTH, (end - start) / length * _WIDTH
        parts.append(
            f'<rect x="{left:.1f}" y="{_HEIGHT}" width="{width:.1f}" height="{_STRIP}" '
            f'fill="{css_colour(palette[number])}"><title>proposal {number}</title></rect>'
        )
    x, bottom = at * _WIDTH, _HEIGHT + _STRIP
    parts.append(f'<path d="M{x:.1f} 0V{bottom}" stroke="#202124" stroke-dasharray="4 3"/>')
    winner = int(here.argmax())  # it alone has its number: those of more would overlap
    for number in chosen:
        height = _HEIGHT * (1 - here[number] / top)
        parts.append(_draw_claim(x, height, str(number) if number == winner else "", css_colour(palette[number])))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {bottom}" width="{_WIDTH}" role="img" aria-label="{escape(title)}" '
        f'style="max-width: 100%; background: #fff; font: 12px system-ui, sans-serif">{"".join(parts)}</svg>'
    )


def _draw_level(level: float, top: float) -> str:
    """A faint line at a round number."""
    y = _HEIGHT * (1 - level / top)
    line = f'<path d="M0 {y:.1f}H{_WIDTH}" stroke="#dadce0"/>'
    return f'{line}<text x="4" y="{y - 4:.1f}" fill="#5f6368">{level:g} × even</text>'


def _draw_line(values: Float[np.ndarray, " length"], top: float, colour: str) -> str:
    """One proposal along the line, white around it, so that it can be told from those it crosses."""
    places = np.linspace(0, len(values) - 1, min(len(values), _WIDTH // 2)).round().astype(int)
    points = " ".join(f"{(i + 0.5) / len(values) * _WIDTH:.0f},{_HEIGHT * (1 - values[i] / top):.1f}" for i in places)
    line = f'<polyline points="{points}" fill="none" stroke-linejoin="round" stroke='
    return f'{line}"#fff" stroke-width="5"/>{line}"{colour}" stroke-width="2.5"/>'


def _draw_claim(x: Real, y: Real, name: str, colour: str) -> str:
    """Where one proposal stands at the cursor, with its name on the side where there is room."""
    side, anchor = (9, "start") if x < 0.85 * _WIDTH else (-9, "end")
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}" stroke="#202124"/>'
        f'<text x="{x + side:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}" stroke="#fff" stroke-width="3" '
        f'paint-order="stroke">{name}</text>'
    )


def draw_line_on(
    tinted: UInt8[np.ndarray, "height width 4"], at: Real, across: bool
) -> UInt8[np.ndarray, "height width 4"]:
    """The tinted segments with the line on them, in dashes of black and white."""
    drawn = tinted.copy()
    lines = drawn if across else drawn.transpose(1, 0, 2)
    place = min(int(at * len(lines)), len(lines) - 1)
    dashes = np.where(np.arange(lines.shape[1]) // _DASH % 2, 255, 0).astype(np.uint8)
    lines[max(place - 1, 0) : place + 1] = np.stack([dashes, dashes, dashes, np.full_like(dashes, 255)], axis=1)
    return drawn


def ticks(top: float) -> list[float]:
    """Two to five round numbers below the top of an axis."""
    step = 10.0 ** np.floor(np.log10(top / 2))
    step *= next(factor for factor in (1, 2, 5, 10) if top / (step * factor) <= 5)
    return [float(step * number) for number in range(1, int(top / step) + 1)]


def runs(labels: Integer[np.ndarray, " n"]) -> list[tuple[int, int, int]]:
    """(start, end, label) of each stretch of equal labels."""
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    return [(start, end, int(labels[start])) for start, end in zip(edges, edges[1:])]


def cursor_line(out: DiffSegOutput) -> Panel:
    """Move over the picture: the proposals' values along a line through the pointer, and who wins where.

    Args:
        out: what the pipeline returned.

    Raises:
        ValueError: for an output without its picture.
    """
    palette = colours_by_area(out.labels)
    picture, tinted = photograph(picture_of(out), 360), tint(out.labels, palette)
    direction = ipywidgets.ToggleButtons(
        options=[("across", True), ("down", False)], description="line", style={"button_width": "auto"}
    )
    chart = ipywidgets.HTML()
    panel = Panel(picture, [row(column(picture, direction), chart)], picture=picture, direction=direction, chart=chart)
    place = (0.5, 0.5)

    def draw() -> None:
        x, y = place
        along, at = (x, y) if direction.value else (y, x)
        length = out.labels.shape[1] if direction.value else out.labels.shape[0]
        values = values_along(out.proposals, at, length, direction.value)
        text = describe_claims(values[:, place_at(along, 0, (1, length))[1]], x, y)
        chart.value = draw_chart(values, along, palette, f"The proposals' values along the line. {text}")
        picture.overlay, picture.marks = encode(draw_line_on(tinted, at, direction.value)), ring_at(x, y)
        panel.say(text)

    def follow(x: Real, y: Real, kind: str = "") -> None:
        nonlocal place
        place = (x, y)
        draw()

    picture.on_hover(follow)
    picture.on_click(follow)
    panel.when(direction, do=draw)
    draw()
    return panel
