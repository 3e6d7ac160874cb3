"""PocketScenes: pictures with ground truth, drawn from one integer seed.

A scene is planned first (what stands where), its label map is made from the cut-outs' alpha masks, and only a plan in
which every part is well visible is painted. Seeds below 1_000_000 are for training (the last 100_000 of them for
choosing thresholds, not for weights), from there to 1_999_999 for validation, and from 2_000_000 on they are never used
by the project.
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import count

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageColor, ImageFilter, ImageStat

from ..models.paths import data_dir
from .captions import describe
from .catalogue import CLASSES, PAINTS, STUFF_BY_NAME, THING_BY_NAME, THINGS
from .textures import LEVELS, PATCHES, TONES, smooth_noise

#: Where the splits begin: seeds for choosing settings, for validation, and those that the project never uses.
TUNING_SEED, VALIDATION_SEED, RESERVED_SEED = 900_000, 1_000_000, 2_000_000

#: A plan in which some class covers less than this part of the image is drawn again.
MIN_VISIBLE = 0.02

#: How far apart the two tones of a material lie (1: as in the catalogue), and the dimmest and brightest light. They
#: are chosen so that K-Means on colours, told the true number of segments, gets about half of a scene right.
TWO_TONE = 0.4
LIGHT = (0.88, 1.08)

#: How much the parts of a thing keep colours of their own (1: as drawn; 0: one flat colour).
OWN_COLOURS = 0.12

#: The same numbers in the rich world, where colour alone tells neither a thing nor a material from another.
RICH_TWO_TONE = 0.45
RICH_LIGHT = (0.75, 1.12)

#: How far a material's patches go from one of its palettes towards the next.
RICH_PATCHES = 0.45

#: How far the colours of a material are moved, all of them alike: (in the flat world, in the rich one), of 255.
TINT, RICH_TINT = 22, 26

#: Degrees around its main hue in which a thing is repainted in the rich world: a car keeps its windows and wheels.
PAINTED_HUES = 48

_UPPER = (  # what is behind the ground: names from far to near, and how often
    (("sky",), 0.24),
    (("sky", "mountain"), 0.22),
    (("sky", "forest"), 0.20),
    (("sky", "wall"), 0.10),
    (("forest",), 0.12),
    (("wall",), 0.12),
)
_GROUNDS = (  # from far to near
    (("grass",), 0.14), (("sand",), 0.08), (("water",), 0.10), (("road",), 0.08), (("snow",), 0.10), (("field",), 0.10),
    (("grass", "road"), 0.07), (("water", "sand"), 0.06), (("water", "grass"), 0.05), (("field", "road"), 0.05),
    (("snow", "road"), 0.05), (("snow", "water"), 0.04), (("sand", "water"), 0.04), (("field", "grass"), 0.04),
)  # fmt: skip
_NUMBER_OF_THINGS = (0.22, 0.38, 0.28, 0.12)  # one, two, three, four


@dataclass(frozen=True)
class Scene:
    """A picture and everything that is known about it."""

    image: Image.Image  # RGB, size x size
    labels: UInt8[np.ndarray, "size size"]  # indices into CLASSES
    caption: str
    nouns: tuple[str, ...]  # the classes that can be seen, in the order of CLASSES


@dataclass(frozen=True)
class _Placed:
    """A thing with its place; lengths are fractions of the image's side."""

    name: str
    ground: str  # the stuff it stands on, or "sky"
    x: float  # of its middle
    base: float  # of its lower edge, measured from the top
    height: float
    flip: bool
    angle: float  # degrees
    paint: str  # a key of PAINTS, or ""
    tinted: bool = False  # all of it in that colour


@dataclass(frozen=True)
class _Layer:
    """Stuff and the line above which it ends; `top` holds one height per column of a coarse grid."""

    name: str
    top: np.ndarray  # fractions of the image's side, from the top


