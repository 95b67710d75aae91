"""Where everything of a picture of a plane stands, and how thick its lines are; in pixels, for every format."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mlpcli.axes import MOST_TICKS, MOST_WIDE_TICKS, linear_number, linear_ticks
from mlpcli.plots import SIZES, Words
from mlpcli.regions.colours import hexadecimal, layer_colours
from mlpcli.regions.picture_raster import middles
from mlpcli.regions.piecewise import Floats
from mlpcli.regions.view import MARK_FILLS, View

SIDE = 580.0
"""Of the longer side of the plane."""
SLIMMEST = 1 / 6
"""The shorter side of the plane, as a share of the longer; a slimmer window is stretched."""
TOP, BOTTOM, GAP, LEGEND, EDGE = 88.0, 52.0, 24.0, 212.0, 16.0
"""Above and below the plane, between it and the legend, the width of the legend, and around everything."""
NARROWEST_PAGE = 560.0
ROW, CHIP = 21.0, 28.0
"""Height of a row of the legend, and width of what stands before its text."""
LETTER, BOLD_LETTER = 0.55, 0.58
"""Width of a letter on average, as a share of its size; of a bold one."""
MOST_ROWS = 8
"""Of hidden layers in the legend; more of them share rows."""
INK, DECISION_INK = 0.24, 0.12
"""The share of the plane that the boundaries of all layers may cover; and the decision boundary, cased."""
MOST_SHARE = 0.1
"""The share that one layer may cover."""
FIRST_WIDTH, THINNER, LAST_WIDTH, LEAST_WIDTH = 1.7, 0.72, 0.8, 0.25
"""Widths of the lines of the first layer, of each next one relative to the one before it, of the last at least;
and of the finest line, which becomes paler where it had to be still finer."""
DECISION_WIDTH, CASING = 2.6, 2.2
"""Of the decision boundary and of the casing, relative to it."""
MARK = 4.5
"""Radius of a sample."""
MOST_LETTERS = 28
"""Of the label of a sample."""
BADGE, LEAST_ROOM = 19.0, 17.0
"""Height of the name of a class in its decision region, and how far it must be from there to the boundary."""
WIDEST_BADGE, MOST_BADGES = 150.0, 40

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Stroke:
    """Width in pixels, and opacity from 0 to 1."""

    width: float
    opacity: float


@dataclass(frozen=True)
class Row:
    """Of the legend.

    Attributes:
        kind: of what stands before the text.
        colours: of the lines, or of the fills.
        stroke: of the lines.
        x, y: of the left end of the base line of the text.
    """

    kind: str
    colours: tuple[str, ...]
    stroke: Stroke
    x: float
    y: float


@dataclass(frozen=True)
class Label:
    """A sample in pixels; without a text where there is no place for it."""

    x: float
    y: float
    words: Words | None
    fill: str


@dataclass(frozen=True)
class Badge:
    """The name of a class in a decision region, in pixels: the box around it, and its text."""

    output: int
    box: Box
    words: Words


@dataclass(frozen=True, eq=False)
class Layout:
    """Of one view.

    Attributes:
        view: what is drawn.
        size: width and height of the page.
        plane: left, top, width and height of the plane.
        ticks: short lines outside of the plane.
        words: all texts but those of the samples.
        layers: of the boundaries that each hidden layer makes.
        colours: theirs.
        decision: of the decision boundary, without its casing.
        rows: of the legend.
        badges: of the decision regions that have room for one.
        labels: the samples inside the window.
    """

    view: View
    size: tuple[float, float]
    plane: Box
    ticks: list[Box]
    words: list[Words]
    layers: list[Stroke]
    colours: list[str]
    decision: Stroke
    rows: list[Row]
    badges: list[Badge]
    labels: list[Label]

    def pixels(self, points: Floats) -> Floats:
        """(..., 2) in the plane's coordinates -> (..., 2) from the left and from the top of the page."""
        return _pixels(points, self.view.window, self.plane)

    def edges(self, layer: int) -> Floats:
        """(n, 2, 2): from and to, in pixels, of the boundaries that a hidden layer makes."""
        return self.pixels(_edges(self.view, layer))


