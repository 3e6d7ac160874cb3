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


def write_pair(image, truth, rng, values, height=40, width=60, palette=None):
    """A photograph and a label map of blocks with the given values."""
    for path in (image, truth):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(rng, height, width)).save(image)
    labels = Image.fromarray(blocks(rng, list(values), height, width, block=5))
    if palette is not None:
        labels = labels.convert("P")
        labels.putpalette(palette)
    labels.save(truth)


def write_ade20k(root, count, part="validation", values=range(151)):
    """Photographs and label maps of ADEChallengeData2016.zip."""
    rng, files = np.random.default_rng(0), []
    mark = {"validation": "val", "training": "train"}[part]
    for index in range(1, count + 1):
        name = f"ADE_{mark}_{index:08}"
        image = root / "ADEChallengeData2016" / "images" / part / f"{name}.jpg"
        truth = root / "ADEChallengeData2016" / "annotations" / part / f"{name}.png"
        write_pair(image, truth, rng, values)
        files.append((image, truth))
    return files


def write_voc2012(root, names, part="val", values=(*range(21), 255)):
    """Photographs, label maps with a palette, and lists, of VOCtrainval_11-May-2012.tar; one photograph has no map."""
    rng, files, above = np.random.default_rng(0), [], root / "VOCdevkit" / "VOC2012"
    for name in names:
        image, truth = above / "JPEGImages" / f"{name}.jpg", above / "SegmentationClass" / f"{name}.png"
        write_pair(image, truth, rng, values, palette=rng.integers(0, 256, 768).tolist())
        files.append((image, truth))
    Image.fromarray(picture(rng, 8, 8)).save(above / "JPEGImages" / "2012_999999.jpg")
    listing = above / "ImageSets" / "Segmentation" / f"{part}.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{name}\n" for name in names))
    return files


def write_sunrgbd_pictures(root, tests, trains, values=range(38)):
    """Photographs of each part, numbered from 1, and their label maps, numbered through both parts."""
    rng = np.random.default_rng(0)
    for part, count, before in (("test", tests, 0), ("train", trains, 5050)):
        for number in range(1, count + 1):
            image = root / f"SUNRGBD-{part}_images" / f"img-{number:06}.jpg"
            write_pair(image, root / "sunrgbd_test_train_labels" / f"img-{before + number:06}.png", rng, values)


def write_sunrgbd_matlab(root, parts):
    """SUNRGBD.zip and SUNRGBDtoolbox.zip: photographs in folders of their own, all label maps in one HDF5 file.

    Args:
        parts: "test" or "train" for each scene.

    Returns:
        The photograph and the label map of each scene.
    """
    import h5py
    from scipy.io import savemat

    rng, files = np.random.default_rng(0), []
    toolbox = root / "SUNRGBDtoolbox"
    (toolbox / "Metadata").mkdir(parents=True)
    (toolbox / "traintestSUNRGBD").mkdir()
    about = np.zeros((1, len(parts)), dtype=[("sequenceName", object), ("rgbpath", object)])
    folders = {"test": [], "train": []}
    with h5py.File(toolbox / "Metadata" / "SUNRGBD2Dseg.mat", "w") as opened:
        labels = opened.create_dataset("SUNRGBD2Dseg/seglabel", (len(parts), 1), dtype=h5py.ref_dtype)
        for index, part in enumerate(parts):
            below = f"SUNRGBD/kv1/NYUdata/NYU{index + 1:04}"
            image = root / below / "image" / f"NYU{index + 1:04}.jpg"
            image.parent.mkdir(parents=True)
            Image.fromarray(picture(rng, 40, 60)).save(image)
            truth = blocks(rng, list(range(38)), 40, 60, block=5)
            opened[f"#refs#/{index}"] = truth.T.astype(float)  # as MATLAB keeps it: columns first, doubles
            labels[index, 0] = opened[f"#refs#/{index}"].ref
            about[0, index] = (below, f"/n/fs/sun3d/data//{below}/image/{image.name}")
            folders[part].append(f"/n/fs/sun3d/data/{below}")
            files.append((image, truth))
    savemat(toolbox / "Metadata" / "SUNRGBDMeta.mat", {"SUNRGBDMeta": about})
    cells = {f"all{part}": np.array([folders[part]], dtype=object) for part in folders}
    savemat(toolbox / "traintestSUNRGBD" / "allsplit.mat", cells)
    return files