def scene(seed: int, size: int = 512, painted: bool = False, rich: bool = True) -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: any integer >= 0; the same seed gives the same scene at every size.
        size: side of the image in pixels, a multiple of 8 from 64 on.
        painted: every thing has one of the colours that captions name, a purple horse as well. For learning words:
            only the caption says which colour is whose.
        rich: things keep the colours of their parts and materials change within themselves, so that knowing what a
            position belongs to says more than its own colour does. False: the flat world, where a thing and a material
            have about one colour each; it has the same plans, labels and nouns.

    Raises:
        ValueError: if the seed is negative or the size cannot be drawn.
    """
    if seed < 0:
        raise ValueError(f"seed={seed} must not be negative: pass an integer from 0 on")
    if size < 64 or size % 8:
        raise ValueError(f"size={size} cannot be drawn: pass a multiple of 8 from 64 on, such as 512")
    for attempt in count():
        rng = np.random.default_rng([seed, attempt])
        layers, placed = _plan(rng)
        # Visibility is judged at one fixed size, so that every size shows the same plan.
        coarse = _label_map(layers, placed, 128)
        if _is_clear(coarse, layers, placed):
            break
    if painted:
        colours = np.random.default_rng([seed, attempt, 1]).choice(list(PAINTS), len(placed))
        placed = [replace(thing, paint=str(paint), tinted=True) for thing, paint in zip(placed, colours, strict=True)]
    labels = _label_map(layers, placed, size)
    image = _paint(rng, layers, placed, size, rich)
    nouns = tuple(name for index, name in enumerate(CLASSES) if (coarse == index).any())
    return Scene(image, labels, _caption(rng, layers, placed), nouns)


def _choose(rng: np.random.Generator, options: tuple[tuple[tuple[str, ...], float], ...]) -> tuple[str, ...]:
    weights = np.array([weight for _, weight in options])
    return options[rng.choice(len(options), p=weights / weights.sum())][0]


def _plan(rng: np.random.Generator) -> tuple[list[_Layer], list[_Placed]]:
    upper, grounds = _choose(rng, _UPPER), _choose(rng, _GROUNDS)
    horizon = rng.uniform(0.38, 0.6)
    layers = [_Layer(upper[0], np.zeros(2))]
    if len(upper) == 2:
        layers.append(_Layer(upper[1], _ridge(rng, upper[1], horizon)))
    layers.append(_Layer(grounds[0], _line(rng, horizon, 0.015)))
    if len(grounds) == 2:
        nearer = horizon + (1 - horizon) * rng.uniform(0.35, 0.6)
        layers.append(_Layer(grounds[1], _line(rng, nearer, 0.05)))
    number = 1 + int(rng.choice(len(_NUMBER_OF_THINGS), p=_NUMBER_OF_THINGS))
    return layers, _place_things(rng, layers, grounds, number)


def _line(rng: np.random.Generator, level: float, swing: float, columns: int = 6) -> np.ndarray:
    tilt = rng.uniform(-swing, swing)
    return level + tilt * np.linspace(-1, 1, columns) + rng.uniform(-swing, swing, columns) / 2


def _ridge(rng: np.random.Generator, name: str, horizon: float) -> np.ndarray:
    height = horizon * rng.uniform(0.4, 0.7)
    swing, columns = {"mountain": (0.6, 7), "forest": (0.25, 24), "wall": (0.0, 2)}[name]
    return horizon - height * (1 + swing * rng.uniform(-1, 1, columns))


def _place_things(
    rng: np.random.Generator, layers: list[_Layer], grounds: tuple[str, ...], number: int
) -> list[_Placed]:
    places = set(grounds) | ({"sky"} if layers[0].name == "sky" else set())
    names = [thing.name for thing in THINGS if thing.places & places]
    chosen = [str(name) for name in rng.permutation(names)[:number]]
    if rng.random() < 0.08:  # now and then a flock: the second thing is of the first one's kind
        chosen = [*chosen[:1], *chosen[: number - 1]]
    placed = [_place(rng, name, layers, sorted(THING_BY_NAME[name].places & places)) for name in chosen]
    return sorted(placed, key=lambda thing: (thing.ground != "sky", thing.base))  # far to near


def _place(rng: np.random.Generator, name: str, layers: list[_Layer], places: list[str]) -> _Placed:
    thing = THING_BY_NAME[name]
    ground = places[rng.integers(len(places))]
    tops = {layer.name: float(layer.top.mean()) for layer in layers}
    lower = min((top for top in tops.values() if top > tops[ground]), default=1.0)
    if ground == "sky":
        height = thing.height * rng.uniform(0.6, 1.1)
        base = rng.uniform(0.75 * height, max(0.8 * height, tops[layers[1].name] + 0.1))
    else:
        base = rng.uniform(tops[ground] + 0.04, min(lower, 0.99) + 0.03)
        horizon = min(top for top in tops.values() if top > 0.2)
        nearness = np.clip((base - horizon) / (1 - horizon), 0, 1)
        height = thing.height * (0.7 + 0.3 * nearness) * rng.uniform(0.85, 1.25)
    paint = str(rng.choice(list(PAINTS))) if thing.hue is not None else ""
    x = rng.uniform(0.05, 0.95)
    return _Placed(name, ground, x, base, height, bool(rng.random() < 0.5), rng.uniform(-8, 8), paint)


@cache
def _sprite(name: str) -> Image.Image:
    sprite = Image.open(data_dir() / "sprites" / f"{name}.webp").convert("RGBA")
    sprite = sprite.crop((0, 0, sprite.width, int(sprite.height * THING_BY_NAME[name].keep)))
    return sprite.crop(sprite.getchannel("A").getbbox())


def _cut_out(thing: _Placed, size: int) -> tuple[Image.Image, tuple[int, int]]:
    """The thing's RGBA picture at its final scale and turn, and where its upper left corner goes (x, y)."""
    sprite = _sprite(thing.name)
    height = max(round(thing.height * size), 4)
    sprite = sprite.resize((max(round(height * sprite.width / sprite.height), 4), height), Image.Resampling.BILINEAR)
    if thing.flip:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sprite = sprite.rotate(thing.angle, Image.Resampling.BILINEAR, expand=True)
    sprite = sprite.crop(sprite.getchannel("A").getbbox())
    return sprite, (round(thing.x * size - sprite.width / 2), round(thing.base * size - sprite.height))


