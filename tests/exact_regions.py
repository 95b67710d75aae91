"""Random networks, and their cells the slow way: one after the other, in rational numbers."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np

from mlpcli.regions.piecewise import Floats, PiecewiseAffine

Point = tuple[Fraction, Fraction]
Function = tuple[Fraction, ...]
"""(a, b, c): a u + b v + c."""


def network_of(
    sizes: list[int], seed: int, slopes: list[float] | None = None, bias: float = 1.0, parts: int | None = None
) -> PiecewiseAffine:
    """Random: weights from N(0, 2/fan_in), biases from N(0, bias²); multiples of 1/parts where given."""
    generator = np.random.default_rng(seed)
    weights = [generator.normal(size=(o, i)) * np.sqrt(2 / i) for i, o in pairwise(sizes)]
    biases = [bias * generator.normal(size=size) for size in sizes[1:]]
    if parts is not None:
        weights, biases = ([np.round(each * parts) / parts for each in arrays] for arrays in (weights, biases))
    return PiecewiseAffine(weights, biases, slopes or [0.0] * (len(sizes) - 2))


@dataclass
class ExactCell:
    """A convex cell: corners counterclockwise, which units are positive on it, and affine functions on it."""

    corners: list[Point]
    signs: tuple[bool, ...]
    functions: list[Function]

    @property
    def area(self) -> Fraction:
        return area(self.corners)


def at(function: Function, point: Point) -> Fraction:
    return function[0] * point[0] + function[1] * point[1] + function[2]


def area(corners: list[Point]) -> Fraction:
    ends = corners[1:] + corners[:1]
    return sum((a[0] * b[1] - a[1] * b[0] for a, b in zip(corners, ends, strict=True)), Fraction(0)) / 2


def clipped(corners: list[Point], function: Function) -> list[Point]:
    """Where the function is not negative (Sutherland & Hodgman)."""
    kept: list[Point] = []
    for one, two in zip(corners, corners[1:] + corners[:1], strict=True):
        a, b = at(function, one), at(function, two)
        if a >= 0:
            kept.append(one)
        if a * b < 0:
            share = a / (a - b)
            kept.append((one[0] + share * (two[0] - one[0]), one[1] + share * (two[1] - one[1])))
    return kept


def minus(one: Function, two: Function) -> Function:
    return tuple(a - b for a, b in zip(one, two, strict=True))


def exact_cells(network: PiecewiseAffine, window: Floats) -> list[ExactCell]:
    """Of a network with two inputs: the cells in a window of their plane, with the outputs as their functions."""
    corners = [(Fraction(u), Fraction(v)) for u, v in window.tolist()]
    plane = [tuple(Fraction(int(i == j)) for j in range(3)) for i in range(2)]
    cells = [ExactCell(corners, (), plane)]
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        rows = [[Fraction(w) for w in row] for row in weight.tolist()]
        shifts = [Fraction(b) for b in bias.tolist()]
        for cell in cells:
            cell.functions = [
                (
                    sum((w * f[0] for w, f in zip(row, cell.functions, strict=True)), Fraction(0)),
                    sum((w * f[1] for w, f in zip(row, cell.functions, strict=True)), Fraction(0)),
                    sum((w * f[2] for w, f in zip(row, cell.functions, strict=True)), shift),
                )
                for row, shift in zip(rows, shifts, strict=True)
            ]
        if layer == len(network.slopes):
            break
        slope = Fraction(network.slopes[layer])
        for unit in range(len(bias) if slope != 1 else 0):
            cells = [half for cell in cells for half in halves(cell, unit, slope)]
        if slope == 1:
            for cell in cells:
                cell.signs += (False,) * len(bias)
    return cells


def halves(cell: ExactCell, unit: int, slope: Fraction) -> list[ExactCell]:
    """The cell, or its two parts, behind the σ of a unit."""
    function = cell.functions[unit]
    values = [at(function, corner) for corner in cell.corners]
    found = []
    for positive in (True, False):
        if max(values) <= 0 if positive else min(values) >= 0 and max(values) > 0:
            continue
        toward = function if positive else tuple(-each for each in function)
        bent = function if positive else tuple(slope * each for each in function)
        functions = [*cell.functions[:unit], bent, *cell.functions[unit + 1 :]]
        found.append(ExactCell(clipped(cell.corners, toward), (*cell.signs, positive), functions))
    return found


def touching(one: ExactCell, two: ExactCell) -> bool:
    """Whether two cells share more than a point."""
    for a, b in zip(one.corners, one.corners[1:] + one.corners[:1], strict=True):
        along = (b[0] - a[0], b[1] - a[1])
        for c, d in zip(two.corners, two.corners[1:] + two.corners[:1], strict=True):
            off = [along[0] * (p[1] - a[1]) - along[1] * (p[0] - a[0]) for p in (c, d)]
            if any(off):
                continue
            ends = sorted(along[0] * (p[0] - a[0]) + along[1] * (p[1] - a[1]) for p in (c, d))
            if max(ends[0], Fraction(0)) < min(ends[1], along[0] ** 2 + along[1] ** 2):
                return True
    return False


def merged(cells: list[ExactCell], alike: list[object]) -> int:
    """How many connected regions there are when neighbours that are alike are one."""
    root = list(range(len(cells)))

    def find(cell: int) -> int:
        while root[cell] != cell:
            cell = root[cell]
        return cell

    for one, two in combinations(range(len(cells)), 2):
        if alike[one] == alike[two] and touching(cells[one], cells[two]):
            root[find(one)] = find(two)
    return len({find(cell) for cell in range(len(cells))})


def exact_decision(cells: list[ExactCell]) -> tuple[int, list[Fraction]]:
    """How many connected regions of one largest output, the first of equal ones, there are; the outputs' areas."""
    outputs = len(cells[0].functions)
    pieces, winners = [], []
    areas = [Fraction(0)] * outputs
    for cell in cells:
        for winner, function in enumerate(cell.functions):
            rest, beaten = cell.corners, False
            for other, rival in enumerate(cell.functions):
                if other != winner and len(rest) > 2:
                    ahead = minus(function, rival)
                    beaten |= other < winner and not any(ahead)
                    rest = clipped(rest, ahead)
            if not beaten and len(rest) > 2 and (size := area(rest)) > 0:
                pieces.append(ExactCell(rest, cell.signs, cell.functions))
                winners.append(winner)
                areas[winner] += size
    return merged(pieces, list(winners)), areas


def square(half: float) -> Floats:
    """Corners of a square around 0."""
    return half * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def regular(sides: int, radius: float = 1.0, turned: float = 0.0) -> Floats:
    """Corners of a regular polygon around 0."""
    angles = turned + 2 * np.pi * np.arange(sides) / sides
    return radius * np.column_stack((np.cos(angles), np.sin(angles)))
