"""Whether two networks differ on the same samples, or only by chance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special  # scipy.stats would take a second to import

from mlpcli.report.statistics import Interval, Z, mean

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEVEL = 0.05
"""Of significance: a difference at least as large as one that is called significant comes about by chance, where
there is none, in at most that share of all test splits."""


@dataclass(frozen=True)
class PairedTest:
    """A network against another one on the same samples.

    Attributes:
        metric: `accuracy`, or `mse` in the targets' own units.
        test: its name.
        samples: how many, at least 1.
        difference: of the metric, the second network's minus the first's, with a 95 % interval.
        p: two-sided, of no difference.
        adjusted: p after Holm's correction for all comparisons; p itself where there is one.
        only: of `accuracy`: samples that only the first, and that only the second classifies right.
    """

    metric: str
    test: str
    samples: int
    difference: Interval
    p: float
    adjusted: float
    only: tuple[int, int] | None = None

    @property
    def significant(self) -> bool:
        """Whether chance alone is no likely explanation."""
        return self.adjusted < LEVEL


def mcnemar(first: Bools, second: Bools) -> PairedTest:
    """Two classifiers, each (n,) with True where it is right: McNemar's test (1947), exact.

    Only the samples that one of the two gets right tell anything: without a difference each of them is the first's
    or the second's with probability 1/2. The interval is Wald's after half a sample is added to each of the four
    cells of the table (Agresti and Min, 2005); near the level it may disagree with the test, which decides.
    """
    n = len(first)
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    p = min(1.0, 2 * float(special.bdtr(min(one, other), one + other, 0.5))) if one + other else 1.0
    middle = (other - one) / (n + 2)
    half = Z * np.sqrt((one + other + 1) - (other - one) ** 2 / (n + 2)) / (n + 2)
    difference = (other - one) / n
    # the middle is drawn towards 0, and for tiny splits the difference itself might be outside
    interval = Interval(difference, min(float(middle - half), difference), max(float(middle + half), difference))
    return PairedTest("accuracy", "McNemar's exact test", n, interval, p, p, (one, other))


def paired_t(first: Floats, second: Floats) -> PairedTest:
    """Two regressions, each (n,) squared errors: Student's paired test of their means, which are the mse.

    It rests on the mean over the samples being near normal, so that a few dozen samples are the least; a single
    sample shows nothing.
    """
    difference = second - first
    n, spread = len(difference), float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    if spread > 0:
        t = float(difference.mean()) / (spread / np.sqrt(n))
        p = 2 * float(special.stdtr(n - 1, -abs(t)))
    else:  # as many equal differences as there are samples; of one sample there is nothing to say
        p = 0.0 if n > 1 and difference[0] != 0 else 1.0
    return PairedTest("mse", "the paired t-test on squared errors", n, mean(difference), p, p)


def with_holm(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """The tests with their p-values adjusted for their number (Holm, 1979).

    The k-th smallest of m counts m − k + 1 times, and never less than a smaller one: so the chance that any of
    them is called significant without a difference stays below the level.
    """
    order = sorted(range(len(tests)), key=lambda index: tests[index].p)
    adjusted, largest = list(tests), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(tests) - rank) * tests[index].p))
        adjusted[index] = replace(tests[index], adjusted=largest)
    return adjusted
