"""A graph's value in other number types: numpy arrays of real or complex numbers, and many digits by mpmath."""

import math
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlpcli.autodiff.graph import Graph

if TYPE_CHECKING:
    import numpy as np

ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "pow": operator.pow,
    "neg": operator.neg,
}
SAME_NAME = ("exp", "log", "sin", "cos", "tan", "tanh", "sqrt")
"""Functions that math, numpy and mpmath call alike."""


def value(graph: Graph, at: Mapping[str, Any], operations: Mapping[str, Callable[..., Any]], kind: Any) -> Any:
    """The leaf's value.

    Args:
        graph: which operations, in which order.
        at: the value of every input, of the number type.
        operations: each operation for that type.
        kind: makes that type of a constant.
    """
    uses = [0] * len(graph.nodes)
    for node in graph.nodes:
        for parent in node.parents:
            uses[parent] += 1
    uses[graph.leaf] += 1
    y: list[Any] = [None] * len(graph.nodes)
    for i, node in enumerate(graph.nodes):
        if node.operation == "input":
            y[i] = at[node.name]
        elif node.constant is not None:
            y[i] = kind(node.constant)
        else:
            y[i] = operations[node.operation](*[y[parent] for parent in node.parents])
            for parent in node.parents:
                uses[parent] -= 1
                if not uses[parent]:
                    y[parent] = None  # arrays of a large graph would not all have room
    return y[graph.leaf]


def along(graph: Graph, at: Mapping[str, float], by: str, kind: type[Any]) -> Callable[[Any], Any]:
    """φ(t) = f(…, x + t, …) for a numpy array of t, real or complex, computed in that type.

    Where a program has no value the result is NaN or infinite. relu, abs, max and min of complex numbers decide by
    the real part, as complex-step differentiation needs it (Martins, Sturdza and Alonso 2003).

    Args:
        graph: f.
        at: the point.
        by: the input x that moves.
        kind: np.float32 or np.float64.
    """
    import numpy as np

    operations = _numpy_operations()

    def phi(t: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        point: dict[str, Any] = {name: kind(number) for name, number in at.items()}
        point[by] = point[by] + t
        with np.errstate(all="ignore"):
            found: np.ndarray[Any, Any] = value(graph, point, operations, kind) + np.zeros_like(t)
        return found

    return phi


def _numpy_operations() -> dict[str, Callable[..., Any]]:
    import numpy as np

    def power(base: Any, exponent: Any) -> Any:
        if not (np.iscomplexobj(base) or np.iscomplexobj(exponent)):
            return np.power(base, exponent)
        # A power of a negative number comes from an angle near π, whose rounding would drown the step.
        whole = (exponent == np.round(np.real(exponent))) & (np.real(base) < 0)
        odd = np.mod(np.real(exponent), 2) == 1
        turned = np.power(np.where(whole, -base, base), exponent)
        return np.where(whole & odd, -turned, turned)

    return {
        **ARITHMETIC,
        **{name: getattr(np, name) for name in SAME_NAME},
        "pow": power,
        "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
        "relu": lambda a: np.where(np.real(a) > 0, a, 0 * a),
        "abs": lambda a: np.where(np.real(a) < 0, -a, a),
        "max": lambda a, b: np.where(np.real(a) >= np.real(b), a, b),
        "min": lambda a, b: np.where(np.real(a) <= np.real(b), a, b),
    }


def taylor(graph: Graph, at: Mapping[str, float], by: str, most: int, digits: int = 40) -> list[Any] | None:
    """f, f′, …, the derivative of order `most` by one input, as mpmath numbers of `digits` digits.

    None where the end of a domain is so near that f is not real beside the point.

    Args:
        graph: f.
        at: a point at which f is as often differentiable.
        by: the input.
        most: the highest order.
        digits: that are right.
    """
    import mpmath

    operations: dict[str, Callable[..., Any]] = {
        **ARITHMETIC,
        **{name: getattr(mpmath, name) for name in SAME_NAME},
        "sigmoid": lambda a: 1 / (1 + mpmath.exp(-a)),
        "relu": lambda a: a if a > 0 else 0 * a,
        "abs": abs,
        "max": max,
        "min": min,
    }

    def phi(x: Any) -> Any:
        point: dict[str, Any] = {name: mpmath.mpf(number) for name, number in at.items()}
        return value(graph, point | {by: x}, operations, mpmath.mpf)

    x, last = mpmath.mpf(at[by]), most + 2  # which tell what of the others is truncation, and in truth 0
    with mpmath.workdps(digits):
        # differences with a step of 2^-bits, and so many bits more that all orders keep their digits
        more = 10 + (max(0, -int(mpmath.mag(x))) if x else 0)
        bits = mpmath.mp.prec + more
        try:
            found = list(mpmath.diffs(phi, x, last, addprec=more))
        except (ValueError, ZeroDivisionError):
            return None
        if any(isinstance(each, mpmath.mpc) for each in found):
            return None
        for m in range(1, most + 1):
            noise = abs(found[0]) * mpmath.ldexp(1, 20 + bits * m - (bits + more) * (last + 1))
            truncation = sum(abs(found[k]) * mpmath.ldexp(1, 20 - bits * (k - m)) for k in range(m + 1, last + 1))
            if abs(found[m]) <= noise + truncation:
                found[m] = mpmath.mpf(0)
        return [mpmath.mpf(each) for each in found[: most + 1]]


def nearest(number: Any) -> Any:
    """An mpmath number as numpy's longest float: 64 bits of significand or more, on most machines."""
    import mpmath
    import numpy as np

    return (
        np.longdouble(mpmath.nstr(number, 36, strip_zeros=False))
        if math.isfinite(number)
        else np.longdouble("nan")
    )
