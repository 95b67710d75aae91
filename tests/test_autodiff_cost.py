import itertools
import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from command import mlpcli, succeeds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlpcli.arithmetic import one_thread
from mlpcli.autodiff import chain, cost
from mlpcli.autodiff.cost import METHODS, SWEEPS, THEORY, Perceptron, Shape, Sweep

shapes = st.builds(Shape, inputs=st.integers(1, 6), width=st.integers(1, 7), depth=st.integers(1, 5))
sizes = st.lists(st.integers(1, 60), min_size=2, max_size=9)

# --- what is counted ------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_products_are_those_that_torch_counts(shape: Shape) -> None:
    assert cost.torch_count(shape) == cost.product_operations(shape)


class Counted(float):
    """A number that counts what is done with it."""

    done = 0

    def _count(self, value: float) -> "Counted":
        Counted.done += 1
        return Counted(value)

    def __add__(self, other: float) -> "Counted":
        return self._count(float(self) + float(other))

    def __sub__(self, other: float) -> "Counted":
        return self._count(float(self) - float(other))

    def __mul__(self, other: float) -> "Counted":
        return self._count(float(self) * float(other))

    def __truediv__(self, other: float) -> "Counted":
        return self._count(float(self) / float(other))

    def relu(self) -> "Counted":
        return self._count(max(float(self), 0.0))

    def slope(self) -> "Counted":
        return self._count(float(self > 0))


def dot(a: list[Counted], b: list[Counted]) -> Counted:
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total = total + x * y
    return total


def scalar_methods(network: Perceptron) -> dict[str, int]:
    """The operations of each method, done one by one on numbers that count."""
    weights = [[[Counted(each) for each in row] for row in weight.tolist()] for weight in network.weights]
    biases = [[Counted(each) for each in bias.tolist()] for bias in network.biases]
    x = [Counted(each) for each in network.points(1)[0].tolist()]
    last = len(weights) - 1

    def layers(x: list[Counted]) -> list[list[Counted]]:
        outputs = [x]
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            y = [dot(row, outputs[-1]) + b for row, b in zip(weight, bias, strict=True)]
            outputs.append(y if index == last else [each.relu() for each in y])
        return outputs

    def differences() -> None:
        before = layers(x)[-1][0]
        for i in range(len(x)):
            moved = [each + 0.01 if index == i else each for index, each in enumerate(x)]
            (layers(moved)[-1][0] - before) / 0.01

    def forward() -> None:
        slopes = [[each.slope() for each in output] for output in layers(x)[1:-1]]
        for i in range(len(x)):
            tangent = [Counted(index == i) for index in range(len(x))]
            for index, weight in enumerate(weights):
                tangent = [dot(row, tangent) for row in weight]
                if index < last:
                    tangent = [t * s for t, s in zip(tangent, slopes[index], strict=True)]

    def back(parameters: bool) -> None:
        outputs = layers(x)
        adjoint = [Counted(1)]
        for index in range(last, -1, -1):
            if parameters:
                for z, each in itertools.product(adjoint, outputs[index]):
                    z * each
                if not index:
                    break
            adjoint = [dot(list(column), adjoint) for column in zip(*weights[index], strict=True)]
            if index:
                adjoint = [z * each.slope() for z, each in zip(adjoint, outputs[index], strict=True)]

    methods = {
        "value": lambda: layers(x),
        "differences": differences,
        "forward": forward,
        "backward": lambda: back(False),
        "parameters": lambda: back(True),
    }
    counted = {}
    for name, method in methods.items():
        Counted.done = 0
        method()
        counted[name] = Counted.done
    return counted


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_operations_are_those_of_the_scalar_computation(shape: Shape) -> None:
    assert scalar_methods(Perceptron(shape)) == cost.operations(shape)


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_each_method_gives_the_gradient(shape: Shape) -> None:
    network = Perceptron(shape)
    network.weights = [each.double() for each in network.weights]
    network.biases = [torch.randn(each.shape, dtype=torch.float64) for each in network.biases]
    x = network.points(3).double().requires_grad_()
    parameters = [
        each.requires_grad_() for pair in zip(network.weights, network.biases, strict=True) for each in pair
    ]
    hidden, rest = x, list(zip(network.weights, network.biases, strict=True))
    for weight, bias in rest[:-1]:
        hidden = torch.relu(hidden @ weight.t() + bias)
    value = hidden @ rest[-1][0].t() + rest[-1][1]
    by_x, *by_parameters = torch.autograd.grad(value.sum(), [x, *parameters])
    with torch.no_grad():
        torch.testing.assert_close(network.value(x), value)
        torch.testing.assert_close(network.forward(x), by_x)
        torch.testing.assert_close(network.backward(x), by_x)
        backwards = [
            each for pair in zip(by_parameters[-2::-2], by_parameters[::-2], strict=True) for each in pair
        ]
        torch.testing.assert_close(network.parameters(x), backwards)


