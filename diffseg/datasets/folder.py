"""Any folder: pictures and label maps side by side."""

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from diffseg import IMAGE_SIZE
from diffseg.datasets.classes import MOST_CLASSES, UNLABELLED
from diffseg.datasets.items import Dataset, FileItem, Sample, UnusableImage, open_image

NAMES = "classes.csv"
REMEDY = (
    "Put a label map beside each picture: NAME.png beside NAME.jpg, or NAME_labels.png beside NAME.png; or pictures "
    f"into ROOT/images and label maps into ROOT/labels. Label maps are PNGs of one channel. ROOT/{NAMES} may name "
    "their values: two columns, value and name; a value without a name is not scored."
)

_MARK = "_labels"
_SUFFIXES = tuple(sorted(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN))
_MODES = ("1", "L", "P", "I", "I;16", "I;16B")


@dataclass(frozen=True)
class FolderItem(FileItem):
    """A picture and a label map whose values a table explains.

    Attributes:
        values: values[class id] is the value in the label map.
        unlabelled: the values that are not scored.
    """

    values: tuple[int, ...] = ()
    unlabelled: tuple[int, ...] = (UNLABELLED,)

    def read(self, size: int = IMAGE_SIZE) -> Sample:
        picture, truth = open_image(self.image, self.remedy), open_truth(self.truth, self.remedy)
        return self.pair(picture, truth, self.classes(np.asarray(truth)), size)

    def classes(self, values: Integer[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        found, inverse = np.unique(values, return_inverse=True)
        unknown = np.setdiff1d(found, [*self.values, *self.unlabelled])
        if len(unknown):
            raise UnusableImage(
                f"{self.truth} holds the values {unknown.tolist()}, which {NAMES} does not name. {self.remedy}"
            )
        of_value = {value: index for index, value in enumerate(self.values)}
        classes = np.array([of_value.get(value, UNLABELLED) for value in found.tolist()], dtype=np.uint8)
        return classes[inverse].reshape(values.shape)


def open_folder(root: Path, split: str) -> Dataset:
    """All pictures below a folder that have a label map; of a folder named like the split, if there is one.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if the names are not a table, if there are too many classes, or if there is nothing to tune on.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"root={str(root)!r} is not a folder. {REMEDY}")
    inside = root / split
    if split == "tune" and not inside.is_dir():
        raise ValueError(f"split='tune': {root} has no folder 'tune'. Put other pictures there than those of 'val'.")
    pairs = _find_pairs(inside if inside.is_dir() else root)
    if not pairs:
        raise FileNotFoundError(f"root={str(root)!r}: there is no picture with a label map. {REMEDY}")
    named = read_names(root / NAMES) if (root / NAMES).is_file() else None
    table = _find_values([truth for _, _, truth in pairs]) if named is None else named
    classes = {value: name for value, name in table.items() if name}
    if not 1 <= len(classes) <= MOST_CLASSES:
        raise ValueError(f"root={str(root)!r} has {len(classes)} classes; expected 1 to {MOST_CLASSES}. {REMEDY}")
    unlabelled = tuple({UNLABELLED, *table} - classes.keys())
    items = [
        FolderItem(name, image, truth, "folder", REMEDY, tuple(classes), unlabelled) for name, image, truth in pairs
    ]
    return Dataset(root.name, split, tuple(classes.values()), tuple(items))


def open_truth(path: Path, remedy: str = "") -> Image.Image:
    """A label map of one channel, 8 or 16 bits.

    Raises:
        UnusableImage: if it cannot be read, or has colours.
    """
    values = open_image(path, remedy)
    if values.mode not in _MODES:
        raise UnusableImage(f"{path} is an image of mode {values.mode}, not of one channel. {remedy}")
    return values.convert("I") if values.mode == "1" else values


def _find_pairs(folder: Path) -> list[tuple[str, Path, Path]]:
    """Name, picture and label map."""
    apart = (folder / "images").is_dir() and (folder / "labels").is_dir()
    above = folder / "images" if apart else folder
    files = sorted(file for file in above.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
    known = set(files)
    pairs = []
    for file in files:
        below = file.relative_to(above)
        if apart:
            truth = folder / "labels" / below.with_suffix(".png")
        else:
            truth = file.with_name(f"{file.stem}{_MARK}.png")
            if truth not in known and file.suffix.lower() != ".png":
                truth = file.with_suffix(".png")
        if truth.is_file() and truth != file:
            pairs.append((below.with_suffix("").as_posix(), file, truth))
    return _with_suffixes_where_needed(pairs, above)


def _with_suffixes_where_needed(pairs: list[tuple[str, Path, Path]], above: Path) -> list[tuple[str, Path, Path]]:
    """Two pictures that differ in their suffixes only keep them in their names."""
    counts = Counter(name for name, _, _ in pairs)
    return [
        (file.relative_to(above).as_posix() if counts[name] > 1 else name, file, truth) for name, file, truth in pairs
    ]


def read_names(file: Path) -> dict[int, str]:
    """Value -> name, in the order of the file; "" for what is not scored.

    Raises:
        ValueError: if it is no table of values and names, or names something twice.
    """
    try:
        rows = list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()))
        rows = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
        if rows and not rows[0][0].lstrip("-").isdigit():
            rows = rows[1:]  # "value,name"
        names = {int(value): name for value, name in rows}
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} is no table of the two columns value and name ({error}). {REMEDY}") from error
    spoken = [name for name in names.values() if name]
    if len(names) < len(rows) or len(set(spoken)) < len(spoken):
        raise ValueError(f"{file} names a value or a class twice. {REMEDY}")
    return names


def _find_values(truths: Iterable[Path]) -> dict[int, str]:
    """Every value of the label maps, named by its number; what cannot be read is reported when it is scored."""
    values: set[int] = set()
    for truth in truths:
        try:
            values |= set(np.unique(np.asarray(open_truth(truth))).tolist())
        except UnusableImage:
            continue
    return {value: str(value) for value in sorted(values - {UNLABELLED})}
