"""Charts as shapes, and shapes as SVG inside a page or as PNG.

In a page the colours are the page's own, light or dark, and a pointer that rests on a shape shows its text.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape

from PIL import Image, ImageColor, ImageDraw, ImageFont

from mlpcli.letters import plain
from mlpcli.plots import COLOURS, GRID, INK, MUTED, PAPER, SHADES, Point, dashed

PALETTE = [*COLOURS, *SHADES]
"""What the colour of a shape is a number of."""
WIDTH = 360.0
"""Of a chart, in pixels: that of a telephone, so that its letters are legible there."""
SIZES = {"title": 13.0, "small": 11.0, "halo": 11.0, "tiny": 9.0, "over": 9.0, "large": 15.0, "large-over": 15.0}
"""Of the letters; `over` and `large-over` stand on a dark box, and `halo` on lines that it keeps away."""
STROKES = {
    "grid": 1.0,
    "axis": 1.2,
    "line": 1.6,
    "strong": 2.6,
    "thin": 1.0,
    "hair": 0.5,
    "dashes": 1.4,
    "mark": 1.2,
}
"""Widths of lines: `dashes` and `mark` are dashed."""
DASHED = ("dashes", "mark")
LETTER = {"title": 7.6, "small": 6.4, "halo": 6.4, "tiny": 5.4, "over": 5.4, "large": 9.0, "large-over": 9.0}
"""About the width of a letter, in pixels."""
SCALE, FINER = 2, 2
"""A PNG has SCALE pixels for one, and is drawn FINER times as large and then reduced."""
TITLE_HEIGHT, MARGIN = 30.0, 8.0
"""Around a chart that is a PNG file."""


@dataclass(frozen=True)
class Path:
    """A line through points; colour −1 is that of its style."""

    style: str
    points: tuple[Point, ...]
    colour: int = -1


@dataclass(frozen=True)
class Box:
    """A filled rectangle; what lies below shows through where `opacity` is less than 1."""

    x: float
    y: float
    width: float
    height: float
    colour: int
    opacity: float = 1.0
    tip: str = ""


@dataclass(frozen=True)
class Dot:
    """A mark; radius 0 for one that only shows its text."""

    x: float
    y: float
    colour: int
    radius: float = 2.5
    opacity: float = 1.0
    tip: str = ""


@dataclass(frozen=True)
class Words:
    """A text; y is its base line."""

    style: str
    x: float
    y: float
    text: str
    anchor: str = "start"


Shape = Path | Box | Dot | Words


@dataclass(frozen=True)
class Chart:
    """A picture.

    Attributes:
        name: of its file in plots/, without an ending.
        title: what it shows.
        shapes: in the order in which they are drawn.
        width, height: in pixels.
        caption: what a reader has to know besides; may be empty.
    """

    name: str
    title: str
    shapes: tuple[Shape, ...]
    height: float
    caption: str = ""
    width: float = WIDTH


def cut(text: str, width: float, style: str = "small") -> str:
    """`text` on one line, or its beginning and … where it is wider than `width` pixels."""
    text = " ".join(text.split())
    letters = max(1, int(width / LETTER[style]))
    return text if len(text) <= letters else text[: letters - 1] + "…"


def style_sheet() -> str:
    """What the shapes need in a page that defines --paper, --ink, --muted, --grid and --c0, --c1, … ."""
    colours = [
        f".c{index}{{stroke:var(--c{index})}}.f{index}{{fill:var(--c{index})}}" for index in range(len(PALETTE))
    ]
    sizes = [f".{name}{{font-size:{size:g}px}}" for name, size in SIZES.items()]
    strokes = [f".{name}{{stroke-width:{width:g}}}" for name, width in STROKES.items()]
    return "".join(
        [
            "polyline{fill:none;stroke-linejoin:round}",
            *strokes,
            ".dashes{stroke-dasharray:5 4}.mark{stroke-dasharray:2 3}",
            ".grid{stroke:var(--grid)}.axis,.mark{stroke:var(--muted)}",
            *sizes,
            "svg text{fill:var(--muted)}svg .title{fill:var(--ink);font-weight:600}",
            "svg .tiny,svg .large{fill:var(--ink)}",
            "svg .over,svg .large-over{fill:var(--paper)}",
            "svg .halo{fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:3px}",
            ".h{fill:transparent}",
            *colours,
        ]
    )


def svg(chart: Chart) -> str:
    """An svg element for a page with that style sheet; every text in it is escaped."""
    body = "".join(_element(shape) for shape in chart.shapes)
    return (
        f'<svg viewBox="0 0 {chart.width:g} {chart.height:g}" role="img" aria-label="{escape(chart.title)}">'
        f"{body}</svg>"
    )


def _element(shape: Shape) -> str:
    match shape:
        case Path(style, points, colour):
            of = f" c{colour}" if colour >= 0 else ""
            return f'<polyline class="{style}{of}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
        case Box(x, y, width, height, colour, opacity, tip):
            faint = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
            place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
            return _with_tip("rect", f'class="f{colour}" {place}{faint}', tip)
        case Dot(x, y, colour, radius, opacity, tip):
            faint = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
            fill, size = (f"f{colour}", radius) if radius else ("h", 6.0)
            return _with_tip("circle", f'class="{fill}" cx="{x:.1f}" cy="{y:.1f}" r="{size:g}"{faint}', tip)
        case Words(style, x, y, text, anchor):
            at = "" if anchor == "start" else f' text-anchor="{anchor}"'
            return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}"{at}>{escape(text)}</text>'


def _with_tip(tag: str, attributes: str, tip: str) -> str:
    if not tip:
        return f"<{tag} {attributes}/>"
    return f"<{tag} {attributes}><title>{escape(tip)}</title></{tag}>"


def png(chart: Chart) -> bytes:
    """A PNG file in the light colours, with the title above."""
    shapes = [
        Words("title", MARGIN, 20, cut(chart.title, chart.width, "title")),
        *(_moved(shape, MARGIN, TITLE_HEIGHT) for shape in chart.shapes),
    ]
    scale = SCALE * FINER
    size = (chart.width + 2 * MARGIN, chart.height + TITLE_HEIGHT + MARGIN)
    page = Image.new("RGB", (round(size[0] * scale), round(size[1] * scale)), PAPER[0])
    pen = ImageDraw.Draw(page, "RGBA")  # which lays colours that are not opaque over what is there
    fonts = {name: ImageFont.load_default(letters * scale) for name, letters in SIZES.items()}
    for shape in shapes:
        _paint(pen, shape, scale, fonts)
    content = io.BytesIO()
    page.reduce(FINER).save(content, "PNG", compress_level=6, dpi=(96 * SCALE, 96 * SCALE))
    return content.getvalue()


def _moved(shape: Shape, right: float, down: float) -> Shape:
    if isinstance(shape, Path):
        return replace(shape, points=tuple((x + right, y + down) for x, y in shape.points))
    return replace(shape, x=shape.x + right, y=shape.y + down)


def _paint(
    pen: ImageDraw.ImageDraw,
    shape: Shape,
    scale: int,
    fonts: dict[str, ImageFont.FreeTypeFont | ImageFont.ImageFont],
) -> None:
    match shape:
        case Path(style, points, colour):
            stroke = PALETTE[colour][0] if colour >= 0 else {"grid": GRID}.get(style, MUTED)[0]
            scaled = [(x * scale, y * scale) for x, y in points]
            lengths = {"dashes": (5, 4), "mark": (2, 3)}.get(style)
            pieces: Iterable[Sequence[Point]] = [scaled]
            if lengths is not None:
                pieces = dashed(scaled, lengths[0] * scale, lengths[1] * scale)
            for piece in pieces:
                pen.line(list(piece), stroke, round(STROKES[style] * scale), joint="curve")
        case Box(x, y, width, height, colour, opacity):
            corner = ((x + width) * scale - 1, (y + height) * scale - 1)
            if width > 0 and height > 0:
                low = (x * scale, y * scale)
                pen.rectangle((*low, max(low[0], corner[0]), max(low[1], corner[1])), _filled(colour, opacity))
        case Dot(x, y, colour, radius, opacity) if radius:
            pen.circle((x * scale, y * scale), radius * scale, _filled(colour, opacity))
        case Words(style, x, y, text, anchor):
            ink = {"small": MUTED, "over": PAPER, "large-over": PAPER}.get(style, INK)[0]
            bold, around = (1, ink) if style == "title" else (2 * scale, PAPER[0]) if style == "halo" else (0, ink)
            at = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
            pen.text(
                (x * scale, y * scale), plain(text), ink, fonts[style], at, stroke_width=bold, stroke_fill=around
            )


def _filled(colour: int, opacity: float) -> tuple[int, int, int, int]:
    red, green, blue = ImageColor.getrgb(PALETTE[colour][0])[:3]
    return red, green, blue, round(255 * opacity)
