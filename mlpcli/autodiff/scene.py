"""A diagram as a scene: shapes and texts with places and styles, which painting.py writes as SVG or PNG."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mlpcli.autodiff.diagram import Box, Diagram, Link
from mlpcli.autodiff.layout import Layout, Point, Rectangle, curve, place

MARGIN = 20.0
"""Around the picture, in pixels."""
LETTER = 0.602
"""Width of a letter of a monospaced font, by its size; sans-serif text takes less."""
TITLE, SMALL, HEADING = 13.0, 12.0, 15.0
"""Sizes of the letters."""
PADDING, TITLE_HEIGHT, ROW_HEIGHT, LABEL_HEIGHT, LINE_HEIGHT = 12.0, 27.0, 17.0, 18.0, 20.0
NARROWEST_BOX, NARROWEST_PAGE = 126.0, 460.0
LONGEST_NAME, LONGEST_OPERATION = 14, 20
"""Letters of what stands before and after the = in a box; the rest becomes …"""


@dataclass(frozen=True)
class Style:
    """How a shape or a text looks: colours as (light, dark); `size` is for texts."""

    fill: tuple[str, str] | None = None
    stroke: tuple[str, str] | None = None
    width: float = 1.0
    size: float = 0.0
    mono: bool = False
    bold: bool = False


PAPER, INK, MUTED = ("#ffffff", "#15181d"), ("#1b1f24", "#e8eaed"), ("#5b6470", "#a0a8b3")
BLUE, ORANGE, GREEN = ("#0b5cbf", "#74b4ff"), ("#b8400a", "#ff9d66"), ("#0a7358", "#4fd6ad")

STYLES: dict[str, Style] = {
    "paper": Style(fill=PAPER),
    "box input": Style(fill=("#e8f1fc", "#16273d"), stroke=BLUE, width=1.5),
    "box constant": Style(fill=("#eceef1", "#2a2f37"), stroke=("#eceef1", "#2a2f37")),
    "box inner": Style(fill=PAPER, stroke=("#8a929d", "#7d8590"), width=1.2),
    "box leaf": Style(fill=("#fdf3ea", "#33231a"), stroke=INK, width=2.6),
    "rule": Style(stroke=("#d5d9de", "#3a414b")),
    "formula": Style(fill=INK, size=TITLE, mono=True, bold=True),
    "word": Style(fill=MUTED, size=SMALL),
    "value": Style(fill=BLUE, size=SMALL, mono=True, bold=True),
    "adjoint": Style(fill=ORANGE, size=SMALL, mono=True, bold=True),
    "tangent": Style(fill=GREEN, size=SMALL, mono=True, bold=True),
    "line": Style(stroke=("#8a929d", "#7d8590"), width=1.4),
    "head": Style(fill=("#8a929d", "#7d8590")),
    "halo": Style(fill=PAPER),
    "local": Style(fill=INK, size=SMALL, mono=True),
    "heading": Style(fill=INK, size=HEADING, bold=True),
    "legend": Style(fill=MUTED, size=SMALL),
}
"""Every style. Blue is what the forward pass computes, orange what the backward pass does, green the tangents."""


@dataclass(frozen=True)
class Block:
    """A rectangle with rounded corners."""

    style: str
    place: Rectangle
    corner: float = 0.0


@dataclass(frozen=True)
class Text:
    """One line of text: x of its start, middle or end, and y of its base line."""

    style: str
    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"] = "start"


@dataclass(frozen=True)
class Curve:
    """A line without a filling: its first point, then (control, control, end) of each cubic piece."""

    style: str
    start: Point
    pieces: tuple[tuple[Point, Point, Point], ...]


@dataclass(frozen=True)
class Polygon:
    """A filled polygon."""

    style: str
    points: tuple[Point, ...]


Shape = Block | Text | Curve | Polygon


@dataclass(frozen=True)
class Group:
    """Shapes that belong together: a node or an edge (with its number in the diagram), or neither.

    `details` is for whoever points at it; `ends` are an edge's parent and child.
    """

    kind: Literal["node", "edge", ""]
    index: int
    shapes: tuple[Shape, ...]
    details: str = ""
    ends: tuple[int, int] | None = None


@dataclass(frozen=True)
class Scene:
    """A picture: its size in pixels, and what is drawn, the undermost first."""

    width: float
    height: float
    groups: tuple[Group, ...]


def scene(diagram: Diagram) -> Scene:
    """Gives everything in a diagram its place: heading, graph, legend, notes, from top to bottom."""
    layout = place(
        [_size(box) for box in diagram.boxes],
        [(link.parent, link.child) for link in diagram.links],
        [(len(link.label) * LETTER * SMALL + 6, LABEL_HEIGHT) for link in diagram.links],
    )
    width = max(layout.width, NARROWEST_PAGE) + 2 * MARGIN
    top = MARGIN + HEADING + MARGIN
    moved = _moved(layout, (width - layout.width) / 2, top)
    groups = [
        Group("", 0, (Text("heading", MARGIN, MARGIN + HEADING, _fitting(diagram.heading, HEADING, width)),)),
        # All lines lie below all labels and boxes.
        *(_edge(index, link, moved) for index, link in enumerate(diagram.links)),
        *(_node(index, box, moved.boxes[index]) for index, box in enumerate(diagram.boxes)),
    ]
    bottom = top + layout.height + MARGIN
    legend, bottom = _legend(diagram, width, bottom)
    return Scene(width, bottom + MARGIN, (*groups, Group("", 0, legend)))


def _size(box: Box) -> tuple[float, float]:
    words = max((_sans(row.word, SMALL) + 14 + len(row.text) * LETTER * SMALL for row in box.rows), default=0.0)
    title = len(shortened(box.formula)) * LETTER * TITLE
    width = max(title, words, NARROWEST_BOX - 2 * PADDING) + 2 * PADDING
    return width, TITLE_HEIGHT + (len(box.rows) * ROW_HEIGHT + 8 if box.rows else 0)


def _sans(text: str, size: float) -> float:
    """A width that no usual sans-serif font exceeds by much."""
    return len(text) * 0.56 * size


def _fitting(text: str, size: float, width: float) -> str:
    return cut(text, int((width - 2 * MARGIN) / (0.56 * size)))


def cut(text: str, letters: int) -> str:
    """`text`, or its beginning and … where it has more letters than that."""
    return text if len(text) <= letters else text[: max(0, letters - 1)].rstrip() + "…"


def shortened(formula: str) -> str:
    """`name = operation` of a length that fits a box."""
    if len(formula) <= LONGEST_NAME + LONGEST_OPERATION:
        return formula
    name, equals, operation = formula.partition(" = ")
    return cut(name, LONGEST_NAME if equals else LONGEST_OPERATION) + equals + cut(operation, LONGEST_OPERATION)


def _moved(layout: Layout, x: float, y: float) -> Layout:
    def rectangles(found: list[Rectangle]) -> list[Rectangle]:
        return [Rectangle(each.x + x, each.y + y, each.width, each.height) for each in found]

    lines = [[(at + x, height + y) for at, height in line] for line in layout.lines]
    boxes, labels = rectangles(layout.boxes), rectangles(layout.labels)
    return Layout(layout.layers, boxes, labels, lines, layout.width, layout.height)


def _node(index: int, box: Box, place: Rectangle) -> Group:
    corner = {"input": TITLE_HEIGHT / 2, "constant": 3.0, "inner": 5.0, "leaf": 5.0}[box.kind]
    title = Text("formula", place.x, place.top + 18, shortened(box.formula), "middle")
    shapes: list[Shape] = [Block(f"box {box.kind}", place, corner), title]
    if box.rows:
        y = place.top + TITLE_HEIGHT
        shapes.append(Curve("rule", (place.left + 8, y), (_straight((place.left + 8, y), (place.right - 8, y)),)))
    for number, row in enumerate(box.rows):
        base = place.top + TITLE_HEIGHT + 4 + ROW_HEIGHT * (number + 0.72)
        shapes.append(Text("word", place.left + PADDING, base, row.word))
        shapes.append(Text(row.role, place.right - PADDING, base, row.text, "end"))
    return Group("node", index, tuple(shapes), box.details)


def _straight(start: Point, end: Point) -> tuple[Point, Point, Point]:
    return start, end, end


def _edge(index: int, link: Link, layout: Layout) -> Group:
    *line, (x, y) = layout.lines[index]
    line.append((x, y - 6))  # the head covers the rest
    label = layout.labels[index]
    head = ((x, y), (x - 4, y - 8), (x + 4, y - 8))
    halo = Rectangle(label.x, label.y, label.width, label.height - 2)
    shapes = (
        Curve("line", line[0], tuple(curve(line))),
        Polygon("head", head),
        Block("halo", halo, 3.0),
        Text("local", label.x, label.y + 4.2, link.label, "middle"),
    )
    return Group("edge", index, shapes, link.details, (link.parent, link.child))


def _legend(diagram: Diagram, width: float, top: float) -> tuple[tuple[Shape, ...], float]:
    """The legend's entries side by side as far as they fit, the notes below, and where they end."""
    shapes: list[Shape] = []
    x, y = MARGIN, top
    for key, words in diagram.legend:
        swatch = 26.0 if key in ("input", "constant", "inner", "leaf") else 34.0
        length = swatch + 8 + _sans(words, SMALL) + 18
        if x > MARGIN and x + length - 18 > width - MARGIN:
            x, y = MARGIN, y + LINE_HEIGHT
        if key in ("input", "constant", "inner", "leaf"):
            corner = 7.0 if key == "input" else 3.0
            shapes.append(Block(f"box {key}", Rectangle(x + swatch / 2, y + 6, swatch - 2, 14), corner))
        else:
            shapes.append(Text(key, x + swatch, y + 10.5, "1.23", "end"))
        shapes.append(Text("legend", x + swatch + 8, y + 10.5, words))
        x += length
    y += LINE_HEIGHT
    for line in _wrapped(diagram.notes, width):
        shapes.append(Text("legend", MARGIN, y + 10.5, line))
        y += LINE_HEIGHT
    return tuple(shapes), y - LINE_HEIGHT + 14


def _wrapped(notes: tuple[str, ...], width: float) -> Iterator[str]:
    letters = int((width - 2 * MARGIN) / (0.56 * SMALL))
    for note in notes:
        yield from textwrap.wrap(cut(note, 3 * letters), letters)
