"""Where the files of each data set are, in the folders that its archives make."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from diffseg.datasets.classes import ADE20K_150, CITYSCAPES_27, COCO_STUFF_27, VOC_21, coco_words
from diffseg.datasets.items import Dataset, FileItem, Item

TUNING_IMAGES = 180  # to choose settings on, as many as the paper took (Sec. 9.6)
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
    "ade20k": (
        "Unpack ADEChallengeData2016.zip of ADE20K's scene parsing benchmark into ROOT: "
        "ROOT/ADEChallengeData2016/images/validation/*.jpg and .../annotations/validation/*.png, 8-bit maps with "
        "values from 0 to 150."
    ),
    "voc2012": (
        "Unpack VOCtrainval_11-May-2012.tar of Pascal VOC into ROOT: ROOT/VOCdevkit/VOC2012 with JPEGImages, "
        "SegmentationClass (PNGs with a palette, values from 0 to 20 and 255) and ImageSets/Segmentation/val.txt."
    ),
    COCO_LIST: (
        f"Take {COCO_LIST} from the repository of PiCIE (janghyuncho/PiCIE, curated/val2017 and curated/train2017), "
        f"put it at ROOT/curated/val2017/{COCO_LIST}, or pass its path as listing: one image name a line, without "
        "a suffix."
    ),
}

_BENCHMARK_SIZE = {"cocostuff27": 2175, "cityscapes": 500, "ade20k": 2000, "voc2012": 1449, "sunrgbd": 5050}  # of "val"


def open_coco(root: Path, split: str, listing: str | os.PathLike | None) -> Dataset:
    """COCO-Stuff-27, the images of a list."""
    part = {"val": "val2017", "tune": "train2017"}[split]
    remedy = REMEDIES["cocostuff27"]
    pictures = find_folder(root, (f"images/{part}", part), "jpg", remedy)
    maps = (f"annotations/{part}", f"stuffthingmaps/{part}", f"annotation_{part}", part)
    truths = find_folder(root, maps, "png", remedy)
    found = _find_listing(root, part) if listing is None else Path(listing).expanduser()
    names = read_listing(found, REMEDIES[COCO_LIST])
    items = [FileItem(name, pictures / f"{name}.jpg", truths / f"{name}.png", "cocostuff27", remedy) for name in names]
    return benchmark("cocostuff27", split, tuple(COCO_STUFF_27), items, coco_words())


def open_cityscapes(root: Path, split: str) -> Dataset:
    """Cityscapes, all images of a part."""
    part, remedy = {"val": "val", "tune": "train"}[split], REMEDIES["cityscapes"]
    pictures = find_folder(root, (f"leftImg8bit/{part}",), "png", remedy, depth="*/")
    truths = root / "gtFine" / part
    items = []
    for picture in sorted(pictures.glob("*/*_leftImg8bit.png")):
        name, city = picture.name.removesuffix("_leftImg8bit.png"), picture.parent.name
        truth = truths / city / f"{name}_gtFine_labelIds.png"
        items.append(FileItem(name, picture, truth, "cityscapes", remedy))
    return benchmark("cityscapes", split, CITYSCAPES_27, items)


def open_ade20k(root: Path, split: str) -> Dataset:
    """ADE20K's scene parsing benchmark, all images of a part."""
    part, remedy = {"val": "validation", "tune": "training"}[split], REMEDIES["ade20k"]
    inside = ("ADEChallengeData2016/", "")
    pictures = find_folder(root, [f"{above}images/{part}" for above in inside], "jpg", remedy)
    truths = pictures.parent.parent / "annotations" / part
    items = [
        FileItem(picture.stem, picture, truths / f"{picture.stem}.png", "ade20k", remedy)
        for picture in sorted(pictures.glob("*.jpg"))
    ]
    return benchmark("ade20k", split, ADE20K_150, items)


def open_voc2012(root: Path, split: str) -> Dataset:
    """Pascal VOC 2012 with background, the images of its list for segmentation."""
    remedy = REMEDIES["voc2012"]
    pictures = find_folder(
        root, [f"{above}JPEGImages" for above in ("VOCdevkit/VOC2012/", "VOC2012/", "")], "jpg", remedy
    )
    above = pictures.parent
    listing = above / "ImageSets" / "Segmentation" / f"{ {'val': 'val', 'tune': 'train'}[split] }.txt"
    names = read_listing(listing, remedy)
    items = [
        FileItem(name, pictures / f"{name}.jpg", above / "SegmentationClass" / f"{name}.png", "voc2012", remedy)
        for name in names
    ]
    words = {
        "airplane": 1,
        "motorcycle": 14,
        "television": 20,
        "tv": 20,
        "plant": 16,
        "table": 11,
        "man": 15,
        "woman": 15,
    }
    return benchmark("voc2012", split, VOC_21, items, words)


def benchmark(
    name: str, split: str, classes: tuple[str, ...], items: list[Item], words: dict[str, int] | None = None
) -> Dataset:
    """All items to validate on, with a warning if they are not the benchmark's; a spread of them to tune on."""
    if split == "tune":
        items = spread(items)
    elif len(items) != _BENCHMARK_SIZE[name]:
        warnings.warn(
            f"{name} val has {len(items)} images here; the benchmark has {_BENCHMARK_SIZE[name]}, and only their "
            "score can be compared with others'.",
            stacklevel=4,
        )
    return Dataset(name, split, classes, tuple(items), words or {})


def spread(items: list[Item]) -> list[Item]:
    """As many items as settings are chosen on, evenly spaced among all."""
    chosen = np.unique(np.linspace(0, len(items) - 1, TUNING_IMAGES).round().astype(int))
    return [items[index] for index in chosen]


def find_folder(root: Path, candidates: Iterable[str], suffix: str, remedy: str, depth: str = "") -> Path:
    """The first of the candidates, folders below the root, that holds such files.

    Raises:
        FileNotFoundError: if none does.
    """
    tried = [root / folder for folder in candidates]
    for folder in tried:
        if any(folder.glob(f"{depth}*.{suffix}")):
            return folder
    folders = " or ".join(map(str, tried))
    raise FileNotFoundError(f"root={str(root)!r}: there are no {suffix} files in {folders}. {remedy}")


def read_listing(file: Path, remedy: str) -> list[str]:
    """The names of images in a text file, one a line, without suffixes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty or repeats itself.
    """
    if not file.is_file():
        raise FileNotFoundError(f"listing={str(file)!r} is not a file. {remedy}")
    names = [Path(line.strip()).stem for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"listing={str(file)!r} names {len(names)} images, {len(set(names))} of them different; expected at "
            f"least one, each once. {remedy}"
        )
    return names


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
