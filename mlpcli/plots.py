"""Curves on logarithmic or linear axes, as an SVG that follows the reader's light or dark theme, or as a PNG."""

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from mlpcli.axes import MOST_TICKS, MOST_WIDE_TICKS, Axis, Scale, has_place
from mlpcli.errors import UsageError
from mlpcli.letters import plain
from mlpcli.runs import write_whole

PAPER, INK, MUTED, GRID = (
    ("#ffffff", "#15181d"),
    ("#1b1f24", "#e8eaed"),
    ("#5b6470", "#a0a8b3"),
    ("#e3e6ea", "#2e343d"),
)
"""Colours as (light, dark)."""
COLOURS = [
    ("#0b5cbf", "#74b4ff"),
    ("#b8400a", "#ff9d66"),
    ("#0a7358", "#4fd6ad"),
    ("#8a3ab0", "#d79bf5"),
    ("#5b6470", "#a0a8b3"),
]
"""Of the curves, which tell each other apart by colour-blind eyes too."""
SHADES = [
    ("#c3d4ea", "#2c3f57"),
    ("#93b5dd", "#37608c"),
    ("#5f92cc", "#4a86c2"),
    ("#2f6db3", "#74aeec"),
    ("#0b4487", "#b9dcff"),
]
"""Of what is told apart by a number: from little to much, away from the paper."""
WIDTH, HEIGHT = 400.0, 270.0
"""Of the plane of a panel, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 62.0, 18.0, 44.0, 46.0
"""Around that plane."""
HEADING, LEGEND, LEGEND_ROW = 34.0, 34.0, 20.0
SIZES = {"heading": 15.0, "title": 13.0, "small": 11.5}
"""Of the letters."""
SCALE, FINER = 2, 2
"""A PNG has SCALE pixels for one, and is drawn FINER times as large and then reduced, which smooths its lines."""
MOST_COLUMNS = 3
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif'

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Points to be joined; those that have no place on the axes of the panel are left out.

    Attributes:
        name: in the legend, once for all panels; none if empty.
        x, y: the points.
        colour: which of COLOURS.
        kind: a thin `line`, `dots` on one, or `dashes`, which stay inside the range of the others.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int
    kind: Literal["line", "dots", "dashes"] = "line"


@dataclass(frozen=True)
class Panel:
    """One pair of axes; the label of y stands above it.

    A logarithmic axis has a place for the positive and finite, a linear one for all that is finite.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    x_scale: Scale = "log"
    y_scale: Scale = "log"

    def points(self, curve: Curve) -> list[Point]:
        """Those of a curve that have a place on the axes."""
        pairs = zip(curve.x, curve.y, strict=True)
        return [(x, y) for x, y in pairs if has_place(x, self.x_scale) and has_place(y, self.y_scale)]


@dataclass(frozen=True)
class Line:
    """A line through points in pixels: `style` is `grid`, `axis`, `line`, `dots` or `dashes`."""

    style: str
    points: tuple[Point, ...]
    colour: int = -1


@dataclass(frozen=True)
class Dot:
    """A mark on a curve."""

    x: float
    y: float
    colour: int


@dataclass(frozen=True)
class Words:
    """A text; y is its base line."""

    style: str
    x: float
    y: float
    text: str
    anchor: str = "start"


Shape = Line | Dot | Words
STROKES = {"grid": 1.0, "axis": 1.2, "line": 1.1, "dots": 1.6, "dashes": 1.5}


def check_ending(file: Path) -> None:
    """Raises UsageError unless the ending of `file` says a format that is drawn."""
    if file.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"-o {file}: the ending says the format of the picture: .svg or .png")


def draw(panels: Sequence[Panel], heading: str, file: Path, columns: int = MOST_COLUMNS) -> None:
    """Draw panels to a file, whole or not at all.

    Args:
        panels: at least one.
        heading: a line above all; a long one ends in …
        columns: panels side by side.
        file: its ending says the format, see `check_ending`.

    Raises:
        StorageError: it could not be written.
    """
    across, down = min(len(panels), columns), math.ceil(len(panels) / columns)
    width = across * (LEFT + WIDTH + RIGHT)
    more_rows = max((y for _, y in _in_rows(_named(panels), width)), default=0.0)
    size = (width, HEADING + down * (TOP + HEIGHT + BOTTOM) + LEGEND + more_rows)
    shapes = list(_page(panels, _cut(heading, size[0]), columns))
    write_whole(file, svg(shapes, size, heading).encode() if file.suffix.lower() == ".svg" else png(shapes, size))


