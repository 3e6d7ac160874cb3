"""Checks of notebook 09: counting pixels, the best matching, IoU from counts, and a score over several images."""

import numpy as np
from jaxtyping import Float, Integer
from scipy.optimize import linear_sum_assignment

from diffseg.metrics import count_overlap

from ._exercise import Case, Check, Mistake

# ---- shared_pixels --------------------------------------------------------------------------------------------------

Labels = Integer[np.ndarray, "h w"]


def _shared_pixels(segments: Labels, truth: Labels, classes: int, segment_count: int, ignore: int = 255) -> np.ndarray:
    found = count_overlap(segments, truth, classes, ignore)
    return np.pad(found, ((0, 0), (0, segment_count - found.shape[1])))


def _transposed(segments: Labels, truth: Labels, classes: int, segment_count: int) -> np.ndarray:
    return _shared_pixels(segments, truth, classes, segment_count).T


def _ignored_is_last(segments: Labels, truth: Labels, classes: int, segment_count: int) -> np.ndarray:
    return _shared_pixels(segments, np.where(truth == 255, classes - 1, truth), classes, segment_count)


def _ignored_is_first(segments: Labels, truth: Labels, classes: int, segment_count: int) -> np.ndarray:
    return _shared_pixels(segments, np.where(truth == 255, 0, truth), classes, segment_count)


def _counted_once(segments: Labels, truth: Labels, classes: int, segment_count: int) -> np.ndarray:
    return (_shared_pixels(segments, truth, classes, segment_count) > 0).astype(int)


_PLAIN = (np.array([[0, 0, 1], [0, 1, 1]]), np.array([[0, 0, 0], [1, 1, 1]]), 2, 2)
_THREE = (np.array([[0, 0, 0, 1], [2, 2, 1, 1]]), np.array([[0, 0, 1, 1], [2, 2, 2, 1]]), 3, 3)
_HOLES = (np.array([[0, 1, 1], [0, 1, 0]]), np.array([[0, 1, 255], [0, 255, 255]]), 2, 2)
_GAPS = (np.array([[0, 0, 2, 2]]), np.array([[0, 0, 0, 3]]), 4, 4)

shared_pixels = Check(
    "shared_pixels",
    _shared_pixels,
    cases=[
        Case("two classes and two segments", _PLAIN),
        Case("three classes and three segments", _THREE),
        Case("pixels that are not labelled (255)", _HOLES),
        Case("classes and segments that have no pixel", _GAPS),
    ],
    mistakes=[
        Mistake("A row for each class, a column for each segment: this is the other way round.", _transposed),
        Mistake("Pixels with the truth 255 count nowhere; here they landed in the last class.", _ignored_is_last),
        Mistake("Pixels with the truth 255 count nowhere; here they landed in class 0.", _ignored_is_first),
        Mistake(
            "This says only where there are shared pixels. How many? `table[a, b] += 1` counts a repeated pair once.",
            _counted_once,
        ),
    ],
)

# ---- best_accuracy --------------------------------------------------------------------------------------------------

Overlap = Integer[np.ndarray, "classes segments"]


def _best_accuracy(overlap: Overlap) -> float:
    return float(overlap[linear_sum_assignment(overlap, maximize=True)].sum() / overlap.sum())


def _greedy(overlap: Overlap) -> float:
    left, hits = overlap.astype(float), 0.0
    for _ in range(min(overlap.shape)):
        row, column = np.unravel_index(left.argmax(), left.shape)
        hits += left[row, column]
        left[row, :] = left[:, column] = -1
    return hits / overlap.sum()


_TRAP = np.array([[9, 8], [7, 1]])
_WIDE = np.array([[5, 1, 4, 0], [0, 6, 0, 3]])
_TALL = np.array([[4, 0], [3, 2], [0, 7]])

