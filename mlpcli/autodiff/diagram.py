"""What a picture of a computation graph shows, whatever the graph is of: boxes, arrows, and their numbers."""

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["input", "constant", "inner", "leaf"]
Role = Literal["value", "adjoint", "tangent"]
Explained = Literal["input", "constant", "inner", "leaf", "value", "adjoint", "tangent", "local"]


@dataclass(frozen=True)
class Row:
    """A number in a box: which pass it comes from, what it is called, and the number as text."""

    role: Role
    word: str
    text: str


@dataclass(frozen=True)
class Box:
    """A node: how it is drawn, its name, its formula (`z3 = exp(z1)`), its numbers, and more to point at."""

    kind: Kind
    name: str
    formula: str
    rows: tuple[Row, ...]
    details: str


@dataclass(frozen=True)
class Link:
    """An edge from the box `parent` to the box `child`, by their numbers, with the local derivative as text."""

    parent: int
    child: int
    label: str
    details: str


@dataclass(frozen=True)
class Diagram:
    """A picture before it has places.

    Attributes:
        heading: one line above it.
        boxes: in topological order, at least one.
        links: parents before children.
        legend: what the kinds of boxes, the roles of rows, and the labels ("local") mean.
        notes: lines below it.
    """

    heading: str
    boxes: tuple[Box, ...]
    links: tuple[Link, ...]
    legend: tuple[tuple[Explained, str], ...]
    notes: tuple[str, ...] = ()


def number(value: float, digits: int = 4) -> str:
    """A number in a picture or a formula: `digits` significant digits, a true minus sign, and `none` for NaN."""
    if math.isnan(value):
        return "none"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value + 0.0:.{digits}g}"  # −0.0 + 0.0 = 0.0
    mantissa, _, exponent = text.partition("e")
    if exponent:
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "−")


def finite(value: float) -> float | None:
    """A number for JSON, which has none that is not finite."""
    return value if math.isfinite(value) else None
