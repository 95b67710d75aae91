"""A loss surface with paths on it, as an SVG that follows the reader's theme, or as a PNG."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlpcli.axes import linear_number, linear_ticks
from mlpcli.errors import UsageError
from mlpcli.plots import COLOURS, Point
from mlpcli.report.landscape_contours import contours, log_levels, regions
from mlpcli.report.landscape_pens import LETTER, SIZES, Pen, Png, Svg, cut
from mlpcli.runs import write_whole

Floats = NDArray[np.float64]

SIDE = 600.0
"""The longer side of the plane, in pixels, and the least width of what stands around it."""
LEFT, RIGHT, TOP = 62.0, 24.0, 92.0
ROW = 21.0
"""Of the legend."""
NEAR = 30.0
"""Pixels between the number of a contour and a path, or another number, at least."""


@dataclass(frozen=True, eq=False)
class Trail:
    """A path.

    Attributes:
        name: of its run.
        epochs: of its points, ascending.
        coordinates: (points, 2) on the plane.
        losses: the objective at the points themselves, which are not on the plane.
    """

    name: str
    epochs: list[int]
    coordinates: Floats
    losses: list[float]


@dataclass(frozen=True, eq=False)
class Surface:
    """The objective on a plane, and paths.

    Attributes:
        trails: at least one.
        x, y: (columns,) and (rows,), places along the axes.
        z: (rows, columns), the objective, finite.
        explained: shares of the variance along the axes.
        loss: what the objective is the mean of.
        samples: how many it is computed on.
        about: how it was computed, in a line.
    """

    trails: Sequence[Trail]
    x: Floats
    y: Floats
    z: Floats
    explained: tuple[float, float]
    loss: str
    samples: int
    about: str

    @cached_property
    def levels(self) -> list[float]:
        """Of the contours."""
        return log_levels(float(self.z.min()), float(self.z.max()))


def check_ending(file: Path) -> None:
    """Raises UsageError unless the ending of `file` says a format that is drawn."""
    if file.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"--landscape {file}: the ending says the format of the picture: .svg or .png")


def draw(surface: Surface, file: Path) -> tuple[int, int]:
    """Draw a surface to a file, whole or not at all; width and height in pixels of a screen.

    Raises:
        StorageError: it could not be written.
    """
    place = _Place(surface)
    pen: Pen = Svg(place.size, place.heading) if file.suffix.lower() == ".svg" else Png(place.size)
    _draw(place, pen)
    write_whole(file, pen.content())
    return round(place.size[0]), round(place.size[1])


class _Place:
    """From the plane to pixels."""

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        self.sides = float(surface.x[-1] - surface.x[0]), float(surface.y[-1] - surface.y[0])
        self.scale = SIDE / max(self.sides)
        self.width, self.height = self.sides[0] * self.scale, self.sides[1] * self.scale
        self.across = max(self.width, SIDE)
        self.below = TOP + self.height + 62
        rows = len(surface.trails) + 1
        self.size = LEFT + self.across + RIGHT, self.below + rows * ROW + (58 if surface.levels else 0)
        count = len(surface.trails)
        of = f"the path of {surface.trails[0].name}" if count == 1 else f"the paths of {count} runs"
        self.heading = cut(f"The objective around {of}", self.across, "heading")

    def __call__(self, points: Floats) -> list[Point]:
        """(points, 2) -> pixels."""
        x = LEFT + (points[:, 0] - self.surface.x[0]) * self.scale
        y = TOP + (self.surface.y[-1] - points[:, 1]) * self.scale
        return list(zip(x.tolist(), y.tolist(), strict=True))


def letter(index: int) -> str:
    """What stands for the run of that index: A, B, …"""
    return chr(ord("A") + index)


def _draw(place: _Place, pen: Pen) -> None:
    surface = place.surface
    pen.words("heading", LEFT / 3, 26, place.heading)
    pen.words("small", LEFT / 3, 47, cut(surface.about, place.size[0] - LEFT / 3, "small"))
    grid = surface.x, surface.y, surface.z
    for level in surface.levels:
        pen.shade([place(loop) for loop in regions(*grid, level)])
    lines = [(level, [place(line) for line in contours(*grid, level)]) for level in surface.levels]
    for _, found in lines:
        for line in found:
            pen.contour(line)
    _axes(place, pen)
    paths = [place(trail.coordinates) for trail in surface.trails]
    for x, y, text in _numbers(place, lines, [point for path in paths for point in _dense(path)]):
        pen.words("label", x, y + 4, text, "middle")
    for index, path in enumerate(paths):
        pen.path(path, index % len(COLOURS), _is_dashed(index))
    for index, path in enumerate(paths):
        for x, y in path[1:-1]:
            pen.mark(x, y, 2.2, index % len(COLOURS))
        pen.mark(*path[0], 5.5, index % len(COLOURS), hollow=True)
        pen.mark(*path[-1], 5.5, index % len(COLOURS))
    for index, (x, y) in enumerate(_ends(paths)):
        pen.words("name", x, y, letter(index), "middle", index % len(COLOURS))
    _legend(place, pen)


def _dense(path: Sequence[Point]) -> Iterator[Point]:
    """Points all along a path, no two of which are far apart."""
    for start, end in itertools.pairwise(path):
        pieces = max(1, math.ceil(math.dist(start, end) / (NEAR / 3)))
        for piece in range(pieces + 1):
            share = piece / pieces
            yield start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def _is_dashed(index: int) -> bool:
    return index // len(COLOURS) % 2 == 1


def _ends(paths: Sequence[Sequence[Point]]) -> Iterator[Point]:
    """Where the letter of each path stands: above its end, or further up where another one is."""
    taken: list[Point] = []
    for path in paths:
        x, y = path[-1][0], path[-1][1] - 11
        while any(abs(x - other[0]) < 13 and abs(y - other[1]) < 14 for other in taken):
            y -= 14
        taken.append((x, y))
        yield x, y


def _axes(place: _Place, pen: Pen) -> None:
    surface, bottom, right = place.surface, TOP + place.height, LEFT + place.width
    pen.frame([(LEFT, TOP), (right, TOP), (right, bottom), (LEFT, bottom), (LEFT, TOP)])
    most = [max(2, round(7 * side / max(place.sides))) for side in place.sides]
    for tick in linear_ticks(float(surface.x[0]), float(surface.x[-1]), most[0]):
        x = LEFT + (tick - float(surface.x[0])) * place.scale
        pen.frame([(x, bottom), (x, bottom + 5)])
        pen.words("small", x, bottom + 18, linear_number(tick), "middle")
    for tick in linear_ticks(float(surface.y[0]), float(surface.y[-1]), most[1]):
        y = TOP + (float(surface.y[-1]) - tick) * place.scale
        pen.frame([(LEFT - 5, y), (LEFT, y)])
        pen.words("small", LEFT - 9, y + 4, linear_number(tick), "end")
    texts = [
        f"principal component {number}: {share:.1%} of the variance".replace("%", " %")
        for number, share in enumerate(surface.explained, 1)
    ]
    pen.words("small", LEFT / 3, TOP - 12, f"{texts[1]} (distance between weights)")
    pen.words("small", LEFT, bottom + 40, f"{texts[0]} (distance between weights)")


def _numbers(
    place: _Place, lines: Sequence[tuple[float, Sequence[Sequence[Point]]]], paths: Sequence[Point]
) -> Iterator[tuple[float, float, str]]:
    """A number on each contour, where it is farthest from the paths and from other numbers, if far enough."""
    taken = list(paths)
    inside = (LEFT + NEAR / 2, TOP + NEAR / 2, LEFT + place.width - NEAR / 2, TOP + place.height - NEAR / 2)
    for level, found in lines:
        points = [
            (x, y) for line in found for x, y in line if inside[0] < x < inside[2] and inside[1] < y < inside[3]
        ]
        best = max(points, key=lambda point: min(math.dist(point, other) for other in taken), default=None)
        if best is not None and min(math.dist(best, other) for other in taken) > NEAR:
            taken.append(best)
            yield (*best, linear_number(level))


def _legend(place: _Place, pen: Pen) -> None:
    y = place.below + 4
    for index, trail in enumerate(place.surface.trails):
        colour = index % len(COLOURS)
        pen.path([(LEFT, y - 4), (LEFT + 30, y - 4)], colour, _is_dashed(index))
        epochs = f": epochs {trail.epochs[0]:,} to {trail.epochs[-1]:,}, {len(trail.epochs)} checkpoints"
        left = place.across - 40 - LETTER * SIZES["small"] * len(epochs)
        pen.words("small", LEFT + 40, y, f"{letter(index)}  {cut(trail.name, left, 'small')}{epochs}")
        y += ROW
    pen.mark(LEFT + 6, y - 4, 5.5, -1, hollow=True)
    pen.words("small", LEFT + 18, y, "start")
    pen.mark(LEFT + 66, y - 4, 5.5, -1)
    pen.words("small", LEFT + 78, y, "end")
    pen.mark(LEFT + 121, y - 4, 2.2, -1)
    pen.words("small", LEFT + 130, y, "kept checkpoint")
    if not place.surface.levels:
        return
    y += ROW + 4
    levels = place.surface.levels
    title = f"objective ({place.surface.loss})"
    pen.words("small", LEFT, y, title)
    begin, wide = LEFT, place.across / (len(levels) + 1)
    y += 9
    for index in range(len(levels)):
        low = begin + (index + 1) * wide
        end = begin + (len(levels) + 1) * wide
        pen.shade([[(low, y), (end, y), (end, y + 11), (low, y + 11)]])
    corners = [(begin, y), (begin + place.across, y), (begin + place.across, y + 11), (begin, y + 11)]
    pen.frame([*corners, corners[0]])
    for index, level in enumerate(levels):
        x = begin + (index + 1) * wide
        pen.contour([(x, y), (x, y + 11)])
        pen.words("small", x, y + 25, linear_number(level), "middle")
