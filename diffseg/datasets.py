"""Data sets with a class for every pixel: PocketScenes, COCO-Stuff-27 and Cityscapes, of 27 classes each.

A data set is a list of items. An item is small and can be sent to another machine; its method `read` loads its picture
and its truth. Both are cropped to the central square and resized, the picture as `diffseg.images.read_image`
does it, the truth by nearest neighbour, so that no class is invented at an edge.
"""

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int16, UInt8
from PIL import Image

from diffseg import IMAGE_SIZE
from diffseg.images import read_image
from diffseg.pocket import CLASSES, TUNING_SEED, VALIDATION_SEED, scene

DATASETS = ("pocket", "cocostuff27", "cityscapes")
UNLABELLED = 255  # in truths; one of `diffseg.metrics.IGNORE`
SPLITS = ("tune", "val")
TUNING_IMAGES = 180  # to choose settings on, as many as the paper took (Sec. 9.6)

#: First seed and number of the scenes of each split of PocketScenes.
POCKET_SPLITS = {"tune": (TUNING_SEED, TUNING_IMAGES), "val": (VALIDATION_SEED, 100)}

#: The pixel values of the stuffthingmaps (COCO's id - 1) that make up each class of COCO-Stuff-27. The groups are the
#: 12 + 15 lower nodes of COCO-Stuff's label hierarchy (Caesar et al., 2018), in the order of the benchmark of IIC
#: (Ji et al., 2019), which PiCIE, STEGO and DiffSeg took over.
COCO_STUFF_27 = {
    "electronic-things": range(71, 77),
    "appliance-things": range(77, 83),
    "food-things": range(51, 61),
    "furniture-things": range(61, 71),
    "indoor-things": range(83, 91),
    "kitchen-things": range(43, 51),
    "accessory-things": range(25, 33),
    "animal-things": range(15, 25),
    "outdoor-things": range(9, 15),
    "person-things": range(0, 1),
    "sports-things": range(33, 43),
    "vehicle-things": range(1, 9),
    "ceiling-stuff": (101, 102),
    "floor-stuff": (100, 113, 114, 115, 116, 117),
    "food-stuff": (120, 121, 152, 169),
    "furniture-stuff": (97, 106, 107, 109, 111, 122, 129, 132, 155, 160, 164),
    "rawmaterial-stuff": (99, 131, 138, 142),
    "textile-stuff": (91, 92, 103, 104, 108, 130, 136, 140, 151, 166, 167),
    "wall-stuff": range(170, 177),
    "window-stuff": (179, 180),
    "building-stuff": (94, 95, 127, 150, 157, 165),
    "ground-stuff": (110, 124, 125, 135, 139, 143, 144, 146, 148, 153, 158),
    "plant-stuff": (93, 96, 118, 123, 128, 133, 141, 162, 168),
    "sky-stuff": (105, 156),
    "solid-stuff": (126, 134, 149, 159, 161, 181),
    "structural-stuff": (98, 112, 137, 145, 163),
    "water-stuff": (119, 147, 154, 177, 178),
}

