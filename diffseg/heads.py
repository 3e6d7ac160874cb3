"""Do the heads of a layer agree? (Sec. 9.2, Table 4)"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from diffseg.merging import log_probability, symmetric_kl

_BLOCK = 2**22  # probabilities per block: 16 MB in float32


def head_divergence(probs: Float[Tensor, "heads queries keys"]) -> float:
    r"""The mean KL divergence between the heads of one layer, in nats.

    The paper does not define the statistic of its Table 4; here it is

        mean over queries of  1 / (H (H - 1)) * sum_{i != j} KL(p_i || p_j)

    over all ordered pairs of different heads. Every pair counts in both directions, so this is
    also the mean of the symmetric distance D of Eq. 5, in which the threshold is measured.

    Args:
        probs: one distribution over keys per head and query.

    Raises:
        ValueError: if there are fewer than two heads.
    """
    return divergence_map(probs).mean().item()


def divergence_map(probs: Float[Tensor, "heads queries keys"]) -> Float[Tensor, " queries"]:
    r"""How far the heads differ at each query: what `head_divergence` is the mean of, in nats.

    The double sum over heads needs no pairs: with m the mean over heads of log p,
    sum_{i, j} KL(p_i || p_j) = H * sum_i p_i . (log p_i - m).

    Raises:
        ValueError: if there are fewer than two heads.
    """
    _check_heads(probs)
    parts = []
    for block in _blocks(probs):
        log = log_probability(block)
        log -= log.mean(dim=0)
        parts.append(log.mul_(block).sum(dim=(0, 2)))
    return torch.cat(parts) / (len(probs) - 1)


def jensen_shannon(probs: Float[Tensor, "heads queries keys"]) -> float:
    r"""The Jensen-Shannon divergence of the heads, in nats: mean over queries of H(mean of p_i) - mean of H(p_i).

    H is the entropy. This is the information that is lost when heads are averaged: 0 if they all agree, and at most
    the logarithm of their number, if no key has attention from two of them. Unlike KL it is finite at zeros.

    Raises:
        ValueError: if there are fewer than two heads.
    """
    _check_heads(probs)
    total = 0.0
    for block in _blocks(probs):
        mean = block.mean(dim=0)  # [rows, keys]
        total += (torch.xlogy(block, block).sum() / len(probs) - torch.xlogy(mean, mean).sum()).item()
    return max(total / probs.shape[1], 0.0)


def class_distances(
    probs: Float[Tensor, "heads queries keys"], classes: Integer[Tensor, " queries"]
) -> tuple[float, float]:
    """The mean distance D (Eq. 5) between the maps of two queries in one head: of one class, and of different classes.

    A scale for `head_divergence`, which compares two heads at one query; here it is two queries in one head.

    Args:
        probs: the maps of some queries, e.g. `layer.probs[:, chosen]`.
        classes: of these queries.

    Returns:
        Means over heads and pairs of different queries, in nats; NaN where there is no such pair.
    """
    classes = classes.to(probs.device)
    distances = torch.stack([symmetric_kl(head, head) for head in probs]).mean(dim=0)  # [queries, queries]
    alike = classes[:, None] == classes
    itself = torch.eye(len(classes), dtype=torch.bool, device=probs.device)
    return distances[alike & ~itself].mean().item(), distances[~alike].mean().item()


def _blocks(probs: Float[Tensor, "heads queries keys"]) -> Iterator[Float[Tensor, "heads _ keys"]]:
    """A few queries at a time, in float32."""
    heads, _, keys = probs.shape
    for block in probs.split(max(1, _BLOCK // (heads * keys)), dim=1):
        yield block.float()


def _check_heads(probs: Tensor) -> None:
    if probs.ndim != 3 or probs.shape[0] < 2:
        raise ValueError(
            f"probs has the shape {list(probs.shape)}; expected [heads, queries, keys] with at "
            "least two heads. Record with heads='all'."
        )
