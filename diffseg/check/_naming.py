"""Checks of notebook 06: maps of a noun, names for masks by vote, and the tokens of a word."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from diffseg.attention import RecordedLayer
from diffseg.semantics import label_scores, noun_maps

from ._exercise import Case, Check, Mistake

# ---- tokens_of ------------------------------------------------------------------------------------------------------

Offsets = list[tuple[int, int]]

_RED_CAR = [(0, 0), (0, 1), (2, 5), (6, 9), (0, 0)]  # a red car
_PENGUINS = [(0, 0), (0, 3), (4, 7), (7, 9), (9, 12), (0, 0)]  # two pen·gu·ins
_WALL = [(0, 0), (0, 3), (3, 4), (5, 10), (11, 13), (13, 15), (0, 0)]  # car, brick wa·ll
_SKY = [(0, 0), (0, 3), (4, 7), (7, 12), (0, 0)]  # red, sky, and ", sea" as one token


def _tokens_of(offsets: Offsets, start: int, end: int) -> list[int]:
    return [index for index, (first, last) in enumerate(offsets) if first < end and start < last]


def _within(offsets: Offsets, start: int, end: int) -> list[int]:
    return [index for index, (first, last) in enumerate(offsets) if start <= first < last <= end]


def _touching(offsets: Offsets, start: int, end: int) -> list[int]:
    return [index for index, (first, last) in enumerate(offsets) if first <= end and start <= last]


tokens_of = Check(
    "tokens_of",
    _tokens_of,
    cases=[
        Case('"car" in "a red car"', (_RED_CAR, 6, 9)),
        Case('"penguins" in "two penguins", where it is three tokens', (_PENGUINS, 4, 12)),
        Case('"two" in "two penguins", the first word', (_PENGUINS, 0, 3)),
        Case('"car" in "car, brick wall", with a comma behind it', (_WALL, 0, 3)),
        Case('"brick wall" in "car, brick wall", two words and three tokens', (_WALL, 5, 15)),
        Case('"sea" in "red sky, sea", where the last token is ", sea"', (_SKY, 9, 12)),
    ],
    mistakes=[
        Mistake("The start marker is token 0, so the first word is not.", lambda o, a, b: _tokens_of(o[1:], a, b)),
        Mistake("A word may be several tokens; this is the first one only.", lambda o, a, b: _tokens_of(o, a, b)[:1]),
        Mistake("Those are characters. Which tokens cover them?", lambda o, a, b: list(range(a, b))),
        Mistake("A token may cover more than the word; it counts if it shares one character with it.", _within),
        Mistake(
            "Something that only touches the word is counted, such as a marker or a comma: ask for < and not for <=.",
            _touching,
        ),
    ],
)

# ---- sum_and_normalise ----------------------------------------------------------------------------------------------


def _sum_and_normalise(maps: Sequence[Float[Tensor, "_ _"]], size: int) -> Float[Tensor, "{size} {size}"]:
    layers = [RecordedLayer("", "cross", "up", 1, len(one), one.reshape(-1, 1)) for one in maps]
    return noun_maps(layers, [[0]], size)[0]


def _sum(maps: Sequence[Tensor], size: int, **options) -> Tensor:
    options = {"mode": "bilinear"} | options
    return sum(F.interpolate(one[None, None], size=(size, size), **options)[0, 0] for one in maps)


def _normalised(total: Tensor) -> Tensor:
    return total / total.sum()


def _map(side: int, mass: float, seed: int) -> Float[Tensor, "{side} {side}"]:
    values = torch.rand(side, side, generator=torch.Generator().manual_seed(seed))
    return mass * values / values.sum()


def _with_three_mistakes(maps: Sequence[Tensor], size: int) -> Tensor:
    total = _sum([_normalised(one) for one in maps], size, mode="nearest")
    return total / total.norm()


sum_and_normalise = Check(
    "sum_and_normalise",
    _sum_and_normalise,
    cases=[
        Case("a map of 2 x 2 and one of 4 x 4", ([_map(2, 1.0, 0), _map(4, 3.0, 1)], 8)),
        Case("four maps", ([_map(side, side / 4, side) for side in (8, 4, 2, 1)], 16)),
        Case("one map, and nothing to enlarge", ([_map(4, 0.1, 2)], 4)),
    ],
    mistakes=[
        Mistake("This is the code of the task, as it stands.", _with_three_mistakes),
        Mistake(
            "Divide by the sum, not by the root of the sum of squares (which the released code takes).",
            lambda maps, size: _sum(maps, size) / _sum(maps, size).norm(),
        ),
        Mistake("Did you forget to normalise? The result sums to 1.", _sum),
        Mistake(
            "Divide by the sum, not by the largest value.",
            lambda maps, size: _sum(maps, size) / _sum(maps, size).max(),
        ),
        Mistake(
            "Sum first and normalise once: a layer with little attention to the noun shall count little.",
            lambda maps, size: _normalised(_sum([_normalised(one) for one in maps], size)),
        ),
        Mistake(
            "Normalise after enlarging, not before.",
            lambda maps, size: _sum(maps, size) / sum(one.sum() for one in maps),
        ),
        Mistake("Enlarge bilinearly.", lambda maps, size: _normalised(_sum(maps, size, mode="nearest"))),
        Mistake(
            "Each map is still divided before the sum, and none is enlarged bilinearly.",
            lambda maps, size: _normalised(_sum([_normalised(one) for one in maps], size, mode="nearest")),
        ),
        Mistake(
            "Is align_corners=True? Then the grids of different sides do not cover the same area.",
            lambda maps, size: _normalised(_sum(maps, size, align_corners=True)),
        ),
    ],
)

# ---- most_voted -----------------------------------------------------------------------------------------------------


def _name_masks(labels: Int[Tensor, "h w"], maps: Float[Tensor, "nouns h w"]) -> Int[Tensor, " masks"]:
    return label_scores(labels, maps).argmax(dim=1)


def _votes(labels: Int[Tensor, "h w"], maps: Float[Tensor, "nouns h w"]) -> Int[Tensor, "masks nouns"]:
    pairs = labels * len(maps) + maps.argmax(dim=0)
    return torch.bincount(pairs.flatten(), minlength=(int(labels.max()) + 1) * len(maps)).view(-1, len(maps))


def _most_voted(labels: Int[Tensor, "h w"], maps: Float[Tensor, "nouns h w"]) -> Int[Tensor, " masks"]:
    return _votes(labels, maps).argmax(dim=1)


def _in_each_mask(choose: Callable[[Float[Tensor, "nouns pixels"]], Tensor | int]) -> Callable:
    """A function that chooses a noun for each mask from the maps' values in it."""

    def one_each(labels: Int[Tensor, "h w"], maps: Float[Tensor, "nouns h w"]) -> Int[Tensor, " masks"]:
        return torch.tensor([int(choose(maps[:, labels == mask])) for mask in range(int(labels.max()) + 1)])

    return one_each