#: The names of labelIds 7 to 33 of Cityscapes (Cordts et al., 2016); the lower ones are not labelled.
CITYSCAPES_27 = (
    "road", "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole",
    "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck",
    "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)  # fmt: skip
CITYSCAPES_FIRST = 7

COCO_LIST = "Coco164kFull_Stuff_Coarse_7.txt"  # of PiCIE's curated images; DiffSeg's repository has the one for val

#: Where each data set comes from and how its folder looks; every error ends with it.
REMEDIES = {
    "cocostuff27": (
        "Unpack COCO's val2017.zip into ROOT/images and COCO-Stuff's stuffthingmaps_trainval2017.zip into "
        "ROOT/annotations (train2017.zip too, to tune): ROOT/images/val2017/*.jpg, ROOT/annotations/val2017/*.png, "
        "8-bit maps with values from 0 to 181 and 255."
    ),
    "cityscapes": (
        "Unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of Cityscapes into ROOT: "
        "ROOT/leftImg8bit/val/CITY/*_leftImg8bit.png, ROOT/gtFine/val/CITY/*_gtFine_labelIds.png with values from 0 "
        "to 33 (labelIds, not labelTrainIds)."
    ),
    COCO_LIST: (
        f"Take {COCO_LIST} from the repository of PiCIE (janghyuncho/PiCIE, curated/val2017 and curated/train2017), "
        f"put it at ROOT/curated/val2017/{COCO_LIST}, or pass its path as listing: one image name a line, without "
        "a suffix."
    ),
}

_BENCHMARK_SIZE = {"cocostuff27": 2175, "cityscapes": 500}  # images of "val"

_UNKNOWN = -1


class UnusableImage(ValueError):
    """One picture of a data set, or its truth, cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Sample:
    """A square picture and the class of each of its pixels."""

    image: Image.Image  # RGB, size x size
    truth: UInt8[np.ndarray, "size size"]  # 0 to 26, or UNLABELLED


class Item(ABC):
    """One picture of a data set, not read yet."""

    name: str  # unique in its data set, and fit for the name of a file

    @abstractmethod
    def read(self, size: int = IMAGE_SIZE) -> Sample:
        """The picture and its truth, cropped to the central square and resized.

        Raises:
            UnusableImage: if one of its files is missing, damaged, of the wrong size, or holds an unknown value.
        """


@dataclass(frozen=True)
class SceneItem(Item):
    """A scene of PocketScenes, drawn when it is read."""

    seed: int

    @property
    def name(self) -> str:
        return str(self.seed)

    def read(self, size: int = IMAGE_SIZE) -> Sample:
        drawn = scene(self.seed, size)
        return Sample(drawn.image, drawn.labels)


@dataclass(frozen=True)
class FileItem(Item):
    """A photograph and its label map, in the encoding of a data set."""

    name: str
    image: Path
    truth: Path
    dataset: str

    def read(self, size: int = IMAGE_SIZE) -> Sample:
        remedy = REMEDIES[self.dataset]
        picture, values = _load(self.image, remedy).convert("RGB"), _load(self.truth, remedy)
        if values.mode not in ("L", "P"):
            raise UnusableImage(f"{self.truth} is an image of mode {values.mode}, not of one 8-bit channel. {remedy}")
        if picture.size != values.size:
            raise UnusableImage(
                f"{self.image} is {_size(picture)} pixels and its truth {self.truth} {_size(values)}: they must be "
                f"equal. {remedy}"
            )
        # As arrays: the truth was drawn on the pixels as they are stored, so a turn noted in EXIF must not be made.
        classes = self._classes(np.asarray(values))
        return Sample(read_image(np.asarray(picture), size), nearest_square(classes, size))

    def _classes(self, values: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        classes = _LOOKUPS[self.dataset][values]
        if (classes == _UNKNOWN).any():
            unknown = np.unique(values[classes == _UNKNOWN]).tolist()
            raise UnusableImage(
                f"{self.truth} holds the values {unknown}, which {self.dataset} does not have. {REMEDIES[self.dataset]}"
            )
        return classes.astype(np.uint8)


@dataclass(frozen=True)
class Dataset:
    """The items of one split of a data set, in a fixed order."""

    name: str
    split: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def head(self, limit: int | None) -> "Dataset":
        """Only the first `limit` items; None: all.

        Raises:
            ValueError: if the limit is below 1.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit} must be at least 1; leave it out to take all {len(self)} images.")
        return replace(self, items=self.items[:limit])


def open_dataset(
    name: str, root: str | os.PathLike | None = None, split: str = "val", listing: str | os.PathLike | None = None
) -> Dataset:
    """Find the images of a data set; they are read later, one by one.

    Args:
        name: "pocket", "cocostuff27" or "cityscapes".
        root: the folder of the last two, see `REMEDIES` for what must be in it.
        split: "val" is what the benchmark scores; "tune" is for choosing settings: 180 other scenes, or as many
            images, spread evenly over the training split.
        listing: of COCO-Stuff-27: a text file with the name of one image a line. None: the benchmark's list, in the
            root or in PiCIE's folders.

    Raises:
        ValueError: for an unknown name or split, or a listing that is empty or repeats itself.
        FileNotFoundError: if a folder or the listing is missing.
    """
    if name not in DATASETS:
        raise ValueError(f"name={name!r} must be one of {', '.join(DATASETS)}.")
    if split not in SPLITS:
        raise ValueError(f"split={split!r} must be one of {', '.join(SPLITS)}.")
    if name == "pocket":
        return _pocket(split)
    if root is None:
        raise ValueError(f"root=None: {name} is not part of the suite. {REMEDIES[name]} Then pass that folder as root.")
    folder = Path(root).expanduser().absolute()  # items may be read by a process that works in another folder
    return _cityscapes(folder, split) if name == "cityscapes" else _coco(folder, split, listing)


