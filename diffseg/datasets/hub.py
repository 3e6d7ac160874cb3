"""Any data set of the Hugging Face hub with a column of pictures and one of label maps, read as a stream."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffseg import IMAGE_SIZE
from diffseg.datasets.classes import UNLABELLED
from diffseg.datasets.folder import FolderItem, read_names
from diffseg.datasets.items import DIGEST, Dataset, Sample, UnusableImage

REMEDY = (
    "Pass the name of a data set of https://huggingface.co/datasets (or a folder that `datasets` can load) with a "
    "column of pictures, image, and one of label maps, label."
)

#: What the parts and columns are usually called; the first that is there is taken.
_PARTS = {"val": ("validation", "val", "test"), "tune": ("train", "training")}
_LABELS = ("label", "annotation", "mask", "labels", "segmentation_mask")
_PICTURE = "image"


@dataclass(frozen=True)
class Source:
    """A stream of rows.

    Attributes:
        name: "owner/name" or a folder.
        part: such as "validation".
        label: the column of label maps.
        revision: of the data set on the hub; None: the newest.
    """

    name: str
    part: str
    label: str
    revision: str | None = None


@dataclass(frozen=True)
class HubItem(FolderItem):
    """One row of a stream. Rows are cheap in their order, and dear backwards.

    Attributes:
        index: of the row.
    """

    source: Source | None = None
    index: int = 0

    def read(self, size: int = IMAGE_SIZE) -> Sample:
        picture, truth = (self._decoded(column) for column in (_PICTURE, self.source.label))
        return self.pair(picture, truth, self.classes(np.asarray(truth)), size)

    def digest(self) -> str:
        hashed = sha256()
        for column in (_PICTURE, self.source.label):
            hashed.update(sha256(self._bytes(column)).digest())
        return hashed.hexdigest()[:DIGEST]

    def _decoded(self, column: str) -> Image.Image:
        try:
            picture = Image.open(BytesIO(self._bytes(column)))
            picture.load()
            return picture
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UnusableImage(f"row {self.index} of {self.source.name}, {column}: {error}. {REMEDY}") from error

    def _bytes(self, column: str) -> bytes:
        found = _stream(self.source).row(self.index)[column]
        if not isinstance(found, Mapping) or not (found.get("bytes") or found.get("path")):
            raise UnusableImage(f"row {self.index} of {self.source.name} has no picture in {column}. {REMEDY}")
        return found["bytes"] or Path(found["path"]).read_bytes()


class _Stream:
    """The rows of a stream, the pictures in them not decoded."""

    def __init__(self, source: Source):
        self._rows, self._source = _load(source), source
        self._place, self._row = -1, None

    def row(self, index: int) -> Mapping[str, Any]:
        """One row; those before it are passed over."""
        if index < self._place or self._place < 0:
            self._iterator, self._place = iter(self._rows), -1
        while self._place < index:
            try:
                self._row = next(self._iterator)
            except StopIteration:
                raise UnusableImage(f"{self._source.name} has no row {index} any more. {REMEDY}") from None
            self._place += 1
        return self._row

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._rows)


def open_hub(name: str, split: str, names: Path | None, revision: str | None = None) -> Dataset:
    """A data set of the hub.

    Args:
        name: "owner/name", or a folder that `datasets` can load.
        split: "val": its part validation, val or test; "tune": train.
        names: a CSV file of the values of its label maps and their names, see `diffseg.datasets.folder`.
        revision: of the data set; None: the newest, which is then kept to.

    Raises:
        ImportError: without `datasets`.
        ValueError: without names, a part or a column; OSError: if the hub does not give it.
    """
    datasets = _import_datasets()
    if names is None:
        raise ValueError(
            f"listing=None: {name} does not say what the values in its label maps mean. Pass a CSV file with two "
            "columns, value and name; a value without a name is not scored."
        )
    table = read_names(names)
    parts = _ask(name, lambda: datasets.get_dataset_split_names(name, revision=revision))
    part = next((part for part in _PARTS[split] if part in parts), None)
    if part is None:
        raise ValueError(f"{name} has the parts {', '.join(parts)}, none of {', '.join(_PARTS[split])}.")
    source = Source(name, part, "", revision or _newest(name))
    columns = _columns(source)
    label = next((column for column in _LABELS if column in columns), None)
    if label is None or _PICTURE not in columns:
        raise ValueError(
            f"{name} has the columns {', '.join(columns)}; image and one of {', '.join(_LABELS)} are needed."
        )
    source = Source(name, part, label, source.revision)
    classes = {value: word for value, word in table.items() if word}
    unlabelled = tuple({UNLABELLED, *table} - classes.keys())
    made = {"dataset": "hub", "remedy": REMEDY, "values": tuple(classes), "unlabelled": unlabelled, "source": source}
    items = [
        HubItem(f"{part}-{index:06}", Path(name), Path(f"row {index}"), index=index, **made)
        for index in range(_count(source))
    ]
    return Dataset(name, split, tuple(classes.values()), tuple(items))


@lru_cache(maxsize=2)
def _stream(source: Source) -> _Stream:
    """The stream of a process."""
    return _Stream(source)


def _load(source: Source) -> Any:
    datasets = _import_datasets()

    def load() -> Any:
        return datasets.load_dataset(source.name, split=source.part, streaming=True, revision=source.revision)

    rows = _ask(source.name, load)
    for column, kind in (rows.features or {}).items():
        if isinstance(kind, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def _columns(source: Source) -> list[str]:
    rows = _load(source)
    return list(rows.features or next(iter(rows)))


def _count(source: Source) -> int:
    """How many rows there are; where the data set does not say, they are counted, which reads all of them."""
    rows = _load(source)
    said = (rows.info.splits or {}).get(source.part)
    return said.num_examples if said and said.num_examples else sum(1 for _ in rows)


def _newest(name: str) -> str | None:
    """The commit that the newest revision of a data set is at; None for a folder."""
    if Path(name).is_dir():
        return None
    from huggingface_hub import HfApi

    return _ask(name, lambda: HfApi().dataset_info(name).sha)


def _ask(name: str, question: Any) -> Any:
    try:
        return question()
    except (OSError, ValueError) as error:
        raise OSError(f"root={name!r} could not be loaded as a data set of the hub ({error}). {REMEDY}") from error


def _import_datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError("Data sets of the hub need datasets: pip install 'diffseg[hub]'.") from error
    return datasets
