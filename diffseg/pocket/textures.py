"""Tone maps of the ten kinds of stuff: where a material is dark (0) and where it is light (1).

Every material has two strongly different tones, in patterns several latent pixels wide, so that colour alone does
not tell one material from another. All randomness is drawn on grids whose size does not depend on the size of the
image: a scene looks the same at 256 and at 512 pixels.
"""

from collections.abc import Callable
from numbers import Real

import numpy as np
from jaxtyping import Float
from PIL import Image

Tone = Float[np.ndarray, "size size"]


def smooth_noise(rng: np.random.Generator, size: int, rows: int, columns: int) -> Tone:
    """Random grid of `rows` x `columns` values in [0, 1], smoothly enlarged to `size` x `size`."""
    grid = rng.random((rows, columns), dtype=np.float32)
    enlarged = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(enlarged), 0, 1)


def contrast(tone: Tone, gain: Real) -> Tone:
    """Push tones towards 0 and 1: a slope of `gain` around one half."""
    return np.clip((tone - 0.5) * gain + 0.5, 0, 1)


def _ramp(size: int) -> Float[np.ndarray, " size"]:
    """Pixel centres as fractions of the image's side."""
    return (np.arange(size, dtype=np.float32) + 0.5) / size


def _waves(position: Tone, count: Real) -> Tone:
    """Triangle waves, `count` over a unit of `position`: stripes without a transcendental function."""
    return np.abs((position * count) % 1 * 2 - 1)


def _sky(rng: np.random.Generator, size: int) -> Tone:
    clouds = 0.6 * smooth_noise(rng, size, 6, 4) + 0.4 * smooth_noise(rng, size, 18, 10)
    return contrast(clouds, 5)


def _mountain(rng: np.random.Generator, size: int) -> Tone:
    rock = smooth_noise(rng, size, 14, 14)
    slope = _waves(_ramp(size)[:, None] * 0.6 + _ramp(size)[None, :] + 0.2 * rock, 5)
    return contrast(0.5 * rock + 0.5 * slope, 3.5)


def _forest(rng: np.random.Generator, size: int) -> Tone:
    return contrast(0.7 * smooth_noise(rng, size, 26, 26) + 0.3 * smooth_noise(rng, size, 60, 60), 4)


def _wall(rng: np.random.Generator, size: int) -> Tone:
    courses = int(rng.integers(11, 17))
    bricks = courses // 2
    row = (_ramp(size) * courses).astype(int)
    across = _ramp(size)[None, :] * bricks + 0.5 * (row % 2)[:, None]
    tones = rng.random((courses, bricks + 1), dtype=np.float32)
    brick = tones[row[:, None], across.astype(int)]
    mortar = (across % 1 < 0.1) | ((_ramp(size) * courses % 1) < 0.18)[:, None]
    return np.where(mortar, np.float32(1), 0.65 * brick)


def _grass(rng: np.random.Generator, size: int) -> Tone:
    return contrast(0.6 * smooth_noise(rng, size, 16, 12) + 0.4 * smooth_noise(rng, size, 24, 90), 4)


def _sand(rng: np.random.Generator, size: int) -> Tone:
    warp = smooth_noise(rng, size, 5, 5)
    ripples = _waves(_ramp(size)[:, None] + 0.25 * warp, int(rng.integers(10, 16)))
    return contrast(0.65 * ripples + 0.35 * smooth_noise(rng, size, 10, 6), 2.5)


def _water(rng: np.random.Generator, size: int) -> Tone:
    return contrast(0.7 * smooth_noise(rng, size, 34, 7) + 0.3 * smooth_noise(rng, size, 60, 16), 5)


def _road(rng: np.random.Generator, size: int) -> Tone:
    patches = contrast(smooth_noise(rng, size, 7, 7), 6)
    return 0.75 * patches + 0.25 * smooth_noise(rng, size, 110, 110)


def _snow(rng: np.random.Generator, size: int) -> Tone:
    return contrast(0.75 * smooth_noise(rng, size, 9, 6) + 0.25 * smooth_noise(rng, size, 30, 30), 4)


def _field(rng: np.random.Generator, size: int) -> Tone:
    vanishing = np.float32(rng.uniform(0.2, 0.8))
    fan = (_ramp(size)[None, :] - vanishing) / (_ramp(size)[:, None] + 0.35)
    furrows = _waves(fan + 1, int(rng.integers(14, 22)))
    return contrast(0.7 * furrows + 0.3 * smooth_noise(rng, size, 14, 14), 3)


TONES: dict[str, Callable[[np.random.Generator, int], Tone]] = {
    "sky": _sky,
    "mountain": _mountain,
    "forest": _forest,
    "wall": _wall,
    "grass": _grass,
    "sand": _sand,
    "water": _water,
    "road": _road,
    "snow": _snow,
    "field": _field,
}


#: How many steps there are from one palette of a material to the other.
LEVELS = 32


def _fade(rng: np.random.Generator, size: int) -> Tone:
    """From top to bottom, and a little askew: the sky above the horizon."""
    fade = _ramp(size)[:, None] * rng.uniform(1.3, 2.2) + _ramp(size)[None, :] * rng.uniform(-0.3, 0.3)
    return np.clip(fade + 0.25 * smooth_noise(rng, size, 4, 3) - 0.2, 0, 1)


def _blots(rows: int, columns: int, gain: Real) -> Callable[[np.random.Generator, int], Tone]:
    """Patches with soft edges."""
    return lambda rng, size: contrast(smooth_noise(rng, size, rows, columns), gain)


#: Where a material shows its second palette (1), in the rich world.
PATCHES: dict[str, Callable[[np.random.Generator, int], Tone]] = {
    "sky": _fade,
    "mountain": _blots(9, 5, 7),
    "forest": _blots(4, 8, 7),
    "wall": _blots(6, 5, 9),
    "grass": _blots(8, 5, 6),
    "sand": _blots(7, 4, 5),
    "water": _blots(9, 3, 5),
    "road": _blots(6, 6, 9),
    "snow": _blots(8, 4, 6),
    "field": _blots(9, 4, 6),
}
