"""Cells and classes, pixel by pixel."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from mlpcli.regions.piecewise import Floats, Ints
from mlpcli.regions.view import View

ASIDE = 1e-3 / np.pi
"""The middles of the rows of pixels are shifted by that, so that corners at round numbers do not lie on them."""
COARSE = 4
"""Pixels of a picture for each at which the class is looked up."""


def raster(view: View, size: tuple[int, int]) -> Ints:
    """(height, width): the cell at the middle of each pixel of the window, −1 where there is none.

    Every edge that crosses the middle line of a row of pixels begins the cell to its right there; what stands
    between two such places, sorted along the row, is one cell.
    """
    width, height = size
    low_x, low_y, high_x, high_y = view.window
    cells = view.cells
    x = (cells.points[:, 0] - low_x) / (high_x - low_x) * width
    y = (high_y - cells.points[:, 1]) / (high_y - low_y) * height - (0.5 + ASIDE)
    x0, y0, x1, y1 = x[cells.starts], y[cells.starts], x[cells.ends], y[cells.ends]
    begins = np.ceil(np.minimum(y0, y1)).clip(0, height).astype(np.int64)
    counts = np.ceil(np.maximum(y0, y1)).clip(0, height).astype(np.int64) - begins
    crossing = np.flatnonzero(counts)
    counts = counts[crossing]
    # seen from above to below, the cell on the side of larger x is the left one
    cell = np.where(y1 > y0, cells.left, cells.right)[crossing]
    with np.errstate(all="ignore"):
        slope = ((x1 - x0) / (y1 - y0))[crossing]
    skipped = np.cumsum(counts) - counts
    row = np.arange(int(counts.sum())) + np.repeat(begins[crossing] - skipped, counts)
    at = np.repeat(x0[crossing] - y0[crossing] * slope, counts) + row * np.repeat(slope, counts)
    # every row begins outside
    row = np.concatenate((np.arange(height), row))
    at = np.concatenate((np.full(height, -1.0), at.clip(-0.5, width)))
    cell = np.concatenate((np.full(height, -1), np.repeat(cell, counts)))
    order = np.argsort(row * (width + 2.0) + at)
    pixel = row[order] * width + np.ceil(at[order] - 0.5).clip(0, width).astype(np.int64)
    return np.repeat(cell[order], np.diff(pixel, append=width * height)).reshape(height, width)


def middles(
    view: View, size: tuple[float, float], avoided: Floats, least: float
) -> Iterator[tuple[int, float, float, float]]:
    """Where a name of the largest output has most room, in each region that is wide enough, largest first.

    Args:
        view: of classes.
        size: width and height of the plane in pixels.
        avoided: (n, 2), places that are far from the names, in pixels from the left and from the top of the plane.
        least: pixels from such a place to a boundary, the frame or what is avoided.

    Yields:
        The output; the pixels from the left and from the top; and how far it is to what is nearest.
    """
    width, height = (max(1, round(side / COARSE)) for side in size)
    labels = raster(view, (width, height))
    low_x, low_y, high_x, high_y = view.window
    x = low_x + (np.arange(width) + 0.5) / width * (high_x - low_x)
    y = high_y - (np.arange(height) + 0.5) / height * (high_y - low_y)
    away = np.stack(np.meshgrid(x, y), axis=-1) - view.maps.places[labels]
    values = view.maps.values[labels]
    for axis in (0, 1):
        values += view.maps.gradients[labels, :, axis] * away[..., axis, None]
    classes = np.where(labels >= 0, values.argmax(-1), -1)
    columns, rows = (avoided / COARSE).astype(int).clip(0, (width - 1, height - 1)).T
    classes[rows, columns] = -1
    found = []
    for output in np.unique(classes[classes >= 0]).tolist():
        there = np.pad(classes == output, 1)
        room = ndimage.distance_transform_edt(there)
        parts, count = ndimage.label(there)
        for row, column in ndimage.maximum_position(room, parts, range(1, count + 1)):
            radius = float(room[row, column]) * COARSE
            if radius >= least:
                found.append((output, (column - 0.5) * COARSE, (row - 0.5) * COARSE, radius))
    yield from sorted(found, key=lambda each: -each[3])
