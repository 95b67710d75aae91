"""The ways to the gradient of a graph's leaf by its inputs, and what each costs.

With N operations in the graph, E edges, d inputs, and D operations for the local derivatives:

finite differences  2dN + 2d         two values for each input, a difference and a quotient
symbolic            of the formulas  each partial derivative written out and evaluated by itself
forward             N + D + 2dE      all tangents for each input: a product and a sum an edge
backward            N + D + 2E       all adjoints, once
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mlpcli.autodiff.diagram import finite
from mlpcli.autodiff.graph import Graph
from mlpcli.autodiff.operations import OPERATIONS
from mlpcli.autodiff.symbolic import NotSymbolic, symbolic
from mlpcli.errors import ProgramError

STEP = 2.0 ** (-52 / 3)
"""Of the central difference, for an input up to 1: where truncation h² and round-off u/h are of one size."""
MOST_OPERATIONS = 3_000_000
"""Finite differences and forward propagation that take more are left out."""

Gradient = dict[str, float]


@dataclass(frozen=True)
class Method:
    """A way to the gradient, and what it came to.

    Attributes:
        name: `finite differences`, `symbolic`, `forward`, `backward` or `torch.autograd`.
        gradient: by each input; NaN where this way has no value; None where it was left out.
        operations: that it takes; None where they are not counted.
        difference: of its gradient from that of `backward`: the largest, relative to the largest derivative.
        formulas: of `symbolic`, each partial derivative.
        note: why it was left out, or what to know of it.
    """

    name: str
    gradient: Gradient | None
    operations: int | None = None
    difference: float | None = None
    formulas: dict[str, str] | None = None
    note: str = ""


@dataclass(frozen=True)
class Size:
    """What the costs depend on: N, D, E and d of this module's docstring."""

    operations: int
    derivatives: int
    edges: int
    inputs: int

    @classmethod
    def of(cls, graph: Graph) -> "Size":
        """The size of a graph."""
        inner = [node for node in graph.nodes if node.parents]
        return cls(
            len(inner),
            sum([OPERATIONS[node.operation].flops for node in inner]),
            sum([len(node.parents) for node in inner]),
            len(graph.inputs),
        )


def gradients(graph: Graph, at: Mapping[str, float]) -> list[Method]:
    """The gradient in every way, `backward` next to last and `torch.autograd` last.

    Args:
        graph: any; ways that would take too long for it are left out, with the reason.
        at: the value of each input.

    Raises:
        ProgramError: a node has no value or no derivative there.
    """
    size = Size.of(graph)
    n, d = size.operations, size.inputs
    local = graph.local_derivatives(graph.forward(at))
    once = n + size.derivatives
    exact = backward(graph, local)
    methods = [
        _bounded("finite differences", 2 * d * (n + 1), lambda: finite_differences(graph, at)),
        _symbolic(graph, at),
        _bounded("forward", once + 2 * d * size.edges, lambda: forward(graph, local)),
        Method("backward", exact, once + 2 * size.edges),
        Method("torch.autograd", autograd(graph, at)),
    ]
    return [replace(each, difference=_difference(each.gradient, exact)) for each in methods]


def described(graph: Graph, methods: Sequence[Method]) -> dict[str, Any]:
    """The gradient, its methods and what they cost, as plain values; null for what is not finite or not known."""
    exact = next(each.gradient for each in methods if each.name == "backward") or {}
    return {
        "gradient": exact,
        "size": asdict(Size.of(graph)),
        "methods": [
            asdict(each)
            | {
                "gradient": None
                if each.gradient is None
                else {name: finite(value) for name, value in each.gradient.items()}
            }
            for each in methods
        ],
    }


def finite_differences(graph: Graph, at: Mapping[str, float]) -> Gradient:
    """(y(x + h) - y(x - h)) / 2h for each input x; NaN where y has no value on both sides."""
    return {name: _central(graph, at, name) for name in graph.inputs}


def _central(graph: Graph, at: Mapping[str, float], name: str) -> float:
    x = at[name]
    for h in (STEP * max(1, abs(x)), STEP * abs(x)):  # the second one for an x close to the end of a domain
        high, low = x + h, x - h
        try:
            values = [graph.forward({**at, name: each})[graph.leaf] for each in (high, low)]
        except ProgramError:
            continue
        if high > low:
            return (values[0] - values[1]) / (high - low)
    return math.nan


def forward(graph: Graph, local: list[tuple[float, ...]]) -> Gradient:
    """A pass of tangents for each input."""
    return {name: graph.tangents(local, {name: 1.0})[graph.leaf] for name in graph.inputs}


def backward(graph: Graph, local: list[tuple[float, ...]]) -> Gradient:
    """One pass of adjoints."""
    adjoints = graph.backward(local)
    return {name: adjoints[i] for name, i in graph.inputs.items()}


def autograd(graph: Graph, at: Mapping[str, float]) -> Gradient:
    """The same graph built and differentiated by torch, in float64."""
    import torch

    functions: dict[str, Any] = {
        "div": torch.true_divide,
        "max": torch.maximum,
        "min": torch.minimum,
        **{name: getattr(torch, name) for name in OPERATIONS if name not in ("div", "max", "min")},
    }
    y: list[torch.Tensor] = []
    for node in graph.nodes:
        if node.parents:
            y.append(functions[node.operation](*[y[p] for p in node.parents]))
        else:
            value = at[node.name] if node.constant is None else node.constant
            y.append(torch.tensor(value, dtype=torch.float64, requires_grad=node.constant is None))
    if not graph.inputs:
        return {}
    found = torch.autograd.grad(y[graph.leaf], [y[i] for i in graph.inputs.values()])
    return dict(zip(graph.inputs, torch.stack(found).tolist(), strict=True))


def _symbolic(graph: Graph, at: Mapping[str, float]) -> Method:
    try:
        found = symbolic(graph, at)
    except NotSymbolic as reason:
        return Method("symbolic", None, note=f"left out: {reason}")
    note = "a formula has no value here" if any(map(math.isnan, found.gradient.values())) else ""
    return Method("symbolic", found.gradient, found.operations, formulas=found.formulas, note=note)


def _bounded(name: str, operations: int, compute: Callable[[], Gradient]) -> Method:
    if operations > MOST_OPERATIONS:
        return Method(name, None, operations, note=f"left out: more than {MOST_OPERATIONS:,} operations")
    gradient = compute()
    note = "no value on both sides of the point" if any(map(math.isnan, gradient.values())) else ""
    return Method(name, gradient, operations, note=note)


def _difference(gradient: Gradient | None, exact: Gradient) -> float | None:
    if gradient is None or any(map(math.isnan, gradient.values())):
        return None
    largest = max(map(abs, exact.values()), default=0.0)
    return max((abs(gradient[name] - exact[name]) for name in exact), default=0.0) / (largest or 1.0)
