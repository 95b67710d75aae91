"""A picture of a plane as an SVG that follows the reader's light or dark theme."""

from collections.abc import Iterator
from html import escape

import numpy as np

from mlpcli.errors import UsageError
from mlpcli.plots import FONT, INK, MUTED, PAPER, SIZES, Words
from mlpcli.regions.colours import hexadecimal
from mlpcli.regions.picture_layout import BADGE, CASING, CHIP, EDGE, MARK, Layout, Row
from mlpcli.regions.picture_png import swatch_colours
from mlpcli.regions.piecewise import Bits, Floats, Ints

MOST_CELLS = 50_000
"""Of an SVG; a program that shows it takes seconds for more."""
CHIPS = (PAPER[0], "#f4f2ee")
"""Behind the lines of the legend, which are made for light colours, as (light, dark)."""
WIDE_LETTER = 0.7
"""Width of a bold letter in the widest fonts, as a share of its size."""
FINE = 10
"""Coordinates are whole numbers of that fraction of a pixel."""


def svg(place: Layout, colours: Bits) -> str:
    """A whole SVG file.

    Args:
        place: of everything.
        colours: (cells, 3), sRGB.

    Raises:
        UsageError: there are too many cells.
    """
    if len(place.view.cells) > MOST_CELLS:
        raise UsageError(
            f"{len(place.view.cells):,} regions are too many for an SVG, which holds {MOST_CELLS:,}: "
            "choose .png, or a smaller window"
        )
    width, height = (round(each) for each in place.size)
    label = escape(" ".join(place.view.title.split()))
    body = "\n".join(_body(place, colours))
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="{_printable(label)}">\n'
        f"<style>\n{_style_sheet(place)}\n</style>\n"
        f'<rect class="paper" width="100%" height="100%"/>\n{body}\n</svg>\n'
    )


def _style_sheet(place: Layout) -> str:
    def rules(theme: int) -> Iterator[str]:
        yield f".paper {{ fill: {PAPER[theme]} }} .axis {{ stroke: {MUTED[theme]} }}"
        yield f".heading, .title {{ fill: {INK[theme]} }} .small {{ fill: {MUTED[theme]} }}"
        yield f".chip {{ fill: {CHIPS[theme]} }}"

    layers = [
        f".l{layer} {{ stroke: {colour}; stroke-width: {FINE * stroke.width:.1f}; "
        f"stroke-opacity: {stroke.opacity:.2f} }}"
        for layer, (colour, stroke) in enumerate(zip(place.colours, place.layers, strict=True))
    ]
    width = place.decision.width
    return "\n".join(
        [
            f"text {{ font-family: {FONT} }} .heading, .title {{ font-weight: 600 }}",
            *(f".{name} {{ font-size: {size:g}px }}" for name, size in SIZES.items()),
            "path { fill: none; stroke-linecap: round; stroke-linejoin: round }",
            ".axis { fill: none; stroke-width: 1 }",
            *layers,
            f".casing {{ stroke: {PAPER[0]}; stroke-width: {FINE * width * CASING:.1f}; stroke-opacity: .85 }}",
            f".decision {{ stroke: {INK[0]}; stroke-width: {FINE * width:.1f} }}",
            # neighbours meet in their strokes, so that the paper is not seen between them
            f".cells path {{ stroke-width: {0.4 * FINE:g} }}",
            f".sample {{ stroke: {INK[0]}; stroke-width: 2.2 }}",
            f".label {{ font-size: {SIZES['title']:g}px; font-weight: 600; fill: {INK[0]}; stroke: {PAPER[0]}; "
            "stroke-width: 4; paint-order: stroke; stroke-linejoin: round }",
            f".badge {{ fill: {PAPER[0]}; stroke: {INK[0]}; stroke-width: 1 }}",
            f".name {{ font-size: {SIZES['title']:g}px; font-weight: 600; fill: {INK[0]} }}",
            *rules(0),
            "@media screen and (prefers-color-scheme: dark) {",
            *rules(1),
            "}",
        ]
    )


def _body(place: Layout, colours: Bits) -> Iterator[str]:
    view = place.view
    left, top, width, height = place.plane
    box = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"'
    yield f'<clipPath id="plane"><rect {box}/></clipPath>'
    yield f'<g clip-path="url(#plane)"><g transform="translate({left:.1f} {top:.1f}) scale({1 / FINE:g})">'
    yield '<g class="cells">'
    yield from _cells(place, colours)
    yield "</g>"
    for layer in range(len(place.layers)):
        segments = place.edges(layer)
        if len(segments):
            yield f'<path class="l{layer}" d="{_segments(_whole(place, segments))}"/>'
    if view.decision is not None and len(view.decision.boundary):
        path = _segments(_whole(place, place.pixels(view.decision.boundary)))
        yield f'<path class="casing" d="{path}"/>'
        yield f'<path class="decision" d="{path}"/>'
    yield "</g></g>"
    yield f'<rect class="axis" {box}/>'
    for x0, y0, x1, y1 in place.ticks:
        yield f'<path class="axis" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>'
    for badge in place.badges:
        x0, y0, x1, y1 = badge.box
        box = f'x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" rx="{BADGE / 2:g}"'
        yield f'<rect class="badge" {box}/>'
        yield _text(badge.words, "name")
    for label in place.labels:
        yield _sample(label.x, label.y, label.fill)
    for label in place.labels:
        if label.words:
            yield _text(label.words, "label")
    for row in place.rows:
        yield from _chip(row, colours)
    room = place.size[0] - 2 * EDGE
    yield from (_text(words, words.style, room) for words in place.words)


