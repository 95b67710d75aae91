"""The curves of several runs over one axis: epochs, seconds, or gradient evaluations."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlpcli.axes import Axis, Scale
from mlpcli.plots import COLOURS, Point
from mlpcli.report.charts import DECADES, MOST_X, MOST_Y, Frame, empty, thinned
from mlpcli.report.compare import Comparison, Side
from mlpcli.report.drawing import Chart, Dot, Path, Shape, Words

MAIN = ("accuracy", "r2", "rmse")
"""What is drawn besides the loss: the first that there is."""
APART = 9.0
"""Pixels between two letters at the ends of curves."""


@dataclass(frozen=True)
class Curve:
    """A run's curve: its letter, its number, which gives the colour, and its points in order."""

    letter: str
    index: int
    points: Sequence[Point]


def charts(comparison: Comparison) -> list[list[Chart]]:
    """For each metric its curves against epochs, seconds and gradient evaluations, as far as there are such."""
    sides = comparison.sides
    wanted = [("train", "loss"), ("validation", "loss")]
    for split in ("validation", "train"):
        main = next((name for name in MAIN if any(side.found.has(split, name) for side in sides)), None)
        if main is not None:
            wanted.append((split, main))
            break
    known = all(side.samples is not None for side in sides if side.done)
    axes = [("epochs", "epoch"), ("seconds", "seconds of training"), ("work", "gradient evaluations")]
    rows = []
    for split, metric in wanted:
        if any(side.found.has(split, metric) for side in sides):
            rows.append(
                [
                    _chart(sides, split, metric, axis, name)
                    for axis, name in axes
                    if axis != "work" or known or any(side.samples is not None for side in sides)
                ]
            )
    return rows


def _chart(sides: Sequence[Side], split: str, metric: str, axis: str, x_name: str) -> Chart:
    found = []
    for index, side in enumerate(sides):
        pairs = zip(_places(side, axis), side.found.series(split, metric), strict=True)
        found.append(Curve(side.letter, index, [(x, y) for x, y in pairs if math.isfinite(x)]))
    return overlaid(f"{split}-{metric}-{axis}", f"{split} {metric} against {x_name}", x_name, metric, found)


def _places(side: Side, axis: str) -> list[float]:
    """Where each epoch of a run ends on an axis."""
    if axis == "work":
        return side.work()
    if axis == "seconds":
        return list(itertools.accumulate(side.found.column("seconds")))
    return [float(epoch) for epoch in side.found.epochs]


def overlaid(name: str, title: str, x_name: str, y_name: str, found: Sequence[Curve]) -> Chart:
    """Curves over one axis, told apart by colour, by dashes beyond the fifth, and by a letter at each end.

    The y axis is logarithmic where all values are positive and span much; values that are not finite leave a gap.
    """
    points = [(x, y) for curve in found for x, y in curve.points if math.isfinite(y)]
    if not points:
        return empty(name, title, "nothing here is finite")
    values = [y for _, y in points]
    scale: Scale = "log" if min(values) > 0 and math.log10(max(values) / min(values)) > DECADES else "linear"
    x_axis = Axis("linear", [0.0, *(x for x, _ in points)], MOST_X)
    legend = [(_name(curve), curve.index % len(COLOURS)) for curve in found]
    frame = Frame(x_axis, Axis(scale, values, MOST_Y), x_name, y_name, legend)
    ends: list[tuple[Point, Curve]] = []
    for curve in found:
        style = "line" if curve.index < len(COLOURS) else "dashes"
        for piece in _pieces(curve.points):
            places = tuple((frame.across(x), frame.down(y)) for x, y in thinned(piece))
            if len(places) > 1:
                frame.shapes.append(Path(style, places, curve.index % len(COLOURS)))
            else:
                frame.shapes.append(Dot(*places[0], curve.index % len(COLOURS)))
            last = places[-1]
        if any(math.isfinite(y) for _, y in curve.points):
            ends.append((last, curve))
    frame.shapes += _letters(ends, frame.bottom)
    return frame.chart(name, title)


def _name(curve: Curve) -> str:
    return curve.letter if curve.index < len(COLOURS) else f"{curve.letter} dashed"


def _pieces(points: Sequence[Point]) -> Iterator[list[Point]]:
    """The stretches between gaps."""
    for finite, piece in itertools.groupby(points, lambda point: math.isfinite(point[1])):
        if finite:
            yield list(piece)


def _letters(ends: Sequence[tuple[Point, Curve]], bottom: float) -> list[Shape]:
    """A letter beside the last point of each curve; those that would cover each other stand one below another."""
    placed = sorted(((x, y + 3, curve.letter) for (x, y), curve in ends), key=lambda each: each[1])
    for index, (x, y, letter) in enumerate(placed):
        above = [other + APART for at, other, _ in placed[:index] if abs(at - x) < APART]
        placed[index] = (x, max([y, *above]), letter)
    for index, (x, y, letter) in reversed(list(enumerate(placed))):
        below = [other - APART for at, other, _ in placed[index + 1 :] if abs(at - x) < APART]
        placed[index] = (x, min([y, bottom, *below]), letter)
    return [Words("tiny", x + 4, y, letter) for x, y, letter in placed]
