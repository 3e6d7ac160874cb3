"""Small trees in the layout and the encoding of the archives of Cityscapes and COCO-Stuff."""

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from diffseg.datasets import Item


def blocks(rng, values, height, width, block=8):
    """Blocks of one value each: pictures with something to group, truths with regions."""
    grid = rng.choice(values, (-(-height // block), -(-width // block)))
    return np.kron(grid, np.ones((block, block), int))[:height, :width].astype(np.uint8)


def picture(rng, height, width):
    return np.stack([blocks(rng, 256, height, width) for _ in range(3)], axis=-1)


def write_cityscapes(root, count, part="val", height=48, width=96, values=range(34)):
    """Photographs and labelIds of two cities; returns the paths of both, in the order of their names."""
    rng = np.random.default_rng(0)
    files = []
    for index in range(count):
        city = ("frankfurt", "lindau")[index >= count // 2]
        name = f"{city}_{index:06}_000019"
        image = root / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png"
        truth = root / "gtFine" / part / city / f"{name}_gtFine_labelIds.png"
        for path, array in (
            (image, picture(rng, height, width)),
            (truth, blocks(rng, list(values), height, width, block=16)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
        files.append((image, truth))
    return files


COCO_VALUES = [*range(182), 255]


def write_coco(
    root,
    sizes,
    images="images/val2017",
    truths="annotations/val2017",
    listing="curated/val2017/Coco164kFull_Stuff_Coarse_7.txt",
):
    """Photographs, stuffthingmaps and the list of their names; returns the paths of the first two."""
    rng = np.random.default_rng(0)
    files = []
    for index, (height, width) in enumerate(sizes):
        name = f"{139 + index:012}"
        image, truth = root / images / f"{name}.jpg", root / truths / f"{name}.png"
        for path, array in (
            (image, picture(rng, height, width)),
            (truth, blocks(rng, COCO_VALUES, height, width, block=5)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
        files.append((image, truth))
    (root / listing).parent.mkdir(parents=True, exist_ok=True)
    (root / listing).write_text("".join(f"{image.stem}\n" for image, _ in files))
    return files


@dataclass(frozen=True)
class DeadlyItem(Item):
    """An image that takes its process down, as one that is too large for the memory does."""

    name: str = "deadly"

    def read(self, size=512):
        os._exit(1)

    def digest(self):
        return "deadly"
