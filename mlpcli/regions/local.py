"""The affine map of a network at an input, how far its cell reaches, and how far the decision is from a change."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from mlpcli.regions.piecewise import Bits, Floats, PiecewiseAffine

FEASIBLE = 1e-9
"""A residual of nonnegative least squares below it is none."""


@dataclass(frozen=True)
class Nearest:
    """The nearest boundary of the cell.

    Attributes:
        distance: in the inputs' space.
        layer, unit: of the hidden unit that is zero there, from 0.
    """

    distance: float
    layer: int
    unit: int


@dataclass(frozen=True)
class Change:
    """The nearest point of the cell at which another output is as large as the largest.

    Attributes:
        distance: in the inputs' space.
        output: the other one.
    """

    distance: float
    output: int


@dataclass(frozen=True, eq=False)
class Local:
    """The network around an input x: W x + b on its cell.

    Attributes:
        weight, bias: float64 (outputs, inputs) and (outputs,).
        pattern: uint8 (bytes,), which units are positive, see `PiecewiseAffine.unpack`.
        outputs: float64 (outputs,), at x.
        boundary: the nearest; None where no unit depends on the input, so that the cell is all of the space.
        change: of the decision, inside the cell; None where it does not change there.
    """

    weight: Floats
    bias: Floats
    pattern: Bits
    outputs: Floats
    boundary: Nearest | None
    change: Change | None


def around(network: PiecewiseAffine, x: Floats, decides: bool = True) -> Local:
    """What the network is around an input.

    The cell is the polytope on which every preactivation z, continued as the affine function that it is at x,
    keeps its sign. So |z|/‖∇z‖, least over the units, is the distance of its boundary, exactly (Hanin & Rolnick
    2019, "Complexity of Linear Regions in Deep Networks").

    Args:
        network: of any depth and width.
        x: (inputs,).
        decides: whether the largest output is a decision.
    """
    pattern = network.patterns_at(x[None])[0]
    weight, bias = network.affine_map(pattern)
    values, gradients = _preactivations(network, pattern, x)
    sizes = np.linalg.norm(gradients, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.where(sizes > 0, np.abs(values) / sizes, np.inf)
    boundary = None
    units = [
        (layer, unit) for layer, size in enumerate(network.hidden) for unit in range(size) if network.bends[layer]
    ]
    if len(distances) and np.isfinite(distances).any():
        nearest = int(distances.argmin())
        boundary = Nearest(float(distances[nearest]), *units[nearest])
    outputs = weight @ x + bias
    change = None
    if decides and len(outputs) > 1:
        signs = np.where(values > 0, 1.0, -1.0)
        change = _nearest_change(weight, outputs, signs[:, None] * gradients, np.abs(values))
    return Local(weight, bias, pattern, outputs, boundary, change)


def _preactivations(network: PiecewiseAffine, pattern: Bits, x: Floats) -> tuple[Floats, Floats]:
    """Of all units with a kink, at x: (units,), and their gradients (units, inputs) inside the cell."""
    values, gradients = [np.empty(0)], [np.empty((0, network.inputs))]
    inputs, weight = x, np.eye(network.inputs)
    for layer, slope in enumerate(network.slopes):
        preactivations = network.weights[layer] @ inputs + network.biases[layer]
        weight = network.weights[layer] @ weight if layer else network.weights[0]
        if network.bends[layer]:
            values.append(preactivations)
            gradients.append(weight)
        factors = np.where(network.unpack(pattern[None], layer)[0], 1.0, slope)
        inputs, weight = factors * preactivations, factors[:, None] * weight
    return np.concatenate(values), np.concatenate(gradients)


def _nearest_change(weight: Floats, outputs: Floats, walls: Floats, room: Floats) -> Change | None:
    """The least distance at which another output catches up with the largest, inside the cell.

    Args:
        weight: (outputs, inputs) of the affine map.
        outputs: (outputs,) at x.
        walls, room: (units, inputs) and (units,): x + s is in the cell where walls·s + room ≥ 0.
    """
    largest = int(outputs.argmax())
    best: Change | None = None
    rivals = [
        (float(outputs[largest] - outputs[rival]), weight[rival] - weight[largest], rival)
        for rival in range(len(outputs))
        if rival != largest and np.any(weight[rival] != weight[largest])
    ]
    for gap, towards, rival in sorted(rivals, key=lambda each: each[0] / float(np.linalg.norm(each[1]))):
        size = float(np.linalg.norm(towards))
        if best is not None and gap / size >= best.distance:
            break  # even without walls it is further away
        step = _shortest_step(towards, gap, walls, room)
        if step is not None and (best is None or np.linalg.norm(step) < best.distance):
            best = Change(float(np.linalg.norm(step)), rival)
    return best


def _shortest_step(towards: Floats, gap: float, walls: Floats, room: Floats) -> Floats | None:
    """The shortest s with towards·s ≥ gap and walls·s + room ≥ 0; None where there is none.

    Walls count only once a step would pass them: those that are very far away would cost the others their digits.
    """
    counts = np.zeros(len(walls), bool)
    while True:
        step = _least_distance(np.vstack((walls[counts], towards)), np.append(-room[counts], gap))
        if step is None:
            return None
        along = walls @ step
        passed = (along + room < -FEASIBLE * (room + np.abs(along))) & ~counts
        if not passed.any():
            return step
        counts |= passed


def _least_distance(rows: Floats, bounds: Floats) -> Floats | None:
    """The shortest s with rows·s ≥ bounds, by nonnegative least squares (Lawson & Hanson 1974, algorithm LDP);
    None where there is none."""
    scale = np.linalg.norm(rows, axis=1)
    kept = scale > 0
    if (bounds[~kept] > 0).any():
        return None
    rows, bounds = rows[kept] / scale[kept, None], bounds[kept] / scale[kept]
    unit = float(np.abs(bounds).max(initial=0.0)) or 1.0
    system = np.vstack((rows.T, bounds / unit))
    target = np.zeros(len(system))
    target[-1] = 1.0
    weights, _ = nnls(system, target)
    residual = system @ weights - target
    if np.linalg.norm(residual) < FEASIBLE or residual[-1] == 0:
        return None
    return np.asarray(-unit * residual[:-1] / residual[-1])
