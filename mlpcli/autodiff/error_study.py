"""The errors of finite differences for a program's derivatives, and for a network's objective along a line."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlpcli.arithmetic import one_thread
from mlpcli.autodiff.difference_error import DIFFERENCES, MOST, ErrorCurve, error_curve
from mlpcli.autodiff.graph import Graph, kinks
from mlpcli.autodiff.numeric_graph import along, nearest, taylor
from mlpcli.errors import ProgramError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mlpcli.objective import Loss

KINDS = ("float64", "float32")
PER_DECADE = 40
"""Steps in a decade for a program, which is computed at all of them at once."""
PER_DECADE_NETWORK = 12
"""And for a network, which is computed at each of them."""
MOST_NETWORK = 5
"""Derivatives of a network's objective: each needs a backward pass through the one before."""


@dataclass(frozen=True)
class Study:
    """One derivative, and the errors of its estimates.

    Attributes:
        by: the input, or what stands for one.
        backward: the derivative by backward propagation in float64.
        derivatives: f, f′, f″, … in float64; only the first two where there are no others to rely on.
        curves: for each number type, each difference that can be computed.
        notes: what a reader wants to know.
    """

    by: str
    backward: float
    derivatives: tuple[float, ...]
    curves: tuple[ErrorCurve, ...]
    notes: tuple[str, ...]


def of_program(graph: Graph, at: Mapping[str, float], by: str) -> Study:
    """The derivative of a program by one of its inputs.

    What the errors are measured against is the derivative in 40 digits, at the point as the number type rounds it.

    Raises:
        ProgramError: the program has no value or no derivative there.
    """
    import numpy as np

    values = graph.forward(at)
    backward = graph.backward(graph.local_derivatives(values))[graph.inputs[by]]
    notes = kinks(graph, values)
    derivatives: list[float] = [values[graph.leaf], backward]
    kinked = bool(notes)
    if kinked:
        notes.append("there theory knows no slopes, and errors are differences from that subgradient")
    curves: list[ErrorCurve] = []
    for kind in KINDS:
        number: Any = np.dtype(kind).type
        with np.errstate(over="ignore"):
            point = {name: float(number(value)) for name, value in at.items()}
        try:
            graph.local_derivatives(graph.forward(point))
        except ProgramError as error:
            notes.append(f"{kind}: {str(error).partition(chr(10))[0]}")
            continue
        exact, known = nearest(backward), None
        series = None if kinked else taylor(graph, point, by, MOST)
        if series is not None:
            exact, known = nearest(series[1]), [float(each) for each in series]
            if kind == "float64":
                derivatives = known
        phi = along(graph, at, by, number)
        curves += [error_curve(each, phi, kind, PER_DECADE, exact, known) for each in DIFFERENCES]
    return Study(by, backward, tuple(derivatives), tuple(curves), tuple(notes))


def of_network(model: "nn.Module", loss: "Loss", inputs: "Tensor", targets: "Tensor", seed: int) -> Study:
    """The derivative of a network's objective along a random direction v of its parameters, |v| = |θ|.

    φ(t) is the objective at θ + tv, so a step is a share of θ. θ and v are rounded to float32 at first, so that
    both number types move along the same line. What the errors are measured against is torch.autograd in float64.

    Args:
        model, loss, inputs, targets: the objective in float64, with nothing random in it.
        seed: of v.
    """
    import numpy as np
    import torch

    generator = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(model)
    direction: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False).copy_(parameter.float())
        direction[name] = torch.randn(parameter.shape, generator=generator).to(parameter)
    scale = (_norm(model.parameters()) or 1.0) / _norm(direction.values())
    direction = {name: (each * scale).float().double() for name, each in direction.items()}

    derivatives = _derivatives(_line(model, loss, inputs, targets, direction))
    notes = ["complex is not available for networks: torch has no relu, and no loss, of complex numbers"]
    if any(type(module).__name__ in ("ReLU", "LeakyReLU") for module in model.modules()):
        notes.append(
            "relu has kinks: steps that cross some see a truncation that f″, f‴, … at the point do not tell"
        )
    curves: list[ErrorCurve] = []
    for kind in KINDS:
        typed = getattr(torch, kind)
        line = _line(
            copy.deepcopy(model).to(typed),
            loss,
            inputs.to(typed),
            targets.to(typed) if targets.is_floating_point() else targets,
            {name: each.to(typed) for name, each in direction.items()},
        )
        phi, exact = _at_each(line, typed), np.longdouble(derivatives[1])
        with one_thread():  # the tensors are small, and there are many calls
            curves += [
                error_curve(each, phi, kind, PER_DECADE_NETWORK, exact, derivatives)
                for each in DIFFERENCES
                if each.weights
            ]
    return Study(
        "a random direction of the parameters", derivatives[1], tuple(derivatives), tuple(curves), tuple(notes)
    )


def _norm(tensors: Iterable["Tensor"]) -> float:
    return math.sqrt(sum(float(each.square().sum()) for each in tensors))


def _line(
    model: "nn.Module", loss: "Loss", inputs: "Tensor", targets: "Tensor", direction: Mapping[str, "Tensor"]
) -> Callable[["Tensor"], "Tensor"]:
    """φ(t) for a scalar t, in the type of all these."""
    from torch.func import functional_call

    parameters = dict(model.named_parameters())

    def phi(t: "Tensor") -> "Tensor":
        moved = {name: parameter + t * direction[name] for name, parameter in parameters.items()}
        return loss(functional_call(model, moved, (inputs,)), targets)

    return phi


def _derivatives(phi: Callable[["Tensor"], "Tensor"]) -> list[float]:
    """φ(0), φ′(0), … as far as torch knows them."""
    import torch

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    order = phi(t)
    found = [order.item()]
    for _ in range(MOST_NETWORK):
        if not order.requires_grad:  # all others are 0
            found.append(0.0)
            continue
        try:
            (order,) = torch.autograd.grad(order, t, create_graph=True)
        except RuntimeError:  # a derivative that torch lacks
            break
        found.append(order.item())
    return found


def _at_each(phi: Callable[["Tensor"], "Tensor"], kind: Any) -> Callable[[Any], Any]:
    """φ for a numpy array of t; what was computed once is kept, for the differences share many of their t."""
    import numpy as np
    import torch

    known: dict[float, float] = {}

    def each(t: Any) -> Any:
        with torch.no_grad():
            for step in t.tolist():
                if step not in known:
                    known[step] = float(phi(torch.tensor(step, dtype=kind)))
        return np.array([known[step] for step in t.tolist()], dtype=t.dtype)

    return each


def studies(graph: Graph, at: Mapping[str, float], names: Sequence[str]) -> list[Study]:
    """`of_program` for each of these inputs."""
    return [of_program(graph, at, name) for name in names]