def test_finite_differences_give_the_gradient_away_from_kinks() -> None:
    network = Perceptron(Shape(3, 5, 3))
    network.weights = [each.abs() for each in network.weights]  # so that all units are on, and stay on
    x = network.points(4).abs() + 1
    torch.testing.assert_close(network.differences(x), network.backward(x), rtol=1e-3, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_the_tape_is_what_autograd_keeps(shape: Shape) -> None:
    assert cost.torch_tape(shape) == cost.tape(shape)


# --- what is fitted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SWEEPS)
def test_counted_exponents_are_those_of_theory(name: str) -> None:
    sweep = SWEEPS[name]
    found = cost.exponents(sweep, [cost.operations(shape) for shape in sweep.shapes])
    for method in METHODS:
        assert found[method] == pytest.approx(THEORY[name][method], abs=0.02), method


def test_the_exponent_of_a_power_is_its_exponent() -> None:
    assert cost.exponent([1, 10, 1000], [5, 5 * 10**1.5, 5 * 1000**1.5]) == pytest.approx(1.5)


@settings(max_examples=50, deadline=None)
@given(shapes)
def test_gradients_are_cheap(shape: Shape) -> None:
    """At most 5 values (Baur and Strassen 1983), and 3 − n₀n₁/Σ n_{l−1}n_l for the products."""
    counted, products = cost.operations(shape), cost.product_operations(shape)
    assert counted["backward"] <= 5 * counted["value"]
    assert counted["parameters"] <= 5 * counted["value"]
    assert products["parameters"] / products["value"] == pytest.approx(cost.products_bound(shape))
    assert 2 <= cost.products_bound(shape) < 3


# --- the chain of Jacobians -----------------------------------------------------------------------------


def every_cost(sizes: list[int]) -> set[int]:
    """The cost of each parenthesisation."""

    @cache
    def costs(i: int, j: int) -> frozenset[int]:
        if i == j:
            return frozenset({0})
        return frozenset(
            left + right + sizes[i - 1] * sizes[k] * sizes[j]
            for k in range(i, j)
            for left in costs(k + 1, j)
            for right in costs(i, k)
        )

    return set(costs(1, len(sizes) - 1))


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=7))
def test_the_best_order_is_the_least_of_all(sizes: list[int]) -> None:
    found = every_cost(sizes)
    assert chain.best(sizes).multiply_adds == min(found)
    assert {chain.forward(sizes).multiply_adds, chain.backward(sizes).multiply_adds} <= found


@settings(deadline=None)
@given(st.lists(st.integers(1, 10**9), min_size=2, max_size=40))
def test_the_best_order_is_never_worse(sizes: list[int]) -> None:
    forward, backward, best = chain.orders(sizes)
    assert best.multiply_adds <= min(forward.multiply_adds, backward.multiply_adds)


def cost_as_printed(order: chain.Order, sizes: list[int]) -> tuple[int, int, int]:
    """Multiply-adds, rows and columns of the product, read from the parenthesisation."""
    stack: list[list[tuple[int, int, int]]] = [[]]
    for token in str(order).replace("(", "( ").replace(")", " )").split():
        if token == "(":
            stack.append([])
            continue
        factor = int(token[1:]) if token != ")" else 0
        found = stack.pop()[0] if token == ")" else (0, sizes[factor], sizes[factor - 1])
        if stack[-1]:
            before, rows, inner = stack[-1].pop()
            added, again, columns = found
            assert inner == again
            found = before + added + rows * inner * columns, rows, columns
        stack[-1].append(found)
    ((found,),) = stack
    return found


@settings(deadline=None)
@given(sizes)
def test_the_printed_parenthesisation_costs_what_it_says(sizes: list[int]) -> None:
    for order in chain.orders(sizes):
        assert cost_as_printed(order, sizes) == (order.multiply_adds, sizes[-1], sizes[0])


def test_one_output_is_best_backward_and_one_input_forward() -> None:
    inwards, outwards = [50, 40, 30, 20, 1], [1, 20, 30, 40, 50]
    assert chain.best(inwards).steps == chain.backward(inwards).steps
    assert chain.best(outwards).steps == chain.forward(outwards).steps


def test_an_example_of_the_book() -> None:
    """Cormen et al., Introduction to Algorithms, section 15.2: 30 × 35 × 15 × 5 × 10 × 20 × 25."""
    assert chain.best([25, 20, 10, 5, 15, 35, 30]).multiply_adds == 15125


def test_orders_and_parenthesisations_are_counted() -> None:
    for factors in range(1, 7):
        sizes = list(range(2, factors + 3))
        trees = every_tree(1, factors)
        assert chain.counts(sizes) == (math.factorial(factors - 1), len(trees))


def every_tree(i: int, j: int) -> list[object]:
    if i == j:
        return [i]
    return [pair for k in range(i, j) for pair in itertools.product(every_tree(k + 1, j), every_tree(i, k))]


def test_a_long_chain_has_an_order() -> None:
    sizes = [1 + (37 * i) % 101 for i in range(401)]
    best = chain.best(sizes)
    assert len(best.steps) == 399 and str(best).count("J") == 400
    assert best.multiply_adds < chain.forward(sizes).multiply_adds