# --- where everything is ------------------------------------------------------------------------------------


def _cut(text: str, width: float) -> str:
    letters = int((width - LEFT) / (0.58 * SIZES["heading"]))
    text = " ".join(text.split())
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _page(panels: Sequence[Panel], heading: str, columns: int) -> Iterator[Shape]:
    yield Words("heading", LEFT / 3, 24, heading)
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        yield from _panel(
            panel, column * (LEFT + WIDTH + RIGHT) + LEFT, HEADING + row * (TOP + HEIGHT + BOTTOM) + TOP
        )
    named, width = _named(panels), min(len(panels), columns) * (LEFT + WIDTH + RIGHT)
    below = HEADING + math.ceil(len(panels) / columns) * (TOP + HEIGHT + BOTTOM) + 16
    for (name, curve), (x, down) in zip(named.items(), _in_rows(named, width), strict=True):
        y = below + down
        yield Line(curve.kind, ((x, y - 4), (x + 26, y - 4)), curve.colour)
        if curve.kind == "dots":
            yield Dot(x + 13, y - 4, curve.colour)
        yield Words("small", x + 33, y, name)


def _named(panels: Sequence[Panel]) -> dict[str, Curve]:
    """A curve of each name in the legend."""
    return {curve.name: curve for panel in panels for curve in panel.curves if curve.name}


def _in_rows(names: Iterable[str], width: float) -> list[Point]:
    """Where each name of the legend begins, from the left and below its first row, in rows that fit."""
    places: list[Point] = []
    x, y = LEFT, 0.0
    for name in names:
        end = x + 33 + 6.2 * len(name)
        if end > width and x > LEFT:
            x, y, end = LEFT, y + LEGEND_ROW, LEFT + end - x
        places.append((x, y))
        x = end + 22
    return places


def _panel(panel: Panel, left: float, top: float) -> Iterator[Shape]:
    yield Words("title", left, top - 24, panel.title)
    yield Words("small", left - LEFT + 20, top - 8, panel.y_label)
    yield Words("small", left + WIDTH / 2, top + HEIGHT + 36, panel.x_label, "middle")
    solid = [point for curve in panel.curves if curve.kind != "dashes" for point in panel.points(curve)]
    if not solid:
        yield Words("small", left + WIDTH / 2, top + HEIGHT / 2, _nothing(panel), "middle")
        return
    x_axis = Axis(panel.x_scale, [x for x, _ in solid], MOST_WIDE_TICKS)
    y_axis = Axis(panel.y_scale, [y for _, y in solid], MOST_TICKS)

    def across(x: float) -> float:
        return left + x_axis.share(x) * WIDTH

    def down(y: float) -> float:
        return top + (1 - y_axis.share(y)) * HEIGHT

    for tick, text in x_axis.ticks():
        x = across(tick)
        yield Line("grid", ((x, top), (x, top + HEIGHT)))
        yield Words("small", x, top + HEIGHT + 17, text, "middle")
    for tick, text in y_axis.ticks():
        y = down(tick)
        yield Line("grid", ((left, y), (left + WIDTH, y)))
        yield Words("small", left - 7, y + 4, text, "end")
    yield Line("axis", ((left, top), (left, top + HEIGHT), (left + WIDTH, top + HEIGHT)))
    for curve in panel.curves:
        places = [(across(x), down(y)) for x, y in panel.points(curve)]
        places = [
            (x, y) for x, y in places if top - 1 <= y <= top + HEIGHT + 1 and left - 1 <= x <= left + WIDTH + 1
        ]
        if len(places) > 1:
            yield Line(curve.kind, tuple(places), curve.colour)
        if curve.kind == "dots":
            yield from (Dot(x, y, curve.colour) for x, y in places)


def _nothing(panel: Panel) -> str:
    """Why an empty panel is empty."""
    match panel.x_scale, panel.y_scale:
        case "log", "log":
            return "nothing here is above 0"
        case "linear", "linear":
            return "nothing here is finite"
        case x_scale, _:
            return f"nothing here is finite with its {'x' if x_scale == 'log' else 'y'} above 0"


