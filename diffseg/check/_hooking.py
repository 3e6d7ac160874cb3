"""Checks of notebook 01: attention by hand, the attention that positions receive, heads one at a time, memory."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ._exercise import Case, Check, Mistake, distributions


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- attention_probabilities ----------------------------------------------------------------------------------------


def _softmax_of(
    query: Float[Tensor, "n d"], key: Float[Tensor, "m d"], scale: float, dim: int = 1
) -> Float[Tensor, "n m"]:
    return (query @ key.T * scale).softmax(dim=dim)


def _probabilities(query: Float[Tensor, "n d"], key: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    return _softmax_of(query, key, query.shape[1] ** -0.5)


attention_probabilities = Check(
    "attention_probabilities",
    _probabilities,
    cases=[
        Case(
            "two queries and three keys of length 4",
            (torch.tensor([[2.0, 0, 0, 0], [0, 2.0, 0, 1]]), torch.eye(4)[:3] * 3),
        ),
        Case("5 queries and 7 keys of length 9", (_normal(5, 9), _normal(7, 9, seed=1))),
        Case("a single key, which gets everything", (_normal(3, 2), _normal(1, 2, seed=1))),
        Case("products as large as 1000: exp of that is infinite", (30 * _normal(4, 8), 30 * _normal(4, 8, seed=1))),
    ],
    mistakes=[
        Mistake("Did you forget to divide by the square root of d?", lambda q, k: _softmax_of(q, k, 1.0)),
        Mistake("Is that divided by d? It is its square root.", lambda q, k: _softmax_of(q, k, 1 / q.shape[1])),
        Mistake(
            "The columns sum to 1 instead of the rows: the softmax is over the keys.",
            lambda q, k: _softmax_of(q, k, q.shape[1] ** -0.5, dim=0),
        ),
        Mistake(
            "These are the products. What makes them positive, and lets each row sum to 1?",
            lambda q, k: q @ k.T * q.shape[1] ** -0.5,
        ),
        Mistake(
            "exp overflowed. Subtract the largest product of each row first, or use torch.softmax, which does.",
            lambda q, k: (scores := (q @ k.T * q.shape[1] ** -0.5).exp()) / scores.sum(dim=1, keepdim=True),
        ),
    ],
)

# ---- received_attention ---------------------------------------------------------------------------------------------


def _received(probs: Float[Tensor, "queries keys"]) -> Float[Tensor, " keys"]:
    return probs.mean(dim=0) * probs.shape[1]


received_attention = Check(
    "received_attention",
    _received,
    cases=[
        Case(
            "three positions that all attend most to the first",
            (torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0.4, 0.3, 0.3]]),),
        ),
        Case("16 positions", (distributions(16, 16),)),
        Case("even attention", (torch.full((4, 4), 0.25),)),
        Case("6 queries and 3 keys", (distributions(6, 3),)),
    ],
    mistakes=[
        Mistake("Is that the sum over the keys? It is 1 for every query.", lambda p: p.sum(dim=1)),
        Mistake(
            "That is the share of all attention. Even attention should give 1.",
            lambda p: p.mean(dim=0),
        ),
        Mistake("Even attention should give 1, whatever the number of queries is.", lambda p: p.sum(dim=0)),
        Mistake("That is the largest share. All queries count.", lambda p: p.amax(dim=0) * p.shape[1]),
    ],
)

# ---- mean_of_heads --------------------------------------------------------------------------------------------------


def _mean_of_heads(query: Float[Tensor, "heads n d"], key: Float[Tensor, "heads m d"]) -> Float[Tensor, "n m"]:
    return torch.stack([_probabilities(q, k) for q, k in zip(query, key)]).mean(dim=0)


def _scores_averaged(query: Float[Tensor, "heads n d"], key: Float[Tensor, "heads m d"]) -> Float[Tensor, "n m"]:
    return (query @ key.transpose(1, 2) * query.shape[2] ** -0.5).mean(dim=0).softmax(dim=1)


def _heads_joined(query: Float[Tensor, "heads n d"], key: Float[Tensor, "heads m d"]) -> Float[Tensor, "n m"]:
    return _probabilities(query.transpose(0, 1).flatten(1), key.transpose(0, 1).flatten(1))


mean_of_heads = Check(
    "mean_of_heads",
    _mean_of_heads,
    cases=[
        Case("2 heads, 3 queries and 4 keys of length 4", (3 * _normal(2, 3, 4), 3 * _normal(2, 4, 4, seed=1))),
        Case("a single head", (_normal(1, 5, 8), _normal(1, 5, 8, seed=1))),
        Case("8 heads, 16 positions", (2 * _normal(8, 16, 5), 2 * _normal(8, 16, 5, seed=1))),
    ],
    mistakes=[
        Mistake("Is that the sum of the heads? Each row should sum to 1.", lambda q, k: _mean_of_heads(q, k) * len(q)),
        Mistake("The mean goes over the probabilities: softmax first, mean after.", _scores_averaged),
        Mistake("That joins the heads before the softmax. Each head has a softmax of its own.", _heads_joined),
        Mistake("Is that the last head alone?", lambda q, k: _probabilities(q[-1], k[-1])),
        Mistake(
            "Did you forget to divide by the square root of d?",
            lambda q, k: (q @ k.transpose(1, 2)).softmax(dim=2).mean(dim=0),
        ),
    ],
)

# ---- attention_bytes ------------------------------------------------------------------------------------------------


def _numbers(sides: Sequence[int], heads: int) -> int:
    return sum(heads * side**4 for side in sides)


attention_bytes = Check(
    "attention_bytes",
    lambda sides, heads: 4 * _numbers(sides, heads),
    cases=[
        Case("one layer of 3x3 positions with 1 head", ([3], 1)),
        Case("two layers, 8x8 and 4x4, with 2 heads", ([8, 4], 2)),
        Case("no layers", ([], 8)),
        Case("the five layers of 64x64 of Stable Diffusion v1", ([64] * 5, 8)),
    ],
    mistakes=[
        Mistake("A number in float32 takes 4 bytes.", _numbers),
        Mistake("Did you count the heads?", lambda sides, heads: 4 * _numbers(sides, 1)),
        Mistake(
            "A layer of side s has s * s queries, and each of them has a map over s * s keys.",
            lambda sides, heads: sum(4 * heads * side**2 for side in sides),
        ),
        Mistake("Is that in bits? A byte has 8 of them.", lambda sides, heads: 32 * _numbers(sides, heads)),
    ],
)
