"""How sure a measurement is: intervals, in closed form, for scipy.stats would take a second to import."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
SMALL = (
    12.7062047,
    4.30265273,
    3.18244631,
    2.77644511,
    2.57058184,
    2.44691185,
    2.36462425,
    2.30600414,
    2.26215716,
)
"""Those of Student's distribution with 1 to 9 degrees of freedom."""


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def share(hits: int, samples: int) -> Interval:
    """A proportion, with the interval of Wilson (1927), which holds near 0 and 1 too; `samples` is at least 1."""
    p, z2 = hits / samples, Z * Z / samples
    middle = (p + z2 / 2) / (1 + z2)
    half = Z / (1 + z2) * np.sqrt(p * (1 - p) / samples + z2 / (4 * samples))
    # exactly 0 and 1 at the ends, where rounding would leave 1e-17
    low = 0.0 if hits == 0 else float(middle - half)
    return Interval(p, low, 1.0 if hits == samples else float(middle + half))


def mean(values: Floats) -> Interval:
    """A mean (n,), with Student's interval; both ends are the mean where n is 1."""
    middle, n = float(values.mean()), len(values)
    if n < 2:
        return Interval(middle, middle, middle)
    half = student(n - 1) * float(values.std(ddof=1)) / np.sqrt(n)
    return Interval(middle, middle - half, middle + half)


def student(degrees: int) -> float:
    """The 97.5 % quantile of Student's distribution, to 5 digits: listed up to 9 degrees of freedom, and beyond by
    its expansion in their inverse (Abramowitz & Stegun 1964, 26.7.5)."""
    if degrees <= len(SMALL):
        return SMALL[degrees - 1]
    z, inverse = Z, 1 / degrees
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term * inverse**power for power, term in enumerate(terms))
