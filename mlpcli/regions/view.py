"""A plane of a network's input space with all that is known of it: what is printed and drawn."""

from dataclasses import dataclass

import numpy as np

from mlpcli.regions.decision import Decision
from mlpcli.regions.measures import Maps, Outlines
from mlpcli.regions.piecewise import Floats, Ints, PiecewiseAffine
from mlpcli.regions.plane import Cells

MARK_FILLS = ["#ffd23f", "#ffffff", "#56b4e9", "#d55e00", "#009e73", "#cc79a7"]
"""Of samples, by their group; colour-blind eyes tell them apart too (Okabe & Ito 2008)."""


@dataclass(frozen=True)
class Mark:
    """A sample in the plane.

    Attributes:
        x, y: where it is, in the plane's coordinates.
        text: what it is.
        group: the output that it should have the largest, where samples are told apart by it; else 0.
    """

    x: float
    y: float
    text: str
    group: int = 0

    @property
    def fill(self) -> str:
        """Its colour."""
        return MARK_FILLS[self.group]


@dataclass(frozen=True, eq=False)
class View:
    """A window of a plane.

    Attributes:
        title: of what network, in which plane.
        x_label, y_label: of the coordinates, with their units.
        window: (low x, low y, high x, high y).
        network: that cuts it.
        basis: (2, inputs) of the plane.
        cells: the activation regions.
        outline, maps: of each cell.
        regions: (cells,), the affine region of each, from 0.
        decision: by the largest output; None for regression.
        outputs: their names: classes, or targets.
        marks: samples in the plane.
    """

    title: str
    x_label: str
    y_label: str
    window: tuple[float, float, float, float]
    network: PiecewiseAffine
    basis: Floats
    cells: Cells
    outline: Outlines
    maps: Maps
    regions: Ints
    decision: Decision | None
    outputs: list[str]
    marks: list[Mark]

    @property
    def layers(self) -> Ints:
        """(edges,): the hidden layer that made each edge, from 0; −1 for the window."""
        starts = np.cumsum([0, *self.network.hidden])
        return np.where(self.cells.makers < 0, -1, np.searchsorted(starts, self.cells.makers, side="right") - 1)
