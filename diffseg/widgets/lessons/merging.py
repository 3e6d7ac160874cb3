"""Notebook 04: the passes of merging, one after the other, at any threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets
import numpy as np
from einops import rearrange
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from diffseg import ITERATIONS, POINTS
from diffseg.colours import Palette, colours
from diffseg.masks import suppress
from diffseg.merging import anchor_distances, anchor_grid, average, check_attention, greedy_groups, symmetric_kl
from diffseg.widgets.lessons.shared import Panel, areas_of, photograph, row, threshold_slider
from diffseg.widgets.paint import encode, tint
from diffseg.wording import count

_PIXELS = 4  # of the drawn masks, for each position along one side: smooth enough, and quick


@dataclass(frozen=True)
class Stage:
    """The proposals after one pass.

    Attributes:
        maps: float32 [proposals, h, w].
        family: family[n] is the proposal after the last pass that n has become a part of.
    """

    maps: Float[Tensor, "proposals h w"]
    family: Int[Tensor, " proposals"]


def stages_of(
    attention: Float[Tensor, "h w h w"],
    distances: Float[Tensor, "anchors positions"],
    points: int,
    iterations: int,
    threshold: float,
) -> list[Stage]:
    """The anchors' own maps, then the proposals after each pass of Algorithm 1, and what becomes of them."""
    rows, columns = attention.shape[:2]
    maps = rearrange(attention, "i j k l -> (i j) (k l)").float()
    anchors = anchor_grid((rows, columns), points).to(maps.device)
    flat = [maps[anchors[:, 0] * columns + anchors[:, 1]], average(distances < threshold, maps)]
    joins = []  # of each later pass: the group that each proposal joins
    for _ in range(iterations - 1):
        groups = greedy_groups(symmetric_kl(flat[-1], flat[-1]) < threshold)
        joins.append(groups.int().argmax(dim=0))
        flat.append(average(groups, flat[-1]))
    families = [anchors.new_tensor(range(len(flat[-1])))]
    for join in reversed(joins):
        families.append(families[-1][join])
    families.append(families[-1])  # an anchor and its mean of pass 1 are one
    return [
        Stage(rearrange(proposals, "p (h w) -> p h w", h=rows), family)
        for proposals, family in zip(flat, reversed(families), strict=True)
    ]


def family_colours(labels: Int[np.ndarray, "height width"], proposals: int) -> Palette:
    """A colour for each final proposal, by the area that it wins."""
    areas = areas_of(labels, proposals)
    palette = np.empty((proposals, 3))
    palette[np.argsort(-areas, kind="stable")] = colours(proposals)
    return palette


def describe_stage(number: int, stages: Sequence[Stage], labels: Int[np.ndarray, "h w"], threshold: float) -> str:
    """One pass in words."""
    left, winning = len(stages[number].maps), len(np.unique(labels))
    when = "Before the first pass" if number == 0 else f"After pass {number} of {len(stages) - 1}"
    return (
        f"{when}, threshold {threshold:.2g}: {count(left, 'map')} left, of which {winning} "
        f"{'wins' if winning == 1 else 'win'} a pixel somewhere. White lines part the maps; a colour stands for what "
        f"they become in the end, {count(len(stages[-1].maps), 'proposal')}."
    )


def merging_steps(
    attention: Float[Tensor, "h w h w"],
    image: Image.Image,
    threshold: float,
    distances: Float[Tensor, "anchors positions"] | None = None,
    points: int = POINTS,
    iterations: int = ITERATIONS,
) -> Panel:
    """Drag the threshold and step through the passes, or play them: maps of one colour are about to become one.

    Args:
        attention: of the picture, as `pipe.attend` returns it.
        image: the picture.
        threshold: the model's own, nats; the slider goes from an eighth to eight times of it.
        distances: those of `anchor_distances(attention, points)`, if they are at hand.
        points, iterations: as in `merge`.

    Raises:
        ValueError: naming the argument that makes no sense.
    """
    size = tuple(_PIXELS * side for side in check_attention(attention))
    distances = anchor_distances(attention, points) if distances is None else distances
    picture = photograph(image, 440)
    tau = threshold_slider(threshold)
    step = ipywidgets.IntSlider(value=0, min=0, max=iterations, description="pass")
    play = ipywidgets.Play(min=0, max=iterations, interval=1000, description="play the passes")
    ipywidgets.jslink((play, "value"), (step, "value"))
    panel = Panel(picture, [row(tau, step, play), picture], picture=picture, tau=tau, step=step, play=play)

    @lru_cache(maxsize=len(tau.options))
    def stages_at(value: float) -> list[Stage]:
        return stages_of(attention, distances, points, iterations, value)

    @lru_cache(maxsize=len(tau.options) * iterations)
    def labels_of(value: float | None, number: int) -> np.ndarray:
        return suppress(stages_at(tau.value if value is None else value)[number].maps, size).cpu().numpy()

    def draw() -> None:
        number, stages = step.value, stages_at(tau.value)
        labels = labels_of(tau.value if number else None, number)  # the anchors' own maps know of no threshold
        palette = family_colours(labels_of(tau.value, iterations), len(stages[-1].maps))
        picture.overlay = encode(tint(labels, palette[stages[number].family.cpu().numpy()], opacity=0.55))
        panel.say(describe_stage(number, stages, labels, tau.value))

    panel.when(tau, step, do=draw)
    draw()
    return panel
