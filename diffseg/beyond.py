"""What came after the paper: ideas that need no training, one function each, to be combined (notebook 12).

They work on what DiffSeg has at hand: the aggregated attention A, [h, w, h, w], its proposals, and the picture. Some
change A before it is merged, some take the place of merging, some change the proposals before one wins each pixel.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from numbers import Real

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float, Int, Integer
from scipy.linalg import eigh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from diffseg.merging import anchor_grid, average, check_attention, full_precision, log_probability, symmetric_kl

#: Distances in pixels to the neighbours that PAMR looks at, each in eight directions; and its temperature.
DILATIONS, TEMPERATURE = (1, 2, 4, 8), 0.1
_DIRECTIONS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
_EPSILON = 1e-8


def refine(
    maps: Float[Tensor, "maps height width"],
    image: Float[Tensor, "channels height width"],
    iterations: int = 10,
    dilations: Iterable[int] = DILATIONS,
) -> Float[Tensor, "maps height width"]:
    r"""Maps that follow the picture's edges: pixel-adaptive mask refinement (Araslanov and Roth 2020, Sec. 4).

    Each round replaces a pixel's values by a mean of its neighbours' values, weighted by how alike their colours are:
    softmax over neighbours n of -mean over channels of |x_i - x_n| / (0.1 sigma_i), sigma_i the standard deviation of
    the channel over these neighbours (0.1 as in the released code). At the border the last pixel is repeated.

    Args:
        maps: values to be refined, such as proposals upsampled to the pixels.
        image: its colours, in any unit.
        iterations: rounds; each reaches as far as the largest dilation.
        dilations: distances to the neighbours, pixels.
    """
    steps = [(dy * far, dx * far) for far in dilations for dy, dx in _DIRECTIONS]
    neighbours = torch.stack(list(_shifted(image, steps)))  # [neighbours, channels, height, width]
    differences = (neighbours - image).abs() / (neighbours.std(dim=0) + _EPSILON)
    weights = (-differences.mean(dim=1) / TEMPERATURE).softmax(dim=0)  # [neighbours, height, width]
    for _ in range(iterations):
        result = torch.zeros_like(maps)
        for weight, shifted in zip(weights, _shifted(maps, steps), strict=True):
            result.addcmul_(shifted, weight)
        maps = result
    return maps


def _shifted(picture: Float[Tensor, "n h w"], steps: list[tuple[int, int]]) -> Iterator[Float[Tensor, "n h w"]]:
    """The picture as each step's neighbour sees it: result[y, x] = picture[y + dy, x + dx]."""
    height, width = picture.shape[-2:]
    far = max(max(abs(dy), abs(dx)) for dy, dx in steps)
    padded = F.pad(picture[None], (far,) * 4, mode="replicate")[0]
    for dy, dx in steps:
        yield padded[:, far + dy : far + dy + height, far + dx : far + dx + width]


# ---- attention as a Markov chain


def walk(attention: Float[Tensor, "h w h w"], steps: int) -> Float[Tensor, "h w h w"]:
    """A^k: where a walker that follows attention is after k steps (Attention Chains, NeurIPS 2025). Rows sum to 1."""
    check_attention(attention)
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1, which is the attention itself.")
    matrix = rearrange(attention, "i j k l -> (i j) (k l)")
    with full_precision(attention.device.type):
        return torch.linalg.matrix_power(matrix, steps).view_as(attention)


def token_rank(
    attention: Float[Tensor, "h w h w"], damping: Real = 0.85, tolerance: Real = 1e-7
) -> Float[Tensor, "h w"]:
    r"""TokenRank: how often the walker is at each position in the long run, \pi = d \pi A + (1 - d) / n.

    PageRank of the attention: positions that many others attend to, who are attended to themselves, rank high.

    Args:
        damping: how likely the walker follows attention; else it starts anew anywhere. Must be below 1, so that there
            is one answer.
        tolerance: of the sum of changes, at which the iteration ends.
    """
    check_attention(attention)
    if not 0 <= damping < 1:
        raise ValueError(f"damping={damping} must be at least 0 and below 1; 0.85 is usual.")
    matrix = rearrange(attention, "i j k l -> (i j) (k l)").double()
    rank = matrix.new_full((len(matrix),), 1 / len(matrix))
    while True:
        following = damping * (rank @ matrix) + (1 - damping) / len(matrix)
        if (following - rank).abs().sum() < tolerance:
            return following.float().view(attention.shape[:2])
        rank = following


