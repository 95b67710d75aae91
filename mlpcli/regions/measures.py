"""What is measured of cells: outlines, areas, in-radii, affine maps, and which of them are one affine region."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mlpcli.regions.piecewise import Floats, Ints, PiecewiseAffine
from mlpcli.regions.plane import Cells

NEARLY = 1e-6
"""Gradients that differ by less, relative to the largest, are compared again, from the patterns."""
EQUAL = 1e-11
"""Gradients from the patterns that differ by less, relative to the largest, are equal."""
COMPARED_NUMBERS = 1 << 23
"""Numbers in the gradients of as many pairs of cells as are compared at a time."""
COMPARED = 4096
"""Pairs of cells that are compared at a time."""
MOST_CORNERS = 24
"""Of a cell whose in-radius is taken over all triples of its sides; beyond it, by a linear program."""
TRIPLES = 1 << 18
"""Of sides at a time."""


@dataclass(frozen=True, eq=False)
class Outlines:
    """The corners of each cell, counterclockwise.

    Attributes:
        vertices: int64 (corners,), those of the first cell, then those of the second, …
        begins: int64 (cells + 1,), where those of each cell begin, and where all end.
    """

    vertices: Ints
    begins: Ints

    @property
    def counts(self) -> Ints:
        """Corners of each cell."""
        return np.diff(self.begins)

    @property
    def owners(self) -> Ints:
        """The cell of each corner."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def following(self) -> Ints:
        """Where the next corner of the same cell stands."""
        following = np.arange(1, len(self.vertices) + 1)
        following[self.begins[1:] - 1] = self.begins[:-1]
        return following


def outlines(cells: Cells) -> Outlines:
    """The corners of each cell in their order, by walking along its edges."""
    owners = np.concatenate((cells.left, cells.right))
    tails, heads = np.concatenate((cells.starts, cells.ends)), np.concatenate((cells.ends, cells.starts))
    inside = owners >= 0
    owners, tails, heads = owners[inside], tails[inside], heads[inside]
    keys = owners * len(cells.points) + tails
    order = np.argsort(keys)
    following = np.searchsorted(keys[order], owners[order] * len(cells.points) + heads[order])
    begins = np.searchsorted(owners[order], np.arange(len(cells) + 1))
    counts, vertices = np.diff(begins), np.empty(len(order), np.int64)
    here, walking, tails = begins[:-1].copy(), np.arange(len(cells)), tails[order]
    for step in range(int(counts.max())):
        walking = walking[counts[walking] > step]
        vertices[begins[walking] + step] = tails[here[walking]]
        here[walking] = following[here[walking]]
    assert (here == begins[:-1]).all(), "a boundary that is not one closed line"
    return Outlines(vertices, begins)


def areas(cells: Cells, outline: Outlines) -> Floats:
    """Of each cell, in units of the plane squared."""
    return _first_moments(cells, outline)[0]


def centroids(cells: Cells, outline: Outlines) -> Floats:
    """(cells, 2): the centre of mass of each cell, which lies inside it."""
    area, moments, first = _first_moments(cells, outline)
    mean = np.add.reduceat(cells.points[outline.vertices], outline.begins[:-1]) / outline.counts[:, None]
    with np.errstate(all="ignore"):
        centre = first + moments / area[:, None]
    return np.where(np.isfinite(centre) & (area > 0)[:, None], centre, mean)


def _first_moments(cells: Cells, outline: Outlines) -> tuple[Floats, Floats, Floats]:
    """Areas, first moments about one corner of each cell, and these corners: relative, so that small cells keep
    their digits."""
    first = cells.points[outline.vertices[outline.begins[:-1]]]
    one = cells.points[outline.vertices] - first[outline.owners]
    two = one[outline.following]
    twice = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
    sums = np.add.reduceat(np.column_stack((twice, (one + two) * twice[:, None])), outline.begins[:-1])
    return sums[:, 0] / 2, sums[:, 1:] / 6, first


