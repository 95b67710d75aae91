"""Charts with two axes: curves over epochs, bars, points."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlpcli.axes import Axis, Categories, Scale, linear_number
from mlpcli.plots import Point
from mlpcli.report.drawing import LETTER, WIDTH, Box, Chart, Dot, Path, Shape, Words, cut

PLANE = 180.0
"""Height between the axes, in pixels."""
TOP, BOTTOM, RIGHT = 18.0, 38.0, 12.0
LEGEND_ROW = 16.0
MOST_X, MOST_Y = 6, 6
"""Ticks of a linear axis."""
MOST_POINTS = 400
"""Of a curve: one with more is drawn by the least and the largest value of as many groups of epochs."""
WITH_TIPS = 60
"""Points up to which each shows its numbers under the pointer."""
UNIT = (0.0, 0.5, 1.0)
"""What an axis of rates holds; of whole numbers alone, it would have no tick between them."""
DECADES = 1.5
"""A loss that spans more is drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Series:
    """A curve over epochs, with its name in the legend; values that are not finite leave a gap."""

    name: str
    epochs: Sequence[float]
    values: Sequence[float]
    colour: int


class Frame:
    """Axes with their grid, ticks and names, and where a value is on them.

    Args:
        x, y: the axes.
        x_name, y_name: with units.
        legend: (name, colour) of what is told apart by colour; −1 is a dotted line.
        height: of the plane.
    """

    def __init__(
        self,
        x: Axis | Categories,
        y: Axis,
        x_name: str,
        y_name: str,
        legend: Sequence[tuple[str, int]] = (),
        height: float = PLANE,
    ) -> None:
        ticks = y.ticks()
        self.x, self.y, self.plane = x, y, height
        self.left = max([24.0, *(LETTER["small"] * len(text) + 10 for _, text in ticks)])
        self.wide = WIDTH - self.left - RIGHT
        places, rows = _rows(legend)
        self.top = TOP + LEGEND_ROW * rows
        self.bottom = self.top + height
        self.height = self.bottom + BOTTOM
        self.shapes: list[Shape] = []
        for (name, colour), (at, row) in zip(legend, places, strict=True):
            base = 10 + LEGEND_ROW * row
            sign = Box(at, base - 8, 12, 8, colour)
            self.shapes.append(Path("mark", ((at + 6, base - 9), (at + 6, base + 1))) if colour < 0 else sign)
            self.shapes.append(Words("small", at + 17, base, name))
        self.shapes.append(Words("small", 0, self.top - 7, y_name))
        for tick, text in ticks:
            at = self.down(tick)
            self.shapes.append(Path("grid", ((self.left, at), (self.left + self.wide, at))))
            self.shapes.append(Words("small", self.left - 5, at + 4, text, "end"))
        free = -math.inf
        for tick, text in x.ticks():
            at = self.across(tick)
            self.shapes.append(Path("grid", ((at, self.top), (at, self.bottom))))
            # a number at an end must not stick out of the picture
            half = LETTER["small"] * len(text) / 2
            middle = min(max(at, half), WIDTH - half)
            if middle - half < free:
                continue
            free = middle + half
            self.shapes.append(Words("small", middle, self.bottom + 15, text, "middle"))
        corner = (self.left, self.bottom)
        self.shapes.append(Path("axis", ((self.left, self.top), corner, (self.left + self.wide, self.bottom))))
        self.shapes.append(Words("small", self.left + self.wide / 2, self.bottom + 32, x_name, "middle"))

    def across(self, x: float) -> float:
        """Pixels from the left."""
        return self.left + self.x.share(x) * self.wide

    def down(self, y: float) -> float:
        """Pixels from above."""
        return self.top + (1 - self.y.share(y)) * self.plane

    def chart(self, name: str, title: str, caption: str = "") -> Chart:
        """All of it."""
        return Chart(name, title, tuple(self.shapes), self.height, caption)


