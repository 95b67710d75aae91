"""What a value and its gradient cost for multi-layer perceptrons ℝ^d → ℝ, counted and measured.

The network has depth L: affine maps d → w → … → w → 1 and relu between them. Per point, and with additions,
multiplications, divisions and relu counted as one operation each, an affine map n → m takes 2nm (nm products, as
many additions, the bias included), its Jacobian times a vector m(2n − 1), its transpose times a vector n(2m − 1).

value        y_l = W_l x_{l−1} + b_l, x_l = relu(y_l)                                                    O(w²L)
differences  (f(x + h e_i) − f(x))/h for i = 1…d: d + 1 values                                           O(dw²L)
forward      the value, and for each e_i the tangents ẏ_l = W_l ẋ_{l−1}, ẋ_l = relu′(y_l) ẏ_l           O(dw²L)
backward     the value, and the adjoints z_{l−1} = W_lᵀ (relu′(y_l) z_l), which end in ∂f/∂x             O(w²L)
parameters   the value, the adjoints down to y_1, and ∂f/∂W_l = z_l x_{l−1}ᵀ, ∂f/∂b_l = z_l             O(w²L)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from mlpcli.arithmetic import one_thread
from mlpcli.autodiff.timing import least_seconds
from mlpcli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

METHODS = ("value", "differences", "forward", "backward", "parameters")
"""A value, the gradient by the inputs in three ways, and the gradient by the parameters, backward."""
POINTS = 64
"""Computed together where time is measured, so that it goes into arithmetic and not into calls."""
STEP = 1e-2
"""h of the finite differences."""
MOST_OPERATIONS = 10**11
MOST_NUMBERS = 10**8
"""A measurement that would take more operations, or a network with more parameters, is refused."""


@dataclass(frozen=True)
class Shape:
    """Of a network ℝ^d → ℝ.

    Attributes:
        inputs: d.
        width: w, the units of each hidden layer.
        depth: L, the number of affine maps.
    """

    inputs: int
    width: int
    depth: int

    @property
    def sizes(self) -> list[int]:
        """n₀, …, n_L."""
        return [self.inputs, *[self.width] * (self.depth - 1), 1]

    @property
    def products(self) -> int:
        """Σ n_l n_{l−1}: the entries of all W."""
        return sum(n * m for n, m in pairwise(self.sizes))


@dataclass(frozen=True)
class Sweep:
    """Networks that differ in one size.

    Attributes:
        name: `width`, `depth` or `inputs`.
        values: of that size.
        others: the shape whose other two sizes they share.
    """

    name: str
    values: tuple[int, ...]
    others: Shape

    @property
    def shapes(self) -> list[Shape]:
        """One for each value."""
        sizes = {"inputs": self.others.inputs, "width": self.others.width, "depth": self.others.depth}
        return [Shape(**sizes | {self.name: value}) for value in self.values]


SWEEPS = {
    sweep.name: sweep
    for sweep in (
        Sweep("width", (128, 256, 512, 1024, 2048), Shape(inputs=4, width=0, depth=8)),
        Sweep("depth", (64, 128, 256, 512, 1024), Shape(inputs=4, width=64, depth=0)),
        Sweep("inputs", (16, 32, 64, 128, 256), Shape(inputs=0, width=128, depth=64)),
    )
}
"""The sweeps that are measured where no others are asked for: wide enough for the leading term to show."""

THEORY: dict[str, dict[str, int]] = {
    "width": dict.fromkeys(METHODS, 2),
    "depth": dict.fromkeys(METHODS, 1),
    "inputs": {"value": 0, "differences": 1, "forward": 1, "backward": 0, "parameters": 0},
}
"""The exponent of each size in O(w²L), or O(dw²L) for finite differences and forward propagation."""


def operations(shape: Shape) -> dict[str, int]:
    """Operations of each method at one point, as the top of this file counts them."""
    pairs = list(pairwise(shape.sizes))
    hidden = sum(shape.sizes[1:-1])
    d, n1 = shape.inputs, shape.sizes[1]
    value = 2 * shape.products + hidden
    tangents = sum(m * (2 * n - 1) for n, m in pairs) + hidden
    adjoints = sum(n * (2 * m - 1) for n, m in pairs) + hidden
    return {
        "value": value,
        "differences": (d + 1) * value + 3 * d,  # x + h, then a difference and a quotient
        "forward": value + hidden + d * tangents,  # relu′ once for all directions
        "backward": value + hidden + adjoints,
        "parameters": value + hidden + adjoints - d * (2 * n1 - 1) + shape.products,
    }


def product_operations(shape: Shape) -> dict[str, int]:
    """Those within the matrix products alone, a multiply-add as two: what torch's FlopCounterMode counts."""
    each = 2 * shape.products
    first = 2 * shape.inputs * shape.sizes[1]
    return {
        "value": each,
        "differences": (shape.inputs + 1) * each,
        "forward": (shape.inputs + 1) * each,
        "backward": 2 * each,
        "parameters": 3 * each - first,
    }


