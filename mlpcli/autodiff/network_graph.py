"""The objective of a network on a batch as a computation graph of tensors: `autodiff model`.

Roots are the data and the parameters, the leaf is the loss, and between them each layer is a node. A node's
adjoint is the derivative of the objective by its value, a tensor of the same shape. What is shown of a tensor is
its RMS, √(Σ entries²/number of entries), which layers of different widths can be compared by.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mlpcli.autodiff.diagram import Box, Diagram, Kind, Link, Row, number
from mlpcli.embedding import InputEmbedding, Periodic
from mlpcli.errors import FailedError
from mlpcli.model import ACTIVATIONS
from mlpcli.objective import Loss

VANISHES, EXPLODES = 1e-3, 1e3
"""The gradient vanishes or explodes where the RMS adjoint of the first hidden layer's affine map is less, or more,
than so many times that of the last one's."""
FLAT = 0.01
"""A unit of tanh or sigmoid is saturated where σ′ is less than this share of its greatest value on all samples."""

SLOPES: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Tanh: lambda h: 1 - h * h,
    nn.Sigmoid: lambda h: 4 * h * (1 - h),
}
"""σ′ over its greatest value, from h = σ(z), of activations that are flat on both sides."""


@dataclass(frozen=True)
class Node:
    """A tensor of the graph.

    Attributes:
        name: `x`, `y`, `objective`, the layer's place in the Sequential, or the parameter's in its state dict.
        operation: `data`, `parameter`, or what makes it of its parents.
        parents: their positions in the list of nodes.
        shape: of it; the first entry is the number of samples, except for parameters.
        value, adjoint: RMS; the adjoint of what no derivative goes through, such as class indices, is None.
        ratio: of a parameter: norm of its gradient over its own; None where that is 0, and for other nodes.
        dead: share of ReLU units that are 0 on every sample; None for other nodes.
        saturated: share of units that are saturated; None for other nodes.
    """

    name: str
    operation: str
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    value: float
    adjoint: float | None
    ratio: float | None = None
    dead: float | None = None
    saturated: float | None = None


@dataclass(frozen=True)
class NetworkGraph:
    """The graph after both passes.

    Attributes:
        objective: its value.
        nodes: in topological order; the objective is the last.
        hidden: positions of the affine maps of the hidden layers, first to last.
    """

    objective: float
    nodes: list[Node]
    hidden: list[int]

    @property
    def ratio(self) -> float | None:
        """RMS adjoint of the first hidden layer over the last one's; None with fewer than two, or for 0/0."""
        if len(self.hidden) < 2:
            return None
        first, last = (self.nodes[self.hidden[i]].adjoint or 0.0 for i in (0, -1))
        return first / last if last else None

    @property
    def factors(self) -> list[float | None]:
        """For each hidden layer but the last: its RMS adjoint over the next one's."""
        adjoints = [self.nodes[place].adjoint or 0.0 for place in self.hidden]
        return [a / b if b else None for a, b in pairwise(adjoints)]

    @property
    def verdict(self) -> str:
        """`vanishes`, `explodes`, `steady`, `zero` where none reaches the hidden layers, or `too shallow`."""
        if len(self.hidden) < 2:
            return "too shallow"
        if self.ratio is None:
            return "zero"
        return "vanishes" if self.ratio < VANISHES else "explodes" if self.ratio > EXPLODES else "steady"

    def findings(self) -> list[str]:
        """What a person should know, a line each."""
        lines = [self._about_gradient()]
        for node in self.nodes:
            if node.dead:
                lines.append(f"{node.name} {node.operation}: {node.dead:.1%} of the units are dead")
            if node.saturated:
                lines.append(f"{node.name} {node.operation}: {node.saturated:.1%} of the units are saturated")
        return lines

    def _about_gradient(self) -> str:
        if self.verdict == "too shallow":
            return "the gradient can neither vanish nor explode between hidden layers: there are fewer than two"
        first, last = (self.nodes[self.hidden[i]].name for i in (0, -1))
        if self.ratio is None:
            return f"no gradient reaches the hidden layers: the adjoint of {last} is 0"
        word = {"vanishes": "vanishes", "explodes": "explodes"}.get(self.verdict, "neither vanishes nor explodes")
        layer = self.ratio ** (1 / (len(self.hidden) - 1))
        return (
            f"the gradient {word}: the RMS adjoint of {first} is {self.ratio:.3g} times that of {last}, "
            f"{layer:.3g} a layer"
        )

    def to_plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = asdict(self)
        gradient = {
            "verdict": self.verdict,
            "ratio": self.ratio,
            "factors": self.factors,
            "rule": {"vanishes_below": VANISHES, "explodes_above": EXPLODES},
        }
        return plain | {"gradient": gradient, "findings": self.findings()}


