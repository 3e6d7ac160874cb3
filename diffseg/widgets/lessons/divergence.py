"""Notebook 04: the bars of two distributions, and the KL divergence between them both ways."""

import math
from collections.abc import Sequence
from numbers import Real

import ipywidgets
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from diffseg.colours import colours
from diffseg.merging import EPSILON, symmetric_kl
from diffseg.widgets.canvas import Canvas
from diffseg.widgets.lessons.shared import Panel, row
from diffseg.widgets.paint import encode

Shares = Float[np.ndarray, " places"]

START = (0.50, 0.25, 0.15, 0.07, 0.03), (0.10, 0.15, 0.20, 0.25, 0.30)
_WIDTH, _HEIGHT = 640, 300  # css pixels
_SCALE = 2  # drawn pixels for each
_FLOOR, _CEILING = 0.86, 0.08  # where in the picture bars of 0 and 1 end, from above
_COLOURS = [tuple(int(255 * part) for part in colour) for colour in colours(2)]  # of p and q
_INK, _FAINT = (32, 33, 36), (218, 220, 224)


def set_bar(shares: Shares, index: int, value: Real) -> Shares:
    """One share set to a value from 0 to 1; the others shrink or grow in proportion, so that all sum to 1."""
    value = min(max(value, 0.0), 1.0)
    others = np.delete(shares, index)
    total = others.sum()
    scaled = others * ((1 - value) / total) if total > 0 else np.full(len(others), (1 - value) / len(others))
    return np.insert(scaled, index, value)


def terms_of_kl(p: Shares, q: Shares) -> Shares:
    """The terms of KL(p || q), nats: infinite where q is 0 and p is not, 0 where p is 0."""
    terms = np.zeros_like(p)
    seen = p > 0
    with np.errstate(divide="ignore"):
        terms[seen] = p[seen] * (np.log(p[seen]) - np.log(q[seen]))
    return terms


def distance(p: Shares, q: Shares) -> float:
    """D (Eq. 5) as `diffseg` measures it: finite, since no logarithm is taken of less than `EPSILON`."""
    return float(symmetric_kl(torch.tensor(p)[None], torch.tensor(q)[None]))


def bar_at(x: Real, places: int) -> tuple[int, int]:
    """Which distribution (0 is p, 1 is q) and which place a point at x, from 0 to 1, is nearest to."""
    slot = min(int(x * places), places - 1)
    return int(x * places - slot >= 0.5), slot


def value_at(y: Real) -> float:
    """The share that a bar has which ends at y, from 0 (top of the picture) to 1."""
    return min(max((_FLOOR - y) / (_FLOOR - _CEILING), 0.0), 1.0)


def describe(p: Shares, q: Shares) -> str:
    """The divergences in words."""
    forward, backward = terms_of_kl(p, q).sum(), terms_of_kl(q, p).sum()
    lists = [", ".join(f"{share:.2f}" for share in shares) for shares in (p, q)]
    text = (
        f"p is {lists[0]}; q is {lists[1]}. KL(p || q) = {forward:.2f} nats, KL(q || p) = {backward:.2f} nats, "
        f"and their mean D = {(forward + backward) / 2:.2f} nats."
    )
    if math.isinf(forward + backward):
        text += " A place is ruled out by one and used by the other; "
        text += f"with the floor {EPSILON:.0e}, D = {distance(p, q):.2f}."
    return text


def draw_bars(p: Shares, q: Shares) -> UInt8[np.ndarray, "height width 3"]:
    """The bars of p and q, place by place, and below each place what it adds to D."""
    width, height = _SCALE * _WIDTH, _SCALE * _HEIGHT
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_SCALE * 13)
    floor = _FLOOR * height
    for share in (0.25, 0.5, 0.75, 1):
        level = floor - share * (_FLOOR - _CEILING) * height
        draw.line((0, level, width, level), fill=_FAINT, width=_SCALE)
    slot = width / len(p)
    with np.errstate(invalid="ignore"):
        parts = (terms_of_kl(p, q) + terms_of_kl(q, p)) / 2
    for place, shares in enumerate(zip(p, q, strict=True)):
        for which, (share, colour) in enumerate(zip(shares, _COLOURS, strict=True)):
            left = (place + 0.08 + 0.43 * which) * slot
            top = floor - share * (_FLOOR - _CEILING) * height
            draw.rectangle((left, top, left + 0.41 * slot, floor), fill=colour)
            draw.text((left + 0.2 * slot, top - 4), f"{'pq'[which]} {share:.2f}", fill=_INK, font=font, anchor="mb")
        middle = (place + 0.5) * slot, (1 + _FLOOR) / 2 * height
        draw.text(middle, f"D: {parts[place]:+.2f}", fill=_INK, font=font, anchor="mm")
    draw.line((0, floor, width, floor), fill=_INK, width=_SCALE)
    return np.asarray(sheet)


def distributions(p: Sequence[Real] = START[0], q: Sequence[Real] = START[1]) -> Panel:
    """Drag the bars of two distributions: KL in both directions, D and what each place adds to it follow.

    Args:
        p, q: positive numbers to start with, as many in both; they are divided by their sums.

    Raises:
        ValueError: for lists of different lengths or of fewer than two numbers, and for negative numbers.
    """
    if len(p) != len(q) or len(p) < 2 or min(*p, *q) < 0 or not (sum(p) > 0 and sum(q) > 0):
        raise ValueError(f"p={list(p)} and q={list(q)} must be as many numbers, two or more, none negative, not all 0.")
    state = [np.array(given, dtype=float) / sum(given) for given in (p, q)]
    bars = Canvas(width=_WIDTH)
    swap, even = ipywidgets.Button(description="swap p and q"), ipywidgets.Button(description="make q even")
    panel = Panel(bars, [bars, row(swap, even)], bars=bars, swap=swap, even=even, state=state)
    grabbed = (0, 0)

    def draw() -> None:
        bars.picture = encode(draw_bars(*state))
        panel.say(describe(*state))

    def drag(x: Real, y: Real, phase: str) -> None:
        nonlocal grabbed
        if phase == "start":
            grabbed = bar_at(x, len(state[0]))
        which, place = grabbed
        state[which] = set_bar(state[which], place, value_at(y))
        draw()

    def exchange() -> None:
        state.reverse()
        draw()

    def level() -> None:
        state[1] = np.full(len(state[1]), 1 / len(state[1]))
        draw()

    bars.on_drag(drag)
    panel.press(swap, do=exchange)
    panel.press(even, do=level)
    draw()
    return panel
