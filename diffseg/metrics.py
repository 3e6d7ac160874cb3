"""Scoring segments that have no names: Hungarian matching, pixel accuracy, mean IoU (Sec. 4).

DiffSeg's segments carry numbers, not classes. Before scoring, each image's segments are matched
one to one to classes so that the most pixels agree.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, Real
from pandas import DataFrame
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from diffseg.progress import progress

NUM_CLASSES = 27  # of COCO-Stuff-27, Cityscapes-27 and PocketScenes
IGNORE = (-1, 255)  # truth values that mean "not labelled"
PROTOCOLS = ("paper", "clean")
UNMATCHED = -1

#: How each protocol treats classes that an image, or the whole data set, does not show; printed with every score.
POLICIES = {
    "paper": (
        "one matching per image, in which every class takes a segment while there are any: a segment given to a class "
        "that the image does not show counts against that class; mIoU is the mean over the classes that occur in the "
        "truth or were given a segment"
    ),
    "clean": (
        "one matching per image, among the classes that the image shows; segments left over are missed by their own "
        "class and charged to no other; mIoU is the mean over the classes that occur in the truth"
    ),
    "dataset": (
        "one matching for all images together, of as many groups of segments as there are classes; mIoU is the mean "
        "over the classes that occur in the truth or were given a group"
    ),
    "named": (
        "no matching: a segment is of the class that its word names, and of none if the word names none; mIoU is the "
        "mean over the classes that occur in the truth or were named"
    ),
}


@dataclass(frozen=True)
class Score:
    """accuracy and miou from 0 to 1; iou per class, NaN where a class never occurred."""

    accuracy: float
    miou: float
    iou: Float[np.ndarray, " classes"]


class SegmentationScore:
    """Accuracy and mean IoU over a data set, with one matching per image.

        score = SegmentationScore(classes=27)
        for pred, truth in ...:
            score.update(pred, truth)
        score.compute().miou

    Pixels are counted over all images; IoU is per class, averaged over the classes that occur in
    truth or prediction; accuracy is the share of labelled pixels that are right. Pixels whose
    truth is ignored count nowhere.

    Args:
        classes: how many classes there are.
        protocol: "paper" follows the released benchmark: every class is given a segment of every
            image while there are any, so leftover segments land on classes that the image does
            not contain and count as their false positives; which class it is depends on the
            solver, and with more segments than classes the rest is charged to no class.
            "clean": only classes in the image compete for segments; the pixels of leftover
            segments are missed by their own class and charged to no other.
        ignore: the truth values, one or several, that mean "not labelled".

    Raises:
        ValueError: for an unknown protocol or fewer than one class.
    """

    def __init__(
        self,
        classes: int = NUM_CLASSES,
        protocol: str = "paper",
        ignore: int | Collection[int] = IGNORE,
    ):
        if classes < 1:
            raise ValueError(f"classes={classes} must be at least 1.")
        _check_protocol(protocol)
        self.classes, self.protocol, self.ignore = classes, protocol, ignore
        self.hits, self.predicted, self.actual = np.zeros((3, classes), dtype=np.int64)

    def update(self, pred: Integer[np.ndarray | Tensor, "h w"], truth: Integer[np.ndarray | Tensor, "h w"]) -> None:
        """Count one image: pred holds segment ids from 0 on, truth class ids.

        Raises:
            ValueError: for shapes that differ, negative segments, or classes out of range.
        """
        overlap = count_overlap(pred, truth, self.classes, self.ignore)
        matched = _match(overlap, self.protocol)  # [segments]
        hit = matched >= 0
        self.actual += overlap.sum(axis=1)
        self.predicted[matched[hit]] += overlap.sum(axis=0)[hit]
        self.hits[matched[hit]] += overlap[matched[hit], hit.nonzero()[0]]

    def update_named(
        self,
        pred: Integer[np.ndarray | Tensor, "h w"],
        truth: Integer[np.ndarray | Tensor, "h w"],
        names: Sequence[int | None],
    ) -> None:
        """Count one image whose segments have names, so that nothing is left to match: semantic segmentation.

        Args:
            pred: segment ids from 0 on.
            truth: class ids.
            names: names[segment id] = class id; None for a name that is no class, which is wrong everywhere.

        Raises:
            ValueError: as `update`, and for names that are missing or out of range.
        """
        overlap = count_overlap(pred, truth, self.classes, self.ignore)
        if len(names) < overlap.shape[1] or not set(names) <= {None, *range(self.classes)}:
            raise ValueError(
                f"names={list(names)} must be one class from 0 to {self.classes - 1}, or None, for each of the "
                f"{overlap.shape[1]} segments."
            )
        for segment, name in enumerate(names[: overlap.shape[1]]):
            if name is not None:
                self.hits[name] += overlap[name, segment]
                self.predicted[name] += overlap[:, segment].sum()
        self.actual += overlap.sum(axis=1)

    def compute(self) -> Score:
        """The score of all images so far; NaN if no labelled pixel has been seen."""
        accuracy, miou, iou = score_counts(self.hits, self.predicted, self.actual)
        return Score(float(accuracy), float(miou), iou)


def score_counts(
    hits: Real[np.ndarray, "*sets classes"],
    predicted: Real[np.ndarray, "*sets classes"],
    actual: Real[np.ndarray, "*sets classes"],
) -> tuple[Float[np.ndarray, "*sets"], Float[np.ndarray, "*sets"], Float[np.ndarray, "*sets classes"]]:
    """Accuracy, mean IoU and IoU of each class from counts of pixels, of one set of images or of several at once.

    Args:
        hits: pixels that are of a class in prediction and truth.
        predicted, actual: pixels that are of it in the prediction, in the truth.

    Returns:
        NaN where a class does not occur, and everywhere in a set without a labelled pixel.
    """
    union, labelled = actual + predicted - hits, np.asarray(actual.sum(axis=-1), dtype=float)
    shown = (union > 0) & (labelled > 0)[..., None]
    iou = np.divide(hits, union, out=np.full(union.shape, np.nan), where=shown)
    count = np.asarray(shown.sum(axis=-1), dtype=float)
    total = np.where(shown, iou, 0).sum(axis=-1)
    accuracy = np.divide(hits.sum(axis=-1), labelled, out=np.full(labelled.shape, np.nan), where=labelled > 0)
    return accuracy, np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0), iou


def match_segments(
    pred: Integer[np.ndarray | Tensor, "h w"],
    truth: Integer[np.ndarray | Tensor, "h w"],
    classes: int = NUM_CLASSES,
    ignore: int | Collection[int] = IGNORE,
    protocol: str = "paper",
) -> Integer[np.ndarray, " segments"]:
    """The class of each segment, by the one-to-one matching with the most pixels in agreement.

    Returns:
        matched[segment id] = class id, or -1 for a segment left over; `matched[pred]` is the
        prediction as classes. See `SegmentationScore` for the protocols.

    Raises:
        ValueError: as `SegmentationScore.update`.
    """
    _check_protocol(protocol)
    return _match(count_overlap(pred, truth, classes, ignore), protocol)


def image_score(
    pred: Integer[np.ndarray | Tensor, "h w"],
    truth: Integer[np.ndarray | Tensor, "h w"],
    ignore: int | Collection[int] = IGNORE,
) -> tuple[float, float]:
    """Accuracy and mean IoU of one image, over the classes that its truth contains.

    Segments are matched one to one to the classes present, maximising the pixels in agreement
    (overlap, not IoU: the same criterion as over a data set). A class without a segment scores 0.

    Returns:
        accuracy: matched pixels / labelled pixels.
        miou: the mean over present classes of intersection / union.

    Raises:
        ValueError: as `SegmentationScore.update`, and if no pixel is labelled.
    """
    classes = max(int(np.asarray(truth).max(initial=0)) + 1, 1)
    overlap = count_overlap(pred, truth, classes, ignore)
    overlap = overlap[overlap.any(axis=1)]  # [present classes, segments]
    if overlap.size == 0:
        raise ValueError("truth has no labelled pixel; leave this image out.")
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    hits = np.zeros(len(overlap))
    hits[rows] = overlap[rows, columns]
    union = overlap.sum(axis=1) - hits
    union[rows] += overlap.sum(axis=0)[columns]
    return float(hits.sum() / overlap.sum()), float((hits / union).mean())


def compare(methods: Mapping[str, Callable], cases: Iterable[tuple]) -> DataFrame:
    """Score several ways to segment on the same cases, one case at a time in memory.

        compare({"tau 0.2": lambda a: pipe.segment(a, threshold=0.2).labels, ...},
                ((pipe.attend(scene.image), scene.labels) for scene in scenes))

    Args:
        methods: name -> a function from the input of a case to labels of the truth's size.
        cases: (input, truth) pairs; a generator keeps only one of them alive.

    Returns:
        One row per case and method: case, method, accuracy and miou (see `image_score`), segments.
    """
    rows = []
    for number, (given, truth) in enumerate(progress(cases, "scoring")):
        for name, method in methods.items():
            labels = method(given)
            rows.append((number, name, *image_score(labels, truth), len(np.unique(labels))))
    return DataFrame(rows, columns=["case", "method", "accuracy", "miou", "segments"])


def count_overlap(
    pred: Integer[np.ndarray | Tensor, "..."],
    truth: Integer[np.ndarray | Tensor, "..."],
    classes: int = NUM_CLASSES,
    ignore: int | Collection[int] = IGNORE,
) -> Integer[np.ndarray, "classes segments"]:
    """How many labelled pixels each class shares with each segment, 0 to the largest id.

    Raises:
        ValueError: as `SegmentationScore.update`.
    """
    pred, truth = np.asarray(pred).astype(np.int64), np.asarray(truth).astype(np.int64)
    if pred.shape != truth.shape or pred.size == 0:
        raise ValueError(
            f"pred has the shape {list(pred.shape)} and truth {list(truth.shape)}; they must be "
            "equal and not empty. Resize labels with the nearest neighbour."
        )
    if pred.min() < 0:
        raise ValueError(f"pred holds {pred.min()}; segment ids start at 0.")
    labelled = ~np.isin(truth, np.atleast_1d(np.asarray(ignore)))
    seen = truth[labelled]
    if seen.size and not (seen.min() >= 0 and seen.max() < classes):
        raise ValueError(
            f"truth holds classes from {seen.min()} to {seen.max()}; expected 0 to {classes - 1}, "
            f"or one of ignore={ignore}."
        )
    segments = int(pred.max()) + 1
    pairs = np.bincount(seen * segments + pred[labelled], minlength=classes * segments)
    return pairs.reshape(classes, segments)


def pairwise_iou(overlap: Integer[np.ndarray, "classes segments"]) -> Float[np.ndarray, "classes segments"]:
    """The IoU of each class with each segment, from a table such as that of `count_overlap`; 0 where both are empty."""
    union = overlap.sum(axis=1, keepdims=True) + overlap.sum(axis=0) - overlap
    return overlap / np.maximum(union, 1)


def _match(overlap: Integer[np.ndarray, "classes segments"], protocol: str) -> np.ndarray:
    classes, segments = overlap.shape
    matched = np.full(segments, UNMATCHED)
    if protocol == "paper":
        # At least one column per class, so that every class is given something.
        padding = max(classes - segments, 0)
        rows, columns = linear_sum_assignment(np.pad(overlap, ((0, 0), (0, padding))), maximize=True)
    else:
        present = overlap.any(axis=1).nonzero()[0]
        rows, columns = linear_sum_assignment(overlap[present], maximize=True)
        rows = present[rows]
    real = columns < segments
    matched[columns[real]] = rows[real]
    return matched


def _check_protocol(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} must be one of {PROTOCOLS}.")
