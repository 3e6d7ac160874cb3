"""Every kind of image in, one square RGB image out."""

import numpy as np
import pytest
from PIL import Image

from diffseg.images import read_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def quadrants(width=40, height=40):
    """Red, green / blue, white."""
    image = Image.new("RGB", (width, height), "white")
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image


def corners(image):
    """The pixels well inside the four quadrants."""
    near, far = image.width // 4, 3 * image.width // 4
    return [image.getpixel(xy) for xy in ((near, near), (far, near), (near, far), (far, far))]


@pytest.mark.parametrize("kind", ["image", "array", "path", "string"])
def test_ways_to_pass_an_image(tmp_path, kind):
    image = quadrants()
    path = tmp_path / "image.png"
    image.save(path)
    given = {"image": image, "array": np.asarray(image), "path": path, "string": str(path)}[kind]
    result = read_image(given, 32)
    assert (result.mode, result.size) == ("RGB", (32, 32))
    assert corners(result) == [RED, GREEN, BLUE, (255, 255, 255)]


def test_an_image_of_the_right_size_is_not_changed():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(read_image(noise, 64)), noise)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "YCbCr", "HSV", "LA", "RGBA", "RGBa", "I"])
def test_modes(mode):
    source = quadrants().convert("RGBA" if mode == "RGBa" else "RGB").convert(mode)
    expected = [RED, GREEN, BLUE, (255, 255, 255)]
    if mode in ("L", "LA", "1", "I"):
        expected = [(value,) * 3 for value in map(source.convert("L").getpixel, [(5, 5), (35, 5)])]
        if mode == "I":  # 32-bit integers are read as 0..65535
            expected = [(0, 0, 0)] * 2
        assert corners(read_image(source, 40))[:2] == expected
    else:
        difference = np.abs(np.subtract(corners(read_image(source, 40)), expected))
        assert difference.max() <= 4  # colour spaces round


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (8, 8), (*RED, 0))
    image.paste((*BLUE, 255), (0, 0, 8, 4))
    result = read_image(image, 8)
    assert result.getpixel((4, 0)) == BLUE
    assert result.getpixel((4, 7)) == (255, 255, 255)
    half = read_image(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), 8)
    assert abs(half.getpixel((4, 4))[0] - 127) <= 1


def test_transparent_palette(tmp_path):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (0, 0, 8, 4))
    image.save(tmp_path / "palette.png", transparency=0)
    result = read_image(tmp_path / "palette.png", 8)
    assert result.getpixel((4, 0)) == BLUE
    assert result.getpixel((4, 7)) == (255, 255, 255)


def test_sixteen_bits(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    for given in (tmp_path / "deep.png", ramp, Image.fromarray(ramp)):
        grey = np.asarray(read_image(given, 8))
        assert np.array_equal(grey, np.repeat((ramp // 257)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_array_channels(channels):
    shape = (6, 6) if channels is None else (6, 6, channels)
    array = np.full(shape, 200, np.uint8)
    if channels == 4:
        array[..., 3] = 255
    assert np.unique(np.asarray(read_image(array, 6))).tolist() == [200]


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    quadrants().save(tmp_path / "turned.png", exif=exif)
    result = read_image(tmp_path / "turned.png", 40)
    assert corners(result) == [BLUE, RED, (255, 255, 255), GREEN]


def test_the_centre_is_kept():
    wide = Image.new("RGB", (1000, 10), RED)
    wide.paste(GREEN, (495, 0, 505, 10))
    for image in (wide, wide.rotate(90, expand=True)):
        assert read_image(image, 16).getcolors() == [(256, GREEN)]


def test_one_pixel_is_enough():
    assert read_image(Image.new("RGB", (1, 1), BLUE), 16).getcolors() == [(256, BLUE)]


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = np.asarray(read_image(stripes, 16)).astype(int)
    assert np.abs(small[:, 2:-2] - 127).max() < 20  # grey, neither black nor white


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3)), r"shape \(4, 4, 3\) and type float64; .* must be uint8"),
        (np.full((4, 4, 3), np.nan), "with NaN or infinity; .*replacing any NaN"),
        (np.zeros((4, 4, 3), bool), "type bool"),
        (np.zeros((0, 4, 3), np.uint8), "it is empty"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\) .* expected \[height, width\]"),
        (np.zeros((3, 4, 4), np.uint8).transpose(1, 0, 2)[None], "one image at a time"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
    ],
)
def test_arrays_that_are_no_images(array, message):
    with pytest.raises(ValueError, match=message):
        read_image(array)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.png' is not a file. Check the path"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        read_image(tmp_path)


def test_a_file_that_is_no_image(tmp_path):
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(ValueError, match="notes.txt' could not be read as an image"):
        read_image(tmp_path / "notes.txt")


def test_a_truncated_file(tmp_path):
    quadrants(400, 400).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "part.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="part.png' could not be read as an image"):
        read_image(tmp_path / "part.png")


def test_other_objects():
    for thing in (None, [[0, 1], [2, 3]], 7):
        with pytest.raises(TypeError, match=f"image has the type {type(thing).__name__}.*Pass a"):
            read_image(thing)


def test_an_empty_image_and_floats():
    with pytest.raises(ValueError, match="image is empty"):
        read_image(Image.new("RGB", (0, 5)))
    with pytest.raises(ValueError, match="mode 'F'"):
        read_image(Image.new("F", (5, 5)))


def test_size():
    with pytest.raises(ValueError, match="size=0 must be at least 1"):
        read_image(quadrants(), 0)
