"""A small network's objective as a graph of scalars, node by node as the course draws it."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlpcli.autodiff.graph import Graph, Node
from mlpcli.autodiff.numeric_graph import value
from mlpcli.objective import Loss


class Builder:
    """Collects nodes; a method or an operator's name makes one and returns its position."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def input(self, name: str) -> int:
        """A root that can be varied."""
        return self._add(Node(name, "input"))

    def constant(self, value: float) -> int:
        """A root that cannot."""
        return self._add(Node(f"c{len(self.nodes)}", "constant", (), value))

    def __call__(self, operation: str, *parents: int) -> int:
        """An operation of nodes."""
        return self._add(Node(f"z{len(self.nodes)}", operation, parents))

    def sum(self, terms: Sequence[int]) -> int:
        """Of one node or more, added from the left."""
        total, *others = terms
        for term in others:
            total = self("add", total, term)
        return total

    def scaled(self, factor: float, node: int) -> int:
        """A constant times a node."""
        return node if factor == 1 else self("mul", self.constant(factor), node)

    def _add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1


ACTIVATIONS: dict[type[nn.Module], Callable[[Builder, int], int]] = {
    nn.Identity: lambda build, z: z,
    nn.ReLU: lambda build, z: build("relu", z),
    nn.LeakyReLU: lambda build, z: build("max", z, build.scaled(nn.LeakyReLU().negative_slope, z)),
    nn.Tanh: lambda build, z: build("tanh", z),
    nn.Sigmoid: lambda build, z: build("sigmoid", z),
    nn.SiLU: lambda build, z: build("mul", z, build("sigmoid", z)),
}
"""σ of the operations that a graph has; GELU would need the error function."""


def not_covered(model: nn.Sequential) -> str:
    """Why the model has no graph of scalars; empty where it has one."""
    for module in model:
        if not isinstance(module, nn.Linear | nn.Dropout) and type(module) not in ACTIVATIONS:
            return f"{type(module).__name__} is none of a graph's operations"
    return ""


def scalar_graph(
    model: nn.Sequential, loss: Loss, inputs: Tensor, targets: Tensor
) -> tuple[Graph, dict[str, float]]:
    """The mean loss as a graph whose inputs are all parameters, in their order, and the parameters' values.

    Args:
        model: that is covered; dropout is left out.
        loss: the leaf.
        inputs: (n, features), which become constants.
        targets: as for `Loss`.
    """
    build = Builder()
    at: dict[str, float] = {}
    places: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().view(-1).tolist()
        names = [f"{name.replace('.', '_')}_{i}" for i in range(len(values))]
        at |= dict(zip(names, values, strict=True))
        places[name] = [build.input(each) for each in names]
    shift = float(model(inputs).detach().max())
    losses = []
    for row, target in zip(inputs.tolist(), _rows(targets, loss, model), strict=True):
        x = [build.constant(value) for value in row]
        for name, module in model.named_children():
            if isinstance(module, nn.Linear):
                x = _affine(build, places[f"{name}.weight"], places.get(f"{name}.bias"), x)
            elif type(module) in ACTIVATIONS:
                x = [ACTIVATIONS[type(module)](build, z) for z in x]
        losses.append(_loss(build, loss, x, target, shift))
    leaf = build.scaled(1 / len(inputs), build.sum(losses))
    return Graph(build.nodes, leaf), at


def _affine(build: Builder, weight: list[int], bias: list[int] | None, x: list[int]) -> list[int]:
    rows = [weight[start : start + len(x)] for start in range(0, len(weight), len(x))]
    sums = [build.sum([build("mul", w, each) for w, each in zip(row, x, strict=True)]) for row in rows]
    return sums if bias is None else [build("add", z, b) for z, b in zip(sums, bias, strict=True)]


def _rows(targets: Tensor, loss: Loss, model: nn.Sequential) -> list[list[float]]:
    """The targets of each sample as numbers; for cross_entropy w·y′, which ln softmax is weighed by."""
    rows = targets.double()
    outputs = next(module.out_features for module in reversed(list(model)) if isinstance(module, nn.Linear))
    if targets.ndim == 1:
        rows = torch.nn.functional.one_hot(targets, outputs).double()
    if loss.name == "cross_entropy":
        rows = (1 - loss.label_smoothing) * rows + loss.label_smoothing / outputs
        rows = rows if loss.class_weights is None else rows * loss.class_weights
    numbers: list[list[float]] = rows.tolist()
    return numbers


def _loss(build: Builder, loss: Loss, outputs: list[int], target: list[float], shift: float) -> int:
    if loss.name == "cross_entropy":
        # ln Σ exp(o) = s + ln Σ exp(o − s), and with s no exponential overflows
        moved = [build("sub", output, build.constant(shift)) for output in outputs]
        total = build("log", build.sum([build("exp", each) for each in moved]))
        weighted = zip(moved, target, strict=True)
        return build.sum([build.scaled(weight, build("sub", total, each)) for each, weight in weighted if weight])
    terms = [build("sub", o, build.constant(y)) for o, y in zip(outputs, target, strict=True)]
    if loss.name == "mse":
        return build.sum([build("mul", each, each) for each in terms])
    distances = [build("abs", each) for each in terms]
    if loss.name == "mae":
        return build.sum(distances)
    # Huber's d²/2 up to δ and δ(d − δ/2) beyond is m(d − m/2), where m is the smaller of d and δ
    smaller = [build("min", each, build.constant(loss.delta)) for each in distances]
    rests = [build("sub", d, build.scaled(0.5, m)) for d, m in zip(distances, smaller, strict=True)]
    return build.sum([build("mul", m, rest) for m, rest in zip(smaller, rests, strict=True)])


def formula_length(graph: Graph) -> int:
    """Operations in the leaf as one formula, in which what several nodes use is written out for each of them."""
    lengths: list[int] = []
    for node in graph.nodes:
        lengths.append(sum([lengths[parent] for parent in node.parents]) + bool(node.parents))
    return lengths[graph.leaf]


def formula_gradient(graph: Graph, at: Mapping[str, float]) -> list[float]:
    """The derivatives by the inputs, in their order, by sympy; some may not be finite.

    As functions that share what the formulas have in common, ten times as fast as each formula by itself.
    """
    import numpy as np
    import sympy

    operations: dict[str, Callable[..., Any]] = {
        "add": operator.add,
        "sub": operator.sub,
        "mul": operator.mul,
        "exp": sympy.exp,
        "log": sympy.log,
        "tanh": sympy.tanh,
        "abs": sympy.Abs,
        "max": sympy.Max,
        "min": sympy.Min,
        "relu": lambda a: sympy.Max(a, 0),
        "sigmoid": lambda a: 1 / (1 + sympy.exp(-a)),
    }
    symbols = {name: sympy.Symbol(name, real=True) for name in graph.inputs}
    formula = value(graph, symbols, operations, sympy.Float)
    derivatives = [sympy.diff(formula, symbol) for symbol in symbols.values()]
    function = sympy.lambdify(list(symbols.values()), derivatives, modules="numpy", cse=True)
    with np.errstate(all="ignore"):
        return [float(each) for each in function(*[at[name] for name in symbols])]