def test_too_large_products_are_not_timed() -> None:
    sizes = [10**6, 10**6, 10**6]
    assert chain.seconds(sizes, chain.best(sizes)) is None


def test_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before


# --- the command ----------------------------------------------------------------------------------------


def test_jacobian_prints_the_orders() -> None:
    out = succeeds("autodiff", "cost", "--jacobian", "784,512,512,10").out
    assert "2 orders, 2 parenthesisations" in out
    assert "209,534,976" in out and "6,635,520" in out
    assert "best      (J3 J2) J1" in out


def test_jacobian_in_json() -> None:
    done = succeeds("autodiff", "cost", "--jacobian", "5, 4, 3, 2, 1, 7, 8", "--json").json
    assert [row["order"] for row in done["rows"]] == ["forward", "backward", "best"]
    assert [row["multiply_adds"] for row in done["rows"]] == [415, 376, 134]
    assert all(row["seconds"] > 0 for row in done["rows"])
    assert done["orders"] == 120 and done["parenthesisations"] == 42


def test_one_jacobian_has_nothing_to_multiply() -> None:
    done = succeeds("autodiff", "cost", "--jacobian", "784,10").out
    assert "1 orders" not in done and "J1" in done


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("784", "--jacobian lists 1 size"),
        ("784,0,10", "entry 2, '0'"),
        ("784,-3", "entry 2, '-3'"),
        ("784,ten", "entry 2, 'ten'"),
        ("784,,10", "entry 2, ''"),
        ("784,1.5", "entry 2, '1.5'"),
        ("", "entry 1, ''"),
        ("3,²", "entry 2, '²'"),
        ("3,99999999999999", "entry 2"),
        ("9" * 10_000, "entry 1"),
        (",".join(["3"] * 1002), "lists 1,002 sizes"),
    ],
)
def test_wrong_jacobians_are_refused(text: str, message: str) -> None:
    done = mlpcli("autodiff", "cost", "--jacobian", text)
    assert done.code == 2 and message in done.err and "--jacobian 784,512,512,10" in done.err
    assert len(done.err) < 500 and not done.out


SMALL = ["--width", "4,8", "--depth", "2,4,8", "--inputs", "2,4"]


def test_sweeps_print_counts_times_and_exponents() -> None:
    done = succeeds("autodiff", "cost", *SMALL)
    for word in (
        "width w",
        "depth L",
        "inputs d",
        "O(dw²L)",
        "w = 8",
        "L = 4",
        "d = 2",
        "FlopCounterMode counts the same",
    ):
        assert word in done.out
    assert "torch counts otherwise" not in done.out


def test_only_the_sweeps_that_are_asked_for() -> None:
    (report,) = succeeds("autodiff", "cost", "--depth", "2,4", "--json").json["sweeps"]
    assert report["sweep"] == "depth" and report["values"] == [2, 4]
    assert report["fixed"] == {"width": 64, "inputs": 4}
    sweep = Sweep("depth", (2, 4), SWEEPS["depth"].others)
    for row, shape in zip(report["rows"], sweep.shapes, strict=True):
        assert row["operations"] == cost.operations(shape)
        assert all(row["seconds"][method] > 0 for method in METHODS)
        assert row["ratios"]["backward"] == pytest.approx(
            row["operations"]["backward"] / row["operations"]["value"]
        )
    assert report["check"]["products"] == report["check"]["torch"]


@pytest.mark.parametrize("ending", [".svg", ".png"])
def test_sweeps_are_drawn(ending: str) -> None:
    file = Path(f"cost{ending}")
    succeeds("autodiff", "cost", "--width", "4,8", "-o", file)
    if ending == ".png":
        with Image.open(file) as image:
            assert image.width > 500 and len(image.convert("RGB").getcolors(100_000) or []) > 5
    else:
        text = file.read_text()
        assert text.count("<circle") == 5 * 3 and "prefers-color-scheme: dark" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--width", "64"], "--width: 1 value"),
        (["--width", "64,x"], "--width: entry 2, 'x'"),
        (["--depth", "1,2,0"], "--depth: entry 3, '0'"),
        (["--inputs", "4,4"], "--inputs: 4 is there twice"),
        (["--width", "64,1000000"], "--width 1,000,000"),
        (["--jacobian", "3,4", "--width", "3,4"], "--jacobian"),
        (["--jacobian", "3,4", "-o", "a.svg"], "-o a.svg"),
        (["--width", "3,4", "-o", "a.gif"], ".svg or .png"),
    ],
)
def test_wrong_sweeps_are_refused(arguments: list[str], message: str) -> None:
    done = mlpcli("autodiff", "cost", *arguments)
    assert done.code == 2 and message in done.err, done
    assert not done.out and not list(Path().iterdir())


def test_json_is_one_object_without_infinities() -> None:
    text = succeeds("autodiff", "cost", *SMALL, "--json").out
    report = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert [sweep["sweep"] for sweep in report["sweeps"]] == ["width", "depth", "inputs"]