def _region(layer: _Layer, size: int) -> np.ndarray:
    """Pixels below the layer's upper line: bool [size, size]."""
    columns = (np.arange(size) + 0.5) / size
    top = np.interp(columns, np.linspace(0, 1, len(layer.top)), layer.top)
    return columns[:, None] >= top[None, :]


def _label_map(layers: list[_Layer], placed: list[_Placed], size: int) -> UInt8[np.ndarray, "size size"]:
    labels = np.zeros((size, size), np.uint8)
    for layer in layers:
        labels[_region(layer, size)] = CLASSES.index(layer.name)
    canvas = Image.fromarray(labels)
    for thing in placed:
        _stamp(canvas, thing, CLASSES.index(thing.name))
    return np.array(canvas)


def _stamp(canvas: Image.Image, thing: _Placed, value: int) -> None:
    """Give the pixels that a thing covers one value, in place."""
    sprite, corner = _cut_out(thing, canvas.width)
    solid = sprite.getchannel("A").point(lambda alpha: 255 * (alpha > 127))
    canvas.paste(value, (*corner, corner[0] + sprite.width, corner[1] + sprite.height), solid)


def _is_clear(labels: np.ndarray, layers: list[_Layer], placed: list[_Placed]) -> bool:
    """Whether each class covers enough of the image, and each single thing is mostly uncovered."""
    if not placed:
        return False
    planned = {CLASSES.index(item.name) for item in (*layers, *placed)}
    shares = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    if min(shares[list(planned)]) < MIN_VISIBLE:
        return False
    return all(_is_uncovered(thing, placed[index + 1 :], len(labels)) for index, thing in enumerate(placed))


