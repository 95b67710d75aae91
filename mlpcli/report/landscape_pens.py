"""What a loss surface is drawn with: lines, layers, marks and words; as an SVG with two themes, or as a PNG."""

import io
from collections.abc import Iterator, Sequence
from html import escape
from typing import Protocol

from PIL import Image, ImageChops, ImageDraw, ImageFont

from mlpcli.letters import plain
from mlpcli.plots import COLOURS, FONT, INK, MUTED, PAPER, Point, dashed

SIZES = {"heading": 15.0, "small": 11.5, "label": 11.0, "name": 13.0}
"""Of the letters."""
LETTER = 0.56
"""Width of a letter, as a share of its size, on average."""
SHADE, CONTOUR, SEAM = 0.075, 0.35, 0.8
"""Opacity of a layer, of a contour, and of the paper around a path."""
WIDTHS = {"contour": 1.0, "frame": 1.0, "path": 2.4, "seam": 5.0, "ring": 2.4, "disc": 1.2, "halo": 4.0}
"""Of lines and outlines."""
DASH, GAP = 7.0, 6.0
SCALE, FINER = 2, 2
"""A PNG has SCALE pixels for one, and is drawn FINER times as large and then reduced, which smooths its lines."""


def cut(text: str, width: float, style: str) -> str:
    """A text that fits a width; of a longer one the middle is left out."""
    text = "".join(letter if letter.isprintable() else "�" for letter in " ".join(text.split()))
    letters = max(5, int(width / (LETTER * SIZES[style])))
    if len(text) <= letters:
        return text
    end = letters // 2
    return f"{text[: letters - end - 1]}…{text[-end:]}"


class Pen(Protocol):
    """What a picture is drawn with; `colour` is which of COLOURS, −1 for ink."""

    def shade(self, loops: Sequence[Sequence[Point]]) -> None:
        """A layer over what is inside an odd number of loops."""

    def contour(self, points: Sequence[Point]) -> None:
        """A thin line."""

    def frame(self, points: Sequence[Point]) -> None:
        """An axis or a tick."""

    def path(self, points: Sequence[Point], colour: int, broken: bool) -> None:
        """A thick line with a seam of paper around it."""

    def mark(self, x: float, y: float, radius: float, colour: int, hollow: bool = False) -> None:
        """A disc with a seam, or a ring."""

    def words(self, style: str, x: float, y: float, text: str, anchor: str = "start", colour: int = -1) -> None:
        """A text; y is its base line; `label` and `name` have a seam."""

    def content(self) -> bytes:
        """The file."""
        ...


class Svg:
    """As an SVG file.

    Args:
        size: width and height in pixels.
        label: what a reader who does not see it hears.
    """

    def __init__(self, size: Point, label: str) -> None:
        self.size, self.label = size, label
        self.parts: list[str] = []

    def shade(self, loops: Sequence[Sequence[Point]]) -> None:
        """A layer over what is inside an odd number of loops."""
        outline = " ".join(f"M{_pairs(loop)}Z" for loop in loops)
        self.parts.append(f'<path class="shade" d="{outline}"/>')

    def contour(self, points: Sequence[Point]) -> None:
        """A thin line."""
        self.parts.append(f'<polyline class="contour" points="{_pairs(points)}"/>')

    def frame(self, points: Sequence[Point]) -> None:
        """An axis or a tick."""
        self.parts.append(f'<polyline class="frame" points="{_pairs(points)}"/>')

    def path(self, points: Sequence[Point], colour: int, broken: bool) -> None:
        """A thick line with a seam of paper around it."""
        pairs, dashes = _pairs(points), " dashed" if broken else ""
        self.parts.append(f'<polyline class="seam" points="{pairs}"/>')
        self.parts.append(f'<polyline class="path c{colour}{dashes}" points="{pairs}"/>')

    def mark(self, x: float, y: float, radius: float, colour: int, hollow: bool = False) -> None:
        """A disc with a seam, or a ring."""
        kind = f"ring {_class('c', colour)}" if hollow else f"disc {_class('d', colour)}"
        self.parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>')

    def words(self, style: str, x: float, y: float, text: str, anchor: str = "start", colour: int = -1) -> None:
        """A text; y is its base line; `label` and `name` have a seam."""
        filled = "" if colour < 0 else f" d{colour}"
        self.parts.append(
            f'<text class="{style}{filled}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def content(self) -> bytes:
        """The file."""
        width, height = f"{self.size[0]:g}", f"{self.size[1]:.0f}"
        body = "\n".join(self.parts)
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
            f'height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(self.label)}">\n'
            f'<style>\n{_style_sheet()}\n</style>\n<rect class="paper" width="100%" height="100%"/>\n{body}\n'
            "</svg>\n"
        )
        return text.encode()


