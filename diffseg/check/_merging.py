"""Checks of notebook 04: distances, anchors, groups, merging."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffseg import merging

from ._exercise import Case, Check, Mistake, distributions

# ---- symmetric_kl ---------------------------------------------------------------------------------------------------


def _one_direction(p: Float[Tensor, "n d"], q: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """KL(p || q), elementwise."""
    log_p, log_q = p.clamp_min(merging.EPSILON).log(), q.clamp_min(merging.EPSILON).log()
    return (p[:, None] * (log_p[:, None] - log_q)).sum(dim=2)


def _h_in_a_row(p: Float[Tensor, "n d"], q: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """With h_p added to the columns, where torch lets it: for as many p as q."""
    right = merging.symmetric_kl(p, q)
    if len(p) != len(q):
        return right
    h_p = (p * p.clamp_min(merging.EPSILON).log()).sum(dim=1)
    return right + (h_p - h_p[:, None]) / 2


_FOCUSED, _EVEN = torch.tensor([[0.9, 0.09, 0.01]]), torch.full((1, 3), 1 / 3)
_HALVES = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])

symmetric_kl = Check(
    "symmetric_kl",
    merging.symmetric_kl,
    cases=[
        Case("one focused and one even map over three positions", (_FOCUSED, _EVEN)),
        Case("4 maps and 4 others over 9 positions", (distributions(4, 9), distributions(4, 9, seed=1))),
        Case("3 maps and 5 maps over 16 positions", (distributions(3, 16), distributions(5, 16, seed=1))),
        Case("a map and itself", (distributions(1, 8), distributions(1, 8))),
        Case("maps with zeros", (_HALVES, torch.cat([_HALVES, distributions(1, 4)]))),
    ],
    mistakes=[
        Mistake("h_p belongs to the rows: `h_p[:, None]` makes a column of it.", _h_in_a_row),
        Mistake("Did you forget the half?", lambda p, q: 2 * merging.symmetric_kl(p, q)),
        Mistake("That is KL(p || q) alone. D is the mean of both directions.", _one_direction),
        Mistake("That is KL(q || p) alone. D is the mean of both directions.", lambda p, q: _one_direction(q, p).T),
        Mistake("The rows of the result belong to p, the columns to q.", lambda p, q: merging.symmetric_kl(q, p)),
        Mistake(
            "Is that the mean over the positions? KL is the sum over them.",
            lambda p, q: merging.symmetric_kl(p, q) / p.shape[1],
        ),
    ],
    rtol=1e-3,
    atol=1e-5,
)

# ---- unseen ---------------------------------------------------------------------------------------------------------


def _not_among(labels: Int[Tensor, "side side"], seen: Int[Tensor, "..."]) -> list[int]:
    return sorted(set(labels.flatten().tolist()) - set(seen.flatten().tolist()))


def _unseen(labels: Int[Tensor, "side side"], points: int) -> list[int]:
    rows, columns = merging.anchor_grid(len(labels), points).T
    return _not_among(labels, labels[rows, columns])


def _seen(labels: Int[Tensor, "side side"], points: int) -> list[int]:
    rows, columns = merging.anchor_grid(len(labels), points).T
    return sorted(set(labels[rows, columns].tolist()))


def _seen_from_the_edge(labels: Int[Tensor, "side side"], points: int) -> list[int]:
    step = len(labels) // points
    return _not_among(labels, labels[::step, ::step])


def _seen_on_the_diagonal(labels: Int[Tensor, "side side"], points: int) -> list[int]:
    ticks = merging.anchor_grid(len(labels), points)[:points, 1]
    return _not_among(labels, labels[ticks, ticks])


def _scattered(side: int, **positions: tuple[int, int]) -> Int[Tensor, "side side"]:
    """A ground of zeros with single positions of other labels: class_7=(2, 3)."""
    labels = torch.zeros(side, side, dtype=torch.int64)
    for name, (row, column) in positions.items():
        labels[row, column] = int(name.removeprefix("class_"))
    return labels


unseen = Check(
    "unseen",
    _unseen,
    cases=[
        # The anchors are in rows and columns 1, 4, 7, 10 and 13.
        Case(
            "a side of 16 with 5 x 5 anchors",
            (_scattered(16, class_1=(4, 10), class_2=(0, 0), class_3=(13, 13), class_4=(3, 6), class_5=(4, 5)), 5),
        ),
        Case("a side of 5 with an anchor at every position", (torch.arange(25).reshape(5, 5), 5)),
        Case("a side of 8 with anchors in the corners only", (torch.arange(64).reshape(8, 8), 2)),
        Case("stripes", (torch.arange(9).repeat(9, 1), 3)),
    ],
    mistakes=[
        Mistake("These are the labels that are seen. Which are not?", _seen),
        Mistake("Does your grid start at 0? `anchor_grid` centres it.", _seen_from_the_edge),
        Mistake("Did you take only the anchors on the diagonal?", _seen_on_the_diagonal),
    ],
)

# ---- linked_groups --------------------------------------------------------------------------------------------------


def _linked_groups(near: Bool[Tensor, "n n"], rounds: int | None = None) -> Bool[Tensor, "groups n"]:
    """Connected components in the order of their first members; `rounds` limits how far a link is followed."""
    free = torch.ones(len(near), dtype=torch.bool)
    groups = []
    while free.any():
        group = torch.zeros_like(free)
        group[free.nonzero()[0]] = True
        for _ in range(len(near) if rounds is None else rounds):
            group = group | near[group].any(dim=0)
        groups.append(group & free)
        free = free & ~group
    return torch.stack(groups)


def _near_of(n: int, *pairs: tuple[int, int]) -> Bool[Tensor, "n n"]:
    near = torch.eye(n, dtype=torch.bool)
    for u, v in pairs:
        near[u, v] = near[v, u] = True
    return near


linked_groups = Check(
    "linked_groups",
    _linked_groups,
    cases=[
        Case("a chain 0-1-2-3-4", (_near_of(5, (0, 1), (1, 2), (2, 3), (3, 4)),)),
        Case("a pair and two that are alone", (_near_of(4, (0, 2)),)),
        Case("two chains, one of them out of order", (_near_of(7, (0, 5), (5, 2), (2, 6), (1, 4), (4, 3)),)),
        Case("nobody near anybody", (_near_of(3),)),
    ],
    mistakes=[
        Mistake(
            "These are the groups of Algorithm 1. Those who are near a member of the group must join it too.",
            lambda near: merging.greedy_groups(near),
        ),
        Mistake("Repeat until nobody joins any more; twice is not enough.", lambda near: _linked_groups(near, 2)),
        Mistake(
            "Every group must be there once, not once for each member.",
            lambda near: torch.linalg.matrix_power(near.double(), len(near)) > 0,
        ),
    ],
)

# ---- merge_by_size --------------------------------------------------------------------------------------------------


def _merge_by_size(
    proposals: Float[Tensor, "n d"],
    sizes: Float[Tensor, " n"],
    threshold: float,
    remove_merged: bool = True,
) -> tuple[Float[Tensor, "groups d"], Float[Tensor, " groups"]]:
    near = merging.symmetric_kl(proposals, proposals) < threshold
    weights = merging.greedy_groups(near, remove_merged) * sizes  # [groups, n]
    merged_sizes = weights.sum(dim=1)
    return weights @ proposals / merged_sizes[:, None], merged_sizes


def _unweighted(proposals, sizes, threshold):
    _, merged_sizes = _merge_by_size(proposals, sizes, threshold)
    return _merge_by_size(proposals, torch.ones_like(sizes), threshold)[0], merged_sizes


def _size_of_the_first(proposals, sizes, threshold):
    groups = merging.greedy_groups(merging.symmetric_kl(proposals, proposals) < threshold)
    return _merge_by_size(proposals, sizes, threshold)[0], sizes[groups.int().argmax(dim=1)]


def _maps_counted(proposals, sizes, threshold):
    _, counts = _merge_by_size(proposals, torch.ones_like(sizes), threshold)
    return _merge_by_size(proposals, sizes, threshold)[0], counts


def _not_divided(proposals, sizes, threshold):
    maps, merged_sizes = _merge_by_size(proposals, sizes, threshold)
    return maps * merged_sizes[:, None], merged_sizes


_TWO_AND_ONE = torch.tensor([[0.5, 0.5], [0.6, 0.4], [0.01, 0.99]])
_CHAIN = torch.tensor([[p, 1 - p] for p in (0.1, 0.25, 0.4, 0.55, 0.7)])

merge_by_size = Check(
    "merge_by_size",
    _merge_by_size,
    cases=[
        Case("two near maps and one far from both", (_TWO_AND_ONE, torch.tensor([30.0, 10.0, 5.0]), 0.3)),
        Case("a chain in which only neighbours are near", (_CHAIN, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), 0.11)),
        Case("a threshold too low to merge", (distributions(4, 6), torch.arange(1.0, 5.0), 1e-3)),
        Case("a threshold that merges all", (distributions(6, 8), torch.arange(1.0, 7.0), 100.0)),
    ],
    mistakes=[
        Mistake("Did you weigh each map by its size?", _unweighted),
        Mistake("Sum the sizes of all members, not only the first one's.", _size_of_the_first),
        Mistake("Divide by the sum of the sizes: every map must sum to 1.", _not_divided),
        Mistake("That is how many maps are merged. Sum their sizes.", _maps_counted),
        Mistake(
            "A merged proposal has to leave the list, but here it joins a second group.",
            lambda proposals, sizes, threshold: _merge_by_size(proposals, sizes, threshold, remove_merged=False),
        ),
    ],
    atol=1e-5,
)
