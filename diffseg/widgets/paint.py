"""Pictures of what a widget shows, as arrays and as bytes for the browser."""

from io import BytesIO

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image
from torch import Tensor

from diffseg.colours import Palette, colours_by_area

# Viridis, as in the figures (Smith and van der Walt, 2015): 17 of its 256 colours, evenly spaced; between them linear.
VIRIDIS = np.array([
    (68, 1, 84), (72, 24, 106), (71, 45, 123), (66, 64, 134), (59, 82, 139),
    (51, 99, 141), (44, 114, 142), (38, 130, 142), (33, 145, 140), (31, 159, 136),
    (39, 173, 129), (61, 188, 116), (92, 200, 99), (129, 211, 77), (170, 220, 50),
    (213, 226, 26), (253, 231, 37),
])  # fmt: skip


def encode(picture: Image.Image | UInt8[np.ndarray, "h w *c"], lossy: bool = False) -> bytes:
    """A picture as WebP.

    Args:
        picture: RGB, RGBA or grey.
        lossy: for photographs, which become a tenth as large; else every pixel arrives as it is.
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
    buffer = BytesIO()
    settings = {"quality": 85, "method": 2} if lossy else {"lossless": True, "quality": 0, "method": 1, "exact": False}
    image.save(buffer, "WEBP", **settings)
    return buffer.getvalue()


def heat(
    values: Float[np.ndarray | Tensor, "h w"], top: float | None = None, opacity: float = 1.0
) -> UInt8[np.ndarray, "h w 4"]:
    """A map of attention in viridis, which colour-blind eyes can read, as RGBA.

    Args:
        values: not negative; zero is the darkest colour.
        top: what the brightest stands for, and all above it; None: the largest value.
        opacity: 0 to 1.

    Raises:
        ValueError: for NaN or infinity.
    """
    values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("values holds NaN or infinity; every value of a map must be finite.")
    top = float(values.max()) if top is None else top
    place = (values / top).clip(0, 1) * (len(VIRIDIS) - 1) if top > 0 else np.zeros_like(values)
    low = place.astype(int).clip(max=len(VIRIDIS) - 2)
    share = (place - low)[..., None]
    rgb = VIRIDIS[low] * (1 - share) + VIRIDIS[low + 1] * share  # [h, w, 3]
    alpha = np.full((*values.shape, 1), 255 * opacity)
    return np.concatenate([rgb, alpha], axis=2).round().astype(np.uint8)


def tint(
    labels: Integer[np.ndarray | Tensor, "h w"],
    colours: Palette | None = None,
    outlines: bool = True,
    opacity: float = 0.45,
) -> UInt8[np.ndarray, "h w 4"]:
    """Segments in their colours, to lay over their picture, as RGBA.

    Args:
        labels: -1 stays clear.
        colours: one for each label; None: `colours_by_area`.
        outlines: white lines along the borders.
        opacity: of the colours, 0 to 1.

    Raises:
        ValueError: for labels that `colours` does not cover.
    """
    labels = np.asarray(labels)
    if colours is None:
        colours = colours_by_area(labels[labels >= 0].reshape(1, -1)) if (labels >= 0).any() else np.zeros((1, 3))
    if labels.max() >= len(colours):
        raise ValueError(f"labels goes up to {labels.max()}, and colours has {len(colours)}; pass one for each label.")
    table = np.zeros((len(colours) + 1, 4))  # the last one, clear, is that of -1
    table[:-1, :3] = colours
    table[:-1, 3] = opacity
    table = (255 * table).round().astype(np.uint8)
    painted = table[labels]
    if outlines:
        painted[borders(labels)] = 255
    return painted


def borders(labels: Integer[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose right or lower neighbour has another label, and those neighbours: lines two pixels wide."""
    found = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    found[:, 1:] |= across
    found[:, :-1] |= across
    found[1:] |= down
    found[:-1] |= down
    return found
