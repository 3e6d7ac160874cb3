"""Do the heads of a layer agree? (Sec. 9.2, Table 4)"""

from jaxtyping import Float
from torch import Tensor

from diffseg.merge import log_probability

_BLOCK = 2**22  # probabilities per block: 16 MB in float32


def head_divergence(probs: Float[Tensor, "heads queries keys"]) -> float:
    r"""The mean KL divergence between the heads of one layer, in nats.

    The paper does not define the statistic of its Table 4; here it is

        mean over queries of  1 / (H (H - 1)) * sum_{i != j} KL(p_i || p_j)

    over all ordered pairs of different heads. Every pair counts in both directions, so this is
    also the mean of the symmetric distance D of Eq. 5, and compares directly with the threshold.

    The double sum over heads needs no pairs: with m the mean over heads of log p,
    sum_{i, j} KL(p_i || p_j) = H * sum_i p_i . (log p_i - m).

    Args:
        probs: one distribution over keys per head and query.

    Raises:
        ValueError: if there are fewer than two heads.
    """
    if probs.ndim != 3 or probs.shape[0] < 2:
        raise ValueError(
            f"probs has the shape {list(probs.shape)}; expected [heads, queries, keys] with at "
            "least two heads. Record with heads='all'."
        )
    n_heads, queries, keys = probs.shape
    rows = max(1, _BLOCK // (n_heads * keys))
    total = 0.0
    for block in probs.split(rows, dim=1):
        block = block.float()
        log = log_probability(block)
        log -= log.mean(dim=0)
        total += log.mul_(block).sum().item()
    return total / (queries * (n_heads - 1))
