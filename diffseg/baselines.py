"""What DiffSeg is compared with: K-Means and DBSCAN on its own attention, K-Means on colours (Sec. 9.4).

All of them give int64 cluster ids 0, 1, ... without gaps, on the grid that they cluster, or, with `size`, for every
pixel: then the memberships (1 inside of a cluster, 0 outside) are upsampled bilinearly and the largest wins each pixel,
as proposals do in `diffseg.masks.suppress`.
"""

import math
from collections.abc import Collection, Iterable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, Integer
from PIL import Image
from sklearn.cluster import DBSCAN, KMeans
from sklearn.metrics import pairwise
from torch import Tensor

from diffseg import ATTENTION_SIZE, SEED
from diffseg.images import ImageLike, read_image
from diffseg.masks import enlarge, relabel
from diffseg.merging import check_attention
from diffseg.metrics import IGNORE

MIN_SAMPLES = 5  # scikit-learn's default: neighbours within eps, itself included, that make a point a core point

_NOISE = -1  # scikit-learn's label


def kmeans(
    attention: Float[Tensor, "h w h w"],
    k: int,
    seed: int = SEED,
    size: int | tuple[int, int] | None = None,
    n_init: int = 1,
) -> Int[Tensor, "height width"]:
    """K-Means on the maps of all positions: `side**2` points of as many dimensions, k-means++ start, Euclidean.

    K-Means-S is k=true_k([truth]) for each image, K-Means-C is k=true_k(truths) for all images of a data set.

    Args:
        attention: aggregated, see `diffseg.aggregate`.
        k: number of clusters; fewer come back if there are fewer different maps.
        seed: of the start. The outcome depends on it.
        size: side of the result, or its (height, width), pixels; None: the attention's.
        n_init: how many starts are tried; that with the smallest squared distances wins.

    Raises:
        ValueError: naming the argument, value and remedy.
    """
    maps = _maps(attention)
    return _finish(_kmeans(maps, k, seed, n_init), attention.shape[0], size)


def kmeans_colours(
    image: ImageLike,
    k: int,
    seed: int = SEED,
    size: int | tuple[int, int] | None = None,
    n_init: int = 4,
    side: int = ATTENTION_SIZE,
) -> Int[Tensor, "height width"]:
    """K-Means on nothing but RGB: the least that any other method must beat.

    Args:
        image: as `diffseg.images.read_image` takes it; its central square is averaged to side x side colours.
        side: of the grid; the default is that of Stable Diffusion's attention.
        k, seed, size, n_init: see `kmeans`.

    Raises:
        TypeError, ValueError, FileNotFoundError: naming the argument, value and remedy.
    """
    if side < 1:
        raise ValueError(f"side={side} must be a positive number of cells; try {ATTENTION_SIZE}.")
    small = read_image(image).resize((side, side), Image.Resampling.BOX)
    colours = rearrange(np.asarray(small, dtype=np.float32), "h w c -> (h w) c")
    return _finish(_kmeans(colours, k, seed, n_init), side, size)


def dbscan(
    attention: Float[Tensor, "h w h w"],
    eps: float,
    size: int | tuple[int, int] | None = None,
    min_samples: int = MIN_SAMPLES,
    distances: Float[np.ndarray, "positions positions"] | None = None,
) -> Int[Tensor, "height width"]:
    """DBSCAN on the maps of all positions, Euclidean: the clusters are regions of dense maps, as many as there are.

    Points that belong to no cluster ("noise") join the cluster of the nearest core point: every pixel must be in a
    segment to be scored, and one segment of all noise would be scored as if it were an object. The paper does not say
    what it does with them. If there is no core point at all, everything is one segment.

    Args:
        attention: aggregated, see `diffseg.aggregate`.
        eps: maps at most this far apart are neighbours. Good values are small, since the maps sum to 1: see the
            distances, such as their percentiles.
        size: side of the result, or its (height, width), pixels; None: the attention's.
        min_samples: neighbours, itself included, that make a core point.
        distances: those of `euclidean_distances(attention)`, if they are at hand: a sweep over eps needs them once.

    Raises:
        ValueError: naming the argument, value and remedy.
    """
    check_attention(attention)
    side, positions = attention.shape[0], attention.shape[0] * attention.shape[1]
    if not (math.isfinite(eps) and eps > 0):
        raise ValueError(f"eps={eps} must be above 0 and finite; compare it with euclidean_distances(attention).")
    if min_samples < 1:
        raise ValueError(f"min_samples={min_samples} must be at least 1; scikit-learn takes {MIN_SAMPLES}.")
    if distances is None:
        distances = euclidean_distances(attention)
    elif distances.shape != (positions, positions):
        raise ValueError(
            f"distances has the shape {list(distances.shape)}, expected {[positions, positions]}; "
            "use euclidean_distances(attention)."
        )
    found = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(distances)
    ids, cores, noise = found.labels_, found.core_sample_indices_, found.labels_ == _NOISE
    if len(cores) == 0:
        return _finish(np.zeros_like(ids), side, size)
    nearest = distances[np.ix_(noise, cores)].argmin(axis=1)  # [noise points], indices into cores
    ids[noise] = ids[cores[nearest]]
    return _finish(ids, side, size)


def euclidean_distances(attention: Float[Tensor, "h w h w"]) -> Float[np.ndarray, "positions positions"]:
    """The Euclidean distances between the maps of all positions, float32; positions in row-major order.

    Raises:
        ValueError: for attention of a wrong shape or with NaN.
    """
    return pairwise.euclidean_distances(_maps(attention))


def true_k(truths: Iterable[Integer[np.ndarray | Tensor, "_ _"]], ignore: int | Collection[int] = IGNORE) -> int:
    """How many classes truths show on average, to the nearest integer and at least 1: the k of K-Means.

    Args:
        truths: class ids. One image gives its own k (K-Means-S), all images of a data set the constant one
            (K-Means-C). A generator keeps only one of them alive.
        ignore: the values, one or several, that mean "not labelled".

    Raises:
        ValueError: for no truths.
    """
    counts = [len(np.setdiff1d(np.asarray(truth), np.atleast_1d(ignore))) for truth in truths]
    if not counts:
        raise ValueError("truths is empty; pass the class ids of at least one image, as in true_k([truth]).")
    return max(1, math.floor(np.mean(counts) + 0.5))


def _maps(attention: Float[Tensor, "h w h w"]) -> Float[np.ndarray, "positions d"]:
    """One row per position."""
    check_attention(attention)
    maps = rearrange(attention, "i j k l -> (i j) (k l)").float().cpu().numpy()
    if not np.isfinite(maps).all():
        raise ValueError("attention holds NaN or infinity; every attention[i, j] must be a distribution.")
    return maps


def _kmeans(points: Float[np.ndarray, "n d"], k: int, seed: int, n_init: int) -> Integer[np.ndarray, " n"]:
    if not 1 <= k <= len(points):
        raise ValueError(f"k={k} must be from 1 to the number of positions, {len(points)}; see true_k.")
    if n_init < 1:
        raise ValueError(f"n_init={n_init} must be at least 1: how many starts are tried.")
    return KMeans(k, init="k-means++", n_init=n_init, random_state=seed).fit_predict(points)


def _finish(
    ids: Integer[np.ndarray, " n"], rows: int, size: int | tuple[int, int] | None
) -> Int[Tensor, "height width"]:
    """Cluster ids of all positions as a picture, upsampled if a size is given, without gaps."""
    grid = rearrange(torch.from_numpy(ids.astype(np.int64)), "(i j) -> i j", i=rows)
    return relabel(grid)[0] if size is None else enlarge(grid, size)