def inradii(cells: Cells, outline: Outlines) -> Floats:
    """The radius of the largest circle in each cell, in units of the plane.

    The largest r with n_i·x + r ≤ c_i for all sides i. By linear programming's duality it is the least
    Σ λ_i c_i over λ ≥ 0 with Σ λ_i = 1 and Σ λ_i n_i = 0, and some three sides attain it.
    """
    start = cells.points[outline.vertices]
    along = cells.points[outline.vertices[outline.following]] - start
    length = np.hypot(along[:, 0], along[:, 1])
    with np.errstate(all="ignore"):
        normals = np.column_stack((along[:, 1], -along[:, 0])) / length[:, None]
    centre = np.add.reduceat(start, outline.begins[:-1]) / outline.counts[:, None]
    offsets = np.einsum("ij,ij->i", normals, start - centre[outline.owners])
    radii = np.empty(len(cells))
    for count in np.unique(outline.counts).tolist():
        of_count = np.flatnonzero(outline.counts == count)
        sides = outline.begins[of_count, None] + np.arange(count)
        if count > MOST_CORNERS:
            radii[of_count] = [_by_program(normals[each], offsets[each]) for each in sides]
            continue
        triples = np.array(list(combinations(range(count), 3)))
        for part in np.array_split(np.arange(len(of_count)), -(-len(of_count) * len(triples) // TRIPLES)):
            radii[of_count[part]] = _by_triples(normals[sides[part]], offsets[sides[part]], triples)
    return radii


def _by_triples(normals: Floats, offsets: Floats, triples: Ints) -> Floats:
    """(n, sides, 2), (n, sides) -> (n,): the smallest of the circles that three sides leave room for."""
    one, two, three = (normals[:, triples[:, place]] for place in range(3))
    weights = np.stack(
        [a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0] for a, b in ((two, three), (three, one), (one, two))]
    )
    total = weights.sum(0)
    with np.errstate(all="ignore"):
        weights /= total
        radii = (weights * np.moveaxis(offsets[:, triples], -1, 0)).sum(0)
    bounded = (weights > -1e-12).all(0) & np.isfinite(radii)
    least: Floats = np.where(bounded, radii, np.inf).min(1)
    return np.where(np.isfinite(least), np.maximum(least, 0.0), 0.0)


def _by_program(normals: Floats, offsets: Floats) -> float:
    """The same from the program itself, in units of the cell: the program's tolerances are absolute."""
    sides = np.isfinite(offsets)  # an edge without a length has no normal
    unit = float(offsets[sides].max(initial=0.0))
    if unit <= 0:
        return 0.0
    rows = np.column_stack((normals[sides], np.ones(int(sides.sum()))))
    found = linprog((0, 0, -1), rows, offsets[sides] / unit, bounds=((None, None), (None, None), (0, None)))
    return unit * float(found.x[2]) if found.success else 0.0


@dataclass(frozen=True, eq=False)
class Maps:
    """The affine map of each cell: value + gradient (u − place).

    Attributes:
        places: (cells, 2), a corner of the cell.
        values: (cells, outputs), there.
        gradients: (cells, outputs, 2).
        heights: (cells,): of the triangle from which the gradient was taken; the smaller, the less exact.
    """

    places: Floats
    values: Floats
    gradients: Floats
    heights: Floats


def maps(cells: Cells, outline: Outlines) -> Maps:
    """From the outputs at three corners of each cell that span a large triangle."""
    begins, owners, vertices = outline.begins[:-1], outline.owners, outline.vertices
    first = vertices[begins]
    arms = cells.points[vertices] - cells.points[first][owners]
    second = vertices[_largest(np.hypot(arms[:, 0], arms[:, 1]), outline)]
    side = cells.points[second] - cells.points[first]
    across = np.abs(side[owners, 0] * arms[:, 1] - side[owners, 1] * arms[:, 0])
    third = vertices[_largest(across, outline)]
    other = cells.points[third] - cells.points[first]
    twice = side[:, 0] * other[:, 1] - side[:, 1] * other[:, 0]
    one, two = cells.outputs[second] - cells.outputs[first], cells.outputs[third] - cells.outputs[first]
    with np.errstate(all="ignore"):
        by_x = (one * other[:, 1:] - two * side[:, 1:]) / twice[:, None]
        by_y = (two * side[:, :1] - one * other[:, :1]) / twice[:, None]
        heights = np.abs(twice) / np.hypot(side[:, 0], side[:, 1])
    gradients = np.nan_to_num(np.stack((by_x, by_y), axis=2), nan=0.0, posinf=0.0, neginf=0.0)
    return Maps(cells.points[first], cells.outputs[first], gradients, np.nan_to_num(heights))


def _largest(values: Floats, outline: Outlines) -> Ints:
    """Where in the outlines the largest value of each cell stands."""
    largest = np.maximum.reduceat(values, outline.begins[:-1])
    places = np.where(values >= largest[outline.owners], np.arange(len(values)), len(values))
    return np.minimum.reduceat(places, outline.begins[:-1])


def affine_regions(network: PiecewiseAffine, cells: Cells, basis: Floats, found: Maps) -> Ints:
    """The affine region of each cell: neighbours, across an edge, with the same affine map are one.

    Neighbours agree on their edge, so that their maps are the same where their gradients are. Gradients from
    corners are not exact in thin cells; those that may be equal are computed again from the patterns.

    Returns:
        (cells,) numbers from 0.
    """
    inner = np.flatnonzero((cells.left >= 0) & (cells.right >= 0))
    left, right = cells.left[inner], cells.right[inner]
    scale = float(np.abs(found.gradients).max(initial=0.0))
    size = float(np.abs(cells.outputs).max(initial=0.0))
    apart = np.empty(len(inner))
    most = max(1, COMPARED_NUMBERS // max(1, found.gradients[0].size))
    for start in range(0, len(inner), most):
        part = slice(start, start + most)
        apart[part] = np.abs(found.gradients[left[part]] - found.gradients[right[part]]).max((1, 2), initial=0.0)
    heights = np.minimum(found.heights[left], found.heights[right])
    with np.errstate(divide="ignore"):
        near = np.flatnonzero(apart <= NEARLY * scale + 100 * cells.resolution * size / heights)
    same = np.zeros(len(near), bool)
    for start in range(0, len(near), COMPARED):
        pairs = near[start : start + COMPARED]
        both = np.concatenate((left[pairs], right[pairs]))
        one, two = np.split(network.jacobians(cells.patterns[both], basis), 2)
        largest = max(scale, float(np.abs(one).max(initial=0.0)))
        same[start : start + COMPARED] = np.abs(one - two).max((1, 2), initial=0.0) <= EQUAL * largest
    joined = near[same]
    links = coo_array(
        (np.ones(len(joined), np.int8), (left[joined], right[joined])), shape=(len(cells), len(cells))
    )
    labels: Ints = connected_components(links, directed=False)[1].astype(np.int64)
    return labels


def lengths(cells: Cells) -> Floats:
    """Of each edge, in units of the plane."""
    along = cells.points[cells.ends] - cells.points[cells.starts]
    return np.hypot(along[:, 0], along[:, 1])
