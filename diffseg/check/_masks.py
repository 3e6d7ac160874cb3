"""Checks of notebook 05: numbers without gaps, connected pieces, upsampling and argmax."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

from diffseg import masks

from ._exercise import Case, Check, Mistake, distributions

_GAPS = torch.tensor([[4, 4, 1], [4, 1, 1], [6, 6, 6]])

# ---- relabel --------------------------------------------------------------------------------------------------------


def _in_order(order: Callable[[Tensor], list[int]]) -> Callable:
    """A function that numbers the labels in the order that `order` lists them."""

    def numbered(labels: Int[Tensor, "h w"]) -> tuple[Int[Tensor, "h w"], Int[Tensor, " kept"]]:
        kept = torch.tensor(order(labels))
        return (labels[..., None] == kept).int().argmax(dim=-1), kept

    return numbered


def _by_area(labels: Int[Tensor, "h w"]) -> list[int]:
    ids, areas = labels.unique(return_counts=True)
    return ids[areas.argsort(descending=True, stable=True)].tolist()


def _by_appearance(labels: Int[Tensor, "h w"]) -> list[int]:
    return list(dict.fromkeys(labels.flatten().tolist()))


def _renamed_twice(labels: Int[Tensor, "h w"]) -> tuple[Int[Tensor, "h w"], Int[Tensor, " kept"]]:
    renamed = labels.clone()
    for new, old in enumerate(_by_area(labels)):
        renamed[renamed == old] = new
    return renamed, labels.unique()


def _present(labels: Int[Tensor, "h w"]) -> tuple[Int[Tensor, "h w"], Bool[Tensor, " ids"]]:
    return masks.relabel(labels)[0], torch.bincount(labels.flatten()) > 0


relabel = Check(
    "relabel",
    masks.relabel,
    cases=[
        Case("the labels 1, 4 and 6", (_GAPS,)),
        Case("two labels, of which the second is larger", (torch.tensor([[0, 1, 1]]),)),
        Case("labels without gaps", (torch.tensor([[2, 2], [1, 0]]),)),
        Case("one label, 7, everywhere", (torch.full((2, 3), 7),)),
    ],
    mistakes=[
        Mistake("The numbers still have gaps.", lambda labels: (labels, labels.unique())),
        Mistake("Keep the old order: this one goes by area.", _in_order(_by_area)),
        Mistake("Keep the old order: this one goes by who is met first in the picture.", _in_order(_by_appearance)),
        Mistake("A pixel that has its new number is renamed once more: compare with the old ids only.", _renamed_twice),
        Mistake("`kept` lists old ids, it is not a table of True and False.", _present),
        Mistake(
            "Return the pair: the new labels, and the old ids.",
            lambda labels: masks.relabel(labels)[0],
        ),
    ],
)

# ---- suppress -------------------------------------------------------------------------------------------------------


def _argmax_first(proposals: Float[Tensor, "proposals h w"], size: int) -> Int[Tensor, "{size} {size}"]:
    winners = proposals.argmax(dim=0)[None, None].float()
    return F.interpolate(winners, size=(size, size), mode="nearest")[0, 0].long()


def _corners_aligned(proposals: Float[Tensor, "proposals h w"], size: int) -> Int[Tensor, "{size} {size}"]:
    return F.interpolate(proposals[None], size=(size, size), mode="bilinear", align_corners=True)[0].argmax(dim=0)


def _largest_values(proposals: Float[Tensor, "proposals h w"], size: int) -> Float[Tensor, "{size} {size}"]:
    return F.interpolate(proposals[None], size=(size, size), mode="bilinear")[0].amax(dim=0)


def _last_of_equals(proposals: Float[Tensor, "proposals h w"], size: int) -> Int[Tensor, "{size} {size}"]:
    return len(proposals) - 1 - masks.suppress(proposals.flip(0), size)


def _proposals(count: int, side: int, seed: int = 0) -> Float[Tensor, "{count} {side} {side}"]:
    return distributions(count, side**2, seed=seed).reshape(count, side, side)


# A border that runs aslant, and is not halfway between the centres of positions.
_ASLANT = torch.tensor([[[0.5, 0.2], [0.2, 0.1]], [[0.1, 0.25], [0.3, 0.35]]])

suppress = Check(
    "suppress",
    masks.suppress,
    cases=[
        Case("two proposals of 2 x 2, enlarged to 8", (_ASLANT, 8)),
        Case("five proposals of 4 x 4, enlarged to 20", (_proposals(5, 4), 20)),
        Case("two equal proposals: the first one wins", (_proposals(3, 4, seed=1)[[2, 0, 0, 1]], 12)),
        Case("nothing to enlarge", (_proposals(4, 6), 6)),
        Case("one proposal", (_proposals(1, 3), 9)),
    ],
    mistakes=[
        Mistake("These borders are steps: enlarge bilinearly, and before the proposals compete.", _argmax_first),
        Mistake("Is align_corners=True? Then the two grids do not cover the same area.", _corners_aligned),
        Mistake("These are the largest values. Whose are they?", _largest_values),
        Mistake("On a tie the lower index wins: ask for > and not for >=.", _last_of_equals),
    ],
)

# ---- count_pieces ---------------------------------------------------------------------------------------------------

_CROSS, _SQUARE = ndimage.generate_binary_structure(2, 1), ndimage.generate_binary_structure(2, 2)


def _count_pieces(labels: Int[Tensor, "h w"], neighbours=_CROSS) -> list[int]:
    split = masks.binary_masks(labels).numpy()
    return [int(ndimage.label(mask, neighbours)[1]) for mask in split]


def _present_or_not(labels: Int[Tensor, "h w"]) -> list[int]:
    return masks.binary_masks(labels).any(dim=(1, 2)).int().tolist()


def _without_label_0(labels: Int[Tensor, "h w"]) -> list[int]:
    return [0, *_count_pieces(labels)[1:]]


def _pixels(labels: Int[Tensor, "h w"]) -> list[int]:
    return torch.bincount(labels.flatten()).tolist()


count_pieces = Check(
    "count_pieces",
    _count_pieces,
    cases=[
        Case("a ring around a speck", (torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 1]]),)),
        Case("label 1 in two pieces", (torch.tensor([[1, 0, 0, 1], [1, 0, 0, 1]]),)),
        Case("pixels that touch at a corner only", (torch.tensor([[1, 0, 0, 2], [0, 1, 0, 0], [2, 0, 1, 0]]),)),
        Case("a letter U: it looks like two pieces from above", (torch.tensor([[2, 0, 2], [2, 0, 2], [2, 2, 2]]),)),
        Case("labels with gaps: an id that no pixel has is in 0 pieces", (_GAPS,)),
    ],
    mistakes=[
        Mistake("That is 1 for each label that occurs. In how many pieces is it?", _present_or_not),
        Mistake("Label 0 is a segment like any other, not the background.", _without_label_0),
        Mistake("Pixels that share no more than a corner do not hang together.", lambda x: _count_pieces(x, _SQUARE)),
        Mistake("Those are pixels. Count the pieces.", _pixels),
        Mistake(
            "An id that no pixel has is missing. It is in 0 pieces, and the list has a number for each id.",
            lambda labels: [count for count in _count_pieces(labels) if count],
        ),
    ],
)
