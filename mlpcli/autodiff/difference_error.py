"""Finite differences and the complex step: their error against the step size, measured and as theory has it.

For φ(t) = f(x + t), of which the derivative at 0 is asked for, with u the unit round-off of the number type,

method    estimate                                              truncation       round-off
forward   (φ(h) − φ(0))/h                                       h |f″|/2         2u|f|/h
central   (φ(h) − φ(−h))/2h                                     h² |f‴|/6        u|f|/h
5-point   (8(φ(h) − φ(−h)) − (φ(2h) − φ(−2h)))/12h              h⁴ |f⁽⁵⁾|/30     3u|f|/2h
complex   Im φ(ih)/h                                            h² |f‴|/6        u|f′|, whatever h is

(Numerical Recipes, section 5.7; Squire and Trapp, SIAM Review 40, 1998). The sum of T hᵖ and R/h is least at
h = (R/(pT))^(1/(p+1)): forward 2 sqrt(u|f/f″|), central (3u|f/f‴|)^(1/3).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MOST = 7
"""The highest derivative that theory looks at: where f‴ is 0, say, the next term of the series leads."""
FIRST, LAST = -1, -16
"""Decimal logarithms of the largest and of the smallest step."""
FLOOR_DECADES = 4
"""Decades of the smallest steps, in which the error of a complex step is that of the last digit alone."""
BINS_PER_DECADE = 4
LONGEST_FIT = 5
"""Bins of a truncation side that are fitted, from its lower end, where the leading term dominates most."""
CLEAR = 10.0
"""Truncation is fitted where it is so many times the round-off, and round-off where that is the larger one."""
CROOKED = 0.2
"""Where the slopes of a truncation side's two halves differ by more, another term of the series is there too."""
FLAT = -0.5
"""A side of small steps that is less steep is no round-off, but the last digit of a function that is 0 there."""
SATURATED = 0.3
"""Errors above this share of |f′| are no estimates any more: the step is about to vanish in x or in f."""


@dataclass(frozen=True)
class Difference:
    """One way to estimate a derivative from values.

    Attributes:
        name: of it.
        weights: (k, c): the estimate is Σ c φ(kh) / (divisor · h). Empty for the complex step.
        divisor: makes the weights whole numbers.
        order: p of the truncation error T hᵖ, in general.
    """

    name: str
    weights: tuple[tuple[int, int], ...]
    divisor: int
    order: int

    def estimate(self, phi: Callable[["Array"], Any], h: "Array") -> Any:
        """φ′(0) for each step, in the number type of h."""
        import numpy as np

        with np.errstate(all="ignore"):
            if not self.weights:
                return np.imag(phi(1j * h)) / h
            # by pairs, so that what cancels does so before anything is scaled
            total = np.zeros_like(h)
            for (k, c), (k2, c2) in zip(self.weights[::2], self.weights[1::2], strict=True):
                assert c2 == -c
                total = total + c * (phi(k * h) - phi(k2 * h))
            return total / (self.divisor * h)

    def factor(self, m: int) -> float:
        """The estimate's error in terms of f⁽ᵐ⁾ hᵐ⁻¹; 0 for terms that cancel."""
        if not self.weights:
            return abs((1j**m).imag) / math.factorial(m)
        return abs(sum(c * float(k) ** m for k, c in self.weights)) / (self.divisor * math.factorial(m))

    @property
    def noise(self) -> float:
        """R of the round-off R/h in units of u|f|."""
        return sum(abs(c) for _, c in self.weights) / self.divisor


DIFFERENCES = (
    Difference("forward", ((1, 1), (0, -1)), 1, 1),
    Difference("central", ((1, 1), (-1, -1)), 2, 2),
    Difference("5-point", ((1, 8), (-1, -8), (2, -1), (-2, 1)), 12, 4),
    Difference("complex", (), 1, 2),
)


@dataclass(frozen=True)
class Sides:
    """The two sides of an error curve, and where it is lowest; measured, or as theory has it.

    Attributes:
        truncation: the slope of log error over log h for large steps; None where there is no such side, or too
            little of it between the largest step and the round-off.
        round_off: likewise for small steps.
        step: the best one; for the complex step the largest of the best.
        error: there.
    """

    truncation: float | None
    round_off: float | None
    step: float | None
    error: float | None


@dataclass(frozen=True)
class ErrorCurve:
    """The errors of one difference in one number type.

    Attributes:
        difference: its name.
        kind: `float32` or `float64`.
        h: steps, largest first.
        error: |estimate − φ′(0)| for each; NaN where a value is not defined.
        measured: what it shows.
        theory: what it should; None where the derivatives are not known.
        predicted: theory's T hᵖ + R/h for each h, or None.
    """

    difference: str
    kind: str
    h: "Array"
    error: "Array"
    measured: Sides
    theory: Sides | None
    predicted: "Array | None"


def steps(per_decade: int) -> "Array":
    """10⁻¹, …, 10⁻¹⁶, so many in each decade."""
    import numpy as np

    return np.logspace(FIRST, LAST, (FIRST - LAST) * per_decade + 1)


