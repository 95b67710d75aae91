"""The partial derivatives of a graph's leaf as formulas, by sympy, in bounded time."""

import math
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from mlpcli.autodiff.graph import Graph
from mlpcli.autodiff.operations import CONSTANTS

MOST_WRITTEN = 300
"""Operations of the function when it is written as one formula, which repeats what the graph shares."""
MOST_BITS = 10_000
"""Of an integer that sympy might work out, as in (2*x)**1000 = 2**1000 * x**1000."""
MOST_SIMPLIFIED = 25
"""Operations of a derivative that is simplified; `sympy.simplify` takes seconds for larger ones."""
SECONDS = 4.0
"""Processor time for all of it."""


class NotSymbolic(Exception):
    """Why there are no formulas."""


@dataclass(frozen=True)
class Symbolic:
    """What sympy found.

    Attributes:
        gradient: by each input; NaN where the formula has no value.
        formulas: by each input, in sympy's notation.
        operations: of the formulas as they are written, all together.
    """

    gradient: dict[str, float]
    formulas: dict[str, str]
    operations: int


def symbolic(graph: Graph, at: Mapping[str, float]) -> Symbolic:
    """The gradient by formulas.

    Args:
        graph: what does not depend on an input enters the formulas as its value.
        at: the value of each input, where all nodes have values.

    Raises:
        NotSymbolic: the formula is too long, or sympy does not come to an end.
    """
    written = _written(graph)
    if written > MOST_WRITTEN:
        shown = f"{written:,.0f}" if written < 1e6 else f"{written:.1e}" if written < math.inf else "over 1e308"
        shared = sum([len(node.parents) > 0 for node in graph.nodes])
        swell = f"; the graph has {shared:,} (expression swell)" if written > shared else ""
        raise NotSymbolic(f"as one formula the function has {shown} operations, over {MOST_WRITTEN}{swell}")
    y = graph.forward(at)
    if _bits(graph, y) > MOST_BITS:
        raise NotSymbolic("powers of that size would make integers of too many digits")
    try:
        with _deadline(SECONDS):
            return _differentiated(graph, at, y)
    except _LateError:
        raise NotSymbolic(f"sympy did not come to an end in {SECONDS:g} s") from None
    except RecursionError:
        raise NotSymbolic("the formula is nested too deeply for sympy") from None


def _differentiated(graph: Graph, at: Mapping[str, float], y: Sequence[float]) -> Symbolic:
    import sympy

    symbols = {name: sympy.Symbol(name, real=True) for name in graph.inputs}
    leaf = _expression(graph, y, symbols)
    point = {symbols[name]: sympy.Float(at[name], 30) for name in symbols}
    gradient, formulas, operations = {}, {}, 0
    for name, symbol in symbols.items():
        derivative = sympy.diff(leaf, symbol)
        count = int(sympy.count_ops(derivative))
        if count <= MOST_SIMPLIFIED:
            simpler = sympy.simplify(derivative)
            if sympy.count_ops(simpler) < count:
                derivative, count = simpler, int(sympy.count_ops(simpler))
        gradient[name] = _number(derivative.evalf(30, subs=point))
        formulas[name] = str(derivative)
        operations += count
    return Symbolic(gradient, formulas, operations)


def _expression(graph: Graph, y: Sequence[float], symbols: Mapping[str, Any]) -> Any:
    """The leaf as one expression of the inputs."""
    import sympy

    class relu(sympy.Function):  # type: ignore[misc]  # small, as it is printed
        """max(x, 0) with the slope 0 at 0, where sympy's Max has 1/2."""

        is_real = True

        @classmethod
        def eval(cls, x: Any) -> Any:
            return sympy.Max(x, 0) if x.is_Number else None

        def fdiff(self, argindex: int = 1) -> Any:
            return sympy.Heaviside(self.args[0], 0)

    functions: dict[str, Any] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "pow": lambda a, b: a**b,
        "neg": lambda a: -a,
        "abs": sympy.Abs,
        "max": sympy.Max,
        "min": sympy.Min,
        "sigmoid": lambda a: 1 / (1 + sympy.exp(-a)),
        "relu": relu,
        **{name: getattr(sympy, name) for name in ("exp", "log", "sin", "cos", "tan", "tanh", "sqrt")},
    }
    written: list[Any] = []
    for i, node in enumerate(graph.nodes):
        if node.operation == "input":
            written.append(symbols[node.name])
        elif graph.active[i]:
            written.append(functions[node.operation](*[written[p] for p in node.parents]))
        elif node.name in CONSTANTS and y[i] == CONSTANTS[node.name]:
            written.append({"pi": sympy.pi, "e": sympy.E}[node.name])
        else:
            written.append(sympy.Integer(int(y[i])) if _is_short(y[i]) else sympy.Float(y[i]))
    return written[graph.leaf]


def _number(value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):  # not real, or not even a number
        return math.nan
    return found if math.isfinite(found) else math.nan


def _is_short(value: float) -> bool:
    return value.is_integer() and abs(value) < 2**53


def _written(graph: Graph) -> float:
    """Operations of the leaf as one formula: those of its parents' formulas, and one more."""
    written: list[float] = []
    for i, node in enumerate(graph.nodes):
        written.append(1.0 + sum([written[p] for p in node.parents]) if node.parents and graph.active[i] else 0.0)
    return written[graph.leaf]


def _bits(graph: Graph, y: Sequence[float]) -> float:
    """A bound for the bits of the integers that sympy works out on its way to the formula."""
    bits: list[float] = []
    for i, node in enumerate(graph.nodes):
        if not graph.active[i]:
            bits.append(math.log2(abs(y[i]) + 1) if _is_short(y[i]) else 0.0)
        elif node.operation == "pow" and not graph.active[node.parents[1]]:
            bits.append(bits[node.parents[0]] * max(1.0, abs(y[node.parents[1]])))
        else:
            bits.append(sum([bits[p] for p in node.parents]))
    return max(bits)


TICK = 0.05
"""Seconds between two attempts to end what is late."""


class _LateError(BaseException):
    """Not an Exception, of which sympy catches some."""


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raises _LateError when the block has used so much processor time; only a main thread on Unix can."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(_: int, frame: FrameType | None) -> None:
        # Python drops what is raised in the callback of a weak reference: the next tick will do
        if frame is None or frame.f_globals.get("__name__") not in ("weakref", "_weakrefset"):
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            raise _LateError

    before = signal.signal(signal.SIGVTALRM, late)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds, TICK)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
