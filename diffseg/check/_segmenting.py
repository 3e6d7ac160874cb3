"""Checks of notebook 00: what attention passes on, two segmentations compared, the scores of a lazy answer."""

import numpy as np
from jaxtyping import Float, Integer
from scipy.special import softmax

from diffseg.metrics import image_score

from ._exercise import Case, Check, Mistake

# ---- mix_values -----------------------------------------------------------------------------------------------------

Queries, Keys, Values = Float[np.ndarray, "n d"], Float[np.ndarray, "m d"], Float[np.ndarray, "m c"]


def _scores(query: Queries, key: Keys) -> Float[np.ndarray, "n m"]:
    return query @ key.T / np.sqrt(query.shape[1])


def _mix_values(query: Queries, key: Keys, value: Values) -> Float[np.ndarray, "n c"]:
    return softmax(_scores(query, key), axis=1) @ value


def _overflowing(query: Queries, key: Keys, value: Values) -> Float[np.ndarray, "n c"]:
    with np.errstate(over="ignore", invalid="ignore"):
        shares = np.exp(_scores(query, key))
        return shares / shares.sum(axis=1, keepdims=True) @ value


def _normal(*shape: int, seed: int) -> Float[np.ndarray, "..."]:
    return np.random.default_rng(seed).normal(size=shape)


mix_values = Check(
    "mix_values",
    _mix_values,
    cases=[
        Case(
            "two queries, three keys and values of length 4",
            (np.array([[2.0, 0, 0, 0], [0, 2.0, 0, 1]]), 3 * np.eye(4)[:3], np.arange(12.0).reshape(3, 4)),
        ),
        Case("five positions, values longer than keys", (*_normal(2, 5, 2, seed=0), _normal(5, 3, seed=1))),
        Case("a single key, which gets everything", (_normal(3, 2, seed=2), _normal(1, 2, seed=3), np.ones((1, 2)))),
        Case("products as large as 1000: exp of that is infinite", (*(30 * _normal(2, 4, 8, seed=4)), np.eye(4))),
    ],
    mistakes=[
        Mistake(
            "Did you forget to divide by the square root of d, the length of a query?",
            lambda query, key, value: softmax(query @ key.T, axis=1) @ value,
        ),
        Mistake(
            "Is that divided by d? It is its square root.",
            lambda query, key, value: softmax(query @ key.T / query.shape[1], axis=1) @ value,
        ),
        Mistake(
            "The columns sum to 1 instead of the rows: each query shares out its attention among the keys.",
            lambda query, key, value: softmax(_scores(query, key), axis=0) @ value,
        ),
        Mistake(
            "That is the attention itself. The output is a mean of the values, weighted by it.",
            lambda query, key, value: softmax(_scores(query, key), axis=1),
        ),
        Mistake("exp overflowed. Subtract the largest score of each row first.", _overflowing),
    ],
)

# ---- agreement ------------------------------------------------------------------------------------------------------

Labels = Integer[np.ndarray, "h w"]


def _agreement(a: Labels, b: Labels) -> float:
    return image_score(a, b)[0]


def _many_to_one(a: Labels, b: Labels) -> float:
    return float(sum(np.bincount(b[a == segment]).max() for segment in np.unique(a)) / a.size)


_HALVES = np.array([[0, 0, 1, 1]])
_QUARTERS = np.array([[2, 2, 2, 0], [2, 2, 1, 0], [3, 3, 1, 0]])

agreement = Check(
    "agreement",
    _agreement,
    cases=[
        Case("the same halves, numbered the other way round", (_HALVES, 1 - _HALVES)),
        Case("halves, of which one pixel changes sides", (_HALVES, np.array([[1, 1, 1, 0]]))),
        Case("six pieces against two halves", (np.array([[0, 1, 2, 3, 4, 5]]), np.array([[0, 0, 0, 1, 1, 1]]))),
        Case("two halves against six pieces", (np.array([[0, 0, 0, 1, 1, 1]]), np.array([[0, 1, 2, 3, 4, 5]]))),
        Case("four segments against three", (_QUARTERS, np.array([[0, 0, 0, 1], [0, 0, 2, 1], [0, 2, 2, 1]]))),
    ],
    mistakes=[
        Mistake(
            "Equal numbers are compared. What is 0 in one may be 3 in the other: pair the segments first.",
            lambda a, b: float((a == b).mean()),
        ),
        Mistake(
            "That is the mean IoU, which counts segments alike. Asked is a share of pixels.",
            lambda a, b: image_score(a, b)[1],
        ),
        Mistake(
            "Several segments of a were paired with one of b, so crumbs cost nothing. Pair one to one.", _many_to_one
        ),
        Mistake("The same from the other side: pair one to one.", lambda a, b: _many_to_one(b, a)),
    ],
)

# ---- lazy_scores ----------------------------------------------------------------------------------------------------


def _shares(truth: Labels) -> Float[np.ndarray, " classes"]:
    return np.unique(truth, return_counts=True)[1] / truth.size


def _lazy_scores(truth: Labels) -> tuple[float, float]:
    return image_score(np.zeros_like(truth), truth)


lazy_scores = Check(
    "lazy_scores",
    _lazy_scores,
    cases=[
        Case("four pixels in five, and one", (np.array([[0, 0, 0, 0, 1]]),)),
        Case("ten pixels of the classes 3, 7 and 20", (np.array([[3, 3, 7, 20, 20], [20, 20, 20, 3, 3]]),)),
        Case("a single class", (np.full((2, 2), 4),)),
        Case("five classes", (np.array([[0, 0, 0, 0, 1, 1, 1, 2, 3, 4]]),)),
    ],
    mistakes=[
        Mistake(
            "The mean goes over all classes of the truth. Those that got no segment have an IoU of 0.",
            lambda truth: (_shares(truth).max(), _shares(truth).max()),
        ),
        Mistake(
            "One segment can be paired with one class only, here the largest. The others are wrong.",
            lambda truth: (1.0, float(_shares(truth).mean())),
        ),
        Mistake(
            "Divide by how many classes are in the picture, not by the largest number of a class.",
            lambda truth: (_shares(truth).max(), _shares(truth).max() / (truth.max() + 1)),
        ),
        Mistake(
            "That is mIoU before accuracy. Return accuracy first.",
            lambda truth: _lazy_scores(truth)[::-1],
        ),
        Mistake(
            "The segment is paired with the class it shares the most pixels with, not with the first.",
            lambda truth: (float(_shares(truth)[0]), float(_shares(truth)[0] / len(_shares(truth)))),
        ),
    ],
)
