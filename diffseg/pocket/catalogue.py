"""What can stand in a PocketScene: 17 things and 10 kinds of stuff, 27 classes as in COCO-Stuff-27.

A *thing* has a shape of its own (a car, a dog); *stuff* fills whatever space it is given (sky, grass).
Heights are fractions of the image's side for something standing at the lower edge of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Thing:
    """A cut-out that can be placed in a scene."""

    name: str
    plural: str
    height: float  # of the image's side, for the nearest place a thing can stand
    places: frozenset[str]  # the stuff it can stand on, or "sky"
    hue: float | None = None  # degrees of its main colour where it may be repainted, else None
    keep: float = 1.0  # the part of the sprite's height that is used, from the top


@dataclass(frozen=True)
class Stuff:
    """A material: pairs of dark and light colours, and how a caption speaks of it."""

    name: str
    phrase: str  # "the grass", "a road"
    stand: str  # "on the grass", "in a field"
    palettes: tuple[tuple[RGB, RGB], ...]


_LAND = frozenset({"grass", "sand", "road", "snow", "field"})
_FARM = frozenset({"grass", "field", "sand", "snow"})

THINGS = (
    Thing("car", "cars", 0.36, _LAND, hue=350.0),
    Thing("bus", "buses", 0.46, _LAND, hue=30.0),
    Thing("truck", "trucks", 0.46, _LAND, hue=35.0),
    Thing("tractor", "tractors", 0.42, _LAND, hue=145.0),
    Thing("sailboat", "sailboats", 0.50, frozenset({"water"}), keep=0.75),
    Thing("rocket", "rockets", 0.36, frozenset({"sky"})),
    Thing("balloon", "balloons", 0.38, frozenset({"sky"}), hue=350.0),
    Thing("airplane", "airplanes", 0.36, frozenset({"sky"})),
    Thing("dog", "dogs", 0.34, _LAND),
    Thing("horse", "horses", 0.44, _FARM),
    Thing("cow", "cows", 0.40, _FARM),
    Thing("sheep", "sheep", 0.36, _FARM),
    Thing("elephant", "elephants", 0.50, _FARM | {"road"}),
    Thing("duck", "ducks", 0.32, frozenset({"water", "grass"})),
    Thing("penguin", "penguins", 0.36, frozenset({"snow", "water"})),
    Thing("house", "houses", 0.56, _FARM),
    Thing("tree", "trees", 0.58, _FARM),
)

STUFF = (
    Stuff("sky", "the sky", "in the sky", (
        ((70, 130, 205), (225, 238, 250)),
        ((205, 105, 80), (250, 215, 150)),
        ((95, 110, 150), (200, 205, 215)),
    )),
    Stuff("mountain", "a mountain", "on a mountain", (
        ((75, 70, 85), (175, 165, 165)),
        ((95, 65, 50), (200, 160, 125)),
        ((60, 80, 105), (215, 225, 235)),
    )),
    Stuff("forest", "a forest", "in a forest", (
        ((15, 50, 25), (95, 150, 60)),
        ((60, 45, 15), (205, 140, 50)),
        ((20, 55, 60), (120, 170, 130)),
    )),
    Stuff("wall", "a brick wall", "on a brick wall", (
        ((120, 50, 40), (215, 165, 145)),
        ((90, 85, 80), (200, 195, 185)),
        ((70, 75, 110), (190, 160, 120)),
    )),
    Stuff("grass", "the grass", "on the grass", (
        ((35, 90, 30), (150, 195, 75)),
        ((80, 85, 30), (205, 195, 100)),
        ((25, 80, 60), (125, 190, 120)),
    )),
    Stuff("sand", "the sand", "on the sand", (
        ((165, 120, 70), (245, 220, 165)),
        ((140, 85, 60), (225, 165, 120)),
    )),
    Stuff("water", "the water", "on the water", (
        ((20, 60, 120), (125, 190, 220)),
        ((15, 80, 90), (140, 210, 195)),
        ((70, 60, 95), (215, 165, 160)),
    )),
    Stuff("road", "a road", "on a road", (
        ((55, 55, 62), (150, 148, 145)),
        ((85, 75, 70), (190, 175, 160)),
    )),
    Stuff("snow", "the snow", "on the snow", (
        ((130, 160, 205), (250, 250, 252)),
        ((165, 150, 185), (250, 240, 240)),
    )),
    Stuff("field", "a field", "in a field", (
        ((135, 95, 30), (235, 200, 95)),
        ((90, 55, 35), (170, 130, 80)),
        ((85, 95, 40), (215, 205, 120)),
    )),
)  # fmt: skip

#: The 27 class names; a label map holds indices into this tuple.
CLASSES = tuple(item.name for item in THINGS + STUFF)
THING_BY_NAME = {thing.name: thing for thing in THINGS}
STUFF_BY_NAME = {stuff.name: stuff for stuff in STUFF}

#: Hues (degrees) of the colours that a caption names.
PAINTS = {"red": 355, "orange": 25, "yellow": 50, "green": 130, "blue": 215, "purple": 280}


def class_of(word: str, classes: Sequence[str] = CLASSES) -> int | None:
    """The class that a noun stands for, by the last of its words: a "brick wall" is a wall. None if there is none."""
    head = word.rpartition(" ")[2]
    return classes.index(head) if head in classes else None
