"""Checks of notebook 01: noise added to a latent, heads one at a time, and how large a layer fits into memory."""

import torch
from jaxtyping import Float
from torch import Tensor

from ._exercise import Case, Check, Mistake


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- noised ---------------------------------------------------------------------------------------------------------

Latent = Float[Tensor, "*shape"]
Betas = Float[Tensor, " steps"]


def _kept(betas: Betas, t: int) -> Float[Tensor, ""]:
    """The product of the formula."""
    return (1 - betas[: t + 1]).prod()


def _mixed(latent: Latent, noise: Latent, kept: Float[Tensor, ""]) -> Latent:
    return kept.sqrt() * latent + (1 - kept).sqrt() * noise


def _noised(latent: Latent, noise: Latent, betas: Betas, t: int) -> Latent:
    return _mixed(latent, noise, _kept(betas, t))


_THREE = torch.tensor([0.1, 0.2, 0.3])

noised = Check(
    "noised",
    _noised,
    cases=[
        Case("two numbers, step 1 of three", (torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 0.5]), _THREE, 1)),
        Case("the first step, t = 0", (torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 0.5]), _THREE, 0)),
        Case(
            "a latent of 4 x 8 x 8, step 300 of 1000",
            (_normal(1, 4, 8, 8), _normal(1, 4, 8, 8, seed=1), torch.linspace(0.00085, 0.012, 1000), 300),
        ),
    ],
    mistakes=[
        Mistake(
            "Did you forget the square roots? Without them the result has too little variance.",
            lambda z, e, betas, t: _kept(betas, t) * z + (1 - _kept(betas, t)) * e,
        ),
        Mistake(
            "The product includes step t itself: betas[: t + 1].",
            lambda z, e, betas, t: _mixed(z, e, (1 - betas[:t]).prod()),
        ),
        Mistake(
            "That is the noise of step t alone. All steps up to t have left their share: a product.",
            lambda z, e, betas, t: _mixed(z, e, 1 - betas[t]),
        ),
        Mistake("Latent and noise have changed places.", lambda z, e, betas, t: _noised(e, z, betas, t)),
        Mistake(
            "The product is one of 1 - beta, what each step keeps, not of beta, what it replaces.",
            lambda z, e, betas, t: _mixed(z, e, betas[: t + 1].prod()),
        ),
    ],
)

# ---- mean_of_heads --------------------------------------------------------------------------------------------------


def _probabilities(query: Float[Tensor, "n d"], key: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    return (query @ key.T * query.shape[1] ** -0.5).softmax(dim=1)


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
            "The softmax goes over the keys, the last axis: each query shares out its own attention.",
            lambda q, k: (q @ k.transpose(1, 2) * q.shape[2] ** -0.5).softmax(dim=1).mean(dim=0),
        ),
        Mistake(
            "Did you forget to divide by the square root of d?",
            lambda q, k: (q @ k.transpose(1, 2)).softmax(dim=2).mean(dim=0),
        ),
    ],
)

# ---- largest_side ---------------------------------------------------------------------------------------------------


def _fits(memory: int, heads: int, bytes_each: int = 4, power: int = 4) -> int:
    """The largest side with bytes_each * heads * side ** power bytes or less."""
    side = int((memory / (bytes_each * heads)) ** (1 / power))
    return max(n for n in (side - 1, side, side + 1) if n <= 0 or bytes_each * heads * n**power <= memory)


def _rounded_up(memory: int, heads: int) -> int:
    side = _fits(memory, heads)
    return side + (4 * heads * side**4 < memory)


largest_side = Check(
    "largest_side",
    _fits,
    cases=[
        Case("8 heads and exactly the memory of 64 x 64 positions", (4 * 8 * 64**4, 8)),
        Case("the same with one byte less", (4 * 8 * 64**4 - 1, 8)),
        Case("2 heads and 1 MB", (1_000_000, 2)),
        Case("24 GB and 8 heads", (24_000_000_000, 8)),
        Case("memory for a single number", (4, 1)),
    ],
    mistakes=[
        Mistake(
            "A side of s means s * s queries, and each of them has a map over s * s keys: the fourth power.",
            lambda memory, heads: _fits(memory, heads, power=2),
        ),
        Mistake("A number in float32 takes 4 bytes.", lambda memory, heads: _fits(memory, heads, bytes_each=1)),
        Mistake("Did you count the heads?", lambda memory, heads: _fits(memory, 1)),
        Mistake("Is that in bits? A byte has 8 of them.", lambda memory, heads: _fits(memory, heads, bytes_each=32)),
        Mistake("Rounded up, it does not fit: the next whole number below.", _rounded_up),
    ],
)
