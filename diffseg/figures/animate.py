"""Moving pictures: arrays in, an animated PNG out. Browsers play it; other programs show its last frame."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
from IPython.display import Image
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from diffseg.colours import BRIGHTEST
from diffseg.figures.layout import closed_figure
from diffseg.figures.plots import Picture, colours, show_image
from diffseg.wording import count

_UNMERGED = -1
_DPI = 70
_CLEAR = 255  # the colour of the palette that lets the picture before shine through
_PAUSE, _END = 700, 3000  # milliseconds for which a frame and the last one are shown


@dataclass(frozen=True)
class Step:
    """How far the merging has come.

    Attributes:
        title: the pass, and how many proposals are left.
        group: of each anchor, numbered in the order in which groups were formed; -1 before that.
        newest: the proposal formed last; before pass 2 the first one of all.
        members: how many proposals `newest` is the mean of.
    """

    title: str
    group: Int[np.ndarray, " anchors"]
    newest: Float[Tensor, "h w"]
    members: int


def merge_steps(passes: Sequence[Float[Tensor, "_ h w"]], groups: Sequence[Bool[Tensor, "_ _"]]) -> list[Step]:
    """The scans of Algorithm 1, one step for each group of two or more.

    Args:
        passes: the proposals after every pass, see `merge_passes`.
        groups: for pass 2 and later, groups[k][g, v] if proposal v was averaged into g, see `greedy_groups`.

    Raises:
        ValueError: if there are not groups for each pass after the first.
    """
    if len(groups) != len(passes) - 1:
        raise ValueError(
            f"groups has {len(groups)} entries for {len(passes)} passes; expected one for each pass after the first."
        )
    anchors = len(passes[0])
    group_of = np.full(anchors, _UNMERGED)
    held = np.eye(anchors, dtype=bool)  # [proposals, anchors]: the anchors behind each proposal
    steps = [Step(_title(1, anchors), group_of, passes[0][0], 1)]
    for number, (rows, proposals) in enumerate(zip(groups, passes[1:]), start=2):
        rows = rows.cpu().numpy()
        waiting = np.ones(len(held), dtype=bool)
        next_held = np.stack([held[row].any(axis=0) for row in rows])
        for formed, (row, mine) in enumerate(zip(rows, next_held), start=1):
            known = group_of[mine & (group_of != _UNMERGED)]
            # Groups that unite keep the number of the largest.
            number_of_group = np.bincount(known).argmax() if known.size else group_of.max() + 1
            group_of = np.where(mine, number_of_group, group_of)
            waiting &= ~row
            if row.sum() > 1:
                title = _title(number, formed + int(waiting.sum()))
                steps.append(Step(title, group_of, proposals[formed - 1], int(row.sum())))
        held = next_held
    return steps


def merging_film(
    image: Picture,
    anchors: Int[Tensor, "anchors 2"],
    passes: Sequence[Float[Tensor, "_ h w"]],
    groups: Sequence[Bool[Tensor, "_ _"]],
    frames: int = 24,
) -> Image:
    """Algorithm 1 as it runs: the anchors take the colour of their group when it is formed, beside its mean map.

    Args:
        image: the picture, square.
        anchors: row and column of each, see `anchor_grid`.
        passes, groups: see `merge_steps`.
        frames: at most about so many; if there are more steps, some are left out.

    Returns:
        What a notebook plays when it is the value of a cell's last line.
    """
    steps = merge_steps(passes, groups)
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(frames, len(steps))).round().astype(int))
    largest = np.max([np.bincount(step.group + 1, minlength=len(anchors) + 1)[1:] for step in steps], axis=0)
    palette = np.empty((len(anchors), 3))
    palette[np.argsort(-largest, kind="stable")] = colours(len(anchors))  # the largest groups are told apart best
    palette = np.vstack([palette, [0.8, 0.8, 0.8]])  # the last, number -1, is grey: not merged yet

    figure, [[left, right]] = closed_figure(1, 2, (6.4, 3.5), dpi=_DPI)
    show_image(image, "", left)
    left.images[0].set_alpha(0.5)
    rows, columns = ((anchors.cpu().numpy() + 0.5) * np.shape(image)[0] / passes[0].shape[1] - 0.5).T
    dots = left.scatter(columns, rows, s=34, edgecolors="black", linewidths=0.6)
    show_image(np.zeros(passes[0].shape[1:], np.uint8), "", right)
    drawn = right.images[0]

    def draw(step: Step) -> None:
        dots.set_facecolors(palette[step.group])
        values = step.newest.cpu().numpy()
        drawn.set_data(values)
        drawn.set_clim(0, np.quantile(values, BRIGHTEST))
        left.set_title(step.title, size=13)
        newest = "the first of them" if step.members == 1 else f"the mean of {step.members} proposals"
        right.set_title(newest, size=13)

    pictures = []
    for index in chosen:
        draw(steps[index])
        pictures.append(_rendered(figure))
    return Image(_animated_png(pictures), format="png")


def _title(number: int, left: int) -> str:
    return f"pass {number}: {count(left, 'proposal')}"


def _rendered(figure: Figure) -> PIL.Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return PIL.Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _animated_png(pictures: Sequence[PIL.Image.Image]) -> bytes:
    """One palette for all pictures, and nothing where a picture is as the one before: the file is far smaller."""
    strip = PIL.Image.fromarray(np.vstack([np.asarray(picture) for picture in pictures]))
    # The default method drops colours that are rare, and those of small groups are.
    palette = strip.quantize(_CLEAR, PIL.Image.Quantize.FASTOCTREE)
    frames = [np.asarray(picture.quantize(palette=palette, dither=PIL.Image.Dither.NONE)) for picture in pictures]
    changes = (np.where(now == before, np.uint8(_CLEAR), now) for before, now in pairwise(frames))
    still, *film = (_coloured(values, palette) for values in (frames[-1], frames[0], *changes))
    options = {
        "save_all": True,
        "default_image": True,  # the one that is saved is the still, those appended are the film
        "append_images": film,
        "duration": [_PAUSE] * (len(film) - 1) + [_END],
        "loop": 0,
        "blend": PIL.PngImagePlugin.Blend.OP_OVER,
        "transparency": _CLEAR,
    }
    with io.BytesIO() as file:
        still.save(file, "png", optimize=True, **options)
        return file.getvalue()


def _coloured(values: UInt8[np.ndarray, "h w"], palette: PIL.Image.Image) -> PIL.Image.Image:
    picture = PIL.Image.fromarray(values)
    picture.putpalette((palette.getpalette() + 768 * [0])[:768])  # all 256 colours: _CLEAR has to be one of them
    return picture
