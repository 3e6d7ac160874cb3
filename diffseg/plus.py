"""DiffSeg with what helped of the ideas in `beyond`, as `pipe(image, method="plus")` (notebook 12).

A `Method` says what differs from the paper, in the order of the computation:

    attention of several draws -> mean -> walk -> merging -> sizes -> upsampling -> edges of the picture -> argmax

Each number has a value that leaves the paper's step as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from numbers import Real

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from diffseg import SEED
from diffseg.arguments import check_whole
from diffseg.beyond import refine, walk, weigh_sizes
from diffseg.diffuse import to_tensor
from diffseg.masks import relabel, suppress
from diffseg.merging import run_passes


@dataclass(frozen=True)
class Method:
    """A variant of DiffSeg.

    Attributes:
        draws: so many draws of noise, one after the other from one generator, are averaged; each takes a pass.
        steps: so many steps a walker makes that follows attention, see `beyond.walk`.
        exponent: of a proposal's size, see `beyond.weigh_sizes`.
        rounds: of the refinement by the picture's edges, see `beyond.refine`.
        factor: on the merging threshold, if that is the model's own: averaged maps are closer to each other.

    Raises:
        TypeError, ValueError: for numbers that make no sense.
    """

    draws: int = 1
    steps: int = 1
    exponent: Real = 0.0
    rounds: int = 0
    factor: Real = 1.0

    def __post_init__(self) -> None:
        for name, least in (("draws", 1), ("steps", 1), ("rounds", 0)):
            value = getattr(self, name)
            check_whole(name, value, f"{least} leaves the paper's step as it is.")
            if value < least:
                raise ValueError(f"{name}={value} must be at least {least}, which leaves the paper's step as it is.")
        if self.exponent < 0 or self.factor <= 0:
            raise ValueError(
                f"exponent={self.exponent}, factor={self.factor}: not below 0, and above 0; the paper has 0 and 1."
            )

    def changes(self) -> dict[str, Real]:
        """What differs from the paper, by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}


#: The paper's own, and the combination that tuning scenes choose (table "beyond-tuning" of `diffseg.results`).
PAPER, PLUS = Method(), Method(exponent=1.0, rounds=20)

METHODS = {"paper": PAPER, "plus": PLUS}

#: The picture's edges are looked for in a picture this many times smaller than the labels: a quarter of the work, and
#: pixels are still finer than positions.
COARSER = 2


def find_method(method: str | Method) -> Method:
    """A method by its name, or as it is.

    Raises:
        ValueError: for an unknown name.
    """
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise ValueError(f"method={method!r} must be one of {', '.join(METHODS)}, or a `diffseg.plus.Method`.")
    return METHODS[method]


def draw_by_draw(
    attend: Callable[..., Float[Tensor, "h w h w"]], seed: int = SEED
) -> Callable[[int], Float[Tensor, "h w h w"]]:
    """The mean attention of the first 1, 2, ... draws of noise; each draw takes one pass, once.

    mean_of = draw_by_draw(partial(pipe.attend, image))
    mean_of(2)    # what `Method(draws=2)` averages
    """
    generator, drawn = torch.Generator().manual_seed(seed), []

    def mean_of(draws: int) -> Tensor:
        drawn.extend(attend(seed=generator) for _ in range(draws - len(drawn)))
        return torch.stack(drawn[:draws]).mean(dim=0)

    return mean_of


def segment_attention(
    attention: Float[Tensor, "h w h w"],
    size: int | tuple[int, int],
    points: int,
    thresholds: Sequence[float],
    remove_merged: bool = True,
    distances: Float[Tensor, "anchors positions"] | None = None,
    method: Method = PAPER,
    image: Image.Image | None = None,
) -> tuple[Int[Tensor, "height width"], Float[Tensor, "proposals h w"]]:
    """Attention to labels without gaps, and the proposal behind each, where the attention is.

    The settings must have been checked, see `check_settings`; for the rest see `merge` and `suppress`.

    Args:
        attention: the mean of all draws.
        distances: of the attention after the walk.
        method: its `draws` and `factor` belong to what is given.
        image: what the attention came from, for a method that follows its edges.
    """
    walked = walk(attention, method.steps) if method.steps > 1 else attention
    *_, proposals = run_passes(walked, points, thresholds, remove_merged, distances)
    labels, kept = relabel(compete(method, proposals, size, image))
    return labels, proposals[kept]


def compete(
    method: Method,
    proposals: Float[Tensor, "proposals h w"],
    size: int | tuple[int, int],
    image: Image.Image | None = None,
) -> Int[Tensor, "height width"]:
    """`suppress`, after what a method does to proposals; see `segment_attention`."""
    weighed = weigh_sizes(proposals, method.exponent) if method.exponent else proposals
    if method.rounds and image is not None:
        weighed = follow_edges(weighed, to_tensor(image)[0], size, method.rounds)
    return suppress(weighed, size)


def follow_edges(
    maps: Float[Tensor, "maps h w"],
    picture: Float[Tensor, "channels height width"],
    size: int | tuple[int, int],
    rounds: int,
) -> Float[Tensor, "maps coarse_h coarse_w"]:
    """Maps enlarged to 1 / `COARSER` of a size, and refined by a picture's edges, see `beyond.refine`."""
    height, width = (size, size) if isinstance(size, int) else size
    coarse = max(height // COARSER, maps.shape[1]), max(width // COARSER, maps.shape[2])
    enlarged = F.interpolate(maps[None].float(), size=coarse, mode="bilinear", align_corners=False)[0]
    smaller = F.interpolate(picture[None].to(enlarged), size=coarse, mode="bilinear", antialias=True)[0]
    return refine(enlarged, smaller, rounds)
