"""SUN RGB-D (Song et al., 2015), as its archives have it, or with its labels taken out of MATLAB's file."""

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffseg import IMAGE_SIZE
from diffseg.datasets.classes import SUN_37
from diffseg.datasets.items import DIGEST, Dataset, FileItem, Sample, UnusableImage, digest_files, open_image
from diffseg.datasets.layouts import benchmark, find_folder

REMEDY = (
    "Unpack SUNRGBD.zip and SUNRGBDtoolbox.zip into ROOT: ROOT/SUNRGBD/kv1/..., "
    "ROOT/SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat and SUNRGBDMeta.mat, "
    "ROOT/SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat. Or unpack the archives of the repository "
    "ankurhanda/sunrgbd-meta-data: ROOT/SUNRGBD-test_images/img-*.jpg (and -train_images, to tune) and "
    "ROOT/sunrgbd_test_train_labels/img-*.png, 8-bit maps with values from 0 to 37."
)

_TESTED = 5050  # images of the test part; in the archive of labels they come first
_LABELS = "SUNRGBD2Dseg.mat"


@dataclass(frozen=True)
class MatlabItem(FileItem):
    """A photograph whose label map is one of many in a file of MATLAB's.

    Attributes:
        index: of the label map.
    """

    index: int = 0

    def read(self, size: int = IMAGE_SIZE) -> Sample:
        values = self._values()
        return self.pair(open_image(self.image, self.remedy), Image.fromarray(values), self.classes(values), size)

    def digest(self) -> str:
        return sha256(digest_files([self.image], self.remedy).encode() + self._values().tobytes()).hexdigest()[:DIGEST]

    def _values(self) -> UInt8[np.ndarray, "h w"]:
        h5py = _import_h5py()
        try:
            with h5py.File(self.truth) as opened:
                labels = opened["SUNRGBD2Dseg"]["seglabel"]  # [images, 1], references
                return np.asarray(opened[labels[self.index, 0]], dtype=np.uint8).T  # MATLAB counts columns first
        except (OSError, KeyError, ValueError, IndexError) as error:
            raise UnusableImage(f"{self.truth} holds no label map {self.index + 1} ({error}). {self.remedy}") from error


def open_sunrgbd(root: Path, split: str) -> Dataset:
    """The test part to validate on, a spread of the training part to tune on."""
    toolbox = root / "SUNRGBDtoolbox"
    found = _from_matlab(root, toolbox, split) if toolbox.is_dir() else _from_pictures(root, split)
    return benchmark("sunrgbd", split, SUN_37, found)


def _from_pictures(root: Path, split: str) -> list[FileItem]:
    """Pictures are numbered from 1 in each part, labels through both, the test part first."""
    part, before = {"val": ("test", 0), "tune": ("train", _TESTED)}[split]
    pictures = find_folder(root, (f"SUNRGBD-{part}_images",), "jpg", REMEDY)
    truths = find_folder(root, ("sunrgbd_test_train_labels", "sunrgbd_train_test_labels"), "png", REMEDY)
    items = []
    for picture in sorted(pictures.glob("img-*.jpg")):
        number = int(picture.stem.removeprefix("img-")) + before
        items.append(FileItem(f"img-{number:06}", picture, truths / f"img-{number:06}.png", "sunrgbd", REMEDY))
    return items


def _from_matlab(root: Path, toolbox: Path, split: str) -> list[MatlabItem]:
    from scipy.io import loadmat

    labels = toolbox / "Metadata" / _LABELS
    files = (toolbox / "Metadata" / "SUNRGBDMeta.mat", toolbox / "traintestSUNRGBD" / "allsplit.mat", labels)
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"root={str(root)!r}: {file} is missing. {REMEDY}")
    _import_h5py()
    about = np.atleast_1d(loadmat(files[0], squeeze_me=True, struct_as_record=False)["SUNRGBDMeta"])
    parts = loadmat(files[1], squeeze_me=True)
    chosen = {_below(path) for path in np.atleast_1d(parts[{"val": "alltest", "tune": "alltrain"}[split]])}
    items = []
    for index, scene in enumerate(about):
        path = _below(scene.rgbpath)
        if path.rsplit("/", 2)[0] in chosen:  # without image/NAME.jpg
            items.append(MatlabItem(f"img-{index + 1:06}", root / path, labels, "sunrgbd", REMEDY, index))
    return items


def _below(path: Any) -> str:
    """A path on the machine of the data set's makers, from its folder SUNRGBD on."""
    parts = [part for part in re.split(r"[/\\]+", str(path).strip()) if part]
    return "/".join(parts[parts.index("SUNRGBD") :])


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{_LABELS} needs h5py: pip install 'diffseg[sunrgbd]'. {REMEDY}") from error
    return h5py
