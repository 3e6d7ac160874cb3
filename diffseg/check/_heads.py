"""Checks of notebook 02: the divergence of heads, of two camps of heads, and that of Jensen and Shannon."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffseg import heads
from diffseg.merging import log_probability

from ._exercise import Case, Check, Mistake, distributions

# ---- head_divergence ------------------------------------------------------------------------------------------------


def _pairs(probs: Float[Tensor, "heads queries keys"]) -> Float[Tensor, "heads heads queries"]:
    """KL(p_i || p_j) at each query."""
    log = log_probability(probs)
    return (probs[:, None] * (log[:, None] - log)).sum(dim=3)


def _all_pairs(probs: Float[Tensor, "heads queries keys"]) -> float:
    return _pairs(probs).mean().item()


def _each_pair_once(probs: Float[Tensor, "heads queries keys"]) -> float:
    first, second = torch.triu_indices(len(probs), len(probs), 1)
    return _pairs(probs)[first, second].mean().item()


def _half_the_pairs(probs: Float[Tensor, "heads queries keys"]) -> float:
    n = len(probs)
    first, second = torch.triu_indices(n, n, 1)
    return _pairs(probs)[first, second].mean(dim=1).sum().item() / (n * (n - 1))


def _half_again(probs: Float[Tensor, "heads queries keys"]) -> float:
    return heads.head_divergence(probs) / 2


def _mean_over_keys(probs: Float[Tensor, "heads queries keys"]) -> float:
    return heads.head_divergence(probs) / probs.shape[2]


def _sum_over_queries(probs: Float[Tensor, "heads queries keys"]) -> float:
    return heads.head_divergence(probs) * probs.shape[1]


def _from_the_mean(probs: Float[Tensor, "heads queries keys"]) -> float:
    log = log_probability(probs) - log_probability(probs.mean(dim=0))
    return (probs * log).sum(dim=2).mean().item()


def _log_of_the_mean(probs: Float[Tensor, "heads queries keys"]) -> float:
    return _from_the_mean(probs) * len(probs) / (len(probs) - 1)


def _between_queries(probs: Float[Tensor, "heads queries keys"]) -> float:
    turned = probs.transpose(0, 1)
    return heads.head_divergence(turned) if len(turned) > 1 else 0.0


_DISAGREE = torch.tensor([[[0.7, 0.2, 0.1]], [[0.2, 0.2, 0.6]], [[0.1, 0.8, 0.1]]])

head_divergence = Check(
    "head_divergence",
    heads.head_divergence,
    cases=[
        Case("three heads, one query, three keys", (_DISAGREE,)),
        Case("two heads, two queries, four keys", (distributions(2, 2, 4),)),
        Case("five heads that all agree", (distributions(1, 4, 6).repeat(5, 1, 1),)),
        Case("four heads, nine queries, nine keys", (distributions(4, 9, 9, seed=1),)),
        Case("heads with zeros", (torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]]),)),
    ],
    mistakes=[
        Mistake(
            "Do the pairs i = j count? They are all 0 and make the mean too small: divide by H - 1, not by H.",
            _all_pairs,
        ),
        Mistake("Count every pair in both directions: i, j and j, i.", _each_pair_once),
        Mistake("You sum over half of the pairs, but divide by the number of all: H (H - 1).", _half_the_pairs),
        Mistake("The half is one too many: the mean over both directions has it already.", _half_again),
        Mistake("Is that the mean over the keys? KL is the sum over them.", _mean_over_keys),
        Mistake("Take the mean over the queries, not the sum.", _sum_over_queries),
        Mistake(
            "That is how far the heads are from their mean: is m the logarithm of a mean? It should be the mean of "
            "logarithms. The divisor is wrong, too.",
            _from_the_mean,
        ),
        Mistake(
            "The divisor is right now. But m should be the mean of logarithms, not the logarithm of a mean.",
            _log_of_the_mean,
        ),
        Mistake("Do you compare queries within a head? The heads are the first axis.", _between_queries),
    ],
    rtol=1e-3,
    atol=1e-5,
)

# ---- divided --------------------------------------------------------------------------------------------------------


def _divided(heads: int, dissenters: int, distance: float) -> float:
    return 2 * dissenters * (heads - dissenters) / (heads * (heads - 1)) * distance


divided = Check(
    "divided",
    _divided,
    cases=[
        Case("3 of 8 heads that are 1 nat from the others", (8, 3, 1.0)),
        Case("1 of 8 heads that is 1.84 nats from the others", (8, 1, 1.84)),
        Case("two heads: a single pair", (2, 1, 3.0)),
        Case("5 heads that all agree", (5, 0, 2.0)),
        Case("5 dissenters of 5: again all agree", (5, 5, 2.0)),
    ],
    mistakes=[
        Mistake(
            "You count each pair once, but divide by the number of ordered pairs. Count both directions.",
            lambda heads, dissenters, distance: _divided(heads, dissenters, distance) / 2,
        ),
        Mistake(
            "Do the pairs of a head with itself count? There are H (H - 1) ordered pairs of different heads.",
            lambda heads, dissenters, distance: _divided(heads, dissenters, distance) * (heads - 1) / heads,
        ),
        Mistake(
            "That is the share of heads that dissent. What is wanted is the share of pairs.",
            lambda heads, dissenters, distance: dissenters / heads * distance,
        ),
        Mistake(
            "Those are the pairs within a camp. They are 0 nats apart; the others are not.",
            lambda heads, dissenters, distance: distance - _divided(heads, dissenters, distance),
        ),
    ],
)

# ---- jensen_shannon -------------------------------------------------------------------------------------------------


def _entropy(p: Float[Tensor, "*rows keys"]) -> Float[Tensor, "*rows"]:
    return -torch.xlogy(p, p).sum(dim=-1)


def _sum_of_entropies(probs: Float[Tensor, "heads queries keys"]) -> float:
    return (_entropy(probs.mean(dim=0)) - _entropy(probs).sum(dim=0)).mean().item()


def _queries_averaged_first(probs: Float[Tensor, "heads queries keys"]) -> float:
    return _entropy(probs.mean(dim=(0, 1))).item() - _entropy(probs).mean().item()


jensen_shannon = Check(
    "jensen_shannon",
    heads.jensen_shannon,
    cases=[
        Case("three heads, one query, three keys", (_DISAGREE,)),
        Case("four heads, nine queries, nine keys", (distributions(4, 9, 9, seed=1),)),
        Case("heads that agree: nothing is lost", (distributions(1, 4, 6).repeat(3, 1, 1),)),
        Case("four heads that attend to a key each: log 4 is lost", (torch.eye(4)[:, None],)),
    ],
    mistakes=[
        Mistake(
            "Is that log2? The unit is the nat: take the natural logarithm.",
            lambda probs: heads.jensen_shannon(probs) / math.log(2),
        ),
        Mistake("The sign is wrong: the mean has the larger entropy.", lambda probs: -heads.jensen_shannon(probs)),
        Mistake(
            "That is the entropy of the mean. Take off the mean entropy of the heads.",
            lambda probs: _entropy(probs.mean(dim=0)).mean().item(),
        ),
        Mistake("Take the mean of the heads' entropies, not their sum.", _sum_of_entropies),
        Mistake(
            "Do you average over the queries before you take the entropy? Average the heads only.",
            _queries_averaged_first,
        ),
        Mistake(
            "Take the mean over the queries, not the sum.",
            lambda probs: heads.jensen_shannon(probs) * probs.shape[1],
        ),
    ],
    atol=1e-5,
)
