"""Around one input: autograd, steps to both sides of the nearest boundary, and a general solver."""

import numpy as np
import pytest
import torch
from exact_regions import network_of
from scipy.optimize import linprog, minimize

from mlpcli.regions.local import Change, around
from mlpcli.regions.piecewise import Floats, PiecewiseAffine

FAMILY: list[tuple[list[int], list[float]]] = [
    ([2, 8, 3], [0.0]),
    ([4, 10, 10, 3], [0.0, 0.0]),
    ([6, 12, 1, 5, 2], [0.0, 0.2, 0.0]),
    ([3, 9, 7, 10, 4], [0.0, 1.0, 0.1]),
    ([20, 15, 15, 15, 5], [0.0, 0.0, 0.0]),
]


def input_of(network: PiecewiseAffine, seed: int) -> Floats:
    return np.random.default_rng(seed + 10).normal(size=network.inputs)


def module(network: PiecewiseAffine) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for weight, bias, slope in zip(network.weights, network.biases, [*network.slopes, 1.0], strict=True):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        linear.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        layers += [linear, torch.nn.LeakyReLU(slope)]
    return torch.nn.Sequential(*layers)


# --- The affine map -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sizes", "slopes"), FAMILY)
def test_the_affine_map_is_the_one_of_autograd(sizes: list[int], slopes: list[float], seed: int) -> None:
    network = network_of(sizes, seed, slopes)
    x, model = input_of(network, seed), module(network)
    local = around(network, x)
    jacobian = torch.autograd.functional.jacobian(model, torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(local.weight, jacobian, atol=1e-12)
    outputs = model(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(local.outputs, outputs, atol=1e-12)
    np.testing.assert_allclose(local.bias, outputs - jacobian @ x, atol=1e-12)
    np.testing.assert_array_equal(local.pattern, network.patterns_at(x[None])[0])


# --- The nearest boundary -----------------------------------------------------------------------------------


def preactivation_gradient(network: PiecewiseAffine, x: Floats, layer: int, unit: int) -> tuple[float, Floats]:
    until = module(network)[: 2 * layer + 1]
    inputs = torch.from_numpy(x).requires_grad_()
    value = until(inputs)[unit]
    (gradient,) = torch.autograd.grad(value, inputs)
    return float(value.detach()), gradient.numpy()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("sizes", "slopes"), FAMILY)
def test_the_cell_reaches_as_far_as_its_nearest_boundary(sizes: list[int], slopes: list[float], seed: int) -> None:
    network = network_of(sizes, seed, slopes)
    x = input_of(network, seed)
    local = around(network, x)
    nearest = local.boundary
    assert nearest is not None and nearest.distance > 0

    generator = np.random.default_rng(seed)
    directions = generator.normal(size=(2000, network.inputs))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    inside = network.patterns_at(x + nearest.distance * (1 - 1e-9) * directions)
    np.testing.assert_array_equal(inside, np.broadcast_to(local.pattern, inside.shape))

    value, gradient = preactivation_gradient(network, x, nearest.layer, nearest.unit)
    towards = -np.sign(value) * gradient / np.linalg.norm(gradient)
    just_inside, outside = (
        network.patterns_at((x + nearest.distance * factor * towards)[None]) for factor in (1 - 1e-9, 1 + 1e-9)
    )
    np.testing.assert_array_equal(just_inside[0], local.pattern)
    changed = [
        network.unpack(outside, layer) != network.unpack(just_inside, layer) for layer in range(len(slopes))
    ]
    assert [layer.sum() for layer in changed] == [int(layer == nearest.layer) for layer in range(len(slopes))]
    assert changed[nearest.layer][0, nearest.unit]


def test_the_distance_of_known_lines() -> None:
    network = PiecewiseAffine(
        [np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]]), np.ones((2, 3))],
        [np.array([-10.0, 5.0, 0.0]), np.zeros(2)],
        [0.0],
    )
    nearest = around(network, np.zeros(2)).boundary
    assert nearest is not None
    assert (nearest.layer, nearest.unit) == (0, 0)
    assert nearest.distance == pytest.approx(2.0)
    on_it = around(network, np.array([2.0, 1.0])).boundary
    assert on_it is not None and on_it.distance == 0


def test_a_layer_without_a_kink_bounds_nothing() -> None:
    network = network_of([3, 5, 4, 2], 0, [1.0, 0.0])
    nearest = around(network, np.ones(3)).boundary
    assert nearest is not None and nearest.layer == 1


def test_a_network_of_which_no_unit_depends_on_the_input_has_no_boundary() -> None:
    constant = PiecewiseAffine([np.zeros((4, 2)), np.ones((2, 4))], [np.ones(4), np.array([0.0, 1.0])], [0.0])
    for network in (constant, network_of([2, 3], 0), network_of([2, 5, 3], 0, [1.0])):
        assert around(network, np.ones(2)).boundary is None


# --- The nearest change of the decision ---------------------------------------------------------------------


