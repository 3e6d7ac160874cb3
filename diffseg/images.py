"""Any image in, one RGB image out; and labels back into its own pixels."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Integer
from PIL import ExifTags, Image, ImageOps

from diffseg import IMAGE_SIZE
from diffseg.arguments import check_whole

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
    return centre_square(load_image(image), size)


def load_image(image: ImageLike) -> Image.Image:
    """Read, turn upright, and flatten to RGB, in the size that it has; see `read_image`.

    An upright RGB image comes back as it is, not as a copy: of a hundred megapixels that would be 400 MB.
    """
    if isinstance(image, (str, os.PathLike)):
        image = _open(Path(image))
    elif isinstance(image, np.ndarray):
        image = _from_array(image)
    elif not isinstance(image, Image.Image):
        raise TypeError(f"image has the type {type(image).__name__}. {_REMEDY}")
    if 0 in image.size:
        raise ValueError(f"image is empty: its size is {image.size}. {_REMEDY}")
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return _to_rgb(ImageOps.exif_transpose(image) if turned else image)


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """The central square of an image, resized to size x size (antialiased).

    Raises:
        TypeError, ValueError: if the size is not a positive whole number.
    """
    check_whole("size", size, f"In pixels; try {IMAGE_SIZE}.")
    if size < 1:
        raise ValueError(f"size={size} must be at least 1 pixel; try {IMAGE_SIZE}.")
    # Cropped first: resize(box=...) would let pixels from outside the square bleed into its edge.
    square = _square(*image.size)
    cropped = image if square == (0, 0, *image.size) else image.crop(square)
    return cropped.resize((size, size), Image.Resampling.LANCZOS)


def fit_whole(image: Image.Image, size: int, step: int) -> Image.Image:
    """The whole image with a short side of `size`, a multiple of `step`; the long side becomes the nearest multiple."""
    factor = size / min(image.size)
    width, height = (max(round(side * factor / step), 1) * step for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def labels_at_original(
    labels: Integer[np.ndarray, "h w"], height: int, width: int, crop: bool
) -> Int[np.ndarray, "{height} {width}"]:
    """Labels of a segmented picture in the pixels of the picture it was made from, by nearest neighbour.

    Args:
        labels: of the central square if `crop`, else of the whole picture.
        height, width: of the picture as `load_image` gives it, which is upright.
        crop: whether the central square was segmented.

    Returns:
        int64, -1 where nothing was segmented.
    """
    return at_original(np.asarray(labels, np.int32), height, width, crop, outside=-1).astype(np.int64)


def at_original(
    labels: Integer[np.ndarray, "h w"], height: int, width: int, crop: bool, outside: int
) -> Integer[np.ndarray, "{height} {width}"]:
    """What `labels_at_original` does, in the type of the labels (of which uint8 takes an eighth of the memory).

    Args:
        labels: uint8, uint16 or int32.
        outside: what stands where nothing was segmented.
    """
    left, top, right, bottom = _square(width, height) if crop else (0, 0, width, height)
    result = np.full((height, width), outside, labels.dtype)
    result[top:bottom, left:right] = Image.fromarray(labels).resize(
        (right - left, bottom - top), Image.Resampling.NEAREST
    )
    return result


def _square(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the central square."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


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
    return image if image.mode == "RGB" else image.convert("RGB")


def _high_byte(values: np.ndarray) -> np.ndarray:
    """0..65535 to 0..255: 257 = 65535 / 255."""
    return (np.clip(values, 0, 65535) // 257).astype(np.uint8)
