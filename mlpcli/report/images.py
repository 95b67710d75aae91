"""Samples and weights as small PNG images that stand in the page itself."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlpcli.plots import COLOURS

Array = NDArray[np.float64]
Bytes = NDArray[np.uint8]

SIDE, WEIGHTS_SIDE = 64, 32
"""The most pixels of a side of a sample, and of the weights of a unit; larger images are shrunk."""
SMALL = 40
"""Pixels of the shorter side up to which photographs are PNG; of larger ones that takes several times as much."""
QUALITY = 88
"""Of a JPEG."""


def pixels(inputs: Array, shape: Sequence[int], white: float) -> Bytes:
    """Images (n, features) from 0 to `white`, of `shape` (channels, height, width) -> (n, height, width, 3).

    They are shrunk where they are larger than SIDE.
    """
    scaled = np.clip(np.nan_to_num(inputs) * (255 / white), 0, 255).round().astype(np.uint8)
    images = scaled.reshape(-1, *shape).transpose(0, 2, 3, 1)
    return shrunk(np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], 3))))


def shrunk(images: Bytes, side: int = SIDE) -> Bytes:
    """Images (n, height, width, 3) with at most `side` pixels on their longer side; smaller ones as they are."""
    _, height, width, _ = images.shape
    longer = max(height, width)
    if longer <= side:
        return images
    size = max(1, round(width * side / longer)), max(1, round(height * side / longer))
    return np.stack(
        [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) for image in images]
    )


def encoded(picture: Image.Image, photo: bool = False) -> str:
    """A picture as a data: URI: PNG, but for photographs that are not small, which are JPEG."""
    content = io.BytesIO()
    if photo and min(picture.size) > SMALL:
        picture.save(content, "JPEG", quality=QUALITY)
        kind = "jpeg"
    else:
        picture.save(content, "PNG", optimize=True)
        kind = "png"
    return f"data:image/{kind};base64," + base64.b64encode(content.getvalue()).decode()


def shown_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(width, height) on the page, of about `side` pixels for the longer side; enlarged by whole pixels."""
    longer = max(height, width)
    if longer >= side:
        return max(1, round(width * side / longer)), max(1, round(height * side / longer))
    factor = side // longer
    return width * factor, height * factor


def strip(images: Bytes, marks: Sequence[bool], gap: int = 2) -> Image.Image:
    """Images (n, height, width, 3) in a row, those that are marked in an orange frame."""
    n, height, width, _ = images.shape
    page = np.full((height + 2 * gap, n * (width + 2 * gap), 3), 255, np.uint8)
    orange = [int(COLOURS[1][0][i : i + 2], 16) for i in (1, 3, 5)]
    for index, (image, marked) in enumerate(zip(images, marks, strict=True)):
        left = index * (width + 2 * gap)
        if marked:
            page[:, left : left + width + 2 * gap] = orange
        page[gap : gap + height, left + gap : left + gap + width] = image
    return Image.fromarray(page)


def diverging(values: Array) -> Bytes:
    """Numbers from −1 to 1 as colours (..., 3): orange below 0, white at 0, blue above."""
    share = np.clip(np.nan_to_num(values), -1, 1)[..., None]
    blue, orange = (np.array([int(COLOURS[c][0][i : i + 2], 16) for i in (1, 3, 5)]) for c in (0, 1))
    ends = np.where(share >= 0, blue, orange)
    found: Bytes = (255 + (ends - 255) * np.abs(share)).round().astype(np.uint8)
    return found


def weight_grid(weights: Array, shape: Sequence[int], columns: int) -> Image.Image:
    """Rows of weights (n, features) as images side by side, each scaled by its own largest absolute value.

    One channel is drawn in the colours of `diverging`, three as red, green and blue around grey.
    """
    scaled = weights / np.maximum(np.abs(weights).max(1, keepdims=True), 1e-30)
    images = scaled.reshape(-1, *shape).transpose(0, 2, 3, 1)
    if shape[0] == 3:
        colours = np.clip(127.5 + 127.5 * np.nan_to_num(images), 0, 255).round().astype(np.uint8)
    else:
        colours = diverging(images[..., 0])
    colours = shrunk(colours, WEIGHTS_SIDE)
    n, height, width, _ = colours.shape
    rows = -(-n // columns)
    page = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 200, np.uint8)
    for index, image in enumerate(colours):
        top, left = (
            place * (size + 1) + 1 for place, size in zip(divmod(index, columns), (height, width), strict=True)
        )
        page[top : top + height, left : left + width] = image
    return Image.fromarray(page)
