"""Image files to pixels. Every kind of file has a defined result, or an error that says what is wrong with it."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (  # the plugins of FORMATS: with them loaded, Image.open does not import all the others
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from mlpcli.errors import DataError, FailedError

FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        GifImagePlugin.GifImageFile,
        BmpImagePlugin.BmpImageFile,
        BmpImagePlugin.DibImageFile,
        TiffImagePlugin.TiffImageFile,
        PpmImagePlugin.PpmImageFile,
    )
)
"""The formats that are read. Others that Pillow knows run programs (EPS) or are no photographs."""
MAX_PIXELS = 178_956_970
"""Of an image in its own size, as Pillow has it: half a gigabyte of memory."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation of EXIF 2.3 (tag 274)."""
TRANSPOSED = [TURNS[orientation] for orientation in (5, 6, 7, 8)]
"""Those that swap width and height."""


def decode(source: Path | bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The pixels of an image file, uint8 of `shape` (channels, height, width), with 1 or 3 channels.

    Only the first frame of an animation or of several pages counts. It is turned upright as its EXIF orientation
    says. Grey values of 16 and 32 bits are scaled from 0..65535 to 0..255, and floats from 0..1; those beyond are
    clipped, and NaN is 0. What is transparent lies on white. Any other mode (palettes, CMYK, 1 bit) becomes RGB as
    Pillow has it, and RGB becomes grey, or grey RGB. The image is brought to exactly height x width by bilinear
    interpolation with antialiasing, whatever its own aspect ratio. A JPEG that is several times larger is decoded
    at 1/2, 1/4 or 1/8 of its size, but at least at twice what is needed on each side.

    Args:
        source: a path, or the content of a file.
        shape: of the result.

    Raises:
        DataError: one line, `path: what is wrong`: it cannot be read, is no image, is damaged or is too large. An
            image of more than 178,956,970 pixels is refused before any of them is decoded.
        FailedError: there is not enough memory.
    """
    channels, height, width = shape
    name = "image" if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on oddities that do not matter here
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
                side = 2 * max(height, width)  # both ways: it may have to be turned
                _, box = image.draft(None, (side, side)) or (None, None)
                image.load()
                turn = _turn(image)
                size = (height, width) if turn in TRANSPOSED else (width, height)
                pixels = _opaque(image).convert("RGB" if channels == 3 else "L")
                pixels = pixels.resize(size, Image.Resampling.BILINEAR, box)
                if turn is not None:
                    pixels = pixels.transpose(turn)
    except MemoryError:
        raise FailedError(f"{name}: takes more memory to decode than there is") from None
    except Exception as error:  # a damaged file lets Pillow fail in any way
        raise DataError(f"{name}: {_reason(error)}") from error
    return np.ascontiguousarray(np.asarray(pixels).reshape(height, width, channels).transpose(2, 0, 1))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What brings the image upright; damaged EXIF data says nothing."""
    try:
        return TURNS.get(image.getexif().get(0x0112, 1))
    except Exception:  # as below
        return None


def check_size(path: Path, shape: tuple[int, int, int]) -> None:
    """Raises DataError unless an image file has the height and width of `shape` already."""
    _, height, width = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                found = image.size
    except Exception as error:
        raise DataError(f"{path}: {_reason(error)}") from error
    if found != (width, height):
        raise DataError(
            f"{path}: {found[0]} x {found[1]} pixels, but the model was trained on images of {width} x {height}\n"
            "    scale it to that size first"
        )


def _opaque(image: Image.Image) -> Image.Image:
    """8 bits a channel, with no transparency."""
    if image.mode == "F":
        return _grey(np.nan_to_num(np.asarray(image), nan=0.0, posinf=1.0, neginf=0.0) * 255.0)
    if image.mode.startswith("I"):
        return _grey(np.asarray(image) / 257.0)
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _grey(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8))


def _reason(error: Exception) -> str:
    """What is wrong with a file, in words."""
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: it has more than {MAX_PIXELS:,} pixels; make it smaller"
    if isinstance(error, UnidentifiedImageError):
        return "no image, or one with a damaged header; expected JPEG, PNG, WebP, GIF, BMP, TIFF or PPM"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"damaged: {str(error) or type(error).__name__}"
