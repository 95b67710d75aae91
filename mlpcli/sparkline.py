"""The curves of a training in a few lines of text, for a terminal of 80 columns."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from mlpcli.tables import columns

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*%#"
"""Eight heights, low to high, with and without Unicode."""
WIDTH = 26
"""The most characters of a curve, so that the table fits into 80 columns."""


def encodable(encoding: str | None) -> bool:
    """Whether text of that encoding (None: Unicode) can hold the blocks."""
    try:
        BLOCKS.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def losses(lines: Sequence[Mapping[str, Any]], *, unicode: bool) -> str | None:
    """The training and validation loss over the epochs as curves, each with its first, best and last value.

    Both curves are on one scale, a logarithmic one where all losses are positive.

    Args:
        lines: of metrics.jsonl.
        unicode: whether to draw with blocks, or with ASCII alone.

    Returns:
        None where there are fewer than two epochs, and so no curve.
    """
    by_split = {
        split: [(line["epoch"], float(line[split]["loss"])) for line in lines if "loss" in line.get(split, {})]
        for split in ("train", "validation")
    }
    by_split = {split: found for split, found in by_split.items() if len(found) > 1}
    if not by_split:
        return None
    every = [loss for found in by_split.values() for _, loss in found]
    positive = min(every) > 0
    height = math.log if positive else float
    low, high = height(min(every)), height(max(every))
    rows = []
    for split, found in by_split.items():
        curve = sparkline([height(loss) for _, loss in found], low, high, BLOCKS if unicode else ASCII)
        best, at = min((loss, epoch) for epoch, loss in found)
        rows.append((split, curve, rounded(found[0][1]), rounded(best), at, rounded(found[-1][1])))
    header = ("loss", "log scale" if positive else "linear scale", "first", "best", "at epoch", "last")
    return columns(rows, header)


def sparkline(values: Sequence[float], low: float, high: float, levels: str = BLOCKS, width: int = WIDTH) -> str:
    """A curve as one character for each value; where there are more than `width`, for the mean of some in a row.

    Args:
        values: at least one, from `low` to `high`.
        low, high: what the lowest and the highest of `levels` stand for.
    """
    count = min(width, len(values))
    bounds = [place * len(values) // count for place in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(bounds)]
    share = [(mean - low) / (high - low) if high > low else 0.0 for mean in means]
    return "".join(levels[round(each * (len(levels) - 1))] for each in share)


def rounded(value: float) -> str:
    """Four decimals, or three digits and a power of ten where that says more."""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.3g}"
