"""The gradient of a network's objective by five methods, compared: `autodiff check`.

torch.autograd is what the others are compared to. The explicit engine gives every coordinate in one backward pass;
forward propagation and finite differences give the rate of change along one direction a pass, and so do not reach
every coordinate of a large network. Of a parameter with too many, some coordinates are drawn, and in addition one
random direction, which all its coordinates have a part in.
"""

import copy
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from mlpcli.autodiff.directions import STEP, UNIT, Direction, directions
from mlpcli.autodiff.graph import kinks
from mlpcli.autodiff.scalar_graph import formula_gradient, formula_length, not_covered, scalar_graph
from mlpcli.errors import FailedError
from mlpcli.explicit import Explicit
from mlpcli.objective import Loss

EXACT = 1e-8
"""Largest relative difference between methods that only round differently: 10⁸ times the precision of float64."""
DIFFERENCES = 1e-5
"""And of central differences, whose error h²|f‴|/6 + u|f|/h is about 1e-10 where f and f‴ are near 1."""
SMALLER = (1.0, 0.1, 0.01)
"""Factors on h, one after the other, where the quotients of the two sides disagree: a kink is near."""
FORMULA = 10_000
"""Operations of the formula times its variables, up to which sympy differentiates it: about a second."""
ROUND_OFF = 1e-13
"""Of the largest derivative: what a smaller one may have lost in torch, where 1 − tanh² and the like cancel."""
NOISE = 8.0
"""Standard deviations of the round-off in f that a difference may be wrong by."""


@dataclass
class Method:
    """One way to the gradient.

    Attributes:
        name: of it.
        samples: of the objective that it differentiated; 0 where it does not apply.
        compared: rates of change that it gave.
        evaluations: of the objective, with or without derivatives; of a formula for symbolic differentiation.
        seconds: that they took.
        because: why the method does not apply; empty where it does.
    """

    name: str
    samples: int = 0
    compared: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    because: str = ""


@dataclass
class Row:
    """One parameter's gradient.

    Attributes:
        name: of the parameter, as in the state dict.
        layer: its layer in words.
        numbers: coordinates of it.
        scale: the largest |∂objective/∂θ_i| in the layer, which differences are relative to.
        compared: directions for forward propagation and finite differences.
        skipped: directions along which the objective has a kink, so that difference quotients have no limit.
        differences: for each method, the largest difference to torch.autograd relative to `scale`; None where that
            is 0 and the difference is not.
        drowned: the methods whose own round-off, more than `tolerance` of such a small gradient, explains theirs.
        wrong: the methods that disagree.
    """

    name: str
    layer: str
    numbers: int
    scale: float
    compared: int = 0
    skipped: int = 0
    differences: dict[str, float | None] = field(default_factory=dict)
    drowned: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(
        self, method: str, difference: float, tolerance: float, round_off: float = 0.0, scale: float | None = None
    ) -> None:
        """Count an absolute difference.

        Args:
            method: whose it is.
            difference: to torch.autograd.
            tolerance: for it, relative to the scale.
            round_off: how large the method's own may be.
            scale: for that of the row.
        """
        scale = self.scale if scale is None else scale
        relative = difference / scale if scale else None if difference else 0.0
        if not math.isfinite(difference):
            relative = None
        before = self.differences.get(method, 0.0)
        self.differences[method] = None if relative is None or before is None else max(before, relative)
        if difference <= tolerance * scale:
            return
        found = self.drowned if difference <= tolerance * scale + round_off else self.wrong
        if method not in found:
            found.append(method)


@dataclass(frozen=True)
class Report:
    """What was compared, and how it came out.

    Attributes:
        objective: its value.
        noise: standard deviation of the round-off in it.
        rows: one a parameter.
        methods: torch.autograd first.
    """

    objective: float
    noise: float
    rows: list[Row]
    methods: list[Method]

    @property
    def wrong(self) -> list[Row]:
        """Where a method disagrees."""
        return [row for row in self.rows if row.wrong]

    def complaint(self) -> str:
        """Which methods disagree, and where: the last layer first, as backward propagation meets it."""
        lines = []
        for row in reversed(self.wrong):
            for method in row.wrong:
                value = row.differences[method]
                by = "" if value is None else f" by {value:.2g} of its largest derivative"
                lines.append(f"{method} disagrees with autograd{by} in {row.name}, {row.layer}")
        return "\n    ".join(lines)

    def to_plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        tolerances = {"tolerance": {"exact": EXACT, "differences": DIFFERENCES}, "step": STEP}
        return {"agree": not self.wrong, **tolerances, **asdict(self)}


