"""Axes, logarithmic or linear: from numbers to places, and the ticks beside them."""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

Scale = Literal["log", "linear"]
MOST_TICKS, MOST_WIDE_TICKS = 9, 7
"""Of an axis, and of a linear x axis, whose numbers are longer."""
ROOM = 0.03
"""Of an axis, beyond each end of the points."""
NARROWEST = 0.6
"""Decades of a logarithmic axis."""
NARROWEST_SHARE = 1e-3
"""Length of a linear axis, as a share of its largest number: a shorter one would need longer numbers."""
NEAR_ZERO = 0.2
"""A linear axis begins at 0 where the smallest point is at most that share of the largest."""
TINY, HUGE = 1e-300, 1e300
"""What is shorter is no length of a linear axis, and what is larger has no place on one: float64 ends there."""


def has_place(value: float, scale: Scale) -> bool:
    """Whether a value has a place on an axis."""
    return 0 < value < math.inf if scale == "log" else -HUGE < value < HUGE


class Axis:
    """From numbers to shares of its length, and what stands beside it.

    Args:
        scale: what equal lengths mean.
        values: that it has to hold, at least one.
        most: ticks of a linear one.
    """

    def __init__(self, scale: Scale, values: Sequence[float], most: int) -> None:
        self.scale = scale
        self.low, self.high = _log_range(values) if scale == "log" else _linear_range(values)
        self.whole = all(value == round(value) for value in values)
        self.most = most

    def share(self, value: float) -> float:
        """How far along the axis: 0 where it begins, 1 where it ends."""
        position = math.log10(value) if self.scale == "log" else value
        return (position - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Values and their texts."""
        if self.scale == "log":
            return [(tick, number(tick)) for tick in _log_ticks(self.low, self.high)]
        ticks = linear_ticks(self.low, self.high, self.most, whole=self.whole)
        return [(tick, linear_number(tick)) for tick in ticks]


class Categories:
    """Names side by side in places of the same width; where a value is, is its number.

    Args:
        names: at least one.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def share(self, value: float) -> float:
        """How far along the axis the middle of that place is; between whole numbers it is beside it."""
        return (value + 0.5) / len(self.names)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and their names."""
        return [(float(index), name) for index, name in enumerate(self.names)]


def _log_range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of a logarithmic axis, as decimal logarithms, with a little room, and enough for a tick."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(ROOM * (high - low), (NARROWEST - (high - low)) / 2)
    return low - room, high + room


def _linear_range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of a linear axis: 0 below what is near it, else with a little room, and enough for a tick."""
    low, high = min(values), max(values)
    if 0 <= low <= NEAR_ZERO * high and high > TINY:
        return 0.0, high + ROOM * high
    # numbers that are all whole and equal stand between two others, with no tick but their own
    narrowest = max(NARROWEST_SHARE * max(-low, high), 1.0 if low == high == round(low) else TINY)
    room = max(ROOM * (high - low), (narrowest - (high - low)) / 2)
    return low - room, high + room


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, or 1, 2 and 5 times them where those are few, between two decimal logarithms."""
    powers = [10.0**power for power in range(math.floor(low), math.ceil(high) + 1)]
    digits = (1, 2, 5) if high - low < 2.5 else (1, 3) if high - low < 4 else (1,)
    ticks = [digit * power for power in powers for digit in digits]
    ticks = [tick for tick in ticks if low <= math.log10(tick) <= high]
    return ticks[:: math.ceil(len(ticks) / MOST_TICKS)]


def linear_ticks(low: float, high: float, most: int = MOST_TICKS, *, whole: bool = False) -> list[float]:
    """The multiples of a step that is 1, 2 or 5 times a power of ten, of the smallest step that gives few enough.

    Args:
        low, high: ends of the axis, `low` the smaller, which belong to it.
        most: ticks, at least 2. There are at least 3 of 9, and at least 2 of 7.
        whole: whether no step is less than 1, for counts; then there may be fewer.
    """
    assert low < high and most > 1
    start = math.floor(math.log10(high - low) - math.log10(most)) - 1
    for power in itertools.count(max(start, 0) if whole else start):
        for digit in (1, 2, 5):
            # as integers, so that each tick is the float nearest to it: 0.3, and not 3 · 0.1
            above, below = digit * 10 ** max(power, 0), 10 ** max(-power, 0)
            first, last = (math.floor(Fraction(end) * below / above) for end in (low, high))
            if last - first <= most + 1:
                ticks = [index * above / below for index in range(first, last + 2)]
                ticks = [tick for tick in ticks if low <= tick <= high]
                if len(ticks) <= most:
                    return ticks
    raise AssertionError("a step longer than the axis gives at most one tick, or two at its ends")


def number(value: float) -> str:
    """A tick of a logarithmic axis, above 0: 20, 0.05, 1e-8."""
    if 1e-3 <= value < 1e5:
        return f"{value:,.0f}" if value >= 1 else f"{value:g}"
    mantissa, _, power = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(power)}"


def linear_number(value: float) -> str:
    """A tick of a linear axis, with as many digits as it has: 0, -2.5, 120,000, 1.2e6, 5e-5."""
    if value == 0:
        return "0"  # -0.0 too
    if 1e-4 <= abs(value) < 1e6:
        return f"{value:,.12g}"
    mantissa, _, power = f"{value:.11e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
