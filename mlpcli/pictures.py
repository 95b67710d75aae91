"""Pictures of samples, as PNG files."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mlpcli.letters import plain
from mlpcli.runs import write_whole

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SIDE = 96
"""About how many pixels the longer side of an image has."""
GAP = 4
"""Between the two images of a pair, in pixels."""
MARGIN = 14
"""Between samples, and around all of them."""
LABEL, HEADING = 13, 17
"""Sizes of the letters."""
PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (225, 225, 225)
ASPECT = 4 / 3
"""Width by height."""


def sample_grid(
    before: Tensor, after: Tensor | None, labels: Sequence[str], path: Path, heading: str = ""
) -> tuple[int, int]:
    """Draws samples, side by side with what became of them, with their labels below.

    Args:
        before: images (n, channels, height, width) of 1 or 3 channels, from 0 to 255, at least one.
        after: the same ones changed, or None. Values outside 0 to 255 are cut off.
        labels: n of them; those that are too long end in …
        path: of the PNG file, which is written whole or not at all.
        heading: a line above all; left out if empty.

    Returns:
        Width and height in pixels.

    Raises:
        StorageError: it could not be written.
    """
    drawn = [before] if after is None else [before, after]
    pairs = [[_picture(image) for image in images] for images in zip(*drawn, strict=True)]
    width, height = pairs[0][0].size
    tile = max(SIDE, len(pairs[0]) * (width + GAP) - GAP)
    row = height + LABEL + 2 * GAP
    top = MARGIN + (HEADING + MARGIN if heading else 0)
    columns = _columns(len(pairs), tile + MARGIN, row + MARGIN)
    size = (MARGIN + columns * (tile + MARGIN), top + math.ceil(len(pairs) / columns) * (row + MARGIN))

    page = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(page)
    small, large = ImageFont.load_default(size=LABEL), ImageFont.load_default(size=HEADING)
    pen.text((MARGIN, MARGIN), _cut(heading, size[0] - 2 * MARGIN, large), fill=INK, font=large)
    for index, (pair, label) in enumerate(zip(pairs, labels, strict=True)):
        left = MARGIN + index % columns * (tile + MARGIN)
        y = top + index // columns * (row + MARGIN)
        for number, picture in enumerate(pair):
            x = left + number * (width + GAP)
            pen.rectangle((x - 1, y - 1, x + width, y + height), outline=FAINT)
            page.paste(picture, (x, y))
        pen.text((left, y + height + GAP), _cut(label, tile, small), fill=INK, font=small)

    content = io.BytesIO()
    page.save(content, "PNG", optimize=True)
    write_whole(path, content.getvalue())
    return size


def _picture(image: Tensor) -> Image.Image:
    """An image (channels, height, width), enlarged by whole pixels or shrunk to about SIDE."""
    pixels = image.detach().float().round().clamp(0, 255).byte().cpu().permute(1, 2, 0)
    picture = Image.fromarray(pixels.expand(-1, -1, 3).contiguous().numpy())
    longer = max(picture.size)
    if longer > SIDE:
        width, height = (max(1, round(side * SIDE / longer)) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    width, height = (side * (SIDE // longer) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.NEAREST)


def _columns(samples: int, width: int, height: int) -> int:
    """How many samples of that size stand in a row, for a page that is about as wide as ASPECT asks."""
    ideal = math.sqrt(samples * height / width * ASPECT)
    return min(samples, max(1, round(ideal)))


def _cut(text: str, width: int, font: Font) -> str:
    """`text` on one line, or its beginning and … where that is too wide; without accents, which the font lacks."""
    text = plain(" ".join(text.split()))
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