def layout(view: View, side: float = SIDE, caption: str = "") -> Layout:
    """Place everything.

    Args:
        view: what is drawn.
        side: pixels of the longer side of the plane.
        caption: a line instead of the numbers of regions; those if empty.
    """
    low_x, low_y, high_x, high_y = view.window
    wide, high = high_x - low_x, high_y - low_y
    width = side * min(1.0, max(wide / high, SLIMMEST))
    height = side * min(1.0, max(high / wide, SLIMMEST))
    x_ticks = _ticks(low_x, high_x, width, 1.0)
    y_ticks = linear_ticks(low_y, high_y, max(2, min(MOST_TICKS, int(height / 24))))
    y_texts = [linear_number(tick) for tick in y_ticks]
    left = EDGE + 12 + max((text_width(text) for text in y_texts), default=0.0)
    plane = (left, TOP, width, height)
    page = max(left + width + GAP + LEGEND, NARROWEST_PAGE)

    words = [
        Words("heading", EDGE, 28, cut(view.title, page - 2 * EDGE, SIZES["heading"], BOLD_LETTER)),
        Words("title", EDGE, 50, cut(caption or numbers(view), page - 2 * EDGE, SIZES["title"], BOLD_LETTER)),
        Words("small", EDGE, TOP - 12, cut(view.y_label, page - 2 * EDGE)),
    ]
    x_label = cut(view.x_label, page - 2 * EDGE)
    half = text_width(x_label) / 2
    middle = min(max(left + width / 2, EDGE + half), page - EDGE - half)
    words.append(Words("small", middle, TOP + height + 40, x_label, "middle"))
    ticks: list[Box] = []
    for tick in x_ticks:
        x = left + (tick - low_x) / wide * width
        ticks.append((x, TOP + height, x, TOP + height + 5))
        words.append(Words("small", x, TOP + height + 19, linear_number(tick), "middle"))
    for tick, text in zip(y_ticks, y_texts, strict=True):
        y = TOP + (high_y - tick) / high * height
        ticks.append((left - 5, y, left, y))
        words.append(Words("small", left - 9, y + 4, text, "end"))

    layers = _strokes(view, plane)
    colours = [hexadecimal(colour) for colour in layer_colours(len(view.network.hidden))]
    decision = _decision_stroke(view, plane)
    badges = list(_badges(view, plane))
    rows, texts = _legend(view, layers, colours, decision, left + width + GAP, bool(badges))
    words += texts
    bottom = max([TOP + height + BOTTOM, *(row.y + EDGE for row in rows)])
    labels = list(_labels(view, plane, [badge.box for badge in badges]))
    return Layout(view, (page, bottom), plane, ticks, words, layers, colours, decision, rows, badges, labels)


def numbers(view: View) -> str:
    """How many regions there are, on one line."""
    parts = [
        _count(len(view.cells), "activation region"),
        _count(int(view.regions.max()) + 1, "affine region"),
    ]
    if view.decision is not None:
        parts.append(_count(view.decision.regions, "decision region"))
    return " · ".join(parts)


def text_width(text: str) -> float:
    """About how many pixels it takes in small letters."""
    return LETTER * SIZES["small"] * len(text)


def cut(text: str, width: float, size: float = SIZES["small"], letter: float = LETTER) -> str:
    """`text` on one line, or its beginning and … where that is too wide."""
    text = " ".join(text.split())
    letters = max(1, int(width / (letter * size)))
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _pixels(points: Floats, window: Box, plane: Box) -> Floats:
    low_x, low_y, high_x, high_y = window
    left, top, width, height = plane
    x = left + (points[..., 0] - low_x) / (high_x - low_x) * width
    y = top + (high_y - points[..., 1]) / (high_y - low_y) * height
    return np.stack((x, y), axis=-1)