def ranked_distances(
    attention: Float[Tensor, "h w h w"], rank: Float[Tensor, "h w"], points: int
) -> Float[Tensor, "anchors positions"]:
    """D between anchors of high rank and all maps, for `merge(attention, points, distances=...)`.

    Of the positions that are nearest to one point of Eq. 4's grid, the anchor is that of the highest rank.
    """
    size = check_attention(attention)
    cells = anchor_grid(size, points).to(rank.device)
    positions = torch.cartesian_prod(*(torch.arange(side, device=rank.device) for side in size))
    nearest = torch.cdist(positions.float(), cells.float()).argmin(dim=1)  # [positions], the cell of each
    order = rank.flatten().argsort(stable=True)
    best = torch.empty(len(cells), dtype=torch.int64, device=rank.device)
    best[nearest[order].cpu()] = order  # the last that is written, the highest, stays
    maps = rearrange(attention, "i j k l -> (i j) (k l)")
    return symmetric_kl(maps[best], maps)


# ---- normalised cuts


def normalized_cut(affinity: Float[np.ndarray, "n n"], limit: Real) -> Integer[np.ndarray, " n"]:
    """Cut a graph in two, and each part again, as long as a cut is cheap (Shi and Malik 2000; DiffCut 2024).

    The cost of a cut is Ncut = cut / weight of one side + cut / weight of the other, from 0 to 2.

    Args:
        affinity: symmetric, not negative.
        limit: parts are cut while Ncut is below it; 0.5 in DiffCut.

    Returns:
        The part of each node, 0, 1, ... in the order of their first nodes.
    """
    waiting, parts = [np.arange(len(affinity))], []
    while waiting:
        nodes = waiting.pop()
        side, cost = best_cut(affinity[np.ix_(nodes, nodes)]) if len(nodes) > 2 else (None, np.inf)
        if cost < limit:
            waiting += [nodes[side], nodes[~side]]
        else:
            parts.append(nodes)
    labels = np.empty(len(affinity), dtype=np.int64)
    for part, nodes in enumerate(sorted(parts, key=min)):
        labels[nodes] = part
    return labels


def best_cut(affinity: Float[np.ndarray, "n n"]) -> tuple[np.ndarray, float]:
    """The cheapest cut along the second eigenvector of the normalised Laplacian: one side, and its Ncut."""
    degrees = affinity.sum(axis=1) + _EPSILON
    scale = degrees**-0.5
    count = len(affinity)
    _, vectors = eigh(affinity * scale[:, None] * scale, subset_by_index=(count - 2, count - 2))
    order = np.argsort(vectors[:, 0] * scale, kind="stable")
    ordered = affinity[np.ix_(order, order)]
    weight = degrees[order].cumsum()[:-1]  # of the first 1, 2, ..., n - 1 nodes
    inside = np.diagonal(ordered.cumsum(axis=0).cumsum(axis=1))[:-1]
    cut = weight - inside
    costs = cut / weight + cut / (degrees.sum() - weight)
    cheapest = int(costs.argmin())
    side = np.zeros(count, dtype=bool)
    side[order[: cheapest + 1]] = True
    return side, float(costs[cheapest])


