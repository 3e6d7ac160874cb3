"""Checks of notebook 07: a step of K-Means, the number of clusters, and attention without the class token."""

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from diffseg.baselines import true_k
from diffseg.metrics import IGNORE

from ._exercise import Case, Check, Mistake

# ---- lloyd_step -----------------------------------------------------------------------------------------------------


def _squares(points: Float[Tensor, "n d"], centres: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
    return (points[:, None] - centres[None]).square().sum(dim=2)


def _means(points: Tensor, nearest: Tensor, k: int) -> Float[Tensor, "k d"]:
    return torch.stack([points[nearest == one].mean(dim=0) for one in range(k)])


def _lloyd_step(points: Float[Tensor, "n d"], centres: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    return _means(points, _squares(points, centres).argmin(dim=1), len(centres))


def _sums(points: Tensor, centres: Tensor) -> Tensor:
    nearest = _squares(points, centres).argmin(dim=1)
    return torch.stack([points[nearest == one].sum(dim=0) for one in range(len(centres))])


def _farthest(points: Tensor, centres: Tensor) -> Tensor:
    return _means(points, _squares(points, centres).argmax(dim=1), len(centres))


def _nearest_points(points: Tensor, centres: Tensor) -> Tensor:
    return points[_squares(points, centres).argmin(dim=0)]


def _by_first_axis(points: Tensor, centres: Tensor) -> Tensor:
    nearest = _squares(points[:, :1], centres[:, :1]).argmin(dim=1)
    return _means(points, nearest, len(centres))


_LINE = torch.tensor([[0.0, 0.0], [1.0, 4.0], [2.0, 0.0], [8.0, 0.0], [9.0, 6.0]])
_BLOBS = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)) + 3 * torch.eye(4).repeat(8, 1)[:30]

lloyd_step = Check(
    "lloyd_step",
    _lloyd_step,
    cases=[
        Case("five points on a plane and two centres", (_LINE, torch.tensor([[1.0, 1.0], [6.0, 1.0]]))),
        Case("one centre: it moves to the mean of all points", (_LINE, torch.tensor([[100.0, 0.0]]))),
        Case("thirty points in four dimensions and three centres", (_BLOBS, _BLOBS[:3])),
    ],
    mistakes=[
        Mistake("That is the sum of the points of a cluster. Divide by how many there are.", _sums),
        Mistake("Each point goes to the centre with the smallest distance, not the largest.", _farthest),
        Mistake("A centre moves to the mean of its points, which need not be a point.", _nearest_points),
        Mistake("The distance is over all dimensions: sum the squares over the last axis.", _by_first_axis),
        Mistake("These are the old centres. Where do they move?", lambda points, centres: centres),
    ],
)

# ---- constant_k -----------------------------------------------------------------------------------------------------

Truths = list[Integer[np.ndarray, "_ _"]]


def _counts(truths: Truths) -> list[int]:
    return [len(set(np.unique(truth).tolist()) - set(IGNORE)) for truth in truths]


def _truth(*values: int) -> Integer[np.ndarray, "1 width"]:
    return np.array([values])


constant_k = Check(
    "constant_k",
    lambda truths: true_k(truths),
    cases=[
        Case("an image of two classes and one of four", ([_truth(0, 0, 5), _truth(1, 2, 3, 5)],)),
        Case("2, 2 and 4 classes: 2.67 on average", ([_truth(0, 1), _truth(0, 2), _truth(1, 2, 3, 4)],)),
        Case("pixels that are not labelled, 255", ([_truth(0, 1, 255), _truth(3, 4, 255, 255)],)),
    ],
    mistakes=[
        Mistake("255 means *not labelled*: it is no class.", lambda t: round(np.mean([len(np.unique(x)) for x in t]))),
        Mistake(
            "That is how many classes there are in all images together; count in each, then average.",
            lambda t: len(set(np.concatenate([x.ravel() for x in t]).tolist()) - set(IGNORE)),
        ),
        Mistake("Round to the nearest integer, not down.", lambda t: int(np.mean(_counts(t)))),
        Mistake("That is the largest number, not the average.", lambda t: max(_counts(t))),
    ],
)

# ---- patch_attention ------------------------------------------------------------------------------------------------


def _rows(attention: Tensor) -> Tensor:
    return attention / attention.sum(dim=-1, keepdim=True)


def _patch_attention(probs: Float[Tensor, "layers heads tokens tokens"]) -> Float[Tensor, "patches patches"]:
    return _rows(probs.mean(dim=(0, 1))[1:, 1:])


def _attention(layers: int, heads: int, tokens: int) -> Float[Tensor, "{layers} {heads} {tokens} {tokens}"]:
    scores = torch.randn(layers, heads, tokens, tokens, generator=torch.Generator().manual_seed(tokens))
    return (3 * scores).softmax(dim=-1)


patch_attention = Check(
    "patch_attention",
    _patch_attention,
    cases=[
        Case("one layer, one head, a class token and two patches", (_attention(1, 1, 3),)),
        Case("two layers of three heads and four patches", (_attention(2, 3, 5),)),
        Case("twelve layers, nine patches", (_attention(12, 2, 10),)),
    ],
    mistakes=[
        Mistake(
            "What went to the class token is missing now: make each row sum to 1 again.",
            lambda p: p.mean(dim=(0, 1))[1:, 1:],
        ),
        Mistake("The class token is the first token, not the last.", lambda p: _rows(p.mean(dim=(0, 1))[:-1, :-1])),
        Mistake(
            "The class token is left out as a query, too, not only as a key.",
            lambda p: _rows(p.mean(dim=(0, 1))[:, 1:]),
        ),
        Mistake(
            "First the mean, then the normalisation: a head that attends mostly to the class token shall count less.",
            lambda p: _rows(p[..., 1:, 1:]).mean(dim=(0, 1)),
        ),
        Mistake("Rows sum to 1, not columns.", lambda p: _rows(p.mean(dim=(0, 1))[1:, 1:].T).T),
    ],
)
