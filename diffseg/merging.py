"""Segment, first half: iterative attention merging (Eq. 4 and 5, Algorithm 1)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Real

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffseg import ATTENTION_SIZE, ITERATIONS, POINTS, THRESHOLD
from diffseg.arguments import check_sides, check_threshold, check_whole

EPSILON = 1e-12  # logarithms are taken of probabilities no smaller than this
_ROWS = 512  # maps whose logarithms are alive at once


def anchor_grid(size: int | tuple[int, int] = ATTENTION_SIZE, points: int = POINTS) -> Int[Tensor, "anchors 2"]:
    """Rows and columns of points x points evenly spaced, centred anchors (Eq. 4).

    16 points on a side of 64 are at 1, 5, ..., 61. Row-major order.

    Args:
        size: the side of the attention, or its (rows, columns).
        points: along each axis.

    Raises:
        ValueError: unless 2 <= points <= the shorter side.
    """
    rows, columns = check_sides("size", size, f"Of the attention, in positions; the paper takes {ATTENTION_SIZE}.")
    check_whole("points", points, f"The paper takes {POINTS}.")
    if not 2 <= points <= min(rows, columns):
        raise ValueError(
            f"points={points} must be from 2 to the side of the attention, {min(rows, columns)}; "
            f"the paper takes {POINTS}."
        )
    return torch.cartesian_prod(_ticks(rows, points), _ticks(columns, points))


def _ticks(length: int, points: int) -> Int[Tensor, " {points}"]:
    """Evenly spaced, centred positions along one axis."""
    step = (length - 1) // (points - 1)
    first = (length - 1 - step * (points - 1)) // 2
    return first + step * torch.arange(points)


def log_probability(p: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Natural logarithm of probabilities, of EPSILON where they are smaller."""
    return p.clamp_min(EPSILON).log_()