def cut_proposals(
    attention: Float[Tensor, "h w h w"], limit: Real = 0.5, side: int = 32, power: Real = 1.0
) -> Float[Tensor, "proposals h w"]:
    """Proposals from recursive normalised cuts of the attention, without a threshold of distances.

    The graph has the positions of a coarser grid, side x side where that divides h and w; two of them are as close as
    the cosine of their maps, to a power. A proposal is the mean of all maps in a part.
    """
    rows, columns = check_attention(attention)
    factor = max(1, min(rows, columns) // side)
    if rows % factor or columns % factor:
        raise ValueError(f"side={side} does not divide the attention's {rows} x {columns}; try {min(rows, columns)}.")
    coarse = reduce(attention, "(i a) (j b) (k c) (l d) -> (i j) (k l)", "mean", a=factor, b=factor, c=factor, d=factor)
    unit = F.normalize(coarse.float(), dim=1)
    parts = torch.from_numpy(normalized_cut((unit @ unit.T).clamp_min(0).pow(power).cpu().double().numpy(), limit))
    labels = parts.view(rows // factor, columns // factor).repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    members = F.one_hot(labels.flatten()).T.bool().to(attention.device)
    return average(members, rearrange(attention, "i j k l -> (i j) (k l)").float()).view(-1, rows, columns)


# ---- things that touch


def edges(attention: Float[Tensor, "h w h w"]) -> tuple[Float[Tensor, "h w_1"], Float[Tensor, "h_1 w"]]:
    """D between each map and the next one to the right, and the next one below: high where things meet (TRACE 2026)."""
    check_attention(attention)
    logs = log_probability(attention)
    right = ((attention[:, 1:] - attention[:, :-1]) * (logs[:, 1:] - logs[:, :-1])).sum((2, 3))
    below = ((attention[1:] - attention[:-1]) * (logs[1:] - logs[:-1])).sum((2, 3))
    return right / 2, below / 2


def split(labels: Int[Tensor, "h w"], right: Tensor, below: Tensor, limit: Real) -> Int[Tensor, "h w"]:
    """Segments of a grid in pieces that hang together: neighbours do, in one segment, with D below the limit.

    Args:
        labels: of the positions.
        right, below: those of `edges`.
        limit: nats.
    """
    ids = torch.arange(labels.numel()).view(labels.shape)
    joined_right = (labels[:, 1:] == labels[:, :-1]).cpu() & (right < limit).cpu()
    joined_below = (labels[1:] == labels[:-1]).cpu() & (below < limit).cpu()
    one = torch.cat([ids[:, 1:][joined_right], ids[1:][joined_below]]).numpy()
    other = torch.cat([ids[:, :-1][joined_right], ids[:-1][joined_below]]).numpy()
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(labels.numel(),) * 2)
    return torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64)).view(labels.shape)


# ---- noise, sinks, sizes


def attend_often(
    attend: Callable[..., Float[Tensor, "h w h w"]], timesteps: Iterable[int], seeds: Iterable[int]
) -> Float[Tensor, "h w h w"]:
    """The mean attention over steps and noises: one pass of the model for each pair.

    attention = attend_often(partial(pipe.attend, image), timesteps=(100, 300), seeds=range(4))
    """
    maps = [attend(timestep=timestep, seed=seed) for timestep, seed in product(timesteps, seeds)]
    if not maps:
        raise ValueError("timesteps or seeds is empty; name at least one of each, as in (300,) and (0,).")
    return torch.stack(maps).mean(dim=0)


def without_sinks(attention: Float[Tensor, "h w h w"], factor: Real) -> Float[Tensor, "h w h w"]:
    """Attention without the keys that get more than `factor` times their share from all positions together."""
    received = attention.mean(dim=(0, 1))  # [h, w], sums to 1
    kept = attention * (received <= factor / received.numel())
    total = kept.sum(dim=(2, 3), keepdim=True)
    return torch.where(total > 0, kept / total.clamp_min(torch.finfo(kept.dtype).tiny), attention)


def weigh_sizes(proposals: Float[Tensor, "proposals h w"], exponent: Real) -> Float[Tensor, "proposals h w"]:
    """Proposals times their size to a power, before they compete for pixels.

    A proposal sums to 1, so a large one is low everywhere and loses at its border. Its size is how many positions it
    spreads over, exp(entropy). Exponent 0 is the paper's rule; with 1 small and large ones have the same height.
    """
    entropy = -(proposals * log_probability(proposals)).sum(dim=(1, 2), keepdim=True)  # nats
    return proposals * (exponent * entropy).exp()