def trace(model: nn.Sequential, loss: Loss, inputs: Tensor, targets: Tensor) -> NetworkGraph:
    """Both passes of the mean loss on a batch.

    Args:
        model: nothing random in it; stays as it is.
        loss: the leaf.
        inputs, targets: as for `Loss`.

    Raises:
        FailedError: the objective is not finite.
    """
    model = copy.deepcopy(model).requires_grad_(True)
    found: list[tuple[str, str, tuple[int, ...], Tensor, nn.Module | None]] = []

    def add(name: str, operation: str, tensor: Tensor, *parents: int, module: nn.Module | None = None) -> int:
        found.append((name, operation, parents, tensor, module))
        return len(found) - 1

    x = inputs.clone().requires_grad_()
    place, affine = add("x", "data", x), []
    for name, module in model.named_children():
        parameters = [add(f"{name}.{part}", "parameter", p) for part, p in module.named_parameters()]
        x = module(x)
        x.retain_grad()
        place = add(name, operation_of(module), x, place, *parameters, module=module)
        affine += [place] if isinstance(module, nn.Linear) else []
    value = loss(x, targets)
    value.retain_grad()
    add("objective", loss.name, value, place, add("y", "data", targets))
    if not math.isfinite(value.item()):
        raise FailedError(f"the objective is {value.item()} here, so that it has no gradient")
    value.backward()
    return NetworkGraph(value.item(), [_node(*each) for each in found], affine[:-1])


def operation_of(module: nn.Module) -> str:
    """A layer as a word."""
    if isinstance(module, InputEmbedding):
        return module.front.kind
    words = {nn.Linear: "affine", nn.BatchNorm1d: "batch normalization", nn.LayerNorm: "layer normalization"}
    words |= {activation: name for name, activation in ACTIVATIONS.items()}
    return words.get(type(module), "dropout, off")


@torch.no_grad()
def _node(name: str, operation: str, parents: tuple[int, ...], tensor: Tensor, module: nn.Module | None) -> Node:
    gradient = tensor.grad
    ratio = dead = saturated = None
    if operation == "parameter" and gradient is not None and bool(tensor.any()):
        ratio = float(gradient.norm() / tensor.norm())
    if isinstance(module, nn.ReLU):
        dead = _share(tensor == 0)
    elif isinstance(module, InputEmbedding) and isinstance(module.numeric, Periodic):
        dead = _share(tensor[:, : module.front.numbers * module.front.size] == 0)
    elif module is not None and type(module) in SLOPES:
        saturated = _share(SLOPES[type(module)](tensor) < FLAT)
    adjoint = None if gradient is None else _rms(gradient)
    return Node(name, operation, parents, tuple(tensor.shape), _rms(tensor), adjoint, ratio, dead, saturated)


def _share(entries: Tensor) -> float:
    """Of the columns, in which all entries are true."""
    return float(entries.all(0).double().mean())


def _rms(tensor: Tensor) -> float:
    """Scaled first, so that squares neither overflow nor underflow."""
    largest = float(tensor.abs().max())
    return largest * float((tensor.double() / largest).square().mean().sqrt()) if largest else 0.0


def diagram(graph: NetworkGraph, heading: str) -> Diagram:
    """As a picture from the inputs on top to the objective; a parameter stands above its layer."""
    return Diagram(
        heading,
        tuple(_box(node) for node in graph.nodes),
        tuple(
            Link(parent, child, _shape(graph.nodes[parent]), f"{graph.nodes[parent].name} → {node.name}")
            for child, node in enumerate(graph.nodes)
            for parent in node.parents
        ),
        (
            ("input", "inputs"),
            ("constant", "parameters and targets"),
            ("inner", "a layer"),
            ("leaf", "the objective"),
            ("value", "RMS of the value"),
            ("adjoint", "RMS of the adjoint"),
            ("local", "shape"),
        ),
        tuple(graph.findings()),
    )


def _box(node: Node) -> Box:
    roots: dict[str, Kind] = {"x": "input", "y": "constant", "objective": "leaf"}
    kind = roots.get(node.name, "constant" if node.operation == "parameter" else "inner")
    rows = [Row("value", "value", number(node.value))]
    if node.adjoint is not None:
        rows.append(Row("adjoint", "adjoint", number(node.adjoint)))
    shares = (("dead", node.dead), ("saturated", node.saturated))
    rows += [Row("value", word, f"{share:.1%}") for word, share in shares if share]
    return Box(kind, node.name, f"{node.name}: {node.operation}", tuple(rows), f"{node.operation}, {_shape(node)}")


def _shape(node: Node) -> str:
    return "x".join(map(str, node.shape)) or "1"
