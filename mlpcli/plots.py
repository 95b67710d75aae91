"""Curves on logarithmic or linear axes, as an SVG that follows the reader's light or dark theme, or as a PNG."""

import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from mlpcli.errors import UsageError
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
WIDTH, HEIGHT = 400.0, 270.0
"""Of the plane of a panel, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 62.0, 18.0, 44.0, 46.0
"""Around that plane."""
HEADING, LEGEND, LEGEND_ROW = 34.0, 34.0, 20.0
SIZES = {"heading": 15.0, "title": 13.0, "small": 11.5}
"""Of the letters."""
SCALE, FINER = 2, 2
"""A PNG has SCALE pixels for one, and is drawn FINER times as large and then reduced, which smooths its lines."""
MOST_TICKS, MOST_WIDE_TICKS = 9, 7
"""Of an axis, and of a linear x axis, whose numbers are longer."""
MOST_COLUMNS = 3
ROOM = 0.03
"""Of an axis, beyond each end of the points."""
NARROWEST = 0.6
"""Decades of a logarithmic axis."""
NARROWEST_SHARE = 1e-3
"""Length of a linear axis, as a share of its largest number: a shorter one would need longer numbers."""
NEAR_ZERO = 0.2
"""A linear axis begins at 0 where the smallest point is at most that share of the largest."""
TINY, HUGE = 1e-300, 1e300
"""What is shorter is no length of a linear axis, and what is larger has no place on one: float64 ends there."""
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif'

Point = tuple[float, float]
Scale = Literal["log", "linear"]


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
        return [(x, y) for x, y in pairs if _has_place(x, self.x_scale) and _has_place(y, self.y_scale)]


def _has_place(value: float, scale: Scale) -> bool:
    return 0 < value < math.inf if scale == "log" else -HUGE < value < HUGE


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


# --- axes ---------------------------------------------------------------------------------------------------


class Axis:
    """From numbers to shares of its length, and what stands beside it.

    Args:
        scale: what equal lengths mean.
        values: that it has to hold, at least one.
        most: ticks of a linear one.
    """

    def __init__(self, scale: Scale, values: Sequence[float], most: int) -> None:
        self.scale = scale
        self.low, self.high = _log_range(values) if scale == "log" else _linear_range(values)
        self.whole = all(value == round(value) for value in values)
        self.most = most

    def share(self, value: float) -> float:
        """How far along the axis: 0 where it begins, 1 where it ends."""
        position = math.log10(value) if self.scale == "log" else value
        return (position - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Values and their texts."""
        if self.scale == "log":
            return [(tick, number(tick)) for tick in _log_ticks(self.low, self.high)]
        ticks = linear_ticks(self.low, self.high, self.most, whole=self.whole)
        return [(tick, linear_number(tick)) for tick in ticks]


def _log_range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of a logarithmic axis, as decimal logarithms, with a little room, and enough for a tick."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(ROOM * (high - low), (NARROWEST - (high - low)) / 2)
    return low - room, high + room


def _linear_range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of a linear axis: 0 below what is near it, else with a little room, and enough for a tick."""
    low, high = min(values), max(values)
    if 0 <= low <= NEAR_ZERO * high and high > TINY:
        return 0.0, high + ROOM * high
    # numbers that are all whole and equal stand between two others, with no tick but their own
    narrowest = max(NARROWEST_SHARE * max(-low, high), 1.0 if low == high == round(low) else TINY)
    room = max(ROOM * (high - low), (narrowest - (high - low)) / 2)
    return low - room, high + room


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, or 1, 2 and 5 times them where those are few, between two decimal logarithms."""
    powers = [10.0**power for power in range(math.floor(low), math.ceil(high) + 1)]
    digits = (1, 2, 5) if high - low < 2.5 else (1, 3) if high - low < 4 else (1,)
    ticks = [digit * power for power in powers for digit in digits]
    ticks = [tick for tick in ticks if low <= math.log10(tick) <= high]
    return ticks[:: math.ceil(len(ticks) / MOST_TICKS)]


def linear_ticks(low: float, high: float, most: int = MOST_TICKS, *, whole: bool = False) -> list[float]:
    """The multiples of a step that is 1, 2 or 5 times a power of ten, of the smallest step that gives few enough.

    Args:
        low, high: ends of the axis, `low` the smaller, which belong to it.
        most: ticks, at least 2. There are at least 3 of 9, and at least 2 of 7.
        whole: whether no step is less than 1, for counts; then there may be fewer.
    """
    assert low < high and most > 1
    start = math.floor(math.log10(high - low) - math.log10(most)) - 1
    for power in itertools.count(max(start, 0) if whole else start):
        for digit in (1, 2, 5):
            # as integers, so that each tick is the float nearest to it: 0.3, and not 3 · 0.1
            above, below = digit * 10 ** max(power, 0), 10 ** max(-power, 0)
            first, last = (math.floor(Fraction(end) * below / above) for end in (low, high))
            if last - first <= most + 1:
                ticks = [index * above / below for index in range(first, last + 2)]
                ticks = [tick for tick in ticks if low <= tick <= high]
                if len(ticks) <= most:
                    return ticks
    raise AssertionError("a step longer than the axis gives at most one tick, or two at its ends")


def number(value: float) -> str:
    """A tick of a logarithmic axis, above 0: 20, 0.05, 1e-8."""
    if 1e-3 <= value < 1e5:
        return f"{value:,.0f}" if value >= 1 else f"{value:g}"
    mantissa, _, power = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(power)}"


def linear_number(value: float) -> str:
    """A tick of a linear axis, with as many digits as it has: 0, -2.5, 120,000, 1.2e6, 5e-5."""
    if value == 0:
        return "0"  # -0.0 too
    if 1e-4 <= abs(value) < 1e6:
        return f"{value:,.12g}"
    mantissa, _, power = f"{value:.11e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"


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
                pen.text(place, text, ink, fonts[style], at, stroke_width=bold, stroke_fill=ink)
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
