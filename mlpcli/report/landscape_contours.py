"""Lines of equal height on a grid, by marching squares."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Edge = tuple[int, int, int]
"""Of the grid: row and column of its first node, and 0 along x or 1 along y."""

FEWEST, MOST = 5, 10
"""Levels."""


def contours(x: Floats, y: Floats, z: Floats, level: float) -> list[Floats]:
    """The lines on which `z` is `level`, with z linear along the edges of the grid.

    Args:
        x: (columns,) ascending.
        y: (rows,) ascending.
        z: (rows, columns), finite.
        level: a node at this height counts as above it.

    Returns:
        Lines (points, 2), the first point again at the end of one that is closed.
    """
    above = z >= level
    links: dict[Edge, list[Edge]] = {}
    corners = above[:-1, :-1], above[:-1, 1:], above[1:, 1:], above[1:, :-1]
    mixed = ~(corners[0] & corners[1] & corners[2] & corners[3]) & (
        corners[0] | corners[1] | corners[2] | corners[3]
    )
    for row, column in np.argwhere(mixed).tolist():
        for one, other in _segments(above, z, level, row, column):
            links.setdefault(one, []).append(other)
            links.setdefault(other, []).append(one)
    return [_points(x, y, z, level, chain) for chain in _chains(links)]


def _segments(above: NDArray[np.bool_], z: Floats, level: float, row: int, column: int) -> list[tuple[Edge, Edge]]:
    """Which edges of a cell are joined: those whose ends are on two sides."""
    # around the cell: nodes low left, low right, high right, high left, and the edge that follows each of them
    nodes = [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)]
    edges = [(row, column, 0), (row, column + 1, 1), (row + 1, column, 0), (row, column, 1)]
    sides = [bool(above[node]) for node in nodes]
    cut = [edge for edge, one, other in zip(edges, sides, [*sides[1:], sides[0]], strict=True) if one != other]
    if len(cut) == 2:
        return [(cut[0], cut[1])]
    # a saddle: the middle decides whether the two high corners are joined
    middle = sum(float(z[node]) for node in nodes) / 4 >= level
    if middle == sides[0]:
        return [(cut[0], cut[1]), (cut[2], cut[3])]
    return [(cut[3], cut[0]), (cut[1], cut[2])]


def _chains(links: dict[Edge, list[Edge]]) -> list[list[Edge]]:
    """Segments end to end, those that begin at the border of the grid first."""
    chains = []
    for start in sorted(links, key=lambda edge: len(links[edge])):
        if start not in links:
            continue
        chain, here = [start], start
        while here in links:
            following = links[here].pop()
            if not links[here]:
                del links[here]
            links[following].remove(here)
            if not links[following]:
                del links[following]
            chain.append(following)
            here = following
        chains.append(chain)
    return chains


def _points(x: Floats, y: Floats, z: Floats, level: float, chain: Sequence[Edge]) -> Floats:
    points = []
    for row, column, along in chain:
        next_row, next_column = (row + 1, column) if along else (row, column + 1)
        low, high = float(z[row, column]), float(z[next_row, next_column])
        share = (level - low) / (high - low)
        points.append(
            (
                float(x[column]) + share * float(x[next_column] - x[column]),
                float(y[row]) + share * float(y[next_row] - y[row]),
            )
        )
    return np.array(points)


def regions(x: Floats, y: Floats, z: Floats, level: float) -> list[Floats]:
    """Closed lines around what is above `level`, along the border of the grid too; in two of them is outside."""
    padded = np.pad(z, 1, constant_values=-np.inf)
    # a cut between a height and minus infinity lies at the border itself, as the node there has the same place
    padded[np.isneginf(padded)] = min(float(z.min()), level) - 1
    return contours(np.pad(x, 1, mode="edge"), np.pad(y, 1, mode="edge"), padded, level)


def log_levels(low: float, high: float) -> list[float]:
    """A few levels between two heights, evenly spread as logarithms, round where there are enough such numbers.

    Args:
        low, high: least and greatest height; those at or below 0 have no logarithm.
    """
    if not 0 < high < np.inf:
        return []
    low = max(low, high * 1e-6)
    if not low < high:
        return []
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        levels = [float(f"{digit}e{power}") for power in powers for digit in digits]
        levels = [level for level in levels if low < level < high]
        if FEWEST <= len(levels) <= MOST:
            return levels
    return sorted({float(f"{level:.3g}") for level in np.geomspace(low, high, FEWEST + 3)[1:-1]})