def _pairs(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _class(letter: str, colour: int) -> str:
    return f"{letter}{colour}" if colour >= 0 else f"{letter}ink"


def _style_sheet() -> str:
    def rules(theme: int) -> Iterator[str]:
        yield f".paper {{ fill: {PAPER[theme]} }} .seam {{ stroke: {PAPER[theme]} }} "
        yield f".ring {{ fill: {PAPER[theme]} }} .disc, .label, .name {{ stroke: {PAPER[theme]} }}"
        yield f".shade, .heading, .label, .dink {{ fill: {INK[theme]} }}"
        yield f".contour, .cink {{ stroke: {INK[theme]} }}"
        yield f".frame {{ stroke: {MUTED[theme]} }} .small {{ fill: {MUTED[theme]} }}"
        for index, pair in enumerate(COLOURS):
            yield f".c{index} {{ stroke: {pair[theme]} }} .d{index} {{ fill: {pair[theme]} }}"

    return "\n".join(
        [
            f"text {{ font-family: {FONT} }} .heading, .name {{ font-weight: 600 }}",
            *(f".{name} {{ font-size: {size:g}px }}" for name, size in SIZES.items()),
            "polyline { fill: none; stroke-linejoin: round; stroke-linecap: round }",
            *(f".{name} {{ stroke-width: {width:g} }}" for name, width in WIDTHS.items() if name != "halo"),
            f".shade {{ fill-opacity: {SHADE}; fill-rule: evenodd }} .contour {{ stroke-opacity: {CONTOUR} }}",
            f".seam {{ stroke-opacity: {SEAM} }} .dashed {{ stroke-dasharray: {DASH:g} {GAP:g} }}",
            f".label, .name {{ paint-order: stroke; stroke-width: {WIDTHS['halo']:g}px; stroke-linejoin: round }}",
            *rules(0),
            "@media screen and (prefers-color-scheme: dark) {",
            *rules(1),
            "}",
        ]
    )


class Png:
    """As a PNG file in the light colours.

    Args:
        size: width and height in pixels.
    """

    def __init__(self, size: Point) -> None:
        self.scale = SCALE * FINER
        self.page = Image.new("RGB", (round(size[0]) * self.scale, round(size[1]) * self.scale), PAPER[0])
        self.pen = ImageDraw.Draw(self.page)
        self.fonts = {name: ImageFont.load_default(size * self.scale) for name, size in SIZES.items()}

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.scale, y * self.scale) for x, y in points]

    def _through(self, mask: Image.Image, colour: str, opacity: float) -> None:
        """Paint where a mask of one bit is on."""
        box = mask.getbbox()  # mixing colours takes long, so only where there is something
        if box is not None:
            on = round(255 * opacity)
            part = mask.crop(box).convert("L").point([on if value else 0 for value in range(256)])
            self.page.paste(colour, box, part)

    def _line(self, points: Sequence[Point], colour: str, width: float, opacity: float = 1.0) -> None:
        thick = max(1, round(width * self.scale))
        if opacity == 1:
            self.pen.line(self._scaled(points), colour, thick, joint="curve")
            return
        mask = Image.new("1", self.page.size)
        ImageDraw.Draw(mask).line(self._scaled(points), 1, thick, joint="curve")
        self._through(mask, colour, opacity)

    def shade(self, loops: Sequence[Sequence[Point]]) -> None:
        """A layer over what is inside an odd number of loops."""
        inside = Image.new("1", self.page.size)
        for loop in loops:
            one = Image.new("1", self.page.size)
            ImageDraw.Draw(one).polygon(self._scaled(loop), fill=1)
            inside = ImageChops.logical_xor(inside, one)
        self._through(inside, INK[0], SHADE)

    def contour(self, points: Sequence[Point]) -> None:
        """A thin line."""
        self._line(points, INK[0], WIDTHS["contour"], CONTOUR)

    def frame(self, points: Sequence[Point]) -> None:
        """An axis or a tick."""
        self._line(points, MUTED[0], WIDTHS["frame"])

    def path(self, points: Sequence[Point], colour: int, broken: bool) -> None:
        """A thick line with a seam of paper around it."""
        self._line(points, PAPER[0], WIDTHS["seam"], SEAM)
        for piece in dashed(points, DASH, GAP) if broken else [points]:
            self._line(piece, _light(colour), WIDTHS["path"])

    def mark(self, x: float, y: float, radius: float, colour: int, hollow: bool = False) -> None:
        """A disc with a seam, or a ring."""
        width = WIDTHS["ring" if hollow else "disc"] / 2
        outer, inner = (_light(colour), PAPER[0]) if hollow else (PAPER[0], _light(colour))
        self.pen.circle((x * self.scale, y * self.scale), (radius + width) * self.scale, outer)
        self.pen.circle((x * self.scale, y * self.scale), (radius - width) * self.scale, inner)

    def words(self, style: str, x: float, y: float, text: str, anchor: str = "start", colour: int = -1) -> None:
        """A text; y is its base line; `label` and `name` have a seam."""
        ink = MUTED[0] if style == "small" else _light(colour)
        at = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
        place, font = (x * self.scale, y * self.scale), self.fonts[style]
        if style in ("label", "name"):
            halo = round(WIDTHS["halo"] / 2 * self.scale)
            self.pen.text(place, plain(text), PAPER[0], font, at, stroke_width=halo, stroke_fill=PAPER[0])
        bold = 1 if style in ("heading", "name") else 0
        self.pen.text(place, plain(text), ink, font, at, stroke_width=bold, stroke_fill=ink)

    def content(self) -> bytes:
        """The file."""
        content = io.BytesIO()
        dots = (96 * SCALE, 96 * SCALE)
        self.page.reduce(FINER).save(content, "PNG", compress_level=6, dpi=dots)
        return content.getvalue()


def _light(colour: int) -> str:
    return COLOURS[colour][0] if colour >= 0 else INK[0]
