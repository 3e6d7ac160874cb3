"""Any image in, one square RGB image out."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from diffseg import IMAGE_SIZE

# PIL image, uint8 or uint16 array [h, w], [h, w, 1], [h, w, 3] or [h, w, 4], or a path.
ImageLike = Any

_REMEDY = "Pass a PIL image, a uint8 array [height, width, 3], or the path of an image file."


def read_image(image: ImageLike, size: int = IMAGE_SIZE) -> Image.Image:
    """Read, turn upright, flatten to RGB, crop the central square and resize it.

    Greyscale, palette, 16-bit and CMYK images are converted; transparency is laid on white; the
    camera's EXIF rotation is applied. The crop keeps the whole short side, as the paper does;
    the resizing is antialiased.

    Args:
        image: a PIL image, a uint8 (or uint16) array [h, w], [h, w, 1], [h, w, 3] or [h, w, 4],
            or a path.
        size: side of the result, pixels.

    Returns:
        An RGB image of size x size.

    Raises:
        TypeError, ValueError, FileNotFoundError: naming the argument, the value and the remedy.
    """
    if size < 1:
        raise ValueError(f"size must be a positive number of pixels, got {size}; try {IMAGE_SIZE}.")
    if isinstance(image, (str, os.PathLike)):
        image = _open(Path(image))
    elif isinstance(image, np.ndarray):
        image = _from_array(image)
    elif not isinstance(image, Image.Image):
        raise TypeError(f"image has the type {type(image).__name__}. {_REMEDY}")
    if 0 in image.size:
        raise ValueError(f"image is empty: its size is {image.size}. {_REMEDY}")
    upright = ImageOps.exif_transpose(image)
    return centre_square(_to_rgb(upright), size)


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """The central square of an image, resized to size x size (antialiased)."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    # Cropped first: resize(box=...) would let pixels from outside the square bleed into its edge.
    square = image.crop((left, top, left + side, top + side))
    return square.resize((size, size), Image.Resampling.LANCZOS)


def _open(path: Path) -> Image.Image:
    path = path.expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"image={str(path)!r} is not a file. Check the path. {_REMEDY}")
    try:
        with Image.open(path) as opened:
            opened.load()
            return opened
    except (OSError, SyntaxError, ValueError) as error:  # what PIL's decoders raise
        raise ValueError(f"image={str(path)!r} could not be read as an image ({error}). {_REMEDY}") from error


def _from_array(array: np.ndarray) -> Image.Image:
    described = f"image is an array of shape {array.shape} and type {array.dtype}"
    if array.dtype == np.uint16:
        array = _high_byte(array)
    if array.dtype != np.uint8:
        finite = array.dtype.kind != "f" or np.isfinite(array).all()
        nan = "" if finite else ", with NaN or infinity"
        raise ValueError(
            f"{described}{nan}; its values must be uint8 from 0 to 255. For floats from 0 to 1: "
            "(255 * image).round().astype('uint8'), after replacing any NaN."
        )
    if array.size == 0:
        raise ValueError(f"{described}: it is empty. {_REMEDY}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        raise ValueError(
            f"{described}; expected [height, width], [height, width, 3] or [height, width, 4]. "
            "Move the channels last, and pass one image at a time."
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError(f"image is a floating point image (mode 'F'). {_REMEDY}")
    if image.mode.startswith("I"):  # 16-bit files arrive as I;16, I;16B or I
        return Image.fromarray(_high_byte(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _high_byte(values: np.ndarray) -> np.ndarray:
    """0..65535 to 0..255: 257 = 65535 / 255."""
    return (np.clip(values, 0, 65535) // 257).astype(np.uint8)
