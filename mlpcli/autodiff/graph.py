"""A computation graph, its forward pass, its backward pass, and its tangents, as the course defines them.

A graph is a list of nodes in topological order: a node comes after its parents. Its roots are inputs (and
parameters, which are inputs too) and constants; every other node i is an operation of its parents,
y_i = f_i(y_p for its parents p); one node is the leaf.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlpcli.autodiff.operations import OPERATIONS
from mlpcli.errors import ProgramError


@dataclass(frozen=True, slots=True)
class Node:
    """A root, or an operation of earlier nodes.

    Attributes:
        name: unique in its graph, but for constants that are written as numbers.
        operation: `input`, `constant`, or a key of OPERATIONS.
        parents: positions of its parents, in the order of the operation's arguments; one may occur twice.
        constant: the value of a constant.
    """

    name: str
    operation: str
    parents: tuple[int, ...] = ()
    constant: float | None = None


class Graph:
    """A directed acyclic graph of operations with one leaf.

    Attributes:
        nodes: in topological order.
        leaf: position of the node whose derivatives are asked for.
        inputs: position of each input, by its name.
        active: for each node, whether an input leads to it.
        notes: what a reader of the program wants to know, such as assignments that the leaf does not need.
    """

    def __init__(self, nodes: Sequence[Node], leaf: int, notes: Sequence[str] = ()) -> None:
        self.nodes = list(nodes)
        self.leaf = leaf
        self.notes = list(notes)
        self.inputs = {node.name: i for i, node in enumerate(self.nodes) if node.operation == "input"}
        self.active: list[bool] = []
        for i, node in enumerate(self.nodes):
            assert all(parent < i for parent in node.parents), f"{node.name} comes before a parent"
            self.active.append(node.operation == "input" or any([self.active[p] for p in node.parents]))

    def forward(self, at: Mapping[str, float]) -> list[float]:
        """The value y of every node, from the roots to the leaf.

        Args:
            at: the value of every input.

        Raises:
            ProgramError: a node has no value there, or too large a one.
        """
        y: list[float] = []
        for i, node in enumerate(self.nodes):
            if node.operation == "input":
                value = at[node.name]
            elif node.constant is not None:
                value = node.constant
            else:
                try:
                    value = OPERATIONS[node.operation].value(*[y[p] for p in node.parents])
                except (ValueError, ZeroDivisionError):
                    needs = OPERATIONS[node.operation].domain
                    raise ProgramError(f"{self.describe(i, y)} has no value: it needs {needs}") from None
                except OverflowError:
                    value = math.inf
                if not math.isfinite(value):
                    raise ProgramError(f"{self.describe(i, y)} is too large for a float64")
            y.append(value)
        return y

    def local_derivatives(self, y: Sequence[float]) -> list[tuple[float, ...]]:
        """∂y_i/∂y_p of every node i by each of its parents p; it may be NaN or infinite for a constant p.

        Args:
            y: what `forward` returned.

        Raises:
            ProgramError: a node that an input leads to has no derivative there.
        """
        local: list[tuple[float, ...]] = []
        for i, node in enumerate(self.nodes):
            derivatives: tuple[float, ...] = ()
            if node.parents:
                derivatives = OPERATIONS[node.operation].derivatives(y[i], *[y[p] for p in node.parents])
                if not math.isfinite(sum(derivatives)):
                    self._check_defined(i, derivatives, y)
            local.append(derivatives)
        return local

    def backward(self, local: Sequence[tuple[float, ...]]) -> list[float]:
        """The adjoint z_i = ∂y_leaf/∂y_i of every node, from the leaf to the roots.

        z_leaf = 1, and z_p = Σ z_i ∂y_i/∂y_p over the edges from p to its children i.

        Args:
            local: what `local_derivatives` returned.

        Raises:
            ProgramError: an adjoint is too large.
        """
        z = [0.0] * len(self.nodes)
        z[self.leaf] = 1.0
        for i in range(self.leaf, -1, -1):
            for p, derivative in zip(self.nodes[i].parents, local[i], strict=True):
                z[p] += z[i] * derivative
        self._check_finite("adjoint", z)
        return z

    def tangents(self, local: Sequence[tuple[float, ...]], direction: Mapping[str, float]) -> list[float]:
        """The tangent ẏ of every node, from the roots to the leaf: ẏ_i = Σ ∂y_i/∂y_p ẏ_p over its parents p.

        Args:
            local: what `local_derivatives` returned.
            direction: the tangents of inputs; those that are left out, and constants, have 0.

        Raises:
            ProgramError: a tangent is too large.
        """
        t: list[float] = []
        for i, node in enumerate(self.nodes):
            if node.operation == "input":
                t.append(direction.get(node.name, 0.0))
            elif self.active[i]:
                # constants stand still, and a derivative by one may be NaN
                t.append(sum([d * t[p] for p, d in zip(node.parents, local[i], strict=True) if t[p]]))
            else:
                t.append(0.0)
        self._check_finite("tangent", t)
        return t

    def describe(self, i: int, y: Sequence[float]) -> str:
        """Node i in words, with the values of its parents: `z3 = log(z2), where z2 = -1,`."""
        node = self.nodes[i]
        values = {self.nodes[p].name: y[p] for p in node.parents if self.nodes[p].constant is None}
        where = " and ".join(f"{name} = {value:.6g}" for name, value in values.items())
        return f"{node.name} = {self.formula(i)}" + (f", where {where}," if where else "")

    def formula(self, i: int) -> str:
        """Node i as an operation of its parents' names: `log(z2)`, `x * y`, `(-2) ** x`."""
        node = self.nodes[i]
        names = [self.nodes[p].name for p in node.parents]
        if node.operation not in OPERATIONS:
            return node.operation
        symbol = OPERATIONS[node.operation].symbol
        if symbol.isalpha():
            return f"{symbol}({', '.join(names)})"
        bracketed = [f"({name})" if name.startswith("-") else name for name in names]
        if len(names) == 1:
            return f"{symbol}{bracketed[0]}"
        left = bracketed[0] if node.operation == "pow" else names[0]
        return f"{left} {symbol} {bracketed[1]}"

    def _check_defined(self, i: int, derivatives: tuple[float, ...], y: Sequence[float]) -> None:
        for p, derivative in zip(self.nodes[i].parents, derivatives, strict=True):
            if self.active[p] and not math.isfinite(derivative):
                raise ProgramError(
                    f"{self.describe(i, y)} has no finite derivative by {self.nodes[p].name}\n"
                    "    choose another point"
                )

    def _check_finite(self, what: str, numbers: Sequence[float]) -> None:
        for node, active, number in zip(self.nodes, self.active, numbers, strict=True):
            if active and not math.isfinite(number):
                raise ProgramError(f"the {what} of {node.name} is too large for a float64")