def check(
    model: nn.Sequential, loss: Loss, inputs: Tensor, targets: Tensor, *, limit: int = 1000, seed: int = 0
) -> Report:
    """Compare the gradients of the mean loss on a batch.

    Args:
        model: in float64, and with nothing random in it; stays as it is.
        loss: what is minimised.
        inputs, targets: as for `Loss`.
        limit: of all coordinates, how many forward propagation and finite differences are compared in; a
            parameter that has more than its share gets a random direction in addition.
        seed: of what is drawn.

    Raises:
        FailedError: the objective or its gradient is not finite.
    """
    model = copy.deepcopy(model).requires_grad_(True)
    gradient, autograd = _backward(model, loss, inputs, targets)
    for name, each in gradient.items():
        if not bool(each.isfinite().all()):
            raise FailedError(f"the derivative by {name} is not finite here, so that there is nothing to compare")
    rows = _rows(model, gradient)
    explicit = _explicit(model, loss, inputs, targets, gradient, rows)
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    moves = list(directions(model, limit, generator))
    for move in moves:
        rows[move.name].compared += 1

    def objective() -> float:
        return float(loss(model(inputs), targets))

    value, noise = objective(), _noise(model, objective, generator)
    forward = _forward(model, loss, inputs, targets, gradient, moves, rows)
    differences = _differences(model, objective, len(inputs), gradient, moves, rows, noise)
    symbolic = _symbolic(model.requires_grad_(True), loss, inputs, targets, rows)
    return Report(value, noise, list(rows.values()), [autograd, explicit, forward, differences, symbolic])


def _backward(
    model: nn.Sequential, loss: Loss, inputs: Tensor, targets: Tensor
) -> tuple[dict[str, Tensor], Method]:
    """By torch.autograd; by name of the parameter."""
    parameters = dict(model.named_parameters())
    count = sum(p.numel() for p in parameters.values())
    seconds, gradient = _timed(
        lambda: torch.autograd.grad(loss(model(inputs), targets), list(parameters.values()))
    )
    return dict(zip(parameters, gradient, strict=True)), Method("autograd", len(inputs), count, 1, seconds)


def _explicit(
    model: nn.Sequential,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    gradient: dict[str, Tensor],
    rows: dict[str, Row],
) -> Method:
    model = copy.deepcopy(model)  # whose parameters the engine moves into its buffer
    try:
        engine = Explicit(model, loss, torch.optim.SGD(model.parameters()), len(inputs))
    except TypeError as error:
        return Method("explicit", because=str(error))
    seconds, _ = _timed(lambda: engine.gradient(inputs, targets))
    for (name, expected), found in zip(gradient.items(), engine.accumulated(), strict=True):
        rows[name].add("explicit", float((found - expected).abs().max()), EXACT)
    return Method("explicit", len(inputs), sum(each.numel() for each in gradient.values()), 1, seconds)


def _forward(
    model: nn.Sequential,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    gradient: dict[str, Tensor],
    moves: Sequence[Direction],
    rows: dict[str, Row],
) -> Method:
    """By forward propagation, a pass a direction."""

    def rate(move: Direction) -> float:
        def along(parameter: Tensor) -> Tensor:
            return loss(functional_call(model, {move.name: parameter}, (inputs,)), targets)

        return float(jvp(along, (move.origin,), (move.vector,))[1])

    with warnings.catch_warnings():  # the first call sets torch up, in ways that torch itself deprecates
        warnings.simplefilter("ignore", FutureWarning)
        rate(moves[0])
    start = time.perf_counter()
    for move in moves:
        rows[move.name].add("forward", abs(rate(move) - move.rate(gradient[move.name])), EXACT)
    return Method("forward", len(inputs), len(moves), len(moves), time.perf_counter() - start)