def _is_uncovered(thing: _Placed, nearer: list[_Placed], size: int) -> bool:
    canvas = Image.new("L", (size, size), 0)
    _stamp(canvas, thing, 1)
    whole = np.count_nonzero(canvas)
    for other in nearer:
        _stamp(canvas, other, 0)
    return bool(whole >= MIN_VISIBLE * size**2 and np.count_nonzero(canvas) >= 0.6 * whole)


def _paint(rng: np.random.Generator, layers: list[_Layer], placed: list[_Placed], size: int, rich: bool) -> Image.Image:
    picture = Image.new("RGB", (size, size))
    for layer in layers:
        material = (_rich_material if rich else _material)(rng, layer.name, size)
        picture.paste(material, mask=Image.fromarray(_region(layer, size)))
    for thing in placed:
        sprite, corner = _cut_out(thing, size)
        if thing.ground != "sky":
            _cast_shadow(picture, sprite, corner)
        picture.paste((_rich_colours if rich else _recolour)(rng, sprite, thing), corner, sprite)
    lit = np.asarray(picture) * _light(rng, size, *(RICH_LIGHT if rich else LIGHT))[..., None]
    return Image.fromarray(np.minimum(lit, 255).astype(np.uint8))


def _material(rng: np.random.Generator, name: str, size: int) -> Image.Image:
    """A square of stuff: tones between the two colours of one of its palettes."""
    palettes = STUFF_BY_NAME[name].palettes
    ends = np.array(palettes[rng.integers(len(palettes))], np.float32)
    dark, light = _spread(ends, TWO_TONE) + rng.uniform(-TINT, TINT, 3).astype(np.float32)
    shades = np.clip(dark + np.linspace(0, 1, 256, dtype=np.float32)[:, None] * (light - dark), 0, 255)
    return Image.fromarray(shades.astype(np.uint8)[(255 * TONES[name](rng, size)).astype(np.uint8)])


def _rich_material(rng: np.random.Generator, name: str, size: int) -> Image.Image:
    """A square of stuff that changes within itself: patches of one palette in another, all with one tint.

    Which two palettes go together is fixed, and the tint is theirs together: each patch tells the colours of the other.
    """
    palettes = STUFF_BY_NAME[name].palettes
    chosen = rng.integers(len(palettes))
    tint = rng.uniform(-RICH_TINT, RICH_TINT, 3).astype(np.float32)
    patches = PATCHES[name](rng, size)
    shades = [
        _spread(np.array(palettes[index % len(palettes)], np.float32), RICH_TWO_TONE) + tint
        for index in (chosen, chosen + 1)
    ]  # two palettes of two colours
    across = np.linspace(0, RICH_PATCHES, LEVELS, dtype=np.float32)[:, None, None]  # from one palette to the other
    dark, light = (shades[0] + across * (shades[1] - shades[0])).transpose(1, 0, 2)[..., None, :]
    table = np.clip(dark + np.linspace(0, 1, 256, dtype=np.float32)[:, None] * (light - dark), 0, 255)
    tones = (255 * TONES[name](rng, size)).astype(np.uint8)
    return Image.fromarray(table.astype(np.uint8)[((LEVELS - 1) * patches + 0.5).astype(np.uint8), tones])


def _spread(ends: Float[np.ndarray, "2 3"], factor: float) -> Float[np.ndarray, "2 3"]:
    """Two colours, nearer to their mean."""
    return ends.mean(0) + factor * (ends - ends.mean(0))


def _light(rng: np.random.Generator, size: int, dim: float, bright: float) -> Float[np.ndarray, "size size"]:
    """A soft field of light over the whole picture: bright and dim quarters."""
    return dim + (bright - dim) * smooth_noise(rng, size, 3, 3)