best_accuracy = Check(
    "best_accuracy",
    _best_accuracy,
    cases=[
        Case("two classes and two segments that agree", (np.array([[7, 1], [0, 4]]),)),
        Case("two classes and two segments, where the largest overlap is a trap", (_TRAP,)),
        Case("more segments than classes", (_WIDE,)),
        Case("more classes than segments", (_TALL,)),
    ],
    mistakes=[
        Mistake("Taking the largest overlap first can cost more later. Look for the best *sum*.", _greedy),
        Mistake(
            "Here one class may have several segments. The matching is one to one.",
            lambda overlap: overlap.max(axis=0).sum() / overlap.sum(),
        ),
        Mistake(
            "Here one segment may serve several classes. The matching is one to one.",
            lambda overlap: overlap.max(axis=1).sum() / overlap.sum(),
        ),
        Mistake(
            "That is the worst matching: linear_sum_assignment minimises unless told otherwise.",
            lambda overlap: overlap[linear_sum_assignment(overlap)].sum() / overlap.sum(),
        ),
        Mistake(
            "Divide by all labelled pixels, not by those of the matched classes and segments alone.",
            lambda overlap: (
                overlap[linear_sum_assignment(overlap, maximize=True)].sum()
                / overlap[linear_sum_assignment(overlap, maximize=True)[0]].sum()
            ),
        ),
    ],
)

# ---- mean_iou -------------------------------------------------------------------------------------------------------

Counts = Integer[np.ndarray, " classes"]


def _mean_iou(hits: Counts, predicted: Counts, actual: Counts) -> float:
    union = predicted + actual - hits
    return float((hits[union > 0] / union[union > 0]).mean())


def _zero_for_absent(hits: Counts, predicted: Counts, actual: Counts) -> float:
    union = predicted + actual - hits
    return float((hits / np.maximum(union, 1)).mean())


_SIMPLE = (np.array([4, 3]), np.array([6, 4]), np.array([5, 5]))
_ABSENT = (np.array([4, 0, 3]), np.array([6, 0, 4]), np.array([5, 0, 5]))
_INVENTED = (np.array([4, 0, 3]), np.array([4, 2, 4]), np.array([5, 0, 5]))

mean_iou = Check(
    "mean_iou",
    _mean_iou,
    cases=[
        Case("two classes", _SIMPLE),
        Case("a class that occurs neither in truth nor in prediction", _ABSENT),
        Case("a class that is predicted but not there", _INVENTED),
    ],
    mistakes=[
        Mistake("The union counts the hits once: predicted + actual - hits.", lambda h, p, a: _mean_iou(h, p + h, a)),
        Mistake(
            "That is the recall. The union has the false positives, too.",
            lambda h, p, a: np.nanmean(h / np.maximum(a, 1)),
        ),
        Mistake("A class that occurs nowhere has no IoU; leave it out of the mean.", _zero_for_absent),
        Mistake(
            "A class that is predicted where it is not has the IoU 0, and counts.",
            lambda h, p, a: (h[a > 0] / (p + a - h)[a > 0]).mean(),
        ),
        Mistake("Average over classes, not over pixels.", lambda h, p, a: h.sum() / (p + a - h).sum()),
    ],
)

# ---- pooled_iou -----------------------------------------------------------------------------------------------------

Table = Float[np.ndarray, "images classes"] | Integer[np.ndarray, "images classes"]


def _pooled_iou(hits: Table, union: Table) -> Float[np.ndarray, " classes"]:
    return hits.sum(axis=0) / union.sum(axis=0)


_UNEQUAL = (np.array([[1, 50], [90, 10]]), np.array([[10, 100], [100, 100]]))
_MISSING = (np.array([[5, 0], [5, 40]]), np.array([[20, 0], [10, 50]]))

pooled_iou = Check(
    "pooled_iou",
    _pooled_iou,
    cases=[
        Case("two images and two classes", _UNEQUAL),
        Case("a class that the first image does not have", _MISSING),
    ],
    mistakes=[
        Mistake(
            "That is the mean of the images' IoUs. Add up the counts over images first, and divide once.",
            lambda hits, union: np.array(
                [
                    np.mean([h / u for h, u in zip(*pair, strict=True) if u])
                    for pair in zip(hits.T, union.T, strict=True)
                ]
            ),
        ),
        Mistake(
            "One number for each class: do not add up over classes.", lambda hits, union: hits.sum(1) / union.sum(1)
        ),
        Mistake("Here all classes are one.", lambda hits, union: np.full(hits.shape[1], hits.sum() / union.sum())),
    ],
)
