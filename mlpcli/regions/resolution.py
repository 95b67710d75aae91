"""When a computed number counts as zero: the one sign rule of lines and planes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mlpcli.errors import FailedError
from mlpcli.regions.piecewise import Floats, Ints, PiecewiseAffine

FINEST = 1e-13
"""Some hundred roundings of float64."""
COARSEST = 1e-8
COARSER = 16.0


class Inconsistent(Exception):
    """Rounded numbers contradict each other: a cell would not be convex. A coarser resolution settles it."""


Result = TypeVar("Result")


def settled(attempt: Callable[[float], Result], finest: float = FINEST) -> Result:
    """What an attempt comes to at the finest resolution at which it is consistent.

    Raises:
        FailedError: none is.
    """
    epsilon = finest
    while epsilon <= COARSEST:
        try:
            return attempt(epsilon)
        except Inconsistent:
            epsilon *= COARSER
    raise FailedError(
        "the regions here are too thin for float64 to tell apart\n"
        "    choose a window of another size, or one nearer to the data"
    )


@dataclass(frozen=True, eq=False)
class Rule:
    """A preactivation z = w·x + b counts as zero where |z| ≤ ε ‖w‖ ‖x‖: rounding may decide its sign there.

    Attributes:
        weights: ε‖w‖ of each unit of a layer.
    """

    weights: Floats

    @classmethod
    def of(cls, network: PiecewiseAffine, layer: int, epsilon: float) -> "Rule":
        """For the preactivations of a layer."""
        return cls(epsilon * np.linalg.norm(network.weights[layer], axis=1))

    def settle(self, rows: Floats, lengths: Floats) -> None:
        """Set what counts as zero to zero.

        Args:
            rows: (n, units), changed in place.
            lengths: (n,), ‖x‖.
        """
        rows[np.abs(rows) <= lengths[:, None] * self.weights] = 0.0

    def doubtful(self, rows: Floats, lengths: Floats) -> Ints:
        """Which units are not far from zero on one side in all rows: only these may have anything to settle."""
        most = lengths.max() * self.weights
        return np.flatnonzero((rows.min(0) <= most) & (rows.max(0) >= -most))

    def only(self, units: Ints | slice) -> "Rule":
        """For some of the units."""
        return Rule(self.weights[units])