def error_curve(
    difference: Difference,
    phi: Callable[["Array"], "Array"],
    kind: str,
    per_decade: int,
    exact: Any,
    derivatives: Sequence[float] | None,
) -> ErrorCurve:
    """Measure the errors of a difference, and compare with theory.

    Args:
        difference: which.
        phi: φ(t) for an array of t, computed in the type of t.
        kind: `float32` or `float64`.
        per_decade: how many steps.
        exact: φ′(0), as precise as a longdouble.
        derivatives: f, f′, … at the point, up to MOST or fewer; None where they are not known.
    """
    import numpy as np

    h = steps(per_decade)
    estimates = difference.estimate(phi, h.astype(kind))
    with np.errstate(all="ignore"):
        error = np.abs(estimates.astype(np.longdouble) - exact).astype(np.float64)
    error[~np.isfinite(error)] = np.nan
    unit = float(np.finfo(kind).eps) / 2
    theory, predicted = None, None
    if derivatives is not None:
        theory, predicted = _theory(difference, derivatives, unit, h)
    seen = measured(h, error, abs(float(exact)), unit, noisy=bool(difference.weights))
    return ErrorCurve(difference.name, kind, h, error, seen, theory, predicted)


def _theory(
    difference: Difference, derivatives: Sequence[float], unit: float, h: "Array"
) -> tuple[Sides, "Array"]:
    """The two sides by the leading term of Taylor's series, and their sum for each step."""
    import numpy as np

    slope, coefficient = 0, 0.0
    for m in range(2, len(derivatives)):
        coefficient = difference.factor(m) * abs(derivatives[m])
        if coefficient > 0:
            slope = m - 1
            break
    truncation = coefficient * h**slope
    if not difference.weights:
        floor = unit * abs(derivatives[1])
        best = (floor / coefficient) ** (1 / slope) if slope else 0.0
        return Sides(slope or None, None, best or None, floor), np.maximum(truncation, floor)
    noise = difference.noise * unit * abs(derivatives[0])
    predicted = truncation + noise / h
    best = (noise / (slope * coefficient)) ** (1 / (slope + 1)) if slope else 0.0
    if not best:
        return Sides(slope or None, -1 if noise else None, None, None), predicted
    return Sides(slope or None, -1, best, noise / best * (1 + 1 / slope)), predicted


def measured(h: "Array", error: "Array", scale: float, unit: float, noisy: bool) -> Sides:
    """The slopes of an error curve's sides, and its lowest place.

    Round-off is erratic, but bounded: what is fitted are the largest errors of each quarter of a decade, and the
    best step is where those are least, for a single error may be 0 by chance.

    Args:
        h: steps, largest first.
        error: of each, or NaN.
        scale: |f′|.
        unit: round-off of the number type.
        noisy: whether round-off grows as h falls; if not, as for the complex step, there is only a floor.
    """
    import numpy as np

    number = np.floor(BINS_PER_DECADE * (FIRST - np.log10(h)) + 1e-6).astype(int)
    bins = [
        (h[inside], error[inside])
        for each in range(number.max() + 1)
        if len(inside := np.flatnonzero((number == each) & (error >= 0)))
    ]
    if not bins:
        return Sides(None, None, None, None)
    middles = np.array([math.sqrt(steps[0] * steps[-1]) for steps, _ in bins])
    tops = np.array([errors.max() for _, errors in bins])
    if not tops.any():
        return Sides(None, None, None, 0.0)
    round_off = None
    if noisy:
        lowest = int(np.where(tops > 0, tops, np.inf).argmin())
        round_off, floors = _round_off(middles, tops, lowest, scale)
    else:
        floor = max(tops[middles < 10.0 ** (LAST + FLOOR_DECADES)].max(initial=0), unit * scale)
        lowest = int(np.argmax(tops <= 2 * floor))
        floors = np.full(len(tops), floor)
    side: list[int] = []
    for index in range(lowest - 1, -1, -1):
        if bins[index][1].min() > CLEAR * floors[index]:
            side.append(index)
        elif side:
            break
    truncation = None
    for count in range(min(len(side), LONGEST_FIT), 1, -1):
        truncation = _straight(*(np.concatenate([bins[index][part] for index in side[:count]]) for part in (0, 1)))
        if truncation is not None:
            break
    return Sides(truncation, round_off, float(middles[lowest]), float(tops[lowest]))


def _round_off(middles: "Array", tops: "Array", lowest: int, scale: float) -> tuple[float | None, "Array"]:
    """The slope of the side of small steps, or None, and its level for each step."""
    import numpy as np

    small = (middles < middles[lowest] / CLEAR**0.5) & (tops > 0)
    saturated = middles[(middles < middles[lowest]) & (tops >= SATURATED * scale)] if scale else middles[:0]
    small &= middles > saturated.max(initial=0)
    slope = _slope(middles[small], tops[small])
    if slope is None or slope > FLAT:
        return None, np.full(len(middles), tops[small].max(initial=tops[lowest]))
    return slope, np.exp(np.mean(np.log(tops[small] * middles[small]))) / middles


def _straight(h: "Array", error: "Array") -> float | None:
    """The slope, unless its two halves have others: there the leading term does not rule yet."""
    upper = h > math.sqrt(h.min() * h.max())
    above, below = (_slope(h[half], error[half], 0.2) for half in (upper, ~upper))
    if above is None or below is None or abs(above - below) > CROOKED:
        return None
    return _slope(h, error)


def _slope(h: "Array", error: "Array", decades: float = 0.45) -> float | None:
    """By least squares on logarithms; None for steps that span too little."""
    import numpy as np

    if len(h) < 2 or h.max() / h.min() < 10**decades:
        return None
    return float(np.polyfit(np.log(h), np.log(error), 1)[0])
