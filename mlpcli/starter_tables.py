"""The tables that `init` writes for the starters of CSV files, from scikit-learn's generators."""

import csv
import io
from collections.abc import Callable
from typing import Any

ROWS = 12_000
"""As many as Hastie et al. draw."""


def hastie() -> tuple[list[str], Any]:
    """Ten independent normal numbers; outside where the sum of their squares is above 9.34, else inside (Hastie,
    Tibshirani & Friedman 2009, equation 10.2)."""
    from sklearn.datasets import make_hastie_10_2

    inputs, targets = make_hastie_10_2(n_samples=ROWS, random_state=0)
    return _names(inputs, "class"), zip(
        inputs, ("outside" if each > 0 else "inside" for each in targets), strict=True
    )


def friedman() -> tuple[list[str], Any]:
    """Ten uniform numbers, of which five matter: 10 sin(π x1 x2) + 20 (x3 − 1/2)² + 10 x4 + 5 x5 plus standard
    normal noise (Friedman 1991)."""
    from sklearn.datasets import make_friedman1

    inputs, targets = make_friedman1(n_samples=ROWS, noise=1.0, random_state=0)
    return _names(inputs, "y"), zip(inputs, (f"{each:.6g}" for each in targets), strict=True)


def _names(inputs: Any, target: str) -> list[str]:
    return [*(f"x{index + 1}" for index in range(inputs.shape[1])), target]


TABLES: dict[str, Callable[[], tuple[list[str], Any]]] = {
    "table_classification": hastie,
    "table_regression": friedman,
}
"""By the starter's name."""


def as_csv(starter: str) -> bytes:
    """The file that the config of `starter` names, the same on every machine."""
    header, rows = TABLES[starter]()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([*(f"{number:.6g}" for number in inputs), target] for inputs, target in rows)
    return text.getvalue().encode()