def solved(network: PiecewiseAffine, x: Floats) -> Change | None:
    """By sequential quadratic programming from a feasible place, one output at a time, with autograd."""
    model, rows, room = module(network), [], []
    for layer, units in enumerate(network.hidden):
        for unit in range(units if network.bends[layer] else 0):
            value, gradient = preactivation_gradient(network, x, layer, unit)
            sign = 1.0 if value > 0 else -1.0
            rows.append(sign * gradient)
            room.append(abs(value))
    outputs = model(torch.from_numpy(x)).detach().numpy()
    jacobian = torch.autograd.functional.jacobian(model, torch.from_numpy(x)).numpy()
    largest = int(outputs.argmax())
    best: Change | None = None
    for other in range(len(outputs)):
        towards = jacobian[other] - jacobian[largest]
        if other == largest or not towards.any():
            continue
        walls = np.array([*rows, towards])
        bounds = np.array([*room, outputs[other] - outputs[largest]])
        start = linprog(np.zeros(len(x)), -walls, bounds, bounds=(None, None))
        if not start.success:
            continue
        size = float(np.linalg.norm(start.x))
        found = minimize(
            lambda s: s @ s,
            start.x / size,
            jac=lambda s: 2 * s,
            method="SLSQP",
            constraints={
                "type": "ineq",
                "fun": lambda s, w=walls, b=bounds / size: w @ s + b,
                "jac": lambda s, w=walls: w,
            },
            options={"maxiter": 500, "ftol": 1e-15},
        )
        distance = size * float(np.linalg.norm(found.x))
        if best is None or distance < best.distance:
            best = Change(distance, other)
    return best


@pytest.mark.parametrize(("sizes", "slopes"), [([2, 4, 3], [0.0]), ([3, 5, 4, 3], [0.0, 0.2]), ([5, 4, 2], [0.0])])
def test_the_nearest_change_is_the_one_of_a_general_solver(sizes: list[int], slopes: list[float]) -> None:
    found = {True: 0, False: 0}
    for seed in range(25):
        network = network_of(sizes, seed, slopes)
        x = input_of(network, seed)
        change, expected = around(network, x).change, solved(network, x)
        found[change is not None] += 1
        assert (change is None) == (expected is None)
        if change is not None and expected is not None:
            assert change.distance == pytest.approx(expected.distance, rel=1e-5)
            assert change.output == expected.output
    assert min(found.values()) >= 3  # both happened


def with_change(outputs: list[list[float]], shift: list[float], tiny: float = 0.0) -> Change | None:
    """At (1/2, 3/10), in a cell x₁ > −1, x₂ > −1/5, and with a third unit that depends on the input by little."""
    network = PiecewiseAffine(
        [np.array([[1.0, 0.0], [0.0, 1.0], [tiny, tiny]]), np.array([[*row, 0.0] for row in outputs])],
        [np.array([1.0, 0.2, 1.0]), np.array(shift)],
        [0.0],
    )
    return around(network, np.array([0.5, 0.3])).change


def test_a_change_straight_ahead() -> None:
    change = with_change([[0.0, 0.0], [1.0, 2.0]], [0.0, -5.2])
    assert change is not None
    assert change.output == 1
    assert change.distance == pytest.approx(2.7 / 5**0.5, rel=1e-12)


@pytest.mark.parametrize("tiny", [0.0, 1e-3, 1e-9, 1e-14, 1e-17, 1e-100])
def test_a_change_along_a_wall(tiny: float) -> None:
    """Straight ahead is behind x₂ = −1/5, so that it is at (2, −1/5): far walls must not blur the near ones."""
    change = with_change([[0.0, 0.0], [1.0, -2.0]], [0.0, -3.0], tiny)
    assert change is not None
    assert change.output == 1
    assert change.distance == pytest.approx(np.hypot(1.5, 0.5), rel=1e-9)


def test_a_change_that_only_the_cell_forbids() -> None:
    """−x₂ catches up at x₂ = −1, where the unit is off."""
    assert with_change([[0.0, 0.0], [0.0, -1.0]], [0.0, -0.8]) is None
    at_the_wall = with_change([[0.0, 0.0], [0.0, -1.0]], [0.0, 0.0])
    assert at_the_wall is not None and at_the_wall.distance == pytest.approx(0.5)


def test_outputs_that_move_together_never_change() -> None:
    assert with_change([[1.0, 2.0], [1.0, 2.0]], [0.0, -1.0]) is None


def test_equal_outputs_change_at_once() -> None:
    change = with_change([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]], [0.0, 1.0, 0.0])
    assert change is not None and change.distance == 0


def test_there_is_no_decision_where_none_is_asked_for_or_with_one_output() -> None:
    network = network_of([2, 8, 3], 0)
    assert around(network, np.ones(2), decides=False).change is None
    assert around(network_of([2, 8, 1], 0), np.ones(2)).change is None


@pytest.mark.parametrize("seed", range(2))
def test_the_nearest_change_among_many_walls(seed: int) -> None:
    network = network_of([30, 40, 40, 4], seed, bias=0.2)
    x = input_of(network, seed)
    local, expected = around(network, x), solved(network, x)
    assert local.change is not None and expected is not None and local.boundary is not None
    assert local.change.distance > local.boundary.distance
    assert local.change.distance == pytest.approx(expected.distance, rel=1e-5)
    assert local.change.output == expected.output