def _cast_shadow(picture: Image.Image, sprite: Image.Image, corner: tuple[int, int]) -> None:
    """Darken the ground in a soft ellipse under a thing's lower edge, in place."""
    width, height = sprite.width, max(sprite.width // 4, 4)
    across, down = np.ogrid[-1 : 1 : 1j * height, -1 : 1 : 1j * width]
    dark = (45 * np.clip(1.3 - across**2 - down**2, 0, 1)).astype(np.uint8)
    dark[(across**2 + down**2) > 1] = 0
    shadow = Image.fromarray(dark).filter(ImageFilter.BoxBlur(height / 6))
    picture.paste((20, 20, 30), (corner[0], corner[1] + sprite.height - height // 2 - 1), shadow)


def _recolour(rng: np.random.Generator, sprite: Image.Image, thing: _Placed) -> Image.Image:
    """Turn hues and change saturation, brightness and contrast of a whole thing alike."""
    own = THING_BY_NAME[thing.name].hue
    turn = rng.uniform(-12, 12) + (PAINTS[thing.paint] - own if thing.paint and not thing.tinted else 0)
    hue, saturation, value = sprite.convert("RGB").convert("HSV").split()
    shift = round(turn / 360 * 256)
    hue = hue.point(lambda h: (h + shift) % 256)
    gain, strength = rng.uniform(0.75, 1.1), rng.uniform(0.7, 1.15)
    saturation = saturation.point(lambda s: min(round(s * strength), 255))
    value = value.point(lambda v: min(round(v * gain), 255))
    painted = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    mean = ImageStat.Stat(painted, sprite.getchannel("A").point(lambda alpha: 255 * (alpha > 127))).mean
    flat = tuple(round(c) for c in mean)
    if thing.tinted:
        flat = ImageColor.getrgb(f"hsv({(PAINTS[thing.paint] + turn) % 360:.0f}, 65%, {max(mean) / 2.55:.0f}%)")
    return Image.blend(painted, Image.new("RGB", painted.size, flat), 1 - OWN_COLOURS)


def _rich_colours(rng: np.random.Generator, sprite: Image.Image, thing: _Placed) -> Image.Image:
    """Repaint the parts of a thing that have its main colour, and change the light on all of it alike."""
    own = THING_BY_NAME[thing.name].hue
    hue, saturation, value = np.asarray(sprite.convert("RGB").convert("HSV")).transpose(2, 0, 1)
    shift = rng.uniform(-9, 9)
    gain, strength = rng.uniform(0.62, 1.12), rng.uniform(0.7, 1.15)
    steps = np.arange(256)
    hues = (steps + round(shift / 360 * 256)) % 256
    if thing.paint:
        main = own if own is not None else _main_hue(hue, saturation, np.asarray(sprite.getchannel("A")))
        near = np.abs((steps / 256 * 360 - main + 180) % 360 - 180) < PAINTED_HUES
        hues[near] = (steps[near] + round((shift + PAINTS[thing.paint] - main) / 360 * 256)) % 256
    if thing.tinted:  # grey parts too
        hue = np.where(saturation < 60, np.uint8(main / 360 * 256), hue)
        saturation = np.maximum(saturation, 90)
    levels = [hues, np.minimum(steps * strength, 255), np.minimum(steps * gain, 255)]
    channels = [table.astype(np.uint8)[channel] for table, channel in zip(levels, (hue, saturation, value))]
    return Image.fromarray(np.stack(channels, axis=-1), "HSV").convert("RGB")


def _main_hue(hue: np.ndarray, saturation: np.ndarray, alpha: np.ndarray) -> float:
    """The most frequent hue of a drawing, in degrees; grey pixels and those outside it do not count."""
    counts = np.bincount(hue.ravel() // 16, saturation.ravel() * (alpha.ravel() > 127.0), minlength=16)
    return (counts.argmax() + 0.5) / 16 * 360


def _caption(rng: np.random.Generator, layers: list[_Layer], placed: list[_Placed]) -> str:
    names = [layer.name for layer in layers]
    backs = [name for name in names if name in {"mountain", "forest", "wall"}]
    grounds = [name for name in names if name not in {"sky", *backs}]
    standing = {name: [] for name in names if name not in backs}
    for thing in placed:
        standing[thing.ground].append((thing.paint, thing.name))
    return describe(rng, grounds, backs, standing)
