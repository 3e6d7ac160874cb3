"""Notebook 00: the map of the pixel that is clicked; the segment under the pointer, and the proposal behind it."""

from numbers import Real

import numpy as np
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from torch import Tensor

from diffseg.output import DiffSegOutput
from diffseg.widgets.lessons.shared import (
    Panel,
    areas_of,
    middle_of,
    photograph,
    picture_of,
    place_at,
    ring_at,
    row,
    shade,
    times_even,
)
from diffseg.widgets.paint import borders, encode, tint


def names_of(out: DiffSegOutput) -> list[str]:
    """What to call each segment: its word if it has one."""
    words = out.words or [f"segment {number}" for number in range(len(out.proposals))]
    shares = areas_of(out.labels, len(out.proposals)) / out.labels.numel()
    return [f"{word}, {share:.0%} of the picture" for word, share in zip(words, shares, strict=True)]


def share_inside(proposal: Tensor, inside: Bool[Tensor, "height width"]) -> float:
    """The part of a proposal's mass that lies within a segment."""
    coverage = F.adaptive_avg_pool2d(inside[None].float(), proposal.shape)[0]  # of each position, 0 to 1
    return float((proposal * coverage).sum() / proposal.sum())


def describe_segment(out: DiffSegOutput, number: int) -> str:
    """A segment and its proposal in words."""
    proposal = out.proposals[number]
    inside = share_inside(proposal, out.labels == number)
    return (
        f"Under the pointer: {names_of(out)[number]} ({number + 1} of {len(out.proposals)}). Its proposal reaches "
        f"{float(times_even(proposal).max()):.1f} times even attention, and {inside:.0%} of it lies inside of the "
        "segment."
    )


def draw_outline(labels: Tensor, number: int) -> UInt8[np.ndarray, "h w 4"]:
    """White lines around one segment, to lay over its proposal."""
    lines = np.zeros((*labels.shape, 4), np.uint8)
    lines[borders((labels == number).numpy().astype(np.uint8))] = 255
    return lines


def describe_map(out: DiffSegOutput, x: Real, y: Real) -> str:
    """Where a pixel looks, in words."""
    attention = out.attention[place_at(x, y, out.attention.shape[:2])]
    even = times_even(attention)
    across, down = middle_of(divmod(int(even.argmax()), even.shape[1]), even.shape)
    number = int(out.labels[place_at(x, y, out.labels.shape)])
    share = share_inside(attention, out.labels == number)
    return (
        f"The pixel at {x:.0%} across and {y:.0%} down gives {share:.0%} of its attention to its own segment. It looks "
        f"hardest at {across:.0%} across and {down:.0%} down: {float(even.max()):.0f} times even attention."
    )


def click_pixels(out: DiffSegOutput) -> Panel:
    """Click a pixel: the attention map of its position is drawn beside the picture.

    Args:
        out: what the pipeline returned.

    Raises:
        ValueError: for an output without its picture.
    """
    picture = photograph(picture_of(out), 360, marks=ring_at(0.5, 0.5))
    looked = photograph(picture_of(out), 360, smooth=False)
    panel = Panel(picture, [row(picture, looked)], picture=picture, looked=looked)

    def draw() -> None:
        x, y = picture.marks[0]["x"], picture.marks[0]["y"]
        attention = out.attention[place_at(x, y, out.attention.shape[:2])]
        looked.picture, looked.marks = encode(shade(times_even(attention))), ring_at(x, y)
        looked.alt = f"What the pixel at {x:.0%} across and {y:.0%} down looks at: bright is much."
        panel.say(describe_map(out, x, y))

    panel.ask(picture, draw)
    draw()
    return panel


def hover_segments(out: DiffSegOutput) -> Panel:
    """Point at a segment: it lights up, and the proposal behind it is drawn beside the picture.

    Args:
        out: what the pipeline returned.

    Raises:
        ValueError: for an output without its picture.
    """
    picture = photograph(picture_of(out), 360, overlay=encode(tint(out.labels)))
    proposal = photograph(picture_of(out), 360, smooth=False)
    picture.show_labels(out.labels.numpy(), names_of(out))
    panel = Panel(picture, [row(picture, proposal)], picture=picture, proposal=proposal)
    seen: dict[int, tuple[bytes, bytes, str]] = {}  # each is drawn once
    shown = None

    def show(x: Real, y: Real) -> None:
        nonlocal shown
        number = int(out.labels[place_at(x, y, out.labels.shape)])
        if number == shown:
            return
        if number not in seen:
            outline = encode(draw_outline(out.labels, number))
            seen[number] = encode(shade(times_even(out.proposals[number]))), outline, describe_segment(out, number)
        proposal.picture, proposal.overlay, text = seen[number]
        proposal.alt = f"The proposal of segment {number}: bright is where it is strong."
        panel.say(text)
        shown = number

    picture.on_hover(show)
    picture.on_click(lambda x, y, kind: show(x, y))
    show(*picture.cursor)
    return panel