def _edges(view: View, layer: int) -> Floats:
    made = np.flatnonzero(view.layers == layer)
    cells = view.cells
    return np.stack((cells.points[cells.starts[made]], cells.points[cells.ends[made]]), axis=1)


def _ticks(low: float, high: float, width: float, room: float) -> list[float]:
    """As many as have their numbers beside each other."""
    for most in range(MOST_WIDE_TICKS, 2, -1):
        ticks = linear_ticks(low, high, most)
        widest = max((text_width(linear_number(tick)) for tick in ticks), default=0.0)
        if len(ticks) * (widest + room * 14) <= width + widest:
            return ticks
    return linear_ticks(low, high, 2)


# --- lines --------------------------------------------------------------------------------------------------


def _strokes(view: View, plane: Box) -> list[Stroke]:
    """Of each layer: later ones are thinner, and no layer covers more than its share of the plane."""
    layers = len(view.network.hidden)
    strokes: list[Stroke] = []
    for layer in range(layers):
        width = max(FIRST_WIDTH * THINNER**layer, LAST_WIDTH)
        if strokes:
            width = min(width, strokes[-1].width)
        segments = _pixels(_edges(view, layer), view.window, plane)
        strokes.append(_thin_enough(segments, width, min(MOST_SHARE, INK / layers), plane))
    return strokes


def _decision_stroke(view: View, plane: Box) -> Stroke:
    if view.decision is None:
        return Stroke(DECISION_WIDTH, 1.0)
    segments = _pixels(view.decision.boundary, view.window, plane)
    stroke = _thin_enough(segments, DECISION_WIDTH, DECISION_INK / CASING, plane)
    return Stroke(max(stroke.width, 2 * LEAST_WIDTH), 1.0)


def _thin_enough(segments: Floats, width: float, share: float, plane: Box) -> Stroke:
    """At most that wide, and covering at most that share of the plane."""
    along = segments[:, 1] - segments[:, 0]
    length = float(np.hypot(along[:, 0], along[:, 1]).sum())
    width = min(width, share * plane[2] * plane[3] / max(length, 1.0))
    return Stroke(max(width, LEAST_WIDTH), min(1.0, width / LEAST_WIDTH))


# --- legend -------------------------------------------------------------------------------------------------


def _legend(
    view: View, layers: Sequence[Stroke], colours: Sequence[str], decision: Stroke, x: float, named: bool
) -> tuple[list[Row], list[Words]]:
    rows: list[Row] = []
    words: list[Words] = []
    y = TOP + 11

    def add(kind: str, text: str, colours: tuple[str, ...] = (), stroke: Stroke = Stroke(1.0, 1.0)) -> None:
        nonlocal y
        rows.append(Row(kind, colours, stroke, x, y))
        words.append(Words("small", x + CHIP + 9, y, cut(text, LEGEND - CHIP - 9 - EDGE / 2)))
        y += ROW

    if layers:
        words.append(Words("title", x, y, "Neurons that cut here"))
        y += ROW
    starts = np.cumsum([0, *view.network.hidden])
    cutting = np.unique(view.cells.makers[view.cells.makers >= 0])
    for first, last in _groups(len(layers)):
        of_group = int(np.searchsorted(cutting, starts[last]) - np.searchsorted(cutting, starts[first]))
        total = int(starts[last] - starts[first])
        name = f"layer {last}" if last - first == 1 else f"layers {first + 1}–{last}"
        # the chip shows how the lines look, which must be seen even where they are pale
        stroke = Stroke(max(layers[first].width, 0.8), 1.0)
        add("lines", f"{name}: {of_group:,} of {total:,}", tuple(dict.fromkeys(colours[first:last])), stroke)
    if layers:
        y += ROW / 2
    if view.decision is not None and len(view.decision.boundary):
        add("decision", "decision boundary", (), Stroke(max(decision.width, 1.4), 1.0))
    if named:
        add("class", "largest output")
    groups = sorted({mark.group for mark in view.marks})
    for group in groups:
        add("sample", f"sample of {view.outputs[group]}" if len(groups) > 1 else "sample", (MARK_FILLS[group],))
    add("fill", "colour: the gradient")
    return rows, words


