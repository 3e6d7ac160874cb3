"""What the explorer shows for a state: pictures to lay over the picture, names, and a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

from diffseg.colours import Palette, brightest, css_colour
from diffseg.export import palette_of
from diffseg.output import DiffSegOutput
from diffseg.widgets.engine import Picture, differing
from diffseg.widgets.paint import borders, heat, tint
from diffseg.widgets.selecting import position
from diffseg.widgets.state import State
from diffseg.wording import count

_OBJECT = np.array([[0.0, 0.45, 0.7]])
_DIFFERS = np.array([230, 0, 126, 255], np.uint8)
_LEGEND = 12  # segments that the legend names at most


@dataclass(frozen=True)
class Layer:
    """What one canvas shows.

    Attributes:
        overlay: RGBA; None: the bare picture.
        labels: segments that light up under the pointer.
        names: of the segments.
        marks: points.
    """

    overlay: UInt8[np.ndarray, "h w 4"] | None = None
    labels: Integer[np.ndarray, "h w"] | None = None
    names: tuple[str, ...] = ()
    marks: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Frame:
    """What the explorer shows.

    Attributes:
        main: the large canvas.
        other: the settings A beside it, while two are compared.
        small: (title, map in colours) for each side of the attention.
        said: what is seen, in a sentence, plain text.
        legend: (name, colour as "#rrggbb") of the segments.
    """

    main: Layer
    said: str
    other: Layer | None = None
    small: tuple[tuple[str, UInt8[np.ndarray, "h w 4"]], ...] = ()
    legend: tuple[tuple[str, str], ...] = ()


def make_frame(picture: Picture, state: State) -> Frame:
    """The frame for a state, by its tool."""
    return {"segments": segments, "attention": attention, "object": selection, "compare": comparison}[state.tool](
        picture, state
    )


def segments(picture: Picture, state: State) -> Frame:
    """All segments in their colours."""
    out = picture.segment(state.settings)
    palette = palette_of(out)
    names = name_segments(out)
    found = len(out.proposals)
    said = f"{count(found, 'segment')} at a threshold of {state.settings.threshold:.3g} nats."
    if out.caption is not None and state.settings.words == "caption":
        said += f" Caption: {out.caption}."
    if out.words == ():
        said += " No noun to name them with."
    order = np.argsort(-np.bincount(out.labels.numpy().ravel(), minlength=found), kind="stable")[:_LEGEND]
    legend = tuple((names[index], css_colour(palette[index])) for index in order)
    return Frame(_labelled(out, palette, names), said, legend=legend)


def attention(picture: Picture, state: State) -> Frame:
    """What one place attends to: over all, and at each resolution."""
    if state.query is None:
        return Frame(Layer(), "Click on the picture: what does this place attend to?")
    x, y = state.query
    found = picture.look(state.settings, state.query).numpy()
    small = tuple(
        (f"{side} × {side}", heat(each.numpy(), top=brightest(each.numpy())))
        for side, each in picture.look_by_side(state.query).items()
    )
    own = picture.segment(state.settings)
    label = own.labels[position(state.query, own.labels.shape)]
    share = _share(found, own.labels == label)
    said = (
        f"The place at {x:.0%} from the left and {y:.0%} from the top gives {share:.0%} of its attention to its own "
        "segment. Bright is much attention."
    )
    layer = Layer(heat(found, top=brightest(found), opacity=0.75), marks=({"x": x, "y": y, "kind": "query"},))
    return Frame(layer, said, small=small)


def selection(picture: Picture, state: State) -> Frame:
    """The object that was clicked."""
    marks = tuple({"x": mark.x, "y": mark.y, "kind": mark.kind} for mark in state.marks)
    if not state.places("positive"):
        hint = "Click on an object; a click with shift, or of the right button, takes away."
        return Frame(Layer(marks=marks), hint)
    mask = picture.select(state).numpy()
    overlay = tint(np.where(mask, 0, -1), _OBJECT, opacity=0.55)
    on, beside = len(state.places("positive")), len(state.places("negative"))
    said = (
        f"The object covers {mask.mean():.0%} of the picture: {count(on, 'click')} on it, {beside} beside it, "
        f"maps within {state.reach:.3g} nats."
    )
    return Frame(Layer(overlay, marks=marks), said)


def comparison(picture: Picture, state: State) -> Frame:
    """Two settings beside one another; the pixels on which they differ are striped."""
    if state.kept is None:
        return Frame(segments(picture, state).main, "Press Keep as A, then change the settings: B is compared with A.")
    before, after = picture.segment(state.kept), picture.segment(state.settings)
    pixels, matched = differing(before.labels, after.labels)
    palette = palette_of(before)
    left_over = np.linspace(0.65, 0.4, int((matched < 0).sum()))[:, None]
    recoloured = palette[matched]
    recoloured[matched < 0] = left_over
    main = _labelled(after, recoloured, name_segments(after), pixels)
    other = _labelled(before, palette, name_segments(before), pixels)
    said = (
        f"A, left, has {len(before.proposals)} segments, B {len(after.proposals)}; they differ on "
        f"{pixels.mean():.1%} of the pixels, which are striped."
    )
    return Frame(main, said, other)


def name_segments(out: DiffSegOutput) -> tuple[str, ...]:
    """Word, or number, and share of the picture of each segment."""
    shares = np.bincount(out.labels.numpy().ravel(), minlength=len(out.proposals)) / out.labels.numel()
    words = out.words or [f"segment {index}" for index in range(len(out.proposals))]
    return tuple(f"{word} · {share:.0%}" for word, share in zip(words, shares, strict=True))


def legend_html(legend: Sequence[tuple[str, str]]) -> str:
    """The legend as HTML."""
    chips = (
        f'<span class="diffseg-chip"><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in legend
    )
    return f'<div class="diffseg-legend">{"".join(chips)}</div>' if legend else ""


def _labelled(out: DiffSegOutput, palette: Palette, names: tuple[str, ...], pixels: np.ndarray | None = None) -> Layer:
    labels = out.labels.numpy()
    overlay = tint(labels, palette)
    if pixels is not None:
        row, column = np.indices(labels.shape, sparse=True)
        striped = pixels & (((row + column) // 4) % 3 == 0)
        overlay[striped | (borders(pixels.astype(int)) & pixels)] = _DIFFERS
    return Layer(overlay, labels, names)


def _share(values: Float[np.ndarray, "h w"], mask: Tensor) -> float:
    """How much of a map lies within a mask of a multiple of its size."""
    rows, columns = values.shape
    height, width = mask.shape
    inside = mask.numpy().reshape(rows, height // rows, columns, width // columns).mean(axis=(1, 3))
    return float((values * inside).sum())
