"""A scene as SVG text or as a PNG picture, with nothing but Pillow."""

import io
import math
from collections.abc import Iterator
from functools import cache
from html import escape

from PIL import Image, ImageDraw, ImageFont

from mlpcli.autodiff.layout import Point
from mlpcli.autodiff.scene import STYLES, Block, Curve, Group, Polygon, Scene, Shape, Style, Text
from mlpcli.errors import UsageError
from mlpcli.letters import plain

SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif'
MONO = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace'

SCALE = 2.0
"""Pixels of a PNG for each pixel of the scene, so that it is sharp on fine screens and on paper."""
MOST_PIXELS, LEAST_SCALE = 12_000_000, 0.7
"""Of a PNG; a larger picture is drawn at a smaller scale, down to what the eye can read."""
FINER = 2
"""A PNG is drawn this much larger and then reduced, which smooths its lines."""

# --- SVG ----------------------------------------------------------------------------------------------------


def style_sheet() -> str:
    """CSS for the classes that the shapes have: light, and dark where the reader's system is."""
    rules = [f"text {{ font-family: {SANS}; }}", *(_rule(name, style, 0) for name, style in STYLES.items())]
    dark = [_rule(name, style, 1, colours=True) for name, style in STYLES.items()]
    return "\n".join([*rules, "@media screen and (prefers-color-scheme: dark) {", *dark, "}"])


def _rule(name: str, style: Style, theme: int, colours: bool = False) -> str:
    parts = [f"fill: {style.fill[theme] if style.fill else 'none'}"]
    if style.stroke:
        parts.append(f"stroke: {style.stroke[theme]}")
    if not colours:
        if style.stroke:
            parts.append(f"stroke-width: {style.width:g}")
        if style.size:
            parts.append(f"font-size: {style.size:g}px")
        if style.mono:
            parts.append(f"font-family: {MONO}")
        if style.bold:
            parts.append("font-weight: 600")
    return f".graph .{name.replace(' ', '.')} {{ {'; '.join(parts)}; }}"


def svg(scene: Scene, label: str) -> str:
    """A whole SVG file.

    Args:
        scene: what is drawn.
        label: what a reader who does not see it hears.
    """
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return head + _element(
        scene, label, ' xmlns="http://www.w3.org/2000/svg"', f"<style>\n{style_sheet()}\n</style>\n"
    )


def inline_svg(scene: Scene, label: str) -> str:
    """The same as an element of an HTML page, which has `style_sheet()` in its own."""
    return _element(scene, label, "", "")


def _element(scene: Scene, label: str, attributes: str, inside: str) -> str:
    size = (
        f'width="{scene.width:.0f}" height="{scene.height:.0f}" viewBox="0 0 {scene.width:.0f} {scene.height:.0f}"'
    )
    body = "\n".join(_group(group) for group in scene.groups)
    return (
        f'<svg{attributes} class="graph" {size} role="img" aria-label="{escape(label)}">\n{inside}'
        f'<rect class="paper" width="100%" height="100%"/>\n{body}\n</svg>\n'
    )


def _group(group: Group) -> str:
    shapes = "".join(_shape(shape) for shape in group.shapes)
    if not group.kind:
        return f"<g>{shapes}</g>"
    details = f"<title>{escape(group.details)}</title>" if group.details else ""
    ends = f' data-parent="{group.ends[0]}" data-child="{group.ends[1]}"' if group.ends else ""
    return f'<g class="{group.kind}" id="{group.kind}-{group.index}"{ends}>{details}{shapes}</g>'


def _shape(shape: Shape) -> str:
    match shape:
        case Block(style, place, corner):
            return (
                f'<rect class="{style}" x="{place.left:.1f}" y="{place.top:.1f}" width="{place.width:.1f}" '
                f'height="{place.height:.1f}" rx="{corner:g}"/>'
            )
        case Text(style, x, y, text, anchor):
            end = "" if anchor == "start" else f' text-anchor="{anchor}"'
            return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}"{end}>{escape(text)}</text>'
        case Curve(style, start, pieces):
            path = " ".join("C " + " ".join(f"{x:.1f},{y:.1f}" for x, y in piece) for piece in pieces)
            return f'<path class="{style}" d="M {start[0]:.1f},{start[1]:.1f} {path}"/>'
        case Polygon(style, points):
            return f'<polygon class="{style}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


# --- PNG ----------------------------------------------------------------------------------------------------


def png(scene: Scene) -> bytes:
    """A PNG file in the light colours, `SCALE` pixels a pixel of the scene, or fewer for a large one.

    Raises:
        UsageError: nobody could read it.
    """
    scale = min(SCALE, math.sqrt(MOST_PIXELS / (scene.width * scene.height)))
    if scale < LEAST_SCALE:
        needed = f"{scene.width:,.0f} × {scene.height:,.0f} pixels"
        raise UsageError(f"a PNG of this graph cannot be read: it takes {needed}; choose .svg or .dot")
    size = (math.ceil(scene.width * scale), math.ceil(scene.height * scale))
    pen = _Pen(scale * FINER, (size[0] * FINER, size[1] * FINER))
    for group in scene.groups:
        for shape in group.shapes:
            pen.draw(shape)
    content = io.BytesIO()
    pen.page.reduce(FINER).save(content, "PNG", optimize=True, dpi=(96 * scale, 96 * scale))
    return content.getvalue()


class _Pen:
    """Draws shapes at a scale."""

    def __init__(self, scale: float, size: tuple[int, int]) -> None:
        self.scale = scale
        self.page = Image.new("RGB", size, _colour(STYLES["paper"].fill))
        self._draw = ImageDraw.Draw(self.page)

    def draw(self, shape: Shape) -> None:
        style = STYLES[shape.style]
        width = max(1, round(style.width * self.scale))
        match shape:
            case Block(_, place, corner):
                half = style.width / 2 if style.stroke else 0.0
                edges = (place.left - half, place.top - half, place.right + half, place.bottom + half)
                self._draw.rounded_rectangle(
                    [edge * self.scale for edge in edges],
                    (corner + half) * self.scale,
                    _colour(style.fill),
                    _colour(style.stroke) if style.stroke else None,
                    width if style.stroke else 0,
                )
            case Text(_, x, y, text, anchor):
                font = _font(round(style.size * self.scale))
                onto = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
                bold = round(0.02 * style.size * self.scale) if style.bold else 0
                colour = _colour(style.fill)
                at = (x * self.scale, y * self.scale)
                self._draw.text(at, plain(text), colour, font, onto, stroke_width=bold, stroke_fill=colour)
            case Curve(_, start, pieces):
                points = [(x * self.scale, y * self.scale) for x, y in _points(start, pieces)]
                self._draw.line(points, _colour(style.stroke), width, joint="curve")
            case Polygon(_, corners):
                self._draw.polygon([(x * self.scale, y * self.scale) for x, y in corners], _colour(style.fill))


def _points(start: Point, pieces: tuple[tuple[Point, Point, Point], ...]) -> Iterator[Point]:
    """Points along a curve, close enough to look like it."""
    yield start
    for one, two, end in pieces:
        for step in range(1, 25):
            t = step / 24
            parts = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            corners = (start, one, two, end)
            x, y = (sum(p * c[axis] for p, c in zip(parts, corners, strict=True)) for axis in (0, 1))
            yield x, y
        start = end


def _colour(pair: tuple[str, str] | None) -> str:
    assert pair is not None, "a shape without a colour"
    return pair[0]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