@dataclass(frozen=True)
class Run:
    """A graph at a point, after both passes: what is shown of it.

    Attributes:
        graph: of n nodes.
        at: the value of each input.
        values: n values y.
        local: for each node, its derivatives by its parents; NaN or infinite for a constant parent without one.
        adjoints: n adjoints z; NaN or infinite for a constant likewise.
        tangents: n tangents ẏ, or None where no direction was asked for.
        direction: the tangents of the inputs that are not 0.
        notes: the graph's, and which subgradient was used at each kink.
    """

    graph: Graph
    at: Mapping[str, float]
    values: list[float]
    local: list[tuple[float, ...]]
    adjoints: list[float]
    tangents: list[float] | None
    direction: Mapping[str, float]
    notes: list[str]


def run(graph: Graph, at: Mapping[str, float], direction: Mapping[str, float] | None = None) -> Run:
    """Both passes, and the tangents in `direction` where there is one.

    Raises:
        ProgramError: a node has no value or no derivative there.
    """
    values = graph.forward(at)
    local = graph.local_derivatives(values)
    tangents = None if direction is None else graph.tangents(local, direction)
    notes = [*graph.notes, *kinks(graph, values)]
    return Run(graph, at, values, local, graph.backward(local), tangents, direction or {}, notes)


def kinks(graph: Graph, y: Sequence[float]) -> list[str]:
    """A line for each node that stands at a kink: which subgradient its local derivatives are."""
    notes = []
    for i, node in enumerate(graph.nodes):
        if node.parents and graph.active[i]:
            operation = OPERATIONS[node.operation]
            if operation.at_kink(*[y[p] for p in node.parents]):
                what = f"{node.name} = {graph.formula(i)}"
                notes.append(f"{what} is at its kink: the subgradient {operation.subgradient} is used")
    return notes
