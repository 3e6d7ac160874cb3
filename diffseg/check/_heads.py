"""Checks of notebook 02: KL divergence, the divergence of heads pair by pair, and that of Jensen and Shannon."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffseg import heads
from diffseg.merging import log_probability

from ._exercise import Case, Check, Mistake, distributions

# ---- kl -------------------------------------------------------------------------------------------------------------


def _kl(p: Float[Tensor, "n d"], q: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    return (p * (log_probability(p) - log_probability(q))).sum(dim=1)


def _half_of_both(p: Float[Tensor, "n d"], q: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    return (_kl(p, q) + _kl(q, p)) / 2


def _zeros_skipped(p: Float[Tensor, "n d"], q: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    terms = p * (p.log() - q.log())
    return torch.where(terms.isfinite(), terms, 0).sum(dim=1)


def _wide_floor(p: Float[Tensor, "n d"], q: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    p, q = p.clamp_min(1e-3), q.clamp_min(1e-3)
    return (p * (p / q).log()).sum(dim=1)


_THREE, _OTHER_THREE = torch.tensor([[0.8, 0.15, 0.05]]), torch.tensor([[0.3, 0.4, 0.3]])

kl = Check(
    "kl",
    _kl,
    cases=[
        Case("two maps over three positions", (_THREE, _OTHER_THREE)),
        Case("4 pairs of maps over 16 positions", (distributions(4, 16), distributions(4, 16, seed=1))),
        Case("a map and itself", (_THREE, _THREE)),
        Case(
            "a p with zeros: such positions contribute nothing",
            (torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([[0.2, 0.2, 0.6], [0.5, 0.5, 0.0]])),
        ),
        Case(
            "a q with a zero where p has none: its logarithm is that of 1e-12",
            (torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])),
        ),
    ],
    mistakes=[
        Mistake("Is that log2? The unit is the nat: take the natural logarithm.", lambda p, q: _kl(p, q) / math.log(2)),
        Mistake("That is KL(q || p): did you swap the two?", lambda p, q: _kl(q, p)),
        Mistake("Is that the mean over the positions? KL is the sum over them.", lambda p, q: _kl(p, q) / p.shape[1]),
        Mistake("That is the mean of both directions. Here only one is wanted.", _half_of_both),
        Mistake("One number for each pair of rows, not one for all.", lambda p, q: _kl(p, q).sum()),
        Mistake("A zero in q where p has none is a great surprise. Do not leave it out.", _zeros_skipped),
        Mistake("Is your floor too high? Clamp inside the logarithms only, at 1e-12.", _wide_floor),
    ],
    rtol=1e-3,
    atol=1e-5,
)


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
        Mistake("Do the pairs i = j count? They are all 0 and make the mean too small.", _all_pairs),
        Mistake("Count every pair in both directions: i, j and j, i.", _each_pair_once),
        Mistake("You sum over half of the pairs, but divide by the number of all: H (H - 1).", _half_the_pairs),
        Mistake("The half is one too many: the mean over both directions has it already.", _half_again),
        Mistake("Is that the mean over the keys? KL is the sum over them.", _mean_over_keys),
        Mistake("Take the mean over the queries, not the sum.", _sum_over_queries),
        Mistake("That is how far the heads are from their mean. Compare them with one another.", _from_the_mean),
        Mistake("Do you compare queries within a head? The heads are the first axis.", _between_queries),
    ],
    rtol=1e-3,
    atol=1e-5,
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