def _cells(place: Layout, colours: Bits) -> Iterator[str]:
    """One path a colour."""
    view = place.view
    points = _whole(place, place.pixels(view.cells.points))
    numbers = colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    order = np.argsort(numbers, kind="stable")
    corners = points[view.outline.vertices].tolist()
    begins = view.outline.begins.tolist()
    parts: list[str] = []
    before = -1
    for cell in order.tolist():
        if numbers[cell] != before:
            if parts:
                yield _filled(before, parts)
            before, parts = int(numbers[cell]), []
        parts.append(_polygon(corners[begins[cell] : begins[cell + 1]]))
    yield _filled(before, parts)


def _filled(colour: int, parts: list[str]) -> str:
    # as attributes, which a rule of the style sheet would win over
    return f'<path style="fill:#{colour:06x};stroke:#{colour:06x}" d="{"".join(parts)}"/>'


def _polygon(corners: list[list[int]]) -> str:
    (x, y), parts = corners[0], []
    parts.append(f"M{x} {y}l")
    for next_x, next_y in corners[1:]:
        parts.append(f"{next_x - x} {next_y - y} ")
        x, y = next_x, next_y
    return "".join(parts)[:-1].replace(" -", "-") + "z"


def _segments(ends: Ints) -> str:
    """(n, 2, 2) -> a path; what lies in one point is left out."""
    flat = ends.reshape(-1, 4)
    flat = flat[(flat[:, :2] != flat[:, 2:]).any(1)]
    flat[:, 2:] -= flat[:, :2]
    return "".join(f"M{x} {y}l{right} {down}" for x, y, right, down in flat.tolist()).replace(" -", "-")


def _whole(place: Layout, pixels: Floats) -> Ints:
    whole: Ints = ((pixels - np.array(place.plane[:2])) * FINE).round().astype(np.int64)
    return whole


def _chip(row: Row, colours: Bits) -> Iterator[str]:
    """What stands before a text of the legend."""
    x, y = row.x, row.y - 4
    if row.kind in ("lines", "decision"):
        yield f'<rect class="chip" x="{x - 3:.1f}" y="{y - 6.5:.1f}" width="{CHIP + 6:g}" height="13" rx="3"/>'
    match row.kind:
        case "lines":
            piece = CHIP / len(row.colours)
            for index, colour in enumerate(row.colours):
                style = f"stroke:{colour};stroke-width:{row.stroke.width * 1.6:.1f};stroke-linecap:butt"
                yield f'<path style="{style}" d="M{x + index * piece:.1f} {y:.1f}h{piece:.1f}"/>'
        case "decision":
            width = row.stroke.width
            line = f'd="M{x:.1f} {y:.1f}h{CHIP:g}"/>'
            yield f'<path style="stroke:{PAPER[0]};stroke-width:{width * CASING:.1f};stroke-linecap:butt" {line}'
            yield f'<path style="stroke:{INK[0]};stroke-width:{width:.1f};stroke-linecap:butt" {line}'
        case "class":
            yield f'<rect class="badge" x="{x + 4:.1f}" y="{y - 7:.1f}" width="{CHIP - 8:g}" height="14" rx="7"/>'
        case "sample":
            yield _sample(x + CHIP / 2, y, row.colours[0])
        case _:
            swatches = swatch_colours(colours)
            piece = CHIP / len(swatches)
            for index, swatch in enumerate(swatches):
                colour = hexadecimal(np.array(swatch, np.uint8))
                box = f'x="{x + index * piece:.1f}" y="{y - 5:.1f}" width="{piece:.1f}" height="10"'
                yield f'<rect fill="{colour}" {box}/>'


def _sample(x: float, y: float, fill: str) -> str:
    return f'<circle class="sample" fill="{fill}" cx="{x:.1f}" cy="{y:.1f}" r="{MARK - 1.1:g}"/>'


def _text(words: Words, style: str, room: float = np.inf) -> str:
    """With `room` for it in pixels, which it takes where the reader's font may be too wide."""
    text = _printable(escape(words.text))
    if style in ("heading", "title") and WIDE_LETTER * SIZES[style] * len(words.text) > room:
        style += f'" textLength="{room:.0f}" lengthAdjust="spacingAndGlyphs'
    return f'<text class="{style}" x="{words.x:.1f}" y="{words.y:.1f}" text-anchor="{words.anchor}">{text}</text>'


def _printable(text: str) -> str:
    """Without what XML does not allow: control characters, and halves of surrogate pairs, of odd file names."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)
