"""What is kept of one segmentation of one image: counts of pixels, of which all scores are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from ..boundaries import count_boundary
from ..metrics import PROTOCOLS, UNMATCHED, count_overlap, match_segments, score_counts
from .methods import Named, Setting

Key = tuple[str, Setting]  # a method's name and the setting it was tried with
Row = Mapping[str, Any]

NAMED, DATASET = "named", "dataset"
_COUNTED = ("hits", "predicted", "boundary_hits", "boundary_predicted")  # for each protocol
PYARROW = "Results are Parquet files, which need pyarrow: pip install 'diffseg[evaluate]'"


def schema() -> Any:
    """The columns of a table of results.

    One row is one image, method and setting. What scores count is kept as it is, so that scores over any images are
    sums of rows. accuracy, miou and boundary are those of the one image, under the protocol "clean", or "named" where
    segments have names; NaN if nothing in it is labelled.

    Raises:
        ImportError: if there is no pyarrow.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ImportError(PYARROW) from error
    counts = pa.list_(pa.int64())  # pixels of each class; of no fixed length, since some rows have none
    return pa.schema(
        [
            ("image", pa.string()),
            ("source", pa.string()),  # a digest of picture and truth
            ("method", pa.string()),
            ("setting", pa.float64()),
            ("segments", pa.int32()),
            ("accuracy", pa.float64()),
            ("miou", pa.float64()),
            ("boundary", pa.float64()),
            ("actual", counts),
            ("boundary_actual", counts),
            *((f"{count}_{protocol}", counts) for protocol in (*PROTOCOLS, NAMED) for count in _COUNTED),
            ("overlap", pa.list_(pa.int64())),  # pixels that class and segment share, [classes * segments]
            ("descriptors", pa.list_(pa.float32())),  # what segments look like, [segments * d]; see `features`
        ]
    )


@dataclass(frozen=True)
class Counts:
    """Pixels of each class over one image or several, for IoU (or boundary IoU).

    Attributes:
        hits, predicted, actual: see `diffseg.metrics.score_counts`.
    """

    hits: Integer[np.ndarray, "*images classes"]
    predicted: Integer[np.ndarray, "*images classes"]
    actual: Integer[np.ndarray, "*images classes"]


def make_row(
    image: str,
    key: Key,
    labels: Any,
    truth: Any,
    classes: int,
    words: Mapping[str, int] | None = None,
    source: str = "",
    descriptors: Float[np.ndarray, "segments d"] | None = None,
) -> dict[str, Any]:
    """Score one segmentation of one image.

    Args:
        image: its name.
        key: method and setting.
        labels: segment ids [size, size], array or tensor; or `Named`.
        truth: class ids [size, size].
        classes: how many there are.
        words: the class that each word names, for `Named`.
        source: a digest of what was segmented.
        descriptors: of the segments, if groups of them are to be matched.

    Raises:
        ValueError: as `SegmentationScore.update`.
    """
    names = None
    if isinstance(labels, Named):
        labels, names = labels.labels, [_class_of(word, words or {}) for word in labels.words]
    labels, truth = (np.asarray(ids).astype(np.int64) for ids in (labels, truth))
    overlap = count_overlap(labels, truth, classes)
    row = {"image": image, "source": source, "method": key[0], "setting": key[1], "segments": len(np.unique(labels))}
    row |= {"actual": overlap.sum(axis=1).tolist(), "overlap": overlap.ravel().tolist()}
    row |= {"descriptors": None if descriptors is None else descriptors.ravel().tolist()}
    known = np.where(np.isin(truth, range(classes)), truth, UNMATCHED)
    if names is None:
        matchings = {name: match_segments(labels, truth, classes, protocol=name) for name in PROTOCOLS}
    else:
        given = [UNMATCHED if name is None else name for name in names] or [UNMATCHED] * overlap.shape[1]
        matchings = {NAMED: np.array(given)}
    for protocol, matched in matchings.items():
        found = np.where(known == UNMATCHED, UNMATCHED, matched[labels])  # what is not labelled counts nowhere
        row |= _count(found, known, classes, protocol)
    shown = NAMED if names is not None else "clean"
    for name, prefix in (("miou", ""), ("boundary", "boundary_")):
        counts = (f"{prefix}hits_{shown}", f"{prefix}predicted_{shown}", f"{prefix}actual")
        accuracy, miou, _ = score_counts(*(np.array(row[count]) for count in counts))
        row[name] = float(miou)
        if name == "miou":
            row["accuracy"] = float(accuracy)
    return row


def is_there(counts: Any) -> bool:
    """Whether a row has counts or descriptors of a kind; where it has none, pandas puts None or NaN."""
    return isinstance(counts, list | np.ndarray)


def stack(rows: Any, protocol: str, boundary: bool = False) -> Counts:
    """The counts of several rows, a table of results, under one protocol: [images, classes] each.

    Raises:
        KeyError: if the rows were not scored under it.
    """
    prefix = "boundary_" if boundary else ""
    columns = [f"{prefix}hits_{protocol}", f"{prefix}predicted_{protocol}", f"{prefix}actual"]
    if rows[columns].isna().any(axis=None):
        raise KeyError(protocol)
    return Counts(*(np.stack(rows[column].to_numpy()) for column in columns))


def _class_of(word: str, words: Mapping[str, int]) -> int | None:
    """The class that a noun names, or that the last of its words does: a "brick wall" is a wall."""
    word = word.lower()
    return words.get(word, words.get(word.rpartition(" ")[2]))


def _count(
    found: Integer[np.ndarray, "h w"], known: Integer[np.ndarray, "h w"], classes: int, protocol: str
) -> dict[str, Sequence[int]]:
    """The counts of one protocol, from class ids; -1 for none."""
    agreed = np.where(found == known, known, UNMATCHED)
    hits, predicted = (np.bincount(ids.ravel() + 1, minlength=classes + 1)[1:] for ids in (agreed, found))
    edge_hits, edge_predicted, edge_actual = count_boundary(found, known, classes)
    counts = dict(zip(_COUNTED, (hits, predicted, edge_hits, edge_predicted), strict=True))
    named = {f"{name}_{protocol}": values.tolist() for name, values in counts.items()}
    return named | {"boundary_actual": edge_actual.tolist()}