def nearest_square(values: UInt8[np.ndarray, "h w"], size: int) -> UInt8[np.ndarray, "{size} {size}"]:
    """The central square of a label map, resized to size x size: each pixel takes the value under its centre."""
    side = min(values.shape)
    ticks = (2 * np.arange(size) + 1) * side // (2 * size)  # floor((i + 1/2) side / size)
    rows, columns = ((length - side) // 2 + ticks for length in values.shape)
    return values[np.ix_(rows, columns)]


def read_truths(items: Iterable[Item], size: int = IMAGE_SIZE) -> Iterator[UInt8[np.ndarray, "{size} {size}"]]:
    """The truths alone, one at a time; unusable images are left out."""
    for item in items:
        try:
            yield item.read(size).truth
        except UnusableImage:
            continue


def _pocket(split: str) -> Dataset:
    first, count = POCKET_SPLITS[split]
    return Dataset("pocket", split, CLASSES, tuple(SceneItem(seed) for seed in range(first, first + count)))


def _coco(root: Path, split: str, listing: str | os.PathLike | None) -> Dataset:
    part = {"val": "val2017", "tune": "train2017"}[split]
    remedy = REMEDIES["cocostuff27"]
    pictures = _find(root, (f"images/{part}", part), "jpg", remedy)
    truths = _find(root, (f"annotations/{part}", f"stuffthingmaps/{part}", f"annotation_{part}", part), "png", remedy)
    names = _read_listing(_find_listing(root, part) if listing is None else Path(listing).expanduser())
    items = [FileItem(name, pictures / f"{name}.jpg", truths / f"{name}.png", "cocostuff27") for name in names]
    return _benchmark("cocostuff27", split, tuple(COCO_STUFF_27), items)


def _cityscapes(root: Path, split: str) -> Dataset:
    part = {"val": "val", "tune": "train"}[split]
    pictures = _find(root, (f"leftImg8bit/{part}",), "png", REMEDIES["cityscapes"], depth="*/")
    truths = root / "gtFine" / part
    items = []
    for picture in sorted(pictures.glob("*/*_leftImg8bit.png")):
        name, city = picture.name.removesuffix("_leftImg8bit.png"), picture.parent.name
        items.append(FileItem(name, picture, truths / city / f"{name}_gtFine_labelIds.png", "cityscapes"))
    return _benchmark("cityscapes", split, CITYSCAPES_27, items)


def _benchmark(name: str, split: str, classes: tuple[str, ...], items: list[Item]) -> Dataset:
    """All items to validate on, with a warning if they are not the benchmark's; a spread of them to tune on."""
    if split == "tune":
        chosen = np.unique(np.linspace(0, len(items) - 1, TUNING_IMAGES).round().astype(int))
        items = [items[index] for index in chosen]
    elif len(items) != _BENCHMARK_SIZE[name]:
        warnings.warn(
            f"{name} val has {len(items)} images here; the benchmark has {_BENCHMARK_SIZE[name]}, and only their "
            "score can be compared with others'.",
            stacklevel=4,
        )
    return Dataset(name, split, classes, tuple(items))


def _find(root: Path, candidates: Iterable[str], suffix: str, remedy: str, depth: str = "") -> Path:
    """The first of the candidates, folders below the root, that holds such files."""
    tried = [root / folder for folder in candidates]
    for folder in tried:
        if any(folder.glob(f"{depth}*.{suffix}")):
            return folder
    folders = " or ".join(map(str, tried))
    raise FileNotFoundError(f"root={str(root)!r}: there are no {suffix} files in {folders}. {remedy}")


def _find_listing(root: Path, part: str) -> Path:
    tried = [root / "curated" / part / COCO_LIST]
    if part == "val2017":  # the lists for training and validation share their name
        tried.append(root / COCO_LIST)
    for file in tried:
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"listing=None: the benchmark's list of images is not at {' or '.join(map(str, tried))}. {REMEDIES[COCO_LIST]}"
    )


def _read_listing(file: Path) -> list[str]:
    if not file.is_file():
        raise FileNotFoundError(f"listing={str(file)!r} is not a file. {REMEDIES[COCO_LIST]}")
    names = [Path(line.strip()).stem for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"listing={str(file)!r} names {len(names)} images, {len(set(names))} of them different; expected at "
            f"least one, each once. {REMEDIES[COCO_LIST]}"
        )
    return names


def _load(path: Path, remedy: str) -> Image.Image:
    try:
        with Image.open(path) as opened:
            opened.load()
            return opened
    except FileNotFoundError:
        raise UnusableImage(f"{path} is missing. {remedy}") from None
    except (OSError, SyntaxError, ValueError) as error:  # what PIL's decoders raise
        raise UnusableImage(f"{path} cannot be read as an image ({error}). {remedy}") from error


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"


def _lookup(classes: Iterable[Collection[int]], unlabelled: Collection[int]) -> Int16[np.ndarray, "256"]:
    """Value of a pixel -> class, UNLABELLED or _UNKNOWN."""
    table = np.full(256, _UNKNOWN, dtype=np.int16)
    table[list(unlabelled)] = UNLABELLED
    for index, values in enumerate(classes):
        table[list(values)] = index
    return table


_LOOKUPS = {
    "cocostuff27": _lookup(COCO_STUFF_27.values(), [UNLABELLED]),
    "cityscapes": _lookup([[CITYSCAPES_FIRST + index] for index in range(len(CITYSCAPES_27))], range(CITYSCAPES_FIRST)),
}
