"""One picture of a data set and its truth: what is known before it is read, and how it is read."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import ExifTags, Image

from diffseg import IMAGE_SIZE
from diffseg.datasets.classes import LOOKUPS, UNKNOWN
from diffseg.images import read_image
from diffseg.models.paths import data_dir
from diffseg.pocket import scene

DIGEST = 12  # hexadecimal digits of a digest


class UnusableImage(ValueError):
    """One picture of a data set, or its truth, cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Sample:
    """A square picture and the class of each of its pixels."""

    image: Image.Image  # RGB, size x size
    truth: UInt8[np.ndarray, "size size"]  # class ids from 0 on, or UNLABELLED
    words: tuple[str, ...] = ()  # words[class id] is what to call it; for methods that are told names


class Item(ABC):
    """One picture of a data set, not read yet."""

    name: str  # unique in its data set

    @abstractmethod
    def read(self, size: int = IMAGE_SIZE) -> Sample:
        """The picture and its truth, cropped to the central square and resized.

        Raises:
            UnusableImage: if one of its files is missing, damaged, of the wrong size, or holds an unknown value.
        """

    @abstractmethod
    def digest(self) -> str:
        """Changes whenever the picture or the truth may have changed.

        Raises:
            UnusableImage: if they are not there.
        """


@dataclass(frozen=True)
class Dataset:
    """The items of one split of a data set, in a fixed order.

    Attributes:
        classes: the names of the classes; a truth holds indices into them.
        words: nouns and the classes that they name. Names of classes are always among them.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    items: tuple[Item, ...] = field(repr=False)
    words: Mapping[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        spoken = {name.lower(): index for index, name in reversed(list(enumerate(self.spoken)))}
        object.__setattr__(self, "words", {**spoken, **self.words})

    @property
    def spoken(self) -> tuple[str, ...]:
        """What to call each class in a prompt."""
        return tuple(name.removesuffix("-things").removesuffix("-stuff") for name in self.classes)

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

    def digest(self) -> str:
        return f"{world()}-{self.seed}"


@dataclass(frozen=True)
class FileItem(Item):
    """A photograph and its label map, in the encoding of a data set.

    Attributes:
        dataset: whose `LOOKUPS` says what the values in the label map mean.
        remedy: what to do if a file is not as it should be.
    """

    name: str
    image: Path
    truth: Path
    dataset: str
    remedy: str = ""

    def read(self, size: int = IMAGE_SIZE) -> Sample:
        picture, values = open_image(self.image, self.remedy), open_image(self.truth, self.remedy)
        if values.mode not in ("L", "P"):
            raise UnusableImage(
                f"{self.truth} is an image of mode {values.mode}, not of one 8-bit channel. {self.remedy}"
            )
        return self.pair(picture, values, self.classes(np.asarray(values)), size)

    def pair(self, picture: Image.Image, values: Image.Image, classes: UInt8[np.ndarray, "h w"], size: int) -> Sample:
        """A picture and its truth, of one size, cut and resized alike."""
        if picture.size != values.size:
            raise UnusableImage(
                f"{self.image} is {_size(picture)} pixels and its truth {self.truth} {_size(values)}: they must be "
                f"equal. {self.remedy}"
            )
        return Sample(read_as_stored(picture, size), nearest_square(classes, size))

    def classes(self, values: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        """Values of a label map -> class ids and UNLABELLED."""
        classes = LOOKUPS[self.dataset][values]
        if (classes == UNKNOWN).any():
            unknown = np.unique(values[classes == UNKNOWN]).tolist()
            raise UnusableImage(
                f"{self.truth} holds the values {unknown}, which {self.dataset} does not have. {self.remedy}"
            )
        return classes.astype(np.uint8)

    def digest(self) -> str:
        return digest_files([self.image, self.truth], self.remedy)


@cache
def world() -> str:
    """A digest of how scenes are drawn: of the sprites, and of a few small scenes.

    Colours enter as rounded means, so that a machine whose last digits differ has the same world.
    """
    hashed = sha256()
    for sprite in sorted((data_dir() / "sprites").glob("*.webp")):
        hashed.update(sprite.read_bytes())
    for seed in (0, 1, 2):
        drawn = scene(seed, 64)
        means = np.asarray(drawn.image.resize((4, 4), Image.Resampling.BOX), dtype=float)
        hashed.update(drawn.labels.tobytes() + (means / 8).round().astype(np.uint8).tobytes())
    return hashed.hexdigest()[:DIGEST]


def digest_files(files: Iterable[Path], remedy: str = "") -> str:
    """A digest of the contents of files.

    Raises:
        UnusableImage: if one cannot be read.
    """
    hashed = sha256()
    for file in files:
        try:
            hashed.update(sha256(file.read_bytes()).digest())
        except OSError as error:
            raise UnusableImage(f"{file} cannot be read ({error.strerror}). {remedy}") from error
    return hashed.hexdigest()[:DIGEST]


def read_as_stored(picture: Image.Image, size: int) -> Image.Image:
    """The central square of a picture as its pixels are stored.

    The truth was drawn on the stored pixels, so a turn noted in EXIF must not be made.
    """
    if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # only pixels have no such note
        picture = Image.fromarray(np.asarray(picture if picture.mode.startswith("I") else picture.convert("RGB")))
    return read_image(picture, size)


def nearest_square(values: Integer[np.ndarray, "h w"], size: int) -> Integer[np.ndarray, "{size} {size}"]:
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


def open_image(path: Path, remedy: str = "") -> Image.Image:
    """The picture in a file, decoded.

    Raises:
        UnusableImage: if it is missing, damaged, or larger than Pillow's limit.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            return opened
    except FileNotFoundError:
        raise UnusableImage(f"{path} is missing. {remedy}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what PIL's decoders raise
        raise UnusableImage(f"{path} cannot be read as an image ({error}). {remedy}") from error


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