def _groups(layers: int) -> Iterator[tuple[int, int]]:
    """Consecutive layers [first, last) that share a row."""
    count = min(layers, MOST_ROWS)
    bounds = [round(index * layers / max(count, 1)) for index in range(count + 1)]
    yield from pairwise(bounds)


# --- samples ------------------------------------------------------------------------------------------------


def _badges(view: View, plane: Box) -> Iterator[Badge]:
    if view.decision is None:
        return
    left, top, width, height = plane
    low_x, low_y, high_x, high_y = view.window
    shown = [(mark.x, mark.y) for mark in view.marks if low_x <= mark.x <= high_x and low_y <= mark.y <= high_y]
    samples = _pixels(np.array(shown).reshape(-1, 2), view.window, (0.0, 0.0, width, height))
    taken: list[Box] = []
    for output, x, y, room in middles(view, (width, height), samples, LEAST_ROOM):
        size = SIZES["title"]
        text = cut(view.outputs[output], min(max(2 * room, 60.0), WIDEST_BADGE), size, BOLD_LETTER)
        half = max(BADGE / 2, BOLD_LETTER * size * len(text) / 2 + 6)
        at_x = min(max(left + x, left + half + 3), left + width - half - 3)
        at_y = top + y
        box = (at_x - half, at_y - BADGE / 2, at_x + half, at_y + BADGE / 2)
        if text and 2 * half < width and not any(_meet(box, other) for other in taken):
            taken.append(box)
            yield Badge(output, box, Words("title", at_x, at_y + 0.36 * size, text, "middle"))
        if len(taken) == MOST_BADGES:
            return


def _labels(view: View, plane: Box, badges: list[Box]) -> Iterator[Label]:
    """Each sample in the window with its text where it meets neither the frame nor another text or sample."""
    left, top, width, height = plane
    low_x, low_y, high_x, high_y = view.window
    shown = [mark for mark in view.marks if low_x <= mark.x <= high_x and low_y <= mark.y <= high_y]
    places = _pixels(np.array([(mark.x, mark.y) for mark in shown]).reshape(-1, 2), view.window, plane)
    taken: list[Box] = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in places.tolist()] + badges
    size = SIZES["title"]
    for mark, (x, y) in zip(shown, places.tolist(), strict=True):
        text = cut(mark.text, MOST_LETTERS * LETTER * size, size)
        wide, away = BOLD_LETTER * size * len(text) + 4, MARK + 5
        words = None
        for anchor, right, down in _AROUND:
            at = x + right * away
            begin = at - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
            base = y + down * (away + size / 2) + 0.36 * size
            box = (begin - 2, base - size, begin + wide, base + 0.3 * size)
            inside = left + 2 <= box[0] and box[2] <= left + width - 2
            inside &= top + 2 <= box[1] and box[3] <= top + height - 2
            if text and inside and not any(_meet(box, other) for other in taken):
                words = Words("title", at, base, text, anchor)
                taken.append(box)
                break
        yield Label(x, y, words, mark.fill)


_AROUND = (
    ("start", 1.0, 0.0), ("end", -1.0, 0.0), ("middle", 0.0, -1.0), ("middle", 0.0, 1.0),
    ("start", 0.7, -0.7), ("start", 0.7, 0.7), ("end", -0.7, -0.7), ("end", -0.7, 0.7),
)  # fmt: skip
"""Where a text may stand: its anchor, and how far to the right of and below the sample."""


def _meet(one: Box, two: Box) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
