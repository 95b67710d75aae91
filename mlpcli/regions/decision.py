"""Where the largest output changes: decision regions and the boundary between them, exactly."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mlpcli.regions.complex import END, FUNCTIONS, LEFT, NONE, OUTSIDE, RIGHT, SEAM, Complex
from mlpcli.regions.piecewise import Floats, Ints
from mlpcli.regions.plane import Cells
from mlpcli.regions.resolution import settled


@dataclass(frozen=True, eq=False)
class Decision:
    """The polygon by its largest output, the first of equal ones.

    Attributes:
        regions: how many connected ones there are.
        boundary: float64 (segments, 2, 2), from point to point, between different ones.
        length: of the boundary, in units of the plane.
        areas: float64 (outputs,), of the places where each output is the largest.
        classes: int64 (cells,), the largest output at all corners of each cell, or −1 where they differ.
    """

    regions: int
    boundary: Floats
    length: float
    areas: Floats
    classes: Ints


def decide(cells: Cells) -> Decision:
    """Cut each cell whose corners differ in their largest output by the upper envelope of its outputs.

    An output that is the largest at all corners of a convex cell is so on all of it.
    """
    outputs = cells.outputs.shape[1]
    largest = _first_largest(cells.outputs, cells.resolution * np.abs(cells.outputs).max())
    vertices, begins = cells.corners()
    low = np.minimum.reduceat(largest[vertices], begins)
    high = np.maximum.reduceat(largest[vertices], begins)
    classes = np.where(low == high, low, -1)
    mixed = np.flatnonzero(classes < 0)
    table = np.stack(
        (
            cells.starts,
            cells.ends,
            cells.left,
            cells.right,
            np.full(len(cells.starts), NONE),
            np.arange(len(cells.starts)),
        )
    )
    numbers = np.concatenate((cells.points, cells.outputs, cells.outputs[:, :1]), axis=1)
    whole = Complex(len(numbers), table.shape[1], len(cells), numbers, table, np.arange(len(cells)))
    pieces, winners = settled(lambda epsilon: _envelope(whole.part(mixed), outputs, epsilon), cells.resolution)
    table, numbers = pieces.table[:, : pieces.edges], pieces.numbers[: pieces.vertices]

    # Nodes: all cells, then the pieces of the mixed ones. An edge of a piece on the rim of the mixed cells has on
    # its other side what the whole edge had there.
    sides = table[LEFT : RIGHT + 1]
    outer = np.where(
        table[SEAM] >= 0, np.stack((cells.left[table[SEAM]], cells.right[table[SEAM]])), np.int64(OUTSIDE)
    )
    pure = np.append(classes >= 0, False)  # the last is for OUTSIDE
    outer = np.where(pure[outer], outer, OUTSIDE)
    of_pieces = np.where(sides >= 0, sides + len(cells), outer)
    between_pure = pure[cells.left] & pure[cells.right]
    of_cells = np.stack((cells.left, cells.right))[:, between_pure]
    ends = np.concatenate(
        (
            numbers[table[: END + 1], :FUNCTIONS],
            cells.points[np.stack((cells.starts, cells.ends))[:, between_pure]],
        ),
        axis=1,
    ).transpose(1, 0, 2)
    nodes = np.concatenate((of_pieces, of_cells), axis=1)
    label = np.concatenate((classes, winners))
    inner = (nodes >= 0).all(0)
    same = inner & (label[nodes[0]] == label[nodes[1]])
    links = coo_array((np.ones(same.sum(), np.int8), tuple(nodes[:, same])), shape=(len(label), len(label)))
    components = connected_components(links, directed=False)[1]
    boundary = ends[inner & ~same]
    return Decision(
        regions=len(np.unique(components[label >= 0])),
        boundary=boundary,
        length=float(np.linalg.norm(boundary[:, 1] - boundary[:, 0], axis=1).sum()),
        areas=_areas(cells, classes, pieces, winners, outputs),
        classes=classes,
    )


def _first_largest(rows: Floats, nothing: float) -> Ints:
    """(n, outputs) -> (n,): the first output that is less than the largest by nothing."""
    first: Ints = (rows >= rows.max(1, keepdims=True) - nothing).argmax(1)
    return first


def _envelope(pieces: Complex, outputs: int, epsilon: float) -> tuple[Complex, Ints]:
    """Cut the cells, whose functions are the outputs and the first output again, until one output is the largest
    on each. The last function becomes the largest of the outputs so far, which is affine on each piece.

    Returns:
        The pieces, and the output that is the largest on each.
    """
    nothing = epsilon * float(np.abs(pieces.numbers[:, FUNCTIONS:]).max(initial=0.0))
    for output in range(1, outputs):
        column = FUNCTIONS + output
        numbers = pieces.numbers[: pieces.vertices]
        above = numbers[:, column] - numbers[:, -1]
        above[np.abs(above) <= nothing] = 0.0
        before = pieces.vertices
        pieces.cut(np.sign(above).astype(np.int8), above, output)
        numbers = pieces.numbers[: pieces.vertices]
        numbers[before:, column] = numbers[before:, -1]
        numbers[:, -1] = np.maximum(numbers[:, -1], numbers[:, column])
    if not pieces.cells:
        return pieces, np.empty(0, np.int64)
    vertices, begins = pieces.corners()
    counts = np.diff(np.append(begins, len(vertices)))
    sums = np.add.reduceat(pieces.numbers[vertices, FUNCTIONS : FUNCTIONS + outputs], begins)
    return pieces, _first_largest(sums / counts[:, None], nothing)


def _areas(cells: Cells, classes: Ints, pieces: Complex, winners: Ints, outputs: int) -> Floats:
    """By Green's theorem, from the edges."""
    total = np.zeros(outputs)
    middle = cells.points.mean(0)
    tables = (
        (np.stack((cells.starts, cells.ends, cells.left, cells.right)), cells.points, classes),
        (pieces.table[: RIGHT + 1, : pieces.edges], pieces.numbers[: pieces.vertices, :FUNCTIONS], winners),
    )
    for (starts, ends, left, right), points, labels in tables:
        one, two = points[starts] - middle, points[ends] - middle
        swept = (one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]) / 2
        for side, sign in ((left, 1), (right, -1)):
            there = np.flatnonzero(side >= 0)
            there = there[labels[side[there]] >= 0]
            total += np.bincount(labels[side[there]], sign * swept[there], outputs)
    return total