# --- SVG ----------------------------------------------------------------------------------------------------


def _style_sheet() -> str:
    def rules(theme: int) -> Iterator[str]:
        yield f".paper {{ fill: {PAPER[theme]} }}"
        yield f".grid {{ stroke: {GRID[theme]} }} .axis {{ stroke: {MUTED[theme]} }}"
        yield f".heading, .title {{ fill: {INK[theme]} }} .small {{ fill: {MUTED[theme]} }}"
        for index, pair in enumerate(COLOURS):
            yield f".c{index} {{ stroke: {pair[theme]} }} .d{index} {{ fill: {pair[theme]} }}"

    sizes = [f".{name} {{ font-size: {size:g}px }}" for name, size in SIZES.items()]
    strokes = [f".{name} {{ stroke-width: {width:g} }}" for name, width in STROKES.items()]
    return "\n".join(
        [
            f"text {{ font-family: {FONT} }} .heading, .title {{ font-weight: 600 }}",
            *sizes,
            *strokes,
            "polyline { fill: none; stroke-linejoin: round } .dashes { stroke-dasharray: 5 4 }",
            *rules(0),
            "@media screen and (prefers-color-scheme: dark) {",
            *rules(1),
            "}",
        ]
    )


def svg(shapes: Sequence[Shape], size: tuple[float, float], label: str) -> str:
    """A whole SVG file.

    Args:
        shapes: in the order in which they are drawn.
        size: width and height.
        label: what a reader who does not see it hears.
    """
    body = "\n".join(_element(shape) for shape in shapes)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]:g}" '
        f'height="{size[1]:g}" viewBox="0 0 {size[0]:g} {size[1]:g}" role="img" aria-label="{escape(label)}">\n'
        f'<style>\n{_style_sheet()}\n</style>\n<rect class="paper" width="100%" height="100%"/>\n{body}\n</svg>\n'
    )


def _element(shape: Shape) -> str:
    match shape:
        case Line(style, points, colour):
            colours = f" c{colour}" if colour >= 0 else ""
            return (
                f'<polyline class="{style}{colours}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
            )
        case Dot(x, y, colour):
            return f'<circle class="d{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
        case Words(style, x, y, text, anchor):
            return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


# --- PNG ----------------------------------------------------------------------------------------------------


def png(shapes: Sequence[Shape], size: tuple[float, float]) -> bytes:
    """A PNG file in the light colours."""
    scale = SCALE * FINER
    page = Image.new("RGB", (round(size[0]) * scale, round(size[1]) * scale), PAPER[0])
    pen = ImageDraw.Draw(page)
    fonts = {name: ImageFont.load_default(size * scale) for name, size in SIZES.items()}
    for shape in shapes:
        match shape:
            case Line(style, points, colour):
                stroke = COLOURS[colour][0] if colour >= 0 else {"grid": GRID, "axis": MUTED}[style][0]
                scaled = [(x * scale, y * scale) for x, y in points]
                for piece in dashed(scaled, 5 * scale, 4 * scale) if style == "dashes" else [scaled]:
                    pen.line(piece, stroke, round(STROKES[style] * scale), joint="curve")
            case Dot(x, y, colour):
                pen.circle((x * scale, y * scale), 3 * scale, COLOURS[colour][0])
            case Words(style, x, y, text, anchor):
                ink = MUTED[0] if style == "small" else INK[0]
                bold = 0 if style == "small" else 1
                at = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
                place = (x * scale, y * scale)
                pen.text(place, plain(text), ink, fonts[style], at, stroke_width=bold, stroke_fill=ink)
    content = io.BytesIO()
    page.reduce(FINER).save(content, "PNG", optimize=True, dpi=(96 * SCALE, 96 * SCALE))
    return content.getvalue()


def dashed(points: Sequence[Point], dash: float, gap: float) -> Iterator[list[Point]]:
    """The pieces of a line that are drawn."""
    piece, on, left = [points[0]], True, dash
    for end in points[1:]:
        start = piece[-1]
        while (length := math.dist(start, end)) > left:
            share = left / length
            start = (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
            if on:
                yield [*piece, start]
            on, piece, left = not on, [start], gap if on else dash
        left -= length
        piece.append(end)
    if on and len(piece) > 1:
        yield piece
