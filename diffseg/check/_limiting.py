"""Checks of notebook 10: IoU and a shifted outline, windows side by side, the exponent of a cost."""

import numpy as np
from jaxtyping import Float, Integer

from ._exercise import Case, Check, Mistake

# ---- grown_iou ------------------------------------------------------------------------------------------------------


def _grown_iou(side: float, error: float) -> float:
    found = max(side + 2 * error, 0.0)
    return min(side, found) ** 2 / max(side, found) ** 2


grown_iou = Check(
    "grown_iou",
    _grown_iou,
    cases=[
        Case("a square of 64 pixels, found 4 pixels too large on every side", (64.0, 4.0)),
        Case("a square of 16 pixels, found 4 pixels too large on every side", (16.0, 4.0)),
        Case("a square of 16 pixels, found 2 pixels too small on every side", (16.0, -2.0)),
        Case("a square of 6 pixels, found 5 pixels too small on every side: nothing is left", (6.0, -5.0)),
        Case("an outline without an error", (10.0, 0.0)),
    ],
    mistakes=[
        Mistake(
            "The outline moves at both ends: the side grows by twice the error.",
            lambda side, error: _grown_iou(side, error / 2),
        ),
        Mistake("That is the ratio of the sides. IoU compares areas.", lambda s, e: _grown_iou(s, e) ** 0.5),
        Mistake(
            "More than 1? Where the found square is the smaller one, it is the intersection.",
            lambda side, error: side**2 / (side + 2 * error) ** 2,
        ),
        Mistake(
            "A square cannot have a negative side: then nothing is left, and IoU is 0.",
            lambda s, e: min(s, abs(s + 2 * e)) ** 2 / max(s, abs(s + 2 * e)) ** 2,
        ),
    ],
)

# ---- side_by_side ---------------------------------------------------------------------------------------------------

Left, Right = Integer[np.ndarray, "h left"], Integer[np.ndarray, "h right"]


def _side_by_side(left: Left, right: Right) -> Integer[np.ndarray, "h both"]:
    return np.hstack([left, right + left.max() + 1])


_PLAIN = (np.array([[0, 0, 1], [0, 1, 1]]), np.array([[0, 0], [1, 0]]))
_GAPS = (np.array([[0, 4], [4, 4], [0, 0]]), np.array([[0, 1, 3], [2, 2, 3], [2, 4, 3]]))

side_by_side = Check(
    "side_by_side",
    _side_by_side,
    cases=[
        Case("two windows of two segments", _PLAIN),
        Case("a left window whose numbers have gaps", _GAPS),
        Case("a left window that is one segment", (np.zeros((2, 2), int), np.array([[0, 1], [2, 2]]))),
    ],
    mistakes=[
        Mistake(
            "Segment 0 of one window and segment 0 of the other have become one. Number them apart.",
            lambda left, right: np.hstack([left, right]),
        ),
        Mistake(
            "As many as there are segments is not enough: numbers with gaps go higher. Which is the largest?",
            lambda left, right: np.hstack([left, right + len(np.unique(left))]),
        ),
        Mistake(
            "Almost: the first segment on the right shares its number with the last one on the left.",
            lambda left, right: np.hstack([left, right + left.max()]),
        ),
        Mistake(
            "The left window keeps its numbers; those of the right one move.",
            lambda left, right: np.hstack([left + right.max() + 1, right]),
        ),
    ],
)

# ---- fitted_exponent ------------------------------------------------------------------------------------------------

Numbers = Float[np.ndarray, " n"]


def _fitted_exponent(sizes: Numbers, costs: Numbers) -> float:
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


_SIZES = np.array([16.0, 24.0, 32.0, 48.0, 64.0])

fitted_exponent = Check(
    "fitted_exponent",
    _fitted_exponent,
    cases=[
        Case("a cost of 3 n^4", (_SIZES, 3 * _SIZES**4)),
        Case("a cost of n^2 with some luck", (_SIZES, _SIZES**2 * np.array([1.1, 0.9, 1.05, 1.0, 0.92]))),
        Case("a cost of 1000 + n^2, which is no power of n", (_SIZES, 1000 + _SIZES**2)),
    ],
    mistakes=[
        Mistake("That is the slope of the costs. Take the logarithm of both.", lambda n, c: np.polyfit(n, c, 1)[0]),
        Mistake(
            "The sizes need a logarithm, too: equal factors should be equal steps.",
            lambda n, c: np.polyfit(n, np.log(c), 1)[0],
        ),
        Mistake(
            "Only the two ends count here. Use all points: the straight line nearest to them.",
            lambda n, c: np.log(c[-1] / c[0]) / np.log(n[-1] / n[0]),
        ),
        Mistake(
            "That is the other number of the line. np.polyfit gives the slope first.",
            lambda n, c: np.polyfit(np.log(n), np.log(c), 1)[1],
        ),
        Mistake(
            "Costs belong on the upright axis: how do they change as the size grows?",
            lambda n, c: np.polyfit(np.log(c), np.log(n), 1)[0],
        ),
    ],
)
