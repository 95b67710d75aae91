"""Confusion matrices as heat maps."""

import numpy as np
from numpy.typing import NDArray

from mlpcli.report.drawing import LETTER, WIDTH, Box, Chart, Path, Shape, Words, cut

Ints = NDArray[np.int64]

WITH_NUMBERS = 12
"""Classes up to which each cell has its number."""
DARK = 0.75
"""Opacity of a box above which light letters can be read better than dark ones, by the ratio of contrast."""
LARGE = 5
"""Classes up to which these are large."""
MOST_CELLS = 50
"""Rows and columns; of more classes, neighbours share a cell."""
MOST_NAMES = 26
"""Rows that are named; of more, every other one, and so on."""
LEFT = 96.0
"""The most room for the names of the classes, in pixels."""


def confusion_chart(name: str, title: str, counts: Ints, classes: list[str], *, rates: bool) -> Chart:
    """A confusion matrix, true class by predicted class, coloured by the share of the row.

    Args:
        counts: (classes, classes).
        classes: their names.
        rates: whether the cells say shares of their row, in percent, instead of counts.
    """
    size = -(-len(classes) // MOST_CELLS)
    counts = _grouped(counts, size)
    names = [
        classes[i] if size == 1 else f"{i}–{min(i + size, len(classes)) - 1}" for i in range(0, len(classes), size)
    ]
    n = len(names)
    sums = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(sums, 1)

    longest = LETTER["small"] * max(map(len, names))
    # names that are too wide for a column give it the number of their row
    numbered = size == 1 and longest > (WIDTH - min(LEFT, longest + 8)) / n
    left = min(LEFT, max(longest + LETTER["small"] * 3 * numbered, 20) + 8)
    side = (WIDTH - left - 2) / n
    top = 34.0
    shapes: list[Shape] = [Words("small", 0, 12, "down: true class; across: predicted class")]
    every = -(-n // MOST_NAMES)
    for index, each in enumerate(names):
        middle = top + (index + 0.5) * side
        if index % every == 0:
            row = f"{index} {each}" if numbered and each != str(index) else each
            shapes.append(Words("small", left - 4, middle + 4, cut(row, left - 4), "end"))
    columns = [str(index) for index in range(n)] if numbered else names
    # those that stand beside each other without touching
    every = -(-int(LETTER["small"] * (max(map(len, columns)) + 1)) // max(1, int(side)))
    for index in range(0, n, every):
        shapes.append(Words("small", left + (index + 0.5) * side, top - 6, columns[index], "middle"))
    for row, column in np.argwhere(counts > 0) if n > WITH_NUMBERS else np.ndindex(n, n):
        count, share = int(counts[row, column]), float(shares[row, column])
        x, y = left + column * side, top + row * side
        colour = 0 if row == column else 1
        tip = f"true {names[row]}, predicted {names[column]}: {count:,} ({share:.1%} of true)"
        gap = 1.0 if n <= MOST_NAMES else 0.0
        if count:
            shapes.append(Box(x, y, side - gap, side - gap, colour, _opacity(share), tip))
        if n <= WITH_NUMBERS:
            text = _percent(share) if rates else _count(count, side)
            dark = count > 0 and _opacity(share) > DARK
            style = ("large-" if n <= LARGE else "") + "over" if dark else "large" if n <= LARGE else "tiny"
            if count or n <= 4:
                shapes.append(
                    Words(style, x + side / 2 - 0.5, y + side / 2 + (5 if n <= LARGE else 3), text, "middle")
                )
    bottom = top + n * side
    shapes.append(Path("axis", ((left, top), (left, bottom), (left + n * side, bottom))))
    caption = "Blue is right, orange is wrong; the darker, the larger the share of its row."
    if size > 1:
        caption += f" Each cell stands for {size} by {size} classes, in their order."
    elif numbered:
        caption += " Columns have the numbers of the rows."
    return Chart(name, title, tuple(shapes), bottom + 6, caption)


def _grouped(counts: Ints, size: int) -> Ints:
    """Sums over blocks of `size` by `size`."""
    if size == 1:
        return counts
    starts = np.arange(0, len(counts), size)
    rows = np.add.reduceat(counts, starts, axis=0)
    found: Ints = np.add.reduceat(rows, starts, axis=1)
    return found


def _opacity(share: float) -> float:
    """A rate of one in a hundred can be seen, and a rate of 1 is full colour."""
    return float(0.08 + 0.92 * share**0.6)


def _count(count: int, side: float) -> str:
    text = f"{count:,}"
    return text if LETTER["tiny"] * len(text) <= side else f"{count / 1000:.3g}k"


def _percent(share: float) -> str:
    percent = 100 * share
    if percent == 0:
        return "0"
    return "100" if percent == 100 else f"{percent:.1f}"
