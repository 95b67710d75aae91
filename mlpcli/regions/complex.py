"""A polygon cut into convex cells: vertices, edges and the cells to their left and right.

Cells need no list of their edges: each edge knows its two cells, and a cut relabels one half of each cell that it
cuts (the planar case of edge subdivision, Berzins 2023, arXiv 2306.07212). All steps are arrays over edges.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mlpcli.regions.piecewise import Floats, Ints
from mlpcli.regions.resolution import Inconsistent

Signs = NDArray[np.int8]
Mask = NDArray[np.bool_]

START, END, LEFT, RIGHT, MAKER, SEAM = range(6)
"""Rows of `Complex.table`."""
OUTSIDE = -1
"""In place of a cell: the edge bounds the complex there."""
NONE = -1
"""In place of what made an edge: it bounds the window; in place of a seam: the edge is whole."""
FUNCTIONS = 2
"""The first column of `Complex.numbers` after the coordinates."""


@dataclass(eq=False)
class Complex:
    """Convex cells side by side. Arrays have room at their ends: only so many vertices, edges and cells count.

    Attributes:
        numbers: float64 (vertices, 2 + k): coordinates, and functions that are affine on every cell.
        table: int64 (6, edges): START and END vertex; the cells LEFT and RIGHT, seen from start to end with the
            second axis upwards, or OUTSIDE; MAKER, what made the edge, or NONE; SEAM, a number that the pieces of
            one edge share where a complex was taken apart, or NONE.
        origins: int64 (cells,): the number of the cell that it was part of in the beginning.
    """

    vertices: int
    edges: int
    cells: int
    numbers: Floats
    table: Ints
    origins: Ints

    @classmethod
    def polygon(cls, numbers: Floats) -> Self:
        """One cell, with these `numbers` at the corners of a convex polygon, counterclockwise."""
        n = len(numbers)
        around = np.arange(n)
        table = np.stack((around, np.roll(around, -1), 0 * around, *(np.full(n, -1) for _ in range(3))))
        return cls(n, n, 1, numbers, table, np.zeros(1, np.int64))

    def with_functions(self, functions: Floats) -> Self:
        """The same cells, now the beginning, with functions (vertices, k) in place of what the vertices had."""
        numbers = np.concatenate((self.numbers[: self.vertices, :FUNCTIONS], functions), axis=1)
        table = self.table[:, : self.edges].copy()
        return type(self)(self.vertices, self.edges, self.cells, numbers, table, np.arange(self.cells))

    def part(self, cells: Ints) -> Self:
        """Some of the cells as a complex of their own, which keeps their numbers and origins."""
        number = np.full(self.cells + 1, OUTSIDE)
        number[cells] = np.arange(len(cells))
        sides = number[self.table[LEFT : RIGHT + 1, : self.edges]]
        chosen = np.flatnonzero((sides != OUTSIDE).any(0))
        table = self.table[:, chosen]
        used = np.zeros(self.vertices, bool)
        used[table[: END + 1]] = True
        place = np.cumsum(used) - 1
        table[: END + 1] = place[table[: END + 1]]
        table[LEFT : RIGHT + 1] = sides[:, chosen]
        numbers = self.numbers[: self.vertices][used]
        return type(self)(len(numbers), len(chosen), len(cells), numbers, table, self.origins[cells])

    def cut(self, signs: Signs, values: Floats, maker: int) -> None:
        """Cut every cell on which a function changes its sign, along its zeros.

        Args:
            signs: (vertices,) of the function.
            values: (vertices,), of these signs.
            maker: of the new edges.

        Raises:
            Inconsistent: on some cell the signs are not those of an affine function.
        """
        edges = self.edges
        start, end, left, right = self.table[: RIGHT + 1, :edges]
        at_start, at_end = signs[start], signs[end]
        crossed = np.flatnonzero(at_start * at_end < 0)
        positive = np.flatnonzero(at_start + at_end > 0)  # all of these edges is on that side
        rising = at_start[crossed] < 0
        zeros = self._split(crossed, values)
        halves = np.where(rising, np.arange(edges, self.edges), crossed)

        # Counterclockwise, the positive part of a cell's boundary begins with an edge that rises from a zero and
        # ends with one that falls to a zero. The cell on the right of an edge is passed in the other direction.
        begins = np.where(rising, left[crossed], right[crossed])
        finishes = np.where(rising, right[crossed], left[crossed])
        firsts = lasts = zeros
        if not signs.all():
            negative = np.zeros(self.cells + 1, bool)
            below = np.flatnonzero((at_start < 0) | (at_end < 0))
            negative[left[below]] = negative[right[below]] = True
            touching = positive[(at_start * at_end)[positive] == 0]
            rising = at_start[touching] == 0
            vertex = np.where(rising, start[touching], end[touching])
            for rises in (True, False):
                cells = np.where(rising == rises, left[touching], right[touching])
                kept = negative[cells]
                if rises:
                    begins, firsts = np.append(begins, cells[kept]), np.append(firsts, vertex[kept])
                else:
                    finishes, lasts = np.append(finishes, cells[kept]), np.append(lasts, vertex[kept])
        begun, ended = begins >= 0, finishes >= 0
        self._divide(
            (begins[begun], firsts[begun]),
            (finishes[ended], lasts[ended]),
            np.concatenate((positive, halves)),
            maker,
        )

    def _split(self, crossed: Ints, values: Floats) -> Ints:
        """Put a vertex on each crossed edge where the function is zero; these vertices."""
        count, edges, vertices = len(crossed), self.edges, self.vertices
        start, end = self.table[START, crossed], self.table[END, crossed]
        at_start = values[start]
        share = at_start / (at_start - values[end])
        zeros = np.arange(vertices, vertices + count)
        self.vertices += count
        if self.vertices > len(self.numbers):
            self.numbers = np.concatenate((self.numbers, np.empty((self.vertices, self.numbers.shape[1]))))
        change = self.numbers[end]
        one = self.numbers[start]
        change -= one
        change *= share[:, None]
        np.add(one, change, out=self.numbers[vertices : self.vertices])
        self._append(self.table[:, crossed])
        self.table[END, crossed] = zeros
        self.table[START, edges : self.edges] = zeros
        return zeros

    def _append(self, edges: Ints) -> None:
        before, self.edges = self.edges, self.edges + edges.shape[1]
        if self.edges > self.table.shape[1]:
            self.table = np.concatenate((self.table, np.empty((6, self.edges), np.int64)), axis=1)
        self.table[:, before : self.edges] = edges

    def _divide(self, begins: tuple[Ints, Ints], finishes: tuple[Ints, Ints], positive: Ints, maker: int) -> None:
        """Make the positive part of each of these cells a cell of its own.

        Args:
            begins: cells, and the vertex at which the positive part of the boundary of each begins.
            finishes: the same cells in another order, and the vertex at which it ends.
            positive: all edges that have a positive end and no negative one.
            maker: of the new edges.
        """
        (cells, first), (others, last) = begins, finishes
        count = len(cells)
        added = np.arange(self.cells, self.cells + count)
        new = np.full(self.cells + 1, OUTSIDE)
        new[cells] = added
        finish = np.full(self.cells + 1, -1)
        finish[others] = last
        to = finish[cells]
        # a cell that comes twice has lost one of its numbers
        twice = (new[cells] != added).any() or (finish[others] != last).any()
        if twice or len(others) != count or (to < 0).any() or (to == first).any():
            raise Inconsistent
        for side in (LEFT, RIGHT):
            moved = new[self.table[side, positive]]
            there = moved >= 0
            self.table[side, positive[there]] = moved[there]
        same = np.ones_like(added)
        edges = np.stack((to, first, added, cells, maker * same, NONE * same))
        self._append(edges)
        self.cells += count
        self.origins = np.concatenate((self.origins, self.origins[cells]))

    def corners(self) -> tuple[Ints, Ints]:
        """Every vertex of every cell, in the order of the cells.

        Returns:
            Vertices (corners,), and where each cell's begin (cells,).
        """
        return corners(self.table[:, : self.edges], self.cells)


def corners(table: Ints, cells: int) -> tuple[Ints, Ints]:
    """See `Complex.corners`."""
    owners = table[LEFT : RIGHT + 1].ravel()
    order = np.argsort(owners, kind="stable")
    order = order[np.searchsorted(owners[order], 0) :]
    vertices = table[: END + 1].ravel()[order]
    return vertices, np.searchsorted(owners[order], np.arange(cells))
