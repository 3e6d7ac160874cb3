"""The classes of the data sets, and the pixel values that stand for them in their label maps."""

from collections.abc import Collection, Iterable

import numpy as np
from jaxtyping import Int16

UNLABELLED = 255  # in truths; one of `diffseg.metrics.IGNORE`
UNKNOWN = -1  # of a value that a data set does not have
MOST_CLASSES = 254  # truths are 8-bit maps, with 255 for what is not labelled


def split_names(text: str) -> tuple[str, ...]:
    """Names that stand in a text, with commas between them."""
    return tuple(" ".join(name.split()) for name in text.split(","))


#: The 182 labels of COCO-Stuff, in the order of its labels.txt, which counts from 1; the stuffthingmaps hold that - 1.
COCO_LABELS = split_names(
    """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, street sign,
    stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, hat, backpack,
    umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat,
    baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife, spoon, bowl,
    banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed,
    mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote, keyboard, cell phone, microwave,
    oven, toaster, sink, refrigerator, blender, book, clock, vase, scissors, teddy bear, hair drier, toothbrush, hair
    brush, banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other,
    ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-
    marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, grass,
    gravel, ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net,
    paper, pavement, pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, roof,
    rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw, structural-other,
    table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel, wall-stone,
    wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood
    """
)

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

#: The 150 classes of ADE20K's scene parsing benchmark (Zhou et al., 2017), the first of the names in objectInfo150.txt.
#: Label maps hold 1 to 150, and 0 for anything else.
ADE20K_150 = split_names(
    """
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
    table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field,
    armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest
    of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool
    table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill,
    bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus,
    towel, light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, dirt track,
    apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer
    belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle,
    oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket,
    sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board,
    shower, radiator, glass, clock, flag
    """
)

#: Pascal VOC 2012 (Everingham et al., 2015): the background, which label maps hold as 0, then the 20 kinds of things.
#: 255 is the void around them.
VOC_21 = split_names(
    """
    background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, dining table, dog, horse,
    motorbike, person, potted plant, sheep, sofa, train, tv monitor
    """
)

#: The 37 classes of SUN RGB-D (Song et al., 2015), in the order of its seg37list.mat. Label maps hold 1 to 37; 0 is
#: what is not labelled.
SUN_37 = split_names(
    """
    wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds, desk, shelves,
    curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, books, fridge, tv, paper, towel, shower curtain,
    box, whiteboard, person, night stand, toilet, sink, lamp, bathtub, bag
    """
)


def lookup(classes: Iterable[Collection[int]], unlabelled: Collection[int]) -> Int16[np.ndarray, "256"]:
    """Value of a pixel -> class, UNLABELLED or UNKNOWN."""
    table = np.full(256, UNKNOWN, dtype=np.int16)
    table[list(unlabelled)] = UNLABELLED
    for index, values in enumerate(classes):
        table[list(values)] = index
    return table


def _counted(classes: Collection[str], first: int, unlabelled: Collection[int]) -> Int16[np.ndarray, "256"]:
    """Classes that label maps number in their order."""
    return lookup([[first + index] for index in range(len(classes))], unlabelled)


#: Name of a data set -> what the values in its label maps mean.
LOOKUPS = {
    "cocostuff27": lookup(COCO_STUFF_27.values(), [UNLABELLED]),
    "cityscapes": _counted(CITYSCAPES_27, CITYSCAPES_FIRST, range(CITYSCAPES_FIRST)),
    "ade20k": _counted(ADE20K_150, 1, [0]),
    "voc2012": _counted(VOC_21, 0, [UNLABELLED]),
    "sunrgbd": _counted(SUN_37, 1, [0]),
}


def coco_words() -> dict[str, int]:
    """What COCO-Stuff-27 calls things by: each of the 182 labels, without "-other" and "-stuff", -> its group."""
    words: dict[str, int] = {}
    for group, values in enumerate(COCO_STUFF_27.values()):
        for value in values:
            name = COCO_LABELS[value]
            words.setdefault(name, group)
            words.setdefault(name.removesuffix("-other").removesuffix("-stuff").split("-")[0], group)
    return words
