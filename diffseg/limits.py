"""What DiffSeg cannot see, how one notices without a truth, and windows that help (Sec. 9.7, notebook 10)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Real

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer, Shaped
from PIL import Image, ImageOps
from scipy import ndimage
from torch import Tensor

from diffseg.arguments import check_whole
from diffseg.boundaries import band_width, boundary_band
from diffseg.masks import relabel, suppress
from diffseg.merging import check_attention, symmetric_kl
from diffseg.metrics import count_overlap, match_segments, pairwise_iou
from diffseg.pipeline import DiffSegPipeline

Labels = Integer[np.ndarray, "height width"] | Integer[Tensor, "height width"]


# ---- what the grid cannot see


def mirror(picture: Shaped[np.ndarray, "h w ..."], times: int) -> Shaped[np.ndarray, "_ _ ..."]:
    """A picture `times` x `times`, each copy the mirror image of its neighbours, so that no seam can be seen."""
    rows, columns = (np.pad(np.arange(n), (0, (times - 1) * n), mode="symmetric") for n in picture.shape[:2])
    return picture[rows[:, None], columns]


def through_grid(labels: Labels, grid: int | tuple[int, int]) -> Int[Tensor, "height width"]:
    """The best that a grid lets through: each position knows the share of every label in it, then Eq. 6.

    Where the grid does not divide the pixels evenly, blocks of neighbouring positions overlap by a pixel.
    """
    ids, known = np.unique(np.asarray(labels), return_inverse=True)
    masks = F.one_hot(torch.from_numpy(known.reshape(labels.shape))).permute(2, 0, 1).float()
    shares = F.adaptive_avg_pool2d(masks, grid)  # [labels, h, w]
    return torch.from_numpy(ids.astype(np.int64))[suppress(shares, tuple(labels.shape))]


@dataclass(frozen=True)
class Piece:
    """A connected piece of one class in a truth, and how it was segmented.

    Attributes:
        label: its class.
        area: pixels.
        recall: share of its pixels that were given its class.
        boundary: boundary IoU of its class in the box around it.
    """

    label: int
    area: int
    recall: float
    boundary: float


def find_pieces(found: Labels, truth: Labels, smallest: int = 1) -> Iterator[Piece]:
    """The pieces of a truth, beside labels of the same classes (-1: none), such as `named` gives them."""
    found, truth = np.asarray(found).astype(np.int64), np.asarray(truth).astype(np.int64)
    width = band_width(*truth.shape)
    bands = [np.where(boundary_band(labels, width), labels, -1) for labels in (found, truth)]
    for label in np.unique(truth):
        pieces, _ = ndimage.label(truth == label)
        areas = np.bincount(pieces.ravel())
        for number, (rows, columns) in enumerate(ndimage.find_objects(pieces), start=1):
            if areas[number] >= smallest:
                box = tuple(slice(max(side.start - width, 0), side.stop + width) for side in (rows, columns))
                one, other = (band[box] == label for band in bands)
                recall = (found[rows, columns] == label)[pieces[rows, columns] == number].mean()
                yield Piece(int(label), int(areas[number]), float(recall), (one & other).sum() / (one | other).sum())


def named(labels: Labels, truth: Labels) -> Int[np.ndarray, "height width"]:
    """Segments as classes, by the matching of protocol "clean"; -1 where a segment is left over."""
    return match_segments(labels, truth, protocol="clean")[np.asarray(labels)]


# ---- other clothes, and doubt


def draw_lines(image: Image.Image) -> Image.Image:
    """A picture as dark lines on white paper: where its brightness changes."""
    slope = ndimage.gaussian_gradient_magnitude(np.asarray(ImageOps.grayscale(image), float), 1)
    ink = (slope / max(np.quantile(slope, 0.995), 1)).clip(0, 1)
    return Image.fromarray((255 * (1 - ink)).astype(np.uint8)).convert("RGB")


#: The same things in another domain: name -> what becomes of a picture.
DOMAINS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "negative": ImageOps.invert,
    "drawing": draw_lines,
}


def doubt(labels: Labels, others: Iterable[Labels]) -> Float[np.ndarray, " segments"]:
    """How little each segment is found again in other segmentations of the picture: 1 - its best IoU, the mean of all.

    0: found again each time, to the pixel. The truth is not needed.

    Raises:
        ValueError: for no other segmentation, or one of another size.
    """
    doubts = []
    for other in others:
        overlap = count_overlap(other, labels, int(labels.max()) + 1, ignore=())  # [segments, those of the other]
        doubts.append(1 - pairwise_iou(overlap).max(axis=1))
    if not doubts:
        raise ValueError("others is empty; pass one segmentation or more, with another threshold or noise.")
    return np.mean(doubts, axis=0)


# ---- windows


@dataclass(frozen=True)
class Window:
    """A part of a picture (left, top, right and bottom, in pixels), seen by the model at the size of a whole one."""

    box: tuple[int, int, int, int]
    attention: Float[Tensor, "h w h w"]


def window_sides(length: int, count: int, overlap: Real) -> list[tuple[int, int]]:
    """Where `count` windows begin and end along `length` pixels; neighbours share a part `overlap` of a window."""
    check_whole("count", count, "Windows along one side; 2 is usual.")
    if count < 1 or not 0 <= overlap < 1:
        raise ValueError(f"count={count}, overlap={overlap}: at least 1, and from 0 to below 1; try 2 and 0.25.")
    side = round(length / (count - (count - 1) * overlap))
    return [(start, start + side) for start in np.linspace(0, length - side, count).round().astype(int).tolist()]


def attend_windows(
    pipe: DiffSegPipeline, image: Image.Image, count: int = 2, overlap: Real = 0.25, size: int | None = None
) -> list[Window]:
    """Cut a picture into count x count windows that overlap, and let the model see each one enlarged to `size`."""
    sides = [window_sides(length, count, overlap) for length in (image.height, image.width)]
    boxes = [(left, top, right, bottom) for (top, bottom), (left, right) in product(*sides)]
    return [Window(box, pipe.attend(image.crop(box), size=size)) for box in boxes]


def segment_windows(
    pipe: DiffSegPipeline,
    whole: Float[Tensor, "h w h w"],
    windows: Sequence[Window],
    size: tuple[int, int],
    threshold: Real | None = None,
) -> Int[Tensor, "height width"]:
    """Segment each window by itself, and join across windows what the whole picture says is one.

    Each pixel belongs to the window whose middle is nearest. A segment's map is the mean of the *whole* picture's maps
    over its pixels; two segments whose maps are nearer than the threshold are joined, see `join`.

    Args:
        whole: attention of the picture, in one pass.
        windows: those of `attend_windows`.
        size: height and width of the picture.
        threshold: for the windows and for the joining; None: the model's own.
    """
    threshold = pipe.threshold if threshold is None else threshold
    grid, nearest = check_attention(whole), torch.full(size, torch.inf)
    labels, owners = torch.zeros(size, dtype=torch.int64), []
    for number, window in enumerate(windows):
        left, top, right, bottom = window.box
        own = pipe.segment(window.attention, threshold=threshold, size=(bottom - top, right - left)).labels
        rows, columns = torch.arange(top, bottom)[:, None], torch.arange(left, right)
        distance = (2 * rows - top - bottom).abs().maximum((2 * columns - left - right).abs()).float()
        closer = distance < nearest[top:bottom, left:right]
        labels[top:bottom, left:right][closer] = own[closer] + len(owners)
        nearest[top:bottom, left:right][closer] = distance[closer]
        owners += [number] * (int(own.max()) + 1)
    labels, kept = relabel(labels)
    shares = F.adaptive_avg_pool2d(F.one_hot(labels).permute(2, 0, 1).float(), grid).flatten(1)  # [segments, positions]
    maps = (shares / shares.sum(dim=1, keepdim=True)).to(whole.device) @ whole.flatten(2).flatten(0, 1).float()
    groups = join(symmetric_kl(maps, maps).cpu(), [owners[old] for old in kept.tolist()], threshold)
    return relabel(groups[labels])[0]


def join(distances: Float[Tensor, "n n"], owners: Sequence[int], threshold: Real) -> Int[Tensor, " n"]:
    """The group of each segment: the nearest pair first, segments of different windows are joined.

    Two segments of one window never get into one group: where they were seen best, they were told apart.
    """
    groups, members = list(range(len(owners))), [{owner} for owner in owners]
    order = distances.triu(1).flatten().argsort(stable=True).tolist()
    for one, other in (divmod(pair, len(owners)) for pair in order):
        first, second = sorted((groups[one], groups[other]))
        if one < other and distances[one, other] < threshold and not members[first] & members[second]:
            members[first] |= members[second]
            groups = [first if group == second else group for group in groups]
    return torch.tensor(groups)
