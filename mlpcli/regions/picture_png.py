"""A picture of a plane as a PNG: cells row by row of pixels, all at once, and the rest with Pillow."""

import io
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mlpcli.letters import plain
from mlpcli.plots import INK, MUTED, PAPER, SIZES, Words
from mlpcli.regions.picture_layout import BADGE, CASING, CHIP, MARK, Badge, Layout, Row, Stroke
from mlpcli.regions.picture_raster import raster
from mlpcli.regions.piecewise import Bits, Floats

DRAWN = 4
"""A picture is drawn that many times as large as its layout and then reduced, which smooths its lines."""


def png(place: Layout, colours: Bits, scale: int) -> bytes:
    """A PNG file in the light colours.

    Args:
        place: of everything.
        colours: (cells, 3), sRGB.
        scale: pixels of the file for one of the layout: 1, 2 or 4.
    """
    content = io.BytesIO()
    # a higher level takes much longer and saves little: the cells of a large picture are noise to it
    paint(place, colours, scale).save(content, "PNG", compress_level=5, dpi=(96 * scale, 96 * scale))
    return content.getvalue()


def paint(place: Layout, colours: Bits, scale: int) -> Image.Image:
    """The picture, see `png`."""
    finer, scale = DRAWN // scale, DRAWN
    page = Image.new("RGB", (round(place.size[0]) * scale, round(place.size[1]) * scale), PAPER[0])
    left, top, width, height = (round(each * scale) for each in place.plane)
    labels = raster(place.view, (width, height))
    plane = Image.fromarray(np.concatenate((colours, np.full((1, 3), 255, np.uint8)))[labels])
    corner = np.array(place.plane[:2])

    for layer, stroke in enumerate(place.layers):
        _lines(plane, (place.edges(layer) - corner) * scale, place.colours[layer], stroke, scale)
    if place.view.decision is not None:
        segments = (place.pixels(place.view.decision.boundary) - corner) * scale
        casing = Stroke(place.decision.width * CASING, 0.85)
        _lines(plane, segments, PAPER[0], casing, scale, round_ends=True)
        _lines(plane, segments, INK[0], place.decision, scale, round_ends=True)
    page.paste(plane, (left, top))

    pen = ImageDraw.Draw(page)
    pen.rectangle((left - 3, top - 3, left + width + 2, top + height + 2), outline=MUTED[0], width=3)
    for tick in place.ticks:
        pen.line([each * scale for each in tick], MUTED[0], 3)
    for badge in place.badges:
        _badge(pen, badge, scale)
    for label in place.labels:
        _sample(pen, label.x, label.y, label.fill, scale)
        if label.words:
            _text(pen, label.words, scale, halo=True)
    for row in place.rows:
        _chip(page, row, colours, scale)
    for words in place.words:
        _text(pen, words, scale)
    return page.reduce(finer)


def _lines(
    plane: Image.Image, segments: Floats, colour: str, stroke: Stroke, scale: float, *, round_ends: bool = False
) -> None:
    """Segments (n, 2, 2) in pixels of the plane, in one colour."""
    width = stroke.width * scale
    whole = max(1, round(width))
    shade = round(255 * stroke.opacity * min(1.0, width / whole))
    mask = Image.new("L", plane.size)
    pen = ImageDraw.Draw(mask)
    for segment in segments.reshape(-1, 4).tolist():
        pen.line(segment, shade, whole)
    if round_ends and whole > 2:
        for x, y in np.unique(segments.reshape(-1, 2).round(1), axis=0).tolist():
            pen.circle((x, y), (whole - 1) / 2, shade)
    plane.paste(colour, mask=mask)


def _sample(pen: ImageDraw.ImageDraw, x: float, y: float, fill: str, scale: float) -> None:
    pen.circle((x * scale, y * scale), (MARK + 1.5) * scale, PAPER[0])
    pen.circle((x * scale, y * scale), MARK * scale, INK[0])
    pen.circle((x * scale, y * scale), (MARK - 2.2) * scale, fill)


def _badge(pen: ImageDraw.ImageDraw, badge: Badge, scale: float) -> None:
    box = [each * scale for each in badge.box]
    pen.rounded_rectangle(box, BADGE / 2 * scale, PAPER[0], INK[0], round(scale))
    _text(pen, badge.words, scale)


def _chip(page: Image.Image, row: Row, colours: Bits, scale: float) -> None:
    """What stands before a text of the legend."""
    pen = ImageDraw.Draw(page)
    y = row.y - 4
    middle = (row.x + CHIP / 2) * scale
    match row.kind:
        case "lines":
            piece = CHIP / len(row.colours)
            for index, colour in enumerate(row.colours):
                ends = (row.x + index * piece, y, row.x + (index + 1) * piece, y)
                pen.line([each * scale for each in ends], colour, max(1, round(row.stroke.width * 1.6 * scale)))
        case "decision":
            line = [row.x * scale, y * scale, (row.x + CHIP) * scale, y * scale]
            pen.line(line, PAPER[0], round(row.stroke.width * CASING * scale))
            pen.line(line, INK[0], round(row.stroke.width * scale))
        case "class":
            box = (row.x + 4, y - 7, row.x + CHIP - 4, y + 7)
            pen.rounded_rectangle([each * scale for each in box], 7 * scale, PAPER[0], INK[0], round(scale))
        case "sample":
            _sample(pen, middle / scale, y, row.colours[0], scale)
        case _:
            swatches = swatch_colours(colours)
            piece = CHIP / len(swatches)
            for index, swatch in enumerate(swatches):
                box = (row.x + index * piece, y - 5, row.x + (index + 1) * piece - 1 / scale, y + 5)
                pen.rectangle([each * scale for each in box], swatch)


def swatch_colours(colours: Bits) -> list[tuple[int, int, int]]:
    """At most 4 that stand for all."""
    order = np.lexsort(colours.T)
    chosen = colours[order[np.linspace(0, len(order) - 1, 4).round().astype(int)]]
    return list(dict.fromkeys((int(r), int(g), int(b)) for r, g, b in chosen))


def _text(pen: ImageDraw.ImageDraw, words: Words, scale: float, *, halo: bool = False) -> None:
    ink = MUTED[0] if words.style == "small" else INK[0]
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[words.anchor]
    at, font, text = (words.x * scale, words.y * scale), _font(words.style, scale), plain(words.text)
    if halo:
        pen.text(at, text, PAPER[0], font, anchor, stroke_width=round(2.5 * scale), stroke_fill=PAPER[0])
    bold = 0 if words.style == "small" else round(scale / 4)
    pen.text(at, text, ink, font, anchor, stroke_width=bold, stroke_fill=ink)


@cache
def _font(style: str, scale: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(SIZES[style] * scale)
