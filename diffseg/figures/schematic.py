"""Drawings of a UNet: where its transformer blocks are (Fig. 10), and the attention map of one query in each of them;
and of a transformer.

Everything is read from the loaded model or from what was recorded, so that the drawings are right for Stable Diffusion
v1 and v2 and for the pocket model. Like those of `plots`, the Figures are returned closed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import nn

from diffseg.attention import RecordedLayer
from diffseg.colours import brightest
from diffseg.figures.layout import PAGE_WIDTH, closed_figure

STAGES = ("down", "mid", "up")

_CONVOLUTION, _TRANSFORMER, _FLOW = "0.82", "#2f6db3", "0.55"
_JOINT = "#7d4b95"  # picture and text in one softmax
_NARROW, _WIDE, _HIGH = 0.6, 0.98, 0.58  # of boxes without and with a number; their distance is 1


@dataclass(frozen=True)
class Unit:
    """One box of the drawing, the smallest part of a UNet that is distinguished here.

    Attributes:
        kind: "convolution" (a ResNet block, which mixes neighbours) or "transformer" (which mixes all positions).
        name: the path in the UNet; a transformer's self-attention is `name + ".attn1"`.
        stage: "down", "mid" or "up".
        side: of the square of positions it works on.
        heads: of its attention; 0 for a convolution.
    """

    kind: str
    name: str
    stage: str
    side: int
    heads: int = 0


def units(unet: nn.Module, side: int | None = None) -> list[Unit]:
    """The convolution and transformer blocks of a UNet, in the order of the computation.

    Args:
        unet: a UNet2DConditionModel.
        side: of the latent; None: the one that the model was made for. An image has 8 times as many pixels.

    Raises:
        ValueError: if the UNet cannot halve the side evenly.
    """
    side = unet.config.sample_size if side is None else side
    halvings = sum(block.downsamplers is not None for block in unet.down_blocks)
    if side < 2**halvings or side % 2**halvings:
        raise ValueError(f"side={side} must be a positive multiple of {2**halvings}: this UNet halves it that often.")
    found = []
    for index, block in enumerate(unet.down_blocks):
        found += _units_of(block, f"down_blocks.{index}", "down", side)
        side = side if block.downsamplers is None else side // 2
    if unet.mid_block is not None:
        found += _units_of(unet.mid_block, "mid_block", "mid", side)
    for index, block in enumerate(unet.up_blocks):
        found += _units_of(block, f"up_blocks.{index}", "up", side)
        side = side if block.upsamplers is None else side * 2
    return found


def show_unet(
    unet: nn.Module, side: int | None = None, values: Sequence[Real] | None = None, label: str = ""
) -> Figure:
    """The U: one box per block from left to right, one row per side; transformer blocks are coloured and numbered.

    Args:
        unet, side: as in `units`.
        values: one number per transformer block, in the order of the computation, to colour it by; each is written
            below its box.
        label: what the numbers are, for the colour bar.

    Raises:
        ValueError: for another number of values than of transformer blocks.
    """
    boxes = units(unet, side)
    transformers = [box for box in boxes if box.kind == "transformer"]
    if values is not None and len(values) != len(transformers):
        raise ValueError(f"values has {len(values)} entries for {len(transformers)} transformer blocks.")
    rows = {side: row for row, side in enumerate(sorted({box.side for box in boxes}, reverse=True))}
    centres = [(x, rows[box.side]) for x, box in enumerate(boxes)]

    figure, [[ax]] = closed_figure(1, 1, (PAGE_WIDTH, 1.5 + 0.62 * len(rows)))
    ax.plot(*zip(*centres), color=_FLOW, lw=1.5, zorder=1)  # the order of the computation
    _draw_skips(ax, boxes, centres)
    scale = ScalarMappable(Normalize(min(values), max(values)), "viridis") if values is not None else None
    number = 0
    for box, centre in zip(boxes, centres):
        if box.kind == "convolution":
            _draw_box(ax, centre, _CONVOLUTION)
        else:
            colour = _TRANSFORMER if scale is None else to_hex(scale.to_rgba(float(values[number])))
            _draw_box(ax, centre, colour, str(number))
            if values is not None:
                _write_below(ax, centre, f"{values[number]:.1f}")
            number += 1
    _draw_ends(ax, centres)
    _draw_brackets(ax, boxes, len(rows))
    ax.set_yticks(list(rows.values()), [_describe(boxes, side) for side in rows])
    ax.set(xticks=[], xlim=(-1, len(boxes)), ylim=(len(rows) + 0.25, -1.3))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    handles = [Patch(facecolor=_CONVOLUTION, label="convolutions: mix neighbours")]
    if scale is None:
        handles.insert(0, Patch(facecolor=_TRANSFORMER, label="transformer block: mixes all positions"))
    else:
        figure.colorbar(scale, ax=ax, label=label, shrink=0.8, pad=0.01, aspect=20)
    skip = plt.Line2D([], [], color=_FLOW, ls=":", label="copied across")
    figure.legend(handles=[*handles, skip], loc="outside lower center", ncols=3, frameon=False)
    return figure


def show_stack(layers: Sequence[RecordedLayer], title: str = "") -> Figure:
    """The attention layers of a transformer, as Fig. 10 draws those of a UNet: from left to right, all on one row.

    Purple layers put picture and text into one softmax; the number below is the share of attention that went to the
    text. Brackets name the lists of blocks.

    Raises:
        ValueError: for no layers, or layers on several grids, which a UNet has.
    """
    grids = {layer.grid for layer in layers}
    if len(grids) != 1:
        raise ValueError(f"layers are on {len(grids)} grids; expected one, as in a transformer. For a UNet: show_unet.")
    (rows, columns) = grids.pop()
    figure, [[ax]] = closed_figure(1, 1, (PAGE_WIDTH, 1.9))
    ax.plot([-0.9, len(layers) - 0.1], [0, 0], color=_FLOW, lw=1.5, zorder=1)
    for number, layer in enumerate(layers):
        colour = _TRANSFORMER if layer.text_share is None else _JOINT
        _draw_box(ax, (number, 0), colour, str(number))
        if layer.text_share is not None:
            ax.text(number, 0.36, f"{layer.text_share.mean():.0%}", ha="center", va="top", fontsize=8)
    for stage in dict.fromkeys(layer.stage for layer in layers):
        inside = [number for number, layer in enumerate(layers) if layer.stage == stage]
        ax.plot([inside[0] - 0.4, inside[-1] + 0.4], [0.75] * 2, color="0.3", lw=1.2)
        ax.text((inside[0] + inside[-1]) / 2, 0.82, stage, ha="center", va="top")
    ax.set_yticks([0], [f"{rows} × {columns}" + _describe_heads({layer.heads for layer in layers})])
    ax.set(xticks=[], xlim=(-1, max(len(layers), 8)), ylim=(1.25, -0.6), title=title)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    kinds = {_JOINT: "picture and text in one softmax", _TRANSFORMER: "the picture alone"}
    shown = {_TRANSFORMER if layer.text_share is None else _JOINT for layer in layers}
    handles = [Patch(facecolor=colour, label=label) for colour, label in kinds.items() if colour in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def show_layers(layers: Sequence[RecordedLayer], image: Image.Image, point: tuple[int, int]) -> Figure:
    """The attention map of one query in every layer, laid out like the U, each map on a scale of its own.

    A row holds one side, the columns the layers of the stages down, mid and up. A title gives the layer's number in the
    order of the computation, and the largest attention in multiples of even attention.

    Args:
        layers: self-attention, in the order of the computation; of several heads the mean is drawn.
        image: the square picture that was recorded.
        point: row and column of the query in the picture.

    Raises:
        ValueError: for no layers, a layer that is not self-attention, or a pixel outside of the picture.
    """
    if not layers or any(layer.kind != "self" for layer in layers):
        raise ValueError("layers must hold one or more layers of self-attention; record with kinds='self'.")
    if not (0 <= point[0] < image.height and 0 <= point[1] < image.width):
        raise ValueError(f"point={point} is not a row and column of the {image.height}x{image.width} picture.")
    sides = sorted({layer.grid for layer in layers}, reverse=True)
    cells = {(side, stage): [] for side in sides for stage in STAGES}
    for number, layer in enumerate(layers):
        cells[layer.grid, layer.stage].append((number, layer))
    down, _, up = (max(len(cells[side, stage]) for side in sides) for stage in STAGES)
    middle = max(1, *(len(cells[side, "mid"]) for side in sides))  # at least one column: the picture is there
    first = {"down": 0, "mid": down, "up": down + middle}

    panel = min(PAGE_WIDTH / (down + middle + up), 2.0)
    size = ((down + middle + up) * panel, len(sides) * (panel + 0.22))
    figure, axes = closed_figure(len(sides), down + middle + up, size)
    for ax in axes.flat:
        ax.set_axis_off()
    for row, side in enumerate(sides):
        for stage in STAGES:
            for column, (number, layer) in enumerate(cells[side, stage], start=first[stage]):
                _draw_map(axes[row, column], number, layer, image, point)
    if not cells[sides[0], "mid"]:
        _draw_picture(axes[0, down], image, point)
    return figure


# ---- helpers --------------------------------------------------------------------------------------------------------


def _units_of(block: nn.Module, name: str, stage: str, side: int) -> list[Unit]:
    """A convolution, then the transformer behind it, and so on; in the middle a convolution comes last."""
    attentions = getattr(block, "attentions", None) or []
    found = []
    for index in range(len(block.resnets)):
        found.append(Unit("convolution", f"{name}.resnets.{index}", stage, side))
        if index < len(attentions):
            inner = getattr(attentions[index], "transformer_blocks", [])
            path = f"{name}.attentions.{index}.transformer_blocks"
            found += [
                Unit("transformer", f"{path}.{number}", stage, side, transformer.attn1.heads)
                for number, transformer in enumerate(inner)
            ]
    return found


def _describe(boxes: Sequence[Unit], side: int) -> str:
    """The label of a row: its side and how many heads attend there."""
    return f"{side} × {side}" + _describe_heads({box.heads for box in boxes if box.side == side} - {0})


def _describe_heads(numbers: Iterable[int]) -> str:
    """A line that says how many heads there are; nothing for none."""
    heads = sorted(numbers)
    return f"\n{' or '.join(map(str, heads))} head{'s' * (heads != [1])}" if heads else ""


def _draw_box(ax: Axes, centre: tuple[int, int], colour: str, text: str = "") -> None:
    x, y = centre
    width = _WIDE if text else _NARROW
    corner, shape = (x - width / 2, y - _HIGH / 2), "round,pad=0,rounding_size=0.12"
    ax.add_patch(FancyBboxPatch(corner, width, _HIGH, shape, facecolor=colour, edgecolor="white", zorder=3))
    outline = [withStroke(linewidth=1.5, foreground="0.25")]
    style = {"color": "white", "fontsize": 8, "weight": "bold", "path_effects": outline}
    ax.text(x, y, text, ha="center", va="center", zorder=4, **style)


def _write_below(ax: Axes, centre: tuple[int, int], text: str) -> None:
    """A small text under a box."""
    x, y = centre
    outline = [withStroke(linewidth=2, foreground="white")]
    ax.text(x, y + _HIGH / 2 + 0.03, text, ha="center", va="top", fontsize=8, zorder=5, path_effects=outline)


def _draw_skips(ax: Axes, boxes: Sequence[Unit], centres: Sequence[tuple[int, int]]) -> None:
    """Arrows from the stage down to the stage up, on every row; around the stage mid on the lowest."""
    for row in sorted({y for _, y in centres}):
        on_row = {
            stage: [(x, y) for box, (x, y) in zip(boxes, centres) if y == row and box.stage == stage]
            for stage in STAGES
        }
        if on_row["down"] and on_row["up"]:
            bend = "arc3,rad=-0.45" if on_row["mid"] else "arc3"
            line = {"arrowstyle": "->", "linestyle": ":", "color": _FLOW, "connectionstyle": bend, "lw": 1.2}
            rise = 0.3 if on_row["mid"] else 0
            start, end = on_row["down"][-1], on_row["up"][0]
            start, end = (start[0] + 0.45 * (not rise), row - rise), (end[0] - 0.45 * (not rise), row - rise)
            ax.annotate("", xy=end, xytext=start, arrowprops=line | {"shrinkA": 0, "shrinkB": 0}, zorder=2)


def _draw_ends(ax: Axes, centres: Sequence[tuple[int, int]]) -> None:
    arrow = {"arrowstyle": "->", "color": _FLOW, "lw": 1.5, "shrinkA": 1, "shrinkB": 0}
    (x, y), (last_x, last_y) = centres[0], centres[-1]
    ax.annotate("", xy=(x, y - 0.32), xytext=(x, y - 0.85), arrowprops=arrow)
    ax.text(x - 0.4, y - 0.9, "noisy latent", ha="left", va="bottom")
    ax.annotate("", xy=(last_x, last_y - 0.85), xytext=(last_x, last_y - 0.32), arrowprops=arrow)
    ax.text(last_x + 0.4, last_y - 0.9, "its noise", ha="right", va="bottom")


def _draw_brackets(ax: Axes, boxes: Sequence[Unit], row: int) -> None:
    """Below the drawing: which columns belong to which stage."""
    for stage in STAGES:
        columns = [x for x, box in enumerate(boxes) if box.stage == stage]
        if columns:
            ax.plot([columns[0] - 0.4, columns[-1] + 0.4], [row - 0.3] * 2, color="0.3", lw=1.2)
            ax.text((columns[0] + columns[-1]) / 2, row - 0.2, stage, ha="center", va="top")


def _draw_map(ax: Axes, number: int, layer: RecordedLayer, image: Image.Image, point: tuple[int, int]) -> None:
    rows, columns = layer.grid
    row, column = point[0] * rows // image.height, point[1] * columns // image.width
    probs = layer.probs if layer.probs.ndim == 2 else layer.probs.mean(dim=0)
    values = probs[row * columns + column].reshape(rows, columns).float().cpu().numpy() * rows * columns
    top = brightest(values)
    ax.imshow(values, cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
    ax.set_title(
        f"{number}: {layer.stage} {min(layer.grid)}, ×{values.max():.{int(values.max() < 10)}f}", fontsize=8, pad=2
    )
    _draw_ring(ax, row, column)


def _draw_picture(ax: Axes, image: Image.Image, point: tuple[int, int]) -> None:
    picture: UInt8[np.ndarray, "h w 3"] = np.asarray(image.convert("RGB"))
    ax.imshow(picture)
    ax.set_title("the pixel that looks", fontsize=8, pad=2)
    _draw_ring(ax, *point)


def _draw_ring(ax: Axes, row: int, column: int) -> None:
    outline = [withStroke(linewidth=3, foreground="black")]
    ax.plot(column, row, "o", mfc="none", mec="white", ms=8, mew=1.3, path_effects=outline)
