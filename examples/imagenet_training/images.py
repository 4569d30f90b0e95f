"""From the bytes of a file to the pixels that the network sees."""

import io
import math

import numpy as np
from PIL import Image

# Errors of Pillow on damaged files. `SyntaxError` is for PNG.
DAMAGE = (
    EOFError,
    IndexError,
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
)

# Ranges of the random crop: part of the image's area, and width over height.
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10

# In evaluation, the part of the shorter side that is seen: 224 of 256 pixels.
CENTRE = 224 / 256

Box = tuple[float, float, float, float]


class BadImage(ValueError):
    """The bytes are no image, or only a part of one."""


def training_image(
    content: bytes, resolution: int, generator: np.random.Generator
) -> np.ndarray:
    """A random part of the image, mirrored or not, as (resolution, resolution, 3)."""
    image = _open(content)
    box = random_box(*image.size, generator)
    mirror = generator.random() < 0.5
    pixels = _resized(image, box, resolution)
    return np.ascontiguousarray(pixels[:, ::-1]) if mirror else pixels


def evaluation_image(content: bytes, resolution: int) -> np.ndarray:
    """The centre of the image, as (resolution, resolution, 3)."""
    image = _open(content)
    return _resized(image, centre_box(*image.size), resolution)


def random_box(width: int, height: int, generator: np.random.Generator) -> Box:
    """Left, upper, right and lower edge of a crop of random area and ratio."""
    for _ in range(ATTEMPTS):
        area = width * height * generator.uniform(*AREA)
        ratio = math.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        crop_width = round(math.sqrt(area * ratio))
        crop_height = round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(generator.integers(width - crop_width + 1))
            upper = int(generator.integers(height - crop_height + 1))
            return left, upper, left + crop_width, upper + crop_height
    # A very long or very tall image: as much of its middle as the ratios allow.
    crop_width = min(width, round(height * RATIO[1]))
    crop_height = min(height, round(width / RATIO[0]))
    left, upper = (width - crop_width) // 2, (height - crop_height) // 2
    return left, upper, left + crop_width, upper + crop_height


def centre_box(width: int, height: int) -> Box:
    """The square in the middle: resizing and then cropping, in one."""
    side = CENTRE * min(width, height)
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content))
    except DAMAGE as error:
        # Pillow's message is the address of the stream.
        raise BadImage("not an image") from error


def _resized(image: Image.Image, box: Box, resolution: int) -> np.ndarray:
    width, height = image.size
    # A JPEG can be decoded at a half, a quarter or an eighth of its size, which takes
    # a part of the time: as small as leaves the crop at least as large as its result.
    smallest_side = min(box[2] - box[0], box[3] - box[1])
    scale = min(1.0, resolution / smallest_side)
    try:
        image.draft("RGB", (math.ceil(width * scale), math.ceil(height * scale)))
        across, down = image.size[0] / width, image.size[1] / height
        # Rounding must not put an edge outside of the image.
        drafted = (
            box[0] * across,
            box[1] * down,
            min(box[2] * across, image.size[0]),
            min(box[3] * down, image.size[1]),
        )
        whole = image.convert("RGB")
        resized = whole.resize(
            (resolution, resolution), Image.Resampling.BILINEAR, drafted
        )
    except DAMAGE as error:
        raise BadImage(str(error)) from error
    return np.asarray(resized)
