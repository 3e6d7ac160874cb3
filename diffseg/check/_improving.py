"""Checks of notebook 12: the cost of a cut, attention without sinks, the size of a proposal."""

import numpy as np
from jaxtyping import Bool, Float

from ._exercise import Case, Check, Mistake

# ---- cut_cost -------------------------------------------------------------------------------------------------------

Affinity, Side = Float[np.ndarray, "n n"], Bool[np.ndarray, " n"]


def _cut_cost(affinity: Affinity, side: Side) -> float:
    cut = affinity[side][:, ~side].sum()
    return float(cut / affinity[side].sum() + cut / affinity[~side].sum())


_PAIRS = np.array([[1, 0.8, 0.1, 0], [0.8, 1, 0, 0.1], [0.1, 0, 1, 0.6], [0, 0.1, 0.6, 1]])
_SHARES = np.random.default_rng(0).random((6, 6))

cut_cost = Check(
    "cut_cost",
    _cut_cost,
    cases=[
        Case("one position cut off", (_PAIRS, np.array([True, False, False, False]))),
        Case("two pairs, cut between the pairs", (_PAIRS, np.array([True, True, False, False]))),
        Case("two pairs, cut through the pairs", (_PAIRS, np.array([True, False, True, False]))),
        Case("six positions at random", (_SHARES + _SHARES.T, np.arange(6) % 3 == 0)),
    ],
    mistakes=[
        Mistake(
            "That is the cut alone. It is least where one position is cut off. Divide by the weight of each side.",
            lambda affinity, side: affinity[side][:, ~side].sum(),
        ),
        Mistake(
            "A cut has two sides, and each has its own weight: add both shares.",
            lambda affinity, side: affinity[side][:, ~side].sum() / affinity[side].sum(),
        ),
        Mistake(
            "The weight of a side counts all edges of its positions, those that are cut included.",
            lambda affinity, side: sum(
                affinity[side][:, ~side].sum() / affinity[one][:, one].sum() for one in (side, ~side)
            ),
        ),
        Mistake(
            "Divide by the weights of the edges, not by how many positions there are.",
            lambda affinity, side: sum(affinity[side][:, ~side].sum() / one.sum() for one in (side, ~side)),
        ),
    ],
)

# ---- drop_sinks -----------------------------------------------------------------------------------------------------

Matrix = Float[np.ndarray, "n n"]


def _kept(attention: Matrix, times: float) -> Matrix:
    return attention * (attention.mean(axis=0) <= times / len(attention))


def _drop_sinks(attention: Matrix, times: float) -> Matrix:
    kept = _kept(attention, times)
    return kept / kept.sum(axis=1, keepdims=True)


_SINK = np.array([[0.2, 0.2, 0.5, 0.1], [0.1, 0.3, 0.5, 0.1], [0.1, 0.1, 0.7, 0.1], [0.2, 0.1, 0.4, 0.3]])
_EVEN = np.full((3, 3), 1 / 3)

drop_sinks = Check(
    "drop_sinks",
    _drop_sinks,
    cases=[
        Case("one key that takes half of all attention", (_SINK, 1.5)),
        Case("the same, and no key is a sink", (_SINK, 3.0)),
        Case("even attention", (_EVEN, 1.0)),
    ],
    mistakes=[
        Mistake(
            "The rows no longer sum to 1: they are no distributions, and the divergence between them means nothing.",
            _kept,
        ),
        Mistake(
            "Each row is divided by its own sum. Keep the axis, `keepdims=True`, or the sums go to the columns.",
            lambda attention, times: _kept(attention, times) / _kept(attention, times).sum(axis=1),
        ),
        Mistake(
            "Is that one sum for the whole table? Each row has to sum to 1.",
            lambda attention, times: _kept(attention, times) / _kept(attention, times).sum(),
        ),
        Mistake(
            "A sink is a key: a column. You have dropped those rows that attend the most to one place.",
            lambda attention, times: _drop_sinks(attention.T, times).T,
        ),
        Mistake(
            "Even attention gives each of n keys 1 / n. A sink gets more than `times` that share.",
            lambda attention, times: _drop_sinks(attention, times * len(attention)),
        ),
        Mistake(
            "Those are the sinks. Keep the other keys.",
            lambda attention, times: attention * (attention.mean(axis=0) > times / len(attention)),
        ),
    ],
)

# ---- effective_size -------------------------------------------------------------------------------------------------

Map = Float[np.ndarray, " n"]


def _effective_size(proposal: Map) -> float:
    held = proposal[proposal > 0]
    return float(np.exp(-(held * np.log(held)).sum()))


effective_size = Check(
    "effective_size",
    _effective_size,
    cases=[
        Case("even over 8 positions", (np.full(8, 1 / 8),)),
        Case("even over 3 of 8 positions", (np.array([0, 1, 1, 0, 1, 0, 0, 0]) / 3,)),
        Case("all on one position", (np.eye(5)[2],)),
        Case("uneven", (np.array([0.7, 0.1, 0.1, 0.1]),)),
    ],
    mistakes=[
        Mistake(
            "That is the entropy, in nats. How many positions would have it if they were even? e to its power.",
            lambda proposal: np.log(_effective_size(proposal)),
        ),
        Mistake(
            "Counting what is above 0 takes a trace for a full position. Weigh by how much is there: entropy.",
            lambda proposal: (proposal > 0).sum(),
        ),
        Mistake(
            "0 log 0 counts as 0; NumPy says nan. Leave empty positions out.",
            lambda proposal: np.nan if (proposal == 0).any() else _effective_size(proposal),
        ),
        Mistake("The sign: entropy is positive, and a size is at least 1.", lambda p: 1 / _effective_size(p)),
        Mistake("The base: np.log belongs to np.exp, np.log2 to 2 **.", lambda p: 2 ** np.log(_effective_size(p))),
    ],
)
