"""Checks of notebook A1: a head as a non-local means filter, min-SNR weights, guidance."""

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from ._exercise import Case, Check, Mistake

# ---- head_error -----------------------------------------------------------------------------------------------------

Vectors, Values, Weights = Float[np.ndarray, "n d"], Float[np.ndarray, "n channels"], Float[np.ndarray, "n n"]


def _head_error(query: Vectors, key: Vectors, values: Values, noise: float) -> float:
    return _error(_weights(query, key), values, noise)


def _weights(query: Vectors, key: Vectors, scale: float | None = None) -> Weights:
    scores = query @ key.T / (query.shape[1] ** 0.5 if scale is None else scale)
    return softmax(scores, axis=1)


def _error(weights: Weights, values: Values, noise: float) -> float:
    return _bias(weights, values) + _variance(weights, noise)


def _bias(weights: Weights, values: Values) -> float:
    return float(((weights @ values - values) ** 2).mean())


def _variance(weights: Weights, noise: float) -> float:
    return float(noise**2 * (weights**2).sum(axis=1).mean())


_QUERY = np.array([[1.2, 0.3], [0.8, -0.5], [-1.0, 0.6], [-0.7, -0.9]])
_KEY = np.array([[0.9, 0.1], [1.4, 0.4], [-0.8, 0.2], [-1.1, -0.6]])
_COLOURS = np.array([[2.0, 0.5, 0.1], [1.6, 0.1, 0.3], [-1.2, 0.9, -0.4], [-1.5, 0.2, 0.6]])

head_error = Check(
    "head_error",
    _head_error,
    cases=[
        Case("four positions, two of each colour", (_QUERY, _KEY, _COLOURS, 1.5)),
        Case("even attention", (np.zeros((4, 2)), _KEY, _COLOURS, 2.0)),
        Case("no noise", (_QUERY, _KEY, _COLOURS, 0.0)),
    ],
    mistakes=[
        Mistake(
            "The first part is right: how far the mean is off. But noise gets through as well; add the second part.",
            lambda query, key, values, noise: _bias(_weights(query, key), values),
        ),
        Mistake(
            "The second part is right. But a mean over other colours is off even without noise; add the first part.",
            lambda query, key, values, noise: _variance(_weights(query, key), noise),
        ),
        Mistake(
            "The first part is right. In the second one s is squared: variances add up, standard deviations do not.",
            lambda query, key, values, noise: (
                _bias(_weights(query, key), values) + noise * _variance(_weights(query, key), 1.0)
            ),
        ),
        Mistake(
            "The first part is right. In the second one each weight is squared before the sum: without it, a mean of "
            "many would be as noisy as a single one.",
            lambda query, key, values, noise: _bias(_weights(query, key), values) + noise**2,
        ),
        Mistake(
            "The error is right for its weights. But scores are divided by the square root of the dimension before "
            "the softmax.",
            lambda query, key, values, noise: _error(_weights(query, key, 1.0), values, noise),
        ),
        Mistake(
            "The error is right for its weights. But a query distributes its attention over the keys: each *row* of "
            "the weights sums to 1.",
            lambda query, key, values, noise: _error(_weights(key, query).T, values, noise),
        ),
        Mistake(
            "Both parts are there, but summed over positions and channels. Take means, as the equation does.",
            lambda query, key, values, noise: values.size * _head_error(query, key, values, noise),
        ),
    ],
)

# ---- snr_weights ----------------------------------------------------------------------------------------------------

Kept = Float[np.ndarray, " n"]


def _snr_weights(kept: Kept, cap: float) -> Float[np.ndarray, " n"]:
    ratio = kept / (1 - kept)
    return np.minimum(ratio, cap) / ratio


snr_weights = Check(
    "snr_weights",
    _snr_weights,
    cases=[
        Case("little, some and much noise", (np.array([0.99, 0.9, 0.5, 0.01]), 5.0)),
        Case("a cap of 1", (np.array([0.95, 0.6, 0.2]), 1.0)),
        Case("a cap above all ratios", (np.array([0.7, 0.3]), 100.0)),
    ],
    mistakes=[
        Mistake(
            "The cap is right. That is the weight of an error in the *picture*. The network predicts the *noise*: "
            "divide by the ratio once more.",
            lambda kept, cap: np.minimum(kept / (1 - kept), cap),
        ),
        Mistake(
            "Right below the cap's noise only: where there is much noise your weights rise above 1. Take the smaller "
            "of ratio and cap first.",
            lambda kept, cap: cap * (1 - kept) / kept,
        ),
        Mistake(
            "The form is right, the ratio is upside down: `kept` is the signal's part of the variance, 1 - kept the "
            "noise's.",
            lambda kept, cap: _snr_weights(1 - kept, cap),
        ),
        Mistake(
            "The form is right. `kept` is a part of the variance already: no square root.",
            lambda kept, cap: np.minimum(np.sqrt(kept / (1 - kept)), cap) / np.sqrt(kept / (1 - kept)),
        ),
    ],
)

# ---- guided ---------------------------------------------------------------------------------------------------------

Noise = Float[np.ndarray, " n"]


def _guided(empty: Noise, told: Noise, strength: float) -> Noise:
    return empty + strength * (told - empty)


_EMPTY, _TOLD = np.array([1.0, -0.5, 0.2]), np.array([0.4, -0.1, 0.3])

guided = Check(
    "guided",
    _guided,
    cases=[
        Case("strength 4", (_EMPTY, _TOLD, 4.0)),
        Case("strength 1", (_EMPTY, _TOLD, 1.0)),
        Case("strength 0", (_EMPTY, _TOLD, 0.0)),
    ],
    mistakes=[
        Mistake(
            "The direction is right, the start is not: strength 1 must give what the prompt says, and no more. Start "
            "from the empty prompt.",
            lambda empty, told, strength: told + strength * (told - empty),
        ),
        Mistake(
            "The start is right, the direction is not: go from the empty prompt towards the told one.",
            lambda empty, told, strength: empty + strength * (empty - told),
        ),
        Mistake(
            "The start is right. What is multiplied is the difference that the prompt makes, not its whole answer.",
            lambda empty, told, strength: empty + strength * told,
        ),
        Mistake(
            "That mixes the two in the right form, with the parts swapped: strength 0 must ignore the prompt.",
            lambda empty, told, strength: told + strength * (empty - told),
        ),
        Mistake(
            "That is the difference that the prompt makes, times the strength. Add it to the answer without a prompt.",
            lambda empty, told, strength: strength * (told - empty),
        ),
    ],
)
