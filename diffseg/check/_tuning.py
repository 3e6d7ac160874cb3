"""Checks of notebook 08: choosing from a table, a sweep that encodes once, a choice by all other scenes."""

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

# ---- left_out -------------------------------------------------------------------------------------------------------

Chosen = Float[np.ndarray, " scenes"]


def _others(scores: Scores) -> Scores:
    """The sum over all other scenes."""
    return scores.sum(axis=0) - scores


def _left_out(scores: Scores) -> Chosen:
    return scores[np.arange(len(scores)), _others(scores).argmax(axis=1)]


def _score_of_the_others(scores: Scores) -> Chosen:
    return _others(scores).max(axis=1) / (len(scores) - 1)


def _swapped(scores: Scores) -> Chosen:
    others = _others(scores) / (len(scores) - 1)
    return others[np.arange(len(scores)), scores.argmax(axis=1)]


_LUCKY = _eighths([2, 7, 3], [6, 5, 4], [5, 3, 4])  # the first scene alone makes the second value the best of all

left_out = Check(
    "left_out",
    _left_out,
    cases=[
        Case("two scenes: each is judged where the other one is best", (_eighths([1, 4, 6], [7, 2, 3]),)),
        Case("three scenes, one of which decides for all", (_LUCKY,)),
        Case("six scenes and five values", (np.random.default_rng(0).random((6, 5)),)),
    ],
    mistakes=[
        Mistake(
            "Here a scene has a vote in the choice by which it is judged. Leave it out of the sum.",
            lambda scores: scores[:, scores.sum(axis=0).argmax()],
        ),
        Mistake("That is each scene at its own best value: the oracle.", lambda scores: scores.max(axis=1)),
        Mistake("The others choose, but the score is that of the scene itself.", _score_of_the_others),
        Mistake("The other way round: the others choose, and the scene is judged.", _swapped),
        Mistake(
            "These are the columns that the others choose. What does the scene score there?",
            lambda scores: _others(scores).argmax(axis=1),
        ),
        Mistake("One score for each scene; the mean comes later.", lambda scores: _left_out(scores).mean()),
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