def _rows(legend: Sequence[tuple[str, int]]) -> tuple[list[tuple[float, int]], int]:
    """(x, row) of each name in rows that fit, and how many rows there are."""
    places: list[tuple[float, int]] = []
    at, row = 0.0, 0
    for name, _ in legend:
        end = at + 17 + LETTER["small"] * len(name)
        if end > WIDTH and at > 0:
            at, row, end = 0.0, row + 1, end - at
        places.append((at, row))
        at = end + 12
    return places, row + 1 if legend else 0


def empty(name: str, title: str, why: str) -> Chart:
    """A chart of which there is nothing to draw, and why."""
    words = Words("small", WIDTH / 2, 40, cut(why, WIDTH), "middle")
    return Chart(name, title, (words,), 70)


def curves(
    name: str,
    title: str,
    y_name: str,
    series: Sequence[Series],
    *,
    best: int | None = None,
    zero: bool = False,
    scale: Scale | None = None,
    caption: str = "",
) -> Chart:
    """Curves over epochs.

    Args:
        series: each a curve.
        best: the epoch that is marked.
        zero: whether a linear y axis begins at 0.
        scale: of the y axis; None for a logarithmic one where all values are positive and span much.
    """
    finite = [value for each in series for value in each.values if math.isfinite(value)]
    epochs = [epoch for each in series for epoch in each.epochs]
    if not finite:
        return empty(name, title, "nothing here is finite" if epochs else "no epoch is finished")
    if scale is None:
        scale = "log" if min(finite) > 0 and math.log10(max(finite) / min(finite)) > DECADES else "linear"
    shown = [value for value in finite if scale == "linear" or value > 0]
    if not shown:
        return empty(name, title, "nothing here is above 0")
    x_axis = Axis("linear", [*epochs, *([best] if best else [])], MOST_X)
    legend = [(each.name, each.colour) for each in series if each.name]
    if best:
        legend.append((f"best epoch, {best:,}", -1))
    if zero and scale == "linear":
        shown.append(0.0)
    frame = Frame(x_axis, Axis(scale, shown, MOST_Y), "epoch", y_name, legend)
    if best:
        at = frame.across(best)
        frame.shapes.append(Path("mark", ((at, frame.top), (at, frame.bottom))))
    for each in series:
        _draw(frame, each, scale)
    return frame.chart(name, title, caption)


def _draw(frame: Frame, series: Series, scale: Scale) -> None:
    pairs = list(zip(series.epochs, series.values, strict=True))
    for piece in _pieces(pairs, scale):
        shown = thinned(piece)
        places = tuple((frame.across(x), frame.down(y)) for x, y in shown)
        if len(places) > 1:
            frame.shapes.append(Path("line", places, series.colour))
        else:
            frame.shapes.append(Dot(*places[0], series.colour))
    if len(pairs) <= WITH_TIPS:
        for epoch, value in pairs:
            if math.isfinite(value) and (scale == "linear" or value > 0):
                tip = f"epoch {epoch:g}: {series.name} {short(value)}"
                frame.shapes.append(Dot(frame.across(epoch), frame.down(value), series.colour, 0, tip=tip))


def _pieces(pairs: Sequence[Point], scale: Scale) -> Iterator[list[Point]]:
    """The runs of points that have a place on the axis."""
    piece: list[Point] = []
    for x, y in pairs:
        if math.isfinite(y) and (scale == "linear" or y > 0):
            piece.append((x, y))
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most about `most` points that look alike: of each group of neighbours the lowest and the highest."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(2 * len(points) / most)
    kept: list[Point] = []
    for start in range(0, len(points), size):
        group = points[start : start + size]
        low = min(range(len(group)), key=lambda i: group[i][1])
        high = max(range(len(group)), key=lambda i: group[i][1])
        kept += [group[i] for i in sorted({low, high})]
    if kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept


