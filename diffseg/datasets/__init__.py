"""Data sets with a class for every pixel: PocketScenes, benchmarks as their archives have them, any folder, the hub.

A data set is a list of items. An item is small and can be sent to another machine; its method `read` loads its picture
and its truth. Both are cropped to the central square and resized, the picture as `diffseg.images.read_image`
does it, the truth by nearest neighbour, so that no class is invented at an edge.
"""

import os
from pathlib import Path

from diffseg.datasets.classes import ADE20K_150, CITYSCAPES_27, COCO_LABELS, COCO_STUFF_27, SUN_37, UNLABELLED, VOC_21
from diffseg.datasets.folder import REMEDY as FOLDER_REMEDY
from diffseg.datasets.folder import open_folder
from diffseg.datasets.hub import REMEDY as HUB_REMEDY
from diffseg.datasets.hub import open_hub
from diffseg.datasets.items import (
    Dataset,
    FileItem,
    Item,
    Sample,
    SceneItem,
    UnusableImage,
    nearest_square,
    read_truths,
    world,
)
from diffseg.datasets.layouts import (
    REMEDIES,
    TUNING_IMAGES,
    open_ade20k,
    open_cityscapes,
    open_coco,
    open_voc2012,
)
from diffseg.datasets.sunrgbd import REMEDY as SUN_REMEDY
from diffseg.datasets.sunrgbd import open_sunrgbd
from diffseg.pocket import CLASSES, TUNING_SEED, VALIDATION_SEED

__all__ = [
    "ADE20K_150", "CITYSCAPES_27", "COCO_LABELS", "COCO_STUFF_27", "DATASETS", "POCKET_SPLITS", "SPLITS", "SUN_37",
    "TUNING_IMAGES", "UNLABELLED", "VOC_21", "Dataset", "FileItem", "Item", "Sample", "SceneItem", "UnusableImage",
    "nearest_square", "open_dataset", "read_truths", "world",
]  # fmt: skip

_OPENERS = {
    "cityscapes": open_cityscapes,
    "ade20k": open_ade20k,
    "voc2012": open_voc2012,
    "sunrgbd": open_sunrgbd,
    "folder": open_folder,
}
_REMEDIES = {**REMEDIES, "sunrgbd": SUN_REMEDY, "folder": FOLDER_REMEDY, "hub": HUB_REMEDY}

DATASETS = ("pocket", "cocostuff27", *_OPENERS, "hub")
SPLITS = ("tune", "val")

#: First seed and number of the scenes of each split of PocketScenes.
POCKET_SPLITS = {"tune": (TUNING_SEED, TUNING_IMAGES), "val": (VALIDATION_SEED, 100)}


def open_dataset(
    name: str, root: str | os.PathLike | None = None, split: str = "val", listing: str | os.PathLike | None = None
) -> Dataset:
    """Find the images of a data set; they are read later, one by one.

    Args:
        name: "pocket"; "cocostuff27", "cityscapes", "ade20k", "voc2012" (with background) or "sunrgbd" (37 classes);
            "folder": pictures and label maps of your own; "hub": a data set of the Hugging Face hub.
        root: the folder, or the name on the hub; every error says what must be in it.
        split: "val" is what the benchmark scores; "tune" is for choosing settings: 180 other scenes, or as many
            images, spread evenly over the training split.
        listing: of COCO-Stuff-27: a text file with the name of one image a line; None: the benchmark's list, in the
            root or in PiCIE's folders. Of the hub: a CSV file with the values in its label maps and their names.

    Raises:
        ValueError: for an unknown name or split, or a listing that is empty or repeats itself.
        FileNotFoundError: if a folder or the listing is missing.
        ImportError: if a package is missing that only this data set needs.
    """
    if name not in DATASETS:
        raise ValueError(f"name={name!r} must be one of {', '.join(DATASETS)}.")
    if split not in SPLITS:
        raise ValueError(f"split={split!r} must be one of {', '.join(SPLITS)}.")
    if name == "pocket":
        return _open_pocket(split)
    if root is None:
        raise ValueError(f"root=None: {name} is not part of the suite. {_REMEDIES[name]} Then pass that as root.")
    folder = Path(root).expanduser().absolute()  # items may be read by a process that works in another folder
    if name == "hub":
        names = None if listing is None else Path(listing).expanduser()
        return open_hub(str(folder) if folder.is_dir() else os.fspath(root), split, names)
    return open_coco(folder, split, listing) if name == "cocostuff27" else _OPENERS[name](folder, split)


def _open_pocket(split: str) -> Dataset:
    first, count = POCKET_SPLITS[split]
    return Dataset("pocket", split, CLASSES, tuple(SceneItem(seed) for seed in range(first, first + count)))
