"""Checks of notebook 08: choosing from a table, the error of a paired difference, a sweep that encodes once."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ._exercise import Case, Check, Mistake

# ---- choose_threshold -----------------------------------------------------------------------------------------------

Scores = Float[np.ndarray, "scenes thresholds"]


def _both(accuracy: Scores, miou: Scores) -> Float[np.ndarray, " thresholds"]:
    return (accuracy.mean(axis=0) + miou.mean(axis=0)) / 2


def _choose_threshold(thresholds: Float[np.ndarray, " thresholds"], accuracy: Scores, miou: Scores) -> float:
    both = _both(accuracy, miou)
    return float(thresholds[both == both.max()].min())


def _largest_of_equals(thresholds: np.ndarray, accuracy: Scores, miou: Scores) -> float:
    both = _both(accuracy, miou)
    return float(thresholds[both == both.max()].max())


def _first_of_equals(thresholds: np.ndarray, accuracy: Scores, miou: Scores) -> float:
    return float(thresholds[_both(accuracy, miou).argmax()])


def _mean_of_the_best(thresholds: np.ndarray, accuracy: Scores, miou: Scores) -> float:
    return float(thresholds[(accuracy + miou).argmax(axis=1)].mean())


def _eighths(*rows: Sequence[int]) -> Scores:
    """Scores that have no rounding, so that equal means are equal."""
    return np.array(rows) / 8


_UP = np.array([0.25, 0.5, 1.0, 2.0])

choose_threshold = Check(
    "choose_threshold",
    _choose_threshold,
    cases=[
        Case("one scene", (_UP, _eighths([2, 5, 7, 6]), _eighths([3, 6, 7, 1]))),
        Case("accuracy and mIoU that disagree", (_UP, _eighths([2, 5, 6, 7]), _eighths([6, 5, 5, 1]))),
        Case(
            "two scenes with different best thresholds",
            (_UP, _eighths([8, 5, 5, 1], [1, 4, 7, 8]), _eighths([8, 5, 5, 1], [1, 4, 7, 8])),
        ),
        Case("two thresholds that are equally good", (_UP, _eighths([1, 6, 6, 2]), _eighths([2, 5, 5, 1]))),
        Case("thresholds in no order", (_UP[[2, 0, 3, 1]], _eighths([6, 1, 6, 6]), _eighths([5, 1, 5, 5]))),
    ],
    mistakes=[
        Mistake("That is the best accuracy. What about mIoU?", lambda x, a, m: _choose_threshold(x, a, a)),
        Mistake("That is the best mIoU. What about accuracy?", lambda x, a, m: _choose_threshold(x, m, m)),
        Mistake("On a tie take the smallest threshold; this is the largest.", _largest_of_equals),
        Mistake("On a tie take the smallest threshold, wherever it is in the list.", _first_of_equals),
        Mistake("That is its index in the list. Which threshold is it?", lambda x, a, m: _both(a, m).argmax()),
        Mistake("First the mean over the scenes, then the best: one threshold for all.", _mean_of_the_best),
    ],
)

# ---- paired_error ---------------------------------------------------------------------------------------------------

Column = Float[Tensor, " scenes"]


def _paired_error(mine: Column, other: Column) -> tuple[float, float]:
    difference = mine - other
    return float(difference.mean()), float(difference.std() / len(difference) ** 0.5)


def _with_error(error: Callable[[Column, Column], Tensor]) -> Callable:
    """A function that gets the mean right and makes its own mistake in the error."""
    return lambda mine, other: (float((mine - other).mean()), float(error(mine, other)))


def _column(*points: float) -> Column:
    return torch.tensor(points, dtype=torch.float64)


paired_error = Check(
    "paired_error",
    _paired_error,
    cases=[
        Case("four scenes", (_column(0.5, 0.9, 0.7, 0.8), _column(0.4, 0.9, 0.5, 0.7))),
        Case("hard and easy scenes, and the same gain on each", (_column(0.2, 0.5, 0.9), _column(0.1, 0.4, 0.8))),
        Case("a loss", (_column(0.6, 0.4), _column(0.9, 0.8))),
        Case("no difference at all", (_column(0.3, 0.8, 0.6), _column(0.3, 0.8, 0.6))),
    ],
    mistakes=[
        Mistake(
            "Divide the sum of squares by n - 1, not by n.",
            _with_error(lambda a, b: (a - b).std(correction=0) / len(a) ** 0.5),
        ),
        Mistake(
            "That is how far scenes scatter. The mean of n scatters less, by the root of n.",
            _with_error(lambda a, b: (a - b).std()),
        ),
        Mistake("Root of n, not n.", _with_error(lambda a, b: (a - b).std() / len(a))),
        Mistake(
            "This is the error of two means from different scenes. Here the scenes are the same: subtract first.",
            _with_error(lambda a, b: ((a.var() + b.var()) / len(a)) ** 0.5),
        ),
        Mistake("The sign: mine minus other is above 0 where mine is better.", lambda a, b: _paired_error(b, a)),
    ],
)

# ---- sweep_once -----------------------------------------------------------------------------------------------------


class _Encoder:
    """The steps between sorted numbers. A picture that is encoded again draws other noise, so that it shows."""

    def __init__(self) -> None:
        self.calls: dict[tuple[float, ...], int] = {}

    def __call__(self, image: Float[Tensor, " n"]) -> Float[Tensor, " n-1"]:
        key = tuple(image.tolist())
        self.calls[key] = self.calls.get(key, 0) + 1
        return image.diff() * self.calls[key]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Encoder)  # that it was called is no change of an argument


def _count_groups(steps: Float[Tensor, " steps"], threshold: float) -> int:
    return 1 + int((steps > threshold).sum())


Images = Sequence[Float[Tensor, " _"]]
Table = Int[Tensor, "images thresholds"]


def _sweep_once(images: Images, thresholds: Sequence[float], encode: Callable, segment: Callable) -> Table:
    encodings = [encode(image) for image in images]
    return torch.tensor([[segment(encoding, threshold) for threshold in thresholds] for encoding in encodings])


def _sweep_each_time(images: Images, thresholds: Sequence[float], encode: Callable, segment: Callable) -> Table:
    return torch.tensor([[segment(encode(image), threshold) for threshold in thresholds] for image in images])


def _sweep_the_first(images: Images, thresholds: Sequence[float], encode: Callable, segment: Callable) -> Table:
    return _sweep_once(images[:1], thresholds, encode, segment).repeat(len(images), 1)


_NUMBERS = [torch.tensor([0.0, 1.0, 2.0, 6.0, 7.0]), torch.tensor([0.0, 3.0, 4.0, 9.0])]

sweep_once = Check(
    "sweep_once",
    _sweep_once,
    cases=[
        Case("one picture and one threshold", (_NUMBERS[:1], [2.0], _Encoder(), _count_groups)),
        Case("one picture and three thresholds", (_NUMBERS[:1], [0.5, 1.5, 5.0], _Encoder(), _count_groups)),
        Case("two pictures and three thresholds", (_NUMBERS, [1.5, 3.5, 8.0], _Encoder(), _count_groups)),
    ],
    mistakes=[
        Mistake(
            "A picture was encoded more than once, each time with other noise. Encode before the loop over thresholds.",
            _sweep_each_time,
        ),
        Mistake("A row for each picture, a column for each threshold.", lambda *given: _sweep_once(*given).T),
        Mistake("Every row is about the first picture.", _sweep_the_first),
    ],
)