def histogram(
    name: str,
    title: str,
    x_name: str,
    edges: Sequence[float],
    groups: Sequence[tuple[str, Sequence[float], int]],
    *,
    y_name: str = "count",
    caption: str = "",
) -> Chart:
    """Bars over bins.

    Args:
        edges: of the bins, ascending, one more than there are bars.
        groups: (name, counts, colour); several are drawn over each other.
    """
    values = [value for _, counts, _ in groups for value in counts]
    if not values or not all(math.isfinite(each) for each in (*edges, *values)) or edges[0] >= edges[-1]:
        return empty(name, title, "nothing here is finite")
    legend = [(each, colour) for each, _, colour in groups if each]
    tall = max(values) or 1.0
    frame = Frame(
        Axis("linear", [edges[0], edges[-1]], MOST_X), Axis("linear", [0.0, tall], MOST_Y), x_name, y_name, legend
    )
    for label, counts, colour in groups:
        for low, high, count in zip(edges, edges[1:], counts, strict=False):
            left, right, top = frame.across(low), frame.across(high), frame.down(count)
            gap = 0.5 if right - left > 3 else 0.0
            tip = f"{short(low)} to {short(high)}: {linear_number(count)}{f' ({label})' if label else ''}"
            box = Box(
                left, top, max(right - left - gap, 0.3), frame.bottom - top, colour, 0.75 if legend else 0.9, tip
            )
            if count:
                frame.shapes.append(box)
    return frame.chart(name, title, caption)


def points(
    name: str,
    title: str,
    x_name: str,
    y_name: str,
    x: Sequence[float],
    y: Sequence[float],
    *,
    diagonal: bool = False,
    level: float | None = None,
    tips: Sequence[str] = (),
    caption: str = "",
) -> Chart:
    """A point a sample; those that are not finite are left out.

    Args:
        diagonal: whether both axes are the same, and the line where they are equal is drawn.
        level: of a horizontal line.
        tips: what each point says under the pointer; none if empty.
    """
    kept = [i for i, pair in enumerate(zip(x, y, strict=True)) if all(map(math.isfinite, pair))]
    if not kept:
        return empty(name, title, "nothing here is finite")
    xs, ys = [x[i] for i in kept], [y[i] for i in kept]
    if diagonal:
        xs_axis = ys_axis = [*xs, *ys]
    else:
        xs_axis, ys_axis = xs, [*ys, *([] if level is None else [level])]
    frame = Frame(Axis("linear", xs_axis, 5), Axis("linear", ys_axis, MOST_Y), x_name, y_name)
    opacity = 0.75 if len(kept) <= 200 else 0.45 if len(kept) <= 600 else 0.25
    for at, i in enumerate(kept):
        tip = tips[i] if tips else ""
        frame.shapes.append(Dot(frame.across(xs[at]), frame.down(ys[at]), 0, 2.2, opacity, tip))
    if diagonal:
        low, high = min(xs_axis), max(xs_axis)
        ends = ((frame.across(low), frame.down(low)), (frame.across(high), frame.down(high)))
        frame.shapes.append(Path("dashes", ends, 1))
    if level is not None:
        at_level = frame.down(level)
        frame.shapes.append(Path("dashes", ((frame.left, at_level), (frame.left + frame.wide, at_level)), 1))
    return frame.chart(name, title, caption)


def rates(
    name: str,
    title: str,
    x_name: str,
    y_name: str,
    line: Sequence[Point],
    *,
    reference: Sequence[Point] = (),
    caption: str = "",
) -> Chart:
    """A curve of rates from 0 to 1 over rates, beside a dashed reference: ROC, precision and recall."""
    unit = Axis("linear", UNIT, MOST_X)
    frame = Frame(unit, unit, x_name, y_name)

    def placed(pairs: Sequence[Point]) -> tuple[Point, ...]:
        return tuple((frame.across(x), frame.down(y)) for x, y in pairs)

    if reference:
        frame.shapes.append(Path("dashes", placed(reference), 4))
    frame.shapes.append(Path("line", placed(line), 0))
    return frame.chart(name, title, caption)


def short(value: float) -> str:
    """A number for a person: four digits that mean something."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    mantissa, _, power = f"{value:.3e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
