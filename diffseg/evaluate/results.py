"""Results on disk, one small Parquet file per image, and the scores they add up to."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..metrics import NUM_CLASSES, PROTOCOLS, SegmentationScore
from .methods import Setting

Key = tuple[str, Setting]  # a method's name and the setting it was tried with
Row = Mapping[str, Any]

_COUNTS = pa.list_(pa.int64(), NUM_CLASSES)  # pixels of each class
_ABOUT = b"diffseg"  # where the file says what it is about

#: One row is one image, method and setting. What a `SegmentationScore` counts is kept as it is, so that scores over
#: any images are sums of rows. accuracy and miou are those of the one image, protocol "clean"; NaN if nothing in it is
#: labelled.
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("method", pa.string()),
        ("setting", pa.float64()),
        ("segments", pa.int32()),
        ("accuracy", pa.float64()),
        ("miou", pa.float64()),
        ("actual", _COUNTS),
        *((f"{count}_{protocol}", _COUNTS) for protocol in PROTOCOLS for count in ("hits", "predicted")),
    ]
)


def make_row(image: str, key: Key, labels: Any, truth: Any) -> dict[str, Any]:
    """Score one segmentation of one image.

    Args:
        image: its name.
        key: method and setting.
        labels: segment ids [size, size], array or tensor.
        truth: class ids [size, size].

    Raises:
        ValueError: as `SegmentationScore.update`.
    """
    labels = np.asarray(labels)
    row = {"image": image, "method": key[0], "setting": key[1], "segments": len(np.unique(labels))}
    scores = {protocol: SegmentationScore(NUM_CLASSES, protocol) for protocol in PROTOCOLS}
    for protocol, score in scores.items():
        score.update(labels, truth)
        row |= {f"hits_{protocol}": score.hits.tolist(), f"predicted_{protocol}": score.predicted.tolist()}
    clean = scores["clean"]
    result = clean.compute()
    return row | {"actual": clean.actual.tolist(), "accuracy": result.accuracy, "miou": result.miou}


class Tally:
    """Scores over images, by method and setting, from the rows of `make_row`."""

    def __init__(self):
        self._scores: dict[Key, dict[str, SegmentationScore]] = {}
        self._images: dict[Key, int] = {}

    def add(self, row: Row) -> None:
        """Count one image."""
        key = key_of(row)
        if key not in self._scores:
            self._scores[key] = {protocol: SegmentationScore(NUM_CLASSES, protocol) for protocol in PROTOCOLS}
        for protocol, score in self._scores[key].items():
            score.actual += np.asarray(row["actual"])
            score.hits += np.asarray(row[f"hits_{protocol}"])
            score.predicted += np.asarray(row[f"predicted_{protocol}"])
        self._images[key] = self._images.get(key, 0) + 1

    def table(self) -> pd.DataFrame:
        """One row per method, setting and protocol: images, accuracy, miou; in the order of names and settings."""
        lines = []
        for (method, setting), scores in self._scores.items():
            for protocol, score in scores.items():
                result = score.compute()
                images = self._images[method, setting]
                lines.append((method, setting, protocol, images, result.accuracy, result.miou))
        table = pd.DataFrame(lines, columns=["method", "setting", "protocol", "images", "accuracy", "miou"])
        table = table.astype({"setting": float})  # None becomes NaN, even where there is no number
        return table.sort_values(["method", "setting", "protocol"], ignore_index=True)

    def best(self) -> str:
        """The method and setting with the highest mIoU of the paper's protocol so far, in words."""
        if not self._scores:
            return ""
        results = {key: scores["paper"].compute() for key, scores in self._scores.items()}
        (method, setting), result = max(results.items(), key=lambda pair: np.nan_to_num(pair[1].miou))
        name = method if setting is None else f"{method}={setting:g}"
        return f"{name}: ACC {result.accuracy:.3f}, mIoU {result.miou:.3f}"


class Results:
    """A folder of results that survives a crash at any moment.

    The rows of an image are written to a hidden file first, which then takes its place in one step: a file that can be
    seen is complete. `pandas.read_parquet(folder)` reads all of them as one table.

    Args:
        folder: made if it is not there.
        about: what the results depend on. Every file carries it.

    Raises:
        ValueError: if there is a file in the folder's place.
    """

    def __init__(self, folder: str | os.PathLike, about: Mapping[str, Any]):
        self.folder, self.about = Path(folder).expanduser(), dict(about)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"out={str(self.folder)!r} is a file; results are a folder. Give another name.")
        self.folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> pd.DataFrame:
        """All rows, in the order of the images' names.

        Raises:
            ValueError: if a file is damaged or about something else.
        """
        tables = [self._read(file) for file in sorted(self.folder.glob("[!.]*.parquet"))]
        return pa.concat_tables([SCHEMA.empty_table(), *tables]).to_pandas()

    def add(self, image: str, rows: Sequence[Row]) -> None:
        """Keep the rows of one image, beside those that are there with other methods and settings.

        Raises:
            OSError: if they could not be written; then what was there still is.
        """
        file = self.folder / f"{image}.parquet"
        older = self._read(file).to_pylist() if file.exists() else []
        schema = SCHEMA.with_metadata({_ABOUT: json.dumps(self.about)})
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([*older, *rows], schema=schema), buffer)
        hidden = self.folder / f".{image}.{os.getpid()}.tmp"
        try:
            with open(hidden, "wb") as written:
                written.write(buffer.getvalue())
                written.flush()
                os.fsync(written.fileno())
            os.replace(hidden, file)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}. Make room (or out= another place); the images that were done are kept",
                str(file),
            ) from error
        finally:
            hidden.unlink(missing_ok=True)

    def _read(self, file: Path) -> pa.Table:
        try:
            with pq.ParquetFile(file) as opened:
                table = opened.read()
            about = json.loads(table.schema.metadata[_ABOUT])
        except (OSError, ValueError, KeyError, TypeError) as error:  # what pyarrow raises; no metadata, or not ours
            raise ValueError(
                f"{file} is damaged or not a result ({error}). Delete it: that image is then scored again."
            ) from error
        if about != self.about:
            raise ValueError(f"{file} is about {about}, and this run about {self.about}. Give another out=.")
        return table.replace_schema_metadata()


def key_of(row: Row) -> Key:
    """Method and setting of a row, of which pandas makes NaN if there is none."""
    return row["method"], None if pd.isna(row["setting"]) else float(row["setting"])
