"""The operations that a node can stand for: their values and their derivatives, as a table to read."""

import math
from collections.abc import Callable
from dataclasses import dataclass

NAN = math.nan


@dataclass(frozen=True)
class Operation:
    """y = f(y₁, …) and ∂y/∂y₁, …; all of them are float64.

    Attributes:
        name: how a graph names it.
        arity: how many parents it has.
        symbol: what is written between two parents or, with a name, before them: `+`, `sin`.
        value: f. Outside of its domain it raises ValueError or ZeroDivisionError; where its value is too large,
            OverflowError, or it returns inf.
        derivatives: takes y and then the y₁, …; a derivative is NaN or infinite where there is none.
        flops: operations that the derivatives take once y is known; y itself counts as one.
        domain: what the parents must be, for a message.
        subgradient: which one is taken at the kink, for a message; that is where the parents are equal, or 0
            if there is one.
    """

    name: str
    arity: int
    symbol: str
    value: Callable[..., float]
    derivatives: Callable[..., tuple[float, ...]]
    flops: int
    domain: str = ""
    subgradient: str = ""

    def at_kink(self, *y: float) -> bool:
        """Whether f has a kink there, so that `derivatives` took a subgradient."""
        return self.subgradient != "" and y[0] == (y[1] if self.arity == 2 else 0)


def sigmoid(x: float) -> float:
    """1 / (1 + e⁻ˣ), without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def sigmoid_slope(x: float) -> float:
    """σ′ = σ(x) σ(-x), which keeps its digits where σ(x) rounds to 1."""
    return sigmoid(x) * sigmoid(-x)


def power_by_base(x: float, p: float) -> float:
    """p xᵖ⁻¹: NaN at 0 for p < 1, but 0 for p = 0, where xᵖ is 1 everywhere."""
    try:
        return p * math.pow(x, p - 1) if p else 0.0
    except (ValueError, OverflowError):
        return NAN


def power_by_exponent(y: float, x: float, p: float) -> float:
    """xᵖ log x: NaN for a negative x; at 0 the power is 0 for every p > 0, and jumps at p = 0."""
    if x > 0:
        return y * math.log(x)
    return 0.0 if x == 0 and p > 0 else NAN


def share(a: float, b: float) -> float:
    """1 where a > b, 0 where a < b, and 1/2 where they are equal."""
    return 1.0 if a > b else 0.0 if a < b else 0.5


OPERATIONS: dict[str, Operation] = {
    each.name: each
    for each in (
        # name, parents, written, y, derivatives by each parent, their operations
        Operation("add", 2, "+", lambda a, b: a + b, lambda y, a, b: (1.0, 1.0), 0),
        Operation("sub", 2, "-", lambda a, b: a - b, lambda y, a, b: (1.0, -1.0), 0),
        Operation("mul", 2, "*", lambda a, b: a * b, lambda y, a, b: (b, a), 0),
        Operation("div", 2, "/", lambda a, b: a / b, lambda y, a, b: (1 / b, -y / b), 3, "a divisor other than 0"),
        Operation(
            "pow",
            2,
            "**",
            math.pow,
            lambda y, a, b: (power_by_base(a, b), power_by_exponent(y, a, b)),
            5,
            "a positive base, or 0 and an exponent of at least 0, or a negative one and a whole exponent",
        ),
        Operation("neg", 1, "-", lambda a: -a, lambda y, a: (-1.0,), 0),
        Operation("exp", 1, "exp", math.exp, lambda y, a: (y,), 0),
        Operation("log", 1, "log", math.log, lambda y, a: (1 / a,), 1, "an argument above 0"),
        Operation("sin", 1, "sin", math.sin, lambda y, a: (math.cos(a),), 1),
        Operation("cos", 1, "cos", math.cos, lambda y, a: (-math.sin(a),), 2),
        Operation("tan", 1, "tan", math.tan, lambda y, a: (1 + y * y,), 2),
        Operation("tanh", 1, "tanh", math.tanh, lambda y, a: (4 * sigmoid_slope(2 * a),), 2),
        Operation(
            "sqrt",
            1,
            "sqrt",
            math.sqrt,
            lambda y, a: (0.5 / y if y else math.inf,),
            1,
            "an argument of at least 0",
        ),
        Operation("sigmoid", 1, "sigmoid", sigmoid, lambda y, a: (sigmoid_slope(a),), 2),
        Operation("relu", 1, "relu", lambda a: max(a, 0.0), lambda y, a: (float(a > 0),), 1, "", "0"),
        Operation("abs", 1, "abs", abs, lambda y, a: (math.copysign(1, a) if a else 0.0,), 1, "", "0"),
        Operation("max", 2, "max", max, lambda y, a, b: (share(a, b), share(b, a)), 1, "", "1/2 of each argument"),
        Operation("min", 2, "min", min, lambda y, a, b: (share(b, a), share(a, b)), 1, "", "1/2 of each argument"),
    )
}
"""Every operation, by its name."""

CONSTANTS = {"pi": math.pi, "e": math.e}
"""Names that have a value, unless a program assigns them."""