def products_bound(shape: Shape) -> float:
    """3 − n₀n₁/Σ n_{l−1}n_l: the gradient by the parameters over the value, both by their matrix products."""
    return 3 - shape.inputs * shape.sizes[1] / shape.products


def tape(shape: Shape) -> int:
    """Numbers per point that backward propagation keeps of the value: each hidden layer's output, and x itself."""
    return sum(shape.sizes[:-1])


def exponent(values: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log cost over log value, by least squares."""
    x, y = [math.log(value) for value in values], [math.log(cost) for cost in costs]
    middle = sum(x) / len(x)
    spread = sum((each - middle) ** 2 for each in x)
    return sum((each - middle) * other for each, other in zip(x, y, strict=True)) / spread


def check(sweep: Sweep) -> None:
    """Raises UsageError where measuring a sweep would take far too long, or too much memory."""
    for value, shape in zip(sweep.values, sweep.shapes, strict=True):
        cost = POINTS * max(operations(shape).values())
        numbers = shape.products + POINTS * tape(shape)
        if cost > MOST_OPERATIONS or numbers > MOST_NUMBERS:
            raise UsageError(
                f"--{sweep.name} {value:,}: {cost:.1e} operations on {numbers:.1e} numbers are too much to time\n"
                f"    at most {MOST_OPERATIONS:.0e} on {MOST_NUMBERS:.0e}: try smaller ones"
            )


class Perceptron:
    """Such a network with random parameters, and each method written out, for several points at once.

    Attributes:
        shape: d, w and L.
        weights: W_l (n_l, n_{l−1}), first to last.
        biases: b_l (n_l,).
    """

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        import torch

        generator = torch.Generator().manual_seed(seed)
        self.shape = shape
        self.weights = [
            torch.randn(m, n, generator=generator) * math.sqrt(2 / n)  # He: the values keep their size
            for n, m in pairwise(shape.sizes)
        ]
        self.biases = [torch.zeros(m) for m in shape.sizes[1:]]

    def points(self, count: int, seed: int = 1) -> "Tensor":
        """Random points (count, d)."""
        import torch

        return torch.randn(count, self.shape.inputs, generator=torch.Generator().manual_seed(seed))

    def layers(self, x: "Tensor") -> list["Tensor"]:
        """x and the output of every layer; the last is the value, (points, 1)."""
        import torch

        outputs = [x]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            outputs.append(torch.addmm(bias, outputs[-1], weight.t()).relu_())
        outputs.append(torch.addmm(self.biases[-1], outputs[-1], self.weights[-1].t()))
        return outputs

    def value(self, x: "Tensor") -> "Tensor":
        """f at each point, (points, 1)."""
        return self.layers(x)[-1]

    def differences(self, x: "Tensor") -> "Tensor":
        """The gradient by x, (points, d), by forward differences: d + 1 values."""
        import torch

        before = self.value(x)
        columns = []
        for i in range(self.shape.inputs):
            moved = x.clone()
            moved[:, i] += STEP
            columns.append((self.value(moved) - before) / STEP)
        return torch.cat(columns, 1)

    def forward(self, x: "Tensor") -> "Tensor":
        """The gradient by x, (points, d), by forward propagation: one value and d tangents."""
        import torch

        slopes = [(output > 0).to(x.dtype) for output in self.layers(x)[1:-1]]
        columns = []
        for i in range(self.shape.inputs):
            tangent = torch.zeros_like(x)
            tangent[:, i] = 1
            for weight, slope in zip(self.weights[:-1], slopes, strict=True):
                tangent = (tangent @ weight.t()).mul_(slope)
            columns.append(tangent @ self.weights[-1].t())
        return torch.cat(columns, 1)

    def backward(self, x: "Tensor") -> "Tensor":
        """The gradient by x, (points, d), by backward propagation: one value and one pass back."""
        import torch

        outputs = self.layers(x)
        adjoint = torch.ones_like(outputs[-1])
        for weight, output in zip(self.weights[:0:-1], outputs[-2:0:-1], strict=True):
            adjoint = (adjoint @ weight).mul_(output > 0)
        return adjoint @ self.weights[0]

    def parameters(self, x: "Tensor") -> list["Tensor"]:
        """The gradient of the sum over the points by W_L, b_L, …, W_1, b_1, by backward propagation."""
        import torch

        outputs = self.layers(x)
        adjoint = torch.ones_like(outputs[-1])
        gradients = []
        for layer in range(len(self.weights) - 1, -1, -1):
            gradients += [adjoint.t() @ outputs[layer], adjoint.sum(0)]
            if layer:
                adjoint = (adjoint @ self.weights[layer]).mul_(outputs[layer] > 0)
        return gradients

    def calls(self, x: "Tensor") -> dict[str, Callable[[], object]]:
        """Each of METHODS at these points."""
        return {
            "value": lambda: self.value(x),
            "differences": lambda: self.differences(x),
            "forward": lambda: self.forward(x),
            "backward": lambda: self.backward(x),
            "parameters": lambda: self.parameters(x),
        }


def torch_count(shape: Shape) -> dict[str, int]:
    """What torch.utils.flop_counter.FlopCounterMode counts of each method at one point.

    It knows the matrix products, a multiply-add as two operations, and counts everything else as 0: relu, biases,
    sums and quotients.
    """
    from torch.utils.flop_counter import FlopCounterMode

    network = Perceptron(shape)
    counted = {}
    for name, call in network.calls(network.points(1)).items():
        with FlopCounterMode(display=False) as counter:
            call()
        counted[name] = counter.get_total_flops()
    return counted


def torch_tape(shape: Shape) -> int:
    """Numbers per point that torch.autograd keeps for the gradient by the parameters, besides the parameters."""
    import torch

    network = Perceptron(shape)
    parameters = [each.requires_grad_() for each in (*network.weights, *network.biases)]
    theirs = {each.untyped_storage().data_ptr() for each in parameters}
    kept: dict[int, int] = {}

    def keep(tensor: "Tensor") -> "Tensor":
        place = tensor.untyped_storage().data_ptr()
        if place not in theirs:
            kept[place] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = network.value(network.points(1))  # alive until all is counted
    assert value.requires_grad
    return sum(kept.values())


def measure(sweep: Sweep) -> list[dict[str, float]]:
    """Seconds per point of each method, for each shape of a sweep; float32, one thread."""
    import torch

    rows = []
    with one_thread(), torch.no_grad():
        for shape in sweep.shapes:
            network = Perceptron(shape)
            calls = network.calls(network.points(POINTS))
            rows.append({name: least_seconds(call) / POINTS for name, call in calls.items()})
    return rows


def exponents(sweep: Sweep, rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The fitted exponent of each method over a sweep.

    Args:
        sweep: of at least two values.
        rows: a cost of each method for each value: `operations`, or what `measure` returned.
    """
    return {name: exponent(sweep.values, [row[name] for row in rows]) for name in METHODS}