def symmetric_kl(p: Float[Tensor, "n d"], q: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    r"""The distance D of Eq. 5 between every row of p and every row of q, in nats.

    D = 1/2 KL(p || q) + 1/2 KL(q || p) = 1/2 (h_p + h_q - p . log q - log p . q),
    h = p . log p: two matrix products instead of n m d logarithms.

    Computed in float32 at full precision (no TF32, no autocast), since terms near 8 cancel;
    rounding below zero is clamped. In the logarithms, and only there, probabilities below EPSILON
    count as EPSILON: zeros give large finite distances, D stays symmetric, not negative, and zero
    between equal rows.
    """
    p, q = p.float(), q.float()
    log_p = log_probability(p)
    distances = p.new_empty(len(p), len(q))
    with full_precision(p.device.type):
        h_p = torch.linalg.vecdot(p, log_p)
        for start in range(0, len(q), _ROWS):
            block = q[start : start + _ROWS]
            log_block = log_probability(block)
            h_block = torch.linalg.vecdot(block, log_block)
            sums = h_p[:, None] + h_block  # [n, rows]
            sums.addmm_(p, log_block.T, alpha=-1).addmm_(log_p, block.T, alpha=-1)
            distances[:, start : start + _ROWS] = sums
    return distances.mul_(0.5).clamp_min_(0)


def anchor_distances(attention: Float[Tensor, "h w h w"], points: int = POINTS) -> Float[Tensor, "anchors positions"]:
    """D between the anchors' maps and all maps: the costly part of pass 1.

    It does not depend on the threshold: computed once and handed to `merge`, it makes a
    threshold slider live. An anchor's distance to itself is exactly 0.

    Raises:
        ValueError: for attention of a wrong shape or with NaN, and for wrong points.
    """
    size = check_attention(attention)
    rows, columns = anchor_grid(size, points).to(attention.device).T
    maps = rearrange(attention, "i j k l -> (i j) (k l)")
    own = rows * size[1] + columns
    distances = symmetric_kl(maps[own], maps)
    if not distances.isfinite().all():
        raise ValueError("attention holds NaN or infinity; every attention[i, j] must be a distribution.")
    distances[torch.arange(len(own), device=own.device), own] = 0
    return distances


def merge(
    attention: Float[Tensor, "h w h w"],
    points: int = POINTS,
    iterations: int = ITERATIONS,
    threshold: Real | Sequence[Real] = THRESHOLD,
    remove_merged: bool = True,
    distances: Float[Tensor, "anchors positions"] | None = None,
) -> Float[Tensor, "proposals h w"]:
    """Object proposals from aggregated attention: Algorithm 1.

    Pass 1 replaces each anchor's map by the mean of ALL maps nearer than the threshold. Each
    later pass goes through the proposals in order and replaces a group of near ones by its mean.

    Args:
        attention: attention[i, j] is a map that sums to 1.
        points: anchors along one side, M.
        iterations: passes, N.
        threshold: tau in nats, one number or one per pass; nearer (strictly) is merged.
        remove_merged: True is Algorithm 1: a merged proposal leaves the list. False is the
            released code: it starts no group of its own, but still joins later ones.
        distances: those of `anchor_distances(attention, points)`, if they are at hand.

    Returns:
        float32 maps that each sum to 1, in the order of their first anchors.

    Raises:
        ValueError: naming the argument that makes no sense.
    """
    return merge_passes(attention, points, iterations, threshold, remove_merged, distances)[-1]


def merge_passes(
    attention: Float[Tensor, "h w h w"],
    points: int = POINTS,
    iterations: int = ITERATIONS,
    threshold: Real | Sequence[Real] = THRESHOLD,
    remove_merged: bool = True,
    distances: Float[Tensor, "anchors positions"] | None = None,
) -> list[Float[Tensor, "_ h w"]]:
    """The proposals after every pass of `merge`, which takes the same arguments and returns the last of these."""
    thresholds = check_settings(check_attention(attention), points, iterations, threshold)
    return list(run_passes(attention, points, thresholds, remove_merged, distances))


def run_passes(
    attention: Float[Tensor, "h w h w"],
    points: int,
    thresholds: Sequence[float],
    remove_merged: bool = True,
    distances: Float[Tensor, "anchors positions"] | None = None,
) -> Iterator[Float[Tensor, "_ h w"]]:
    """Algorithm 1 with settings that have been checked: the proposals after each pass, one threshold per pass.

    Raises:
        ValueError: for distances of another shape.
    """
    rows, columns = attention.shape[:2]
    if distances is None:
        distances = anchor_distances(attention, points)
    elif not isinstance(distances, Tensor) or distances.shape != (points**2, rows * columns):
        found = (
            f"the shape {list(distances.shape)}"
            if isinstance(distances, Tensor)
            else f"the type {type(distances).__name__}"
        )
        raise ValueError(
            f"distances has {found}, expected a tensor {[points**2, rows * columns]}; "
            f"use anchor_distances(attention, points={points})."
        )
    maps = rearrange(attention, "i j k l -> (i j) (k l)").float()
    proposals = average(distances.to(maps.device) < thresholds[0], maps)
    yield rearrange(proposals, "p (k l) -> p k l", k=rows)
    for tau in thresholds[1:]:
        near = symmetric_kl(proposals, proposals) < tau
        proposals = average(greedy_groups(near, remove_merged), proposals)
        yield rearrange(proposals, "p (k l) -> p k l", k=rows)


def greedy_groups(near: Bool[Tensor, "n n"], remove_merged: bool = True) -> Bool[Tensor, "groups n"]:
    """The groups of one later pass of merging: groups[g, v] if proposal v is averaged into g.

    Args:
        near: near[u, v] if D(u, v) is below the threshold; u is always near itself.
        remove_merged: see `merge`.
    """
    matrix = near.cpu().numpy().copy()
    np.fill_diagonal(matrix, True)
    free = np.ones(len(matrix), dtype=bool)
    groups = []
    for anchor, row in enumerate(matrix):
        if free[anchor]:
            groups.append(row & free if remove_merged else row)
            free &= ~row
    return torch.from_numpy(np.stack(groups)).to(near.device)


def groups_of_passes(passes: Sequence[Float[Tensor, "_ h w"]], threshold: Real) -> list[Bool[Tensor, "_ _"]]:
    """The groups of every pass after the first, found again in the proposals that `merge_passes` returns."""
    flat = [proposals.flatten(1) for proposals in passes[:-1]]
    return [greedy_groups(symmetric_kl(maps, maps) < threshold) for maps in flat]


def average(members: Bool[Tensor, "groups n"], maps: Float[Tensor, "n d"]) -> Float[Tensor, "groups d"]:
    """The mean map of each group, as one matrix product. No group may be empty."""
    share = members.float() / members.sum(dim=1, keepdim=True)
    with full_precision(maps.device.type):
        return share @ maps


def check_attention(attention: Tensor) -> tuple[int, int]:
    """Rows and columns of aggregated attention.

    Raises:
        TypeError: unless it is a tensor.
        ValueError: unless it is [rows, columns, rows, columns].
    """
    if not isinstance(attention, Tensor):
        raise TypeError(f"attention has the type {type(attention).__name__}; pass a tensor, as `attend` returns it.")
    shape = list(attention.shape)
    if len(shape) != 4 or shape[:2] != shape[2:] or min(shape) < 2:
        raise ValueError(f"attention has the shape {shape}; expected [h, w, h, w], as `aggregate` returns it.")
    return shape[0], shape[1]


def check_settings(
    size: int | tuple[int, int], points: int, iterations: int, threshold: Real | Sequence[Real]
) -> list[float]:
    """Check the settings of `merge` for attention of one size; the threshold of each pass.

    Raises:
        TypeError, ValueError: naming the argument, value and remedy.
    """
    anchor_grid(size, points)
    check_whole("iterations", iterations, f"The paper takes {ITERATIONS}.")
    if iterations < 1:
        raise ValueError(f"iterations={iterations} must be at least 1; the paper takes {ITERATIONS}.")
    given = threshold.tolist() if isinstance(threshold, np.ndarray | Tensor) else threshold
    several = isinstance(given, Sequence) and not isinstance(given, str)
    thresholds = list(given) if several else [given] * iterations
    if len(thresholds) != iterations:
        raise ValueError(
            f"threshold={threshold!r} has {len(thresholds)} values for iterations={iterations}; "
            "pass one number, or one per iteration."
        )
    return [check_threshold(tau) for tau in thresholds]


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Matrix products in true float32: no TF32 or bfloat16 shortcuts, no autocast.

    torch has two interfaces for this setting and refuses to mix them, so the one that is in use
    is the one that is changed and put back.
    """
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    newer = [backend.fp32_precision for backend in backends]
    try:
        older = torch.get_float32_matmul_precision()
    except RuntimeError:  # the newer interface has been used
        older = None
    try:
        if older is None:
            for backend in backends:
                backend.fp32_precision = "ieee"
        elif older != "highest":
            torch.set_float32_matmul_precision("highest")
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        if older is None:
            for backend, precision in zip(backends, newer, strict=True):
                backend.fp32_precision = precision
        elif older != "highest":
            torch.set_float32_matmul_precision(older)