def _from_everywhere(choose: Callable) -> Callable:
    """The same, but from all of the picture."""
    return lambda labels, maps: choose(torch.zeros_like(labels), maps).expand(int(labels.max()) + 1)


def _row(*values: float) -> Float[Tensor, "1 width"]:
    return torch.tensor([values])


_ONE_MASK = torch.zeros(1, 4, dtype=torch.int64)
_FEW_BUT_SURE = torch.stack([_row(0.3, 0.3, 0.3, 0.0), _row(0.25, 0.25, 0.25, 0.9)])


def _random(masks: int, nouns: int, side: int, seed: int) -> tuple[Int[Tensor, "side side"], Float[Tensor, "n s s"]]:
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(side**2) % masks)[torch.randperm(side**2, generator=generator)].view(side, side)
    return labels, torch.rand(nouns, side, side, generator=generator) ** 3


_EIGHT = torch.zeros(1, 8, dtype=torch.int64)
_FOUR_TO_THREE = torch.stack(  # four pixels vote for noun 0, one for 2, and three for 4, and these are sure of it
    [
        _row(0.4, 0.4, 0.4, 0.4, 0.1, 0.1, 0.1, 0.1),
        _row(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        _row(0.0, 0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0),
        _row(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        _row(0.3, 0.3, 0.3, 0.3, 0.1, 0.9, 0.9, 0.9),
    ]
)
_TIE = torch.stack([_row(0.2, 0.2, 0.1, 0.1), _row(0.0, 0.0, 0.0, 0.0), _row(0.1, 0.1, 0.2, 0.2)])


def _last_of_equals(labels: Int[Tensor, "h w"], maps: Float[Tensor, "nouns h w"]) -> Int[Tensor, " masks"]:
    return len(maps) - 1 - _votes(labels, maps).flip(1).argmax(dim=1)


most_voted = Check(
    "most_voted",
    _most_voted,
    cases=[
        Case("a mask whose pixels vote 4 : 0 : 1 : 0 : 3", (_EIGHT, _FOUR_TO_THREE)),
        Case("two masks with different nouns", (torch.tensor([[0, 0, 0, 1]]), _FEW_BUT_SURE)),
        Case("as many votes for noun 0 as for noun 2", (_ONE_MASK, _TIE)),
        Case("four masks and five nouns", _random(4, 5, 9, seed=1)),
    ],
    mistakes=[
        Mistake(
            "The median of the nouns' numbers can be a noun in between that nobody voted for.",
            _in_each_mask(lambda values: values.argmax(dim=0).double().quantile(0.5)),
        ),
        Mistake("This adds up the maps, as Eq. 11 does. Here each pixel has one vote.", _name_masks),
        Mistake(
            "The mean of the nouns' numbers means nothing: nouns have no order. Count them.",
            _in_each_mask(lambda values: values.argmax(dim=0).double().mean().round()),
        ),
        Mistake("Only the pixels of the mask may vote on its name.", _from_everywhere(_most_voted)),
        Mistake("On a tie the noun with the lower number wins.", _last_of_equals),
    ],
)