def _differences(
    model: nn.Sequential,
    objective: Callable[[], float],
    samples: int,
    gradient: dict[str, Tensor],
    moves: Sequence[Direction],
    rows: dict[str, Row],
    noise: float,
) -> Method:
    """By central differences, (f(θ + hv) − f(θ − hv))/2h.

    Half the difference of the two one-sided quotients bounds the error that a kink between θ − hv and θ + hv
    makes. Where that explains a disagreement, h is made smaller, and at last the direction is skipped.
    """
    parameters = dict(model.named_parameters())
    start = time.perf_counter()
    base = objective()
    evaluations = 1
    for move in moves:
        row, parameter = rows[move.name], parameters[move.name]
        expected = move.rate(gradient[move.name])
        for factor in SMALLER:
            h = factor * move.step
            move.move(parameter, h)
            plus = objective()
            move.move(parameter, -h)
            minus = objective()
            move.move(parameter, 0.0)
            evaluations += 2
            round_off = NOISE * noise / h
            error = abs((plus - minus) / (2 * h) - expected)
            allowed = DIFFERENCES * row.scale + round_off
            if not allowed < error <= abs(plus - 2 * base + minus) / (2 * h) + allowed:
                row.add("differences", error, DIFFERENCES, round_off)
                break
        else:
            row.skipped += 1
    return Method("differences", samples, len(moves), evaluations, time.perf_counter() - start)


def _symbolic(model: nn.Sequential, loss: Loss, inputs: Tensor, targets: Tensor, rows: dict[str, Row]) -> Method:
    """By sympy, on as many samples as the formula has room for."""
    reason = not_covered(model)
    if reason:
        return Method("symbolic", because=reason)
    count = sum(row.numbers for row in rows.values())
    samples = 0
    if 2 * count**2 <= FORMULA:  # each parameter stands in the formula, with an operation at least
        one, _ = scalar_graph(model, loss, inputs[:1], targets[:1])
        samples = min(len(inputs), FORMULA // (formula_length(one) * count))
    if not samples:
        return Method("symbolic", because=f"the formulas would be too long, with {count:,} parameters")
    inputs, targets = inputs[:samples], targets[:samples]
    gradient, _ = _backward(model, loss, inputs, targets)
    graph, at = scalar_graph(model, loss, inputs, targets)
    if kinks(graph, graph.forward(at)):
        return Method("symbolic", because="the objective has a kink here")
    start = time.perf_counter()
    found = torch.tensor(formula_gradient(graph, at), dtype=torch.float64)
    seconds = time.perf_counter() - start
    if not bool(found.isfinite().all()):
        return Method("symbolic", because="a part of a formula is too large for a float64")
    scales = _scales(model, gradient)
    round_off = ROUND_OFF * max(scales.values())
    parts = found.split([each.numel() for each in gradient.values()])
    for (name, expected), part in zip(gradient.items(), parts, strict=True):
        difference = float((part - expected.reshape(-1).cpu()).abs().max())
        rows[name].add("symbolic", difference, EXACT, round_off, scales[name])
    return Method("symbolic", samples, count, 1, seconds)


def _scales(model: nn.Sequential, gradient: dict[str, Tensor]) -> dict[str, float]:
    """The largest derivative in each parameter's layer: that of a bias before a batch normalization is 0 up to
    round-off, and so no scale by itself."""
    scales: dict[str, float] = {}
    for place, module in model.named_children():
        names = [f"{place}.{name}" for name, _ in module.named_parameters()]
        largest = max((float(gradient[name].abs().max()) for name in names), default=0.0)
        scales |= dict.fromkeys(names, largest)
    return scales


def _rows(model: nn.Sequential, gradient: dict[str, Tensor]) -> dict[str, Row]:
    scales = _scales(model, gradient)
    layers = {place: f"layer {place} ({module})" for place, module in model.named_children()}
    return {
        name: Row(name, layers[name.partition(".")[0]], each.numel(), scales[name])
        for name, each in gradient.items()
    }


def _noise(model: nn.Sequential, objective: Callable[[], float], generator: torch.Generator) -> float:
    """Standard deviation of the round-off in the objective, by its differences of order 6 over points so close
    that they show nothing else (Moré & Wild 2011, "Estimating Computational Noise")."""
    order, points = 6, 9
    moves = [
        (p, p.clone(), torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device))
        for p in model.parameters()
    ]
    values = []
    for point in range(points):
        for parameter, origin, direction in moves:
            torch.add(origin, direction * origin.abs().max(), alpha=1e-12 * point, out=parameter)
        values.append(objective())
    for parameter, origin, _ in moves:
        parameter.copy_(origin)
    differences = torch.tensor(values, dtype=torch.float64)
    for _ in range(order):
        differences = differences.diff()
    gamma = math.factorial(order) ** 2 / math.factorial(2 * order)
    return max(float((gamma * differences.square().mean()).sqrt()), UNIT * abs(values[0]))


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the second call, and what it returned: the first also sets torch up."""
    function()
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result
