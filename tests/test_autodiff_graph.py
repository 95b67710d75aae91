"""Programs, graphs and the ways to differentiate them, against torch, sympy and Python's own arithmetic."""

import io
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sympy
import torch
from command import mlpcli, succeeds
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlpcli.autodiff import methods, parsing, symbolic
from mlpcli.autodiff.graph import Graph, Node, run
from mlpcli.autodiff.operations import OPERATIONS, sigmoid
from mlpcli.autodiff.parsing import parse
from mlpcli.errors import ProgramError

EXPRESSION = "sin(exp(x*y) + 2*x**2)"
ASSIGNMENTS = """
z1 = x * y
z2 = x ** 2
z3 = exp(z1)
z4 = 2 * z2
z5 = z3 + z4   # a comment
out = sin(z5)
"""


def listed(graph: Graph) -> list[str]:
    """The nodes but the inputs, as assignments."""
    return [
        f"{node.name} = {graph.formula(i)}" if node.parents else node.name
        for i, node in enumerate(graph.nodes)
        if node.operation != "input"
    ]


def value(text: str, **at: float) -> float:
    graph = parse(text, "program", at)
    return graph.forward(at)[graph.leaf]


def gradient(text: str, **at: float) -> dict[str, float]:
    graph = parse(text, "program", at)
    return methods.backward(graph, graph.local_derivatives(graph.forward(at)))


def test_a_negative_constant_is_in_brackets_where_a_sign_or_a_power_would_change_it() -> None:
    assert listed(parse("-2 * x - (-3) + (-2) ** x", "program")) == [
        "-2",
        "z1 = -2 * x",
        "-3",
        "z2 = z1 - (-3)",
        "-2",
        "z3 = (-2) ** x",
        "out = z2 + z3",
    ]


# --- operations ---------------------------------------------------------------------------------------------

TORCH: dict[str, Callable[..., torch.Tensor]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "neg": lambda a: -a,
    "max": torch.maximum,
    "min": torch.minimum,
    **{
        name: getattr(torch, name)
        for name in ("exp", "log", "sin", "cos", "tan", "tanh", "sqrt", "sigmoid", "relu", "abs")
    },
}
SYMPY: dict[str, Callable[..., Any]] = {
    **{name: TORCH[name] for name in ("add", "sub", "mul", "div", "pow", "neg")},
    **{name: getattr(sympy, name) for name in ("exp", "log", "sin", "cos", "tan", "tanh", "sqrt")},
    "sigmoid": lambda a: 1 / (1 + sympy.exp(-a)),
    "relu": lambda a: sympy.Max(a, 0),
    "abs": sympy.Abs,
    "max": sympy.Max,
    "min": sympy.Min,
}
POSITIVE = ("pow", "log", "sqrt")
"""Those whose first parent must be positive."""


def test_the_oracles_know_every_operation() -> None:
    assert OPERATIONS.keys() == TORCH.keys() == SYMPY.keys()
    assert all(name == each.name for name, each in OPERATIONS.items())


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=25)
@given(data=st.data())
def test_every_operation_agrees_with_torch_and_sympy(name: str, data: st.DataObject) -> None:
    operation = OPERATIONS[name]
    point = [data.draw(st.floats(-20, 20)) for _ in range(operation.arity)]
    if name in POSITIVE:
        point[0] = abs(point[0])
    assume(all(abs(each) > 1e-3 for each in point) and len(set(point)) == len(point))
    y = operation.value(*point)
    found = operation.derivatives(y, *point)

    tensors = [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in point]
    by_torch = TORCH[name](*tensors)
    slopes = torch.autograd.grad(by_torch, tensors)
    assert math.isclose(y, by_torch.item(), rel_tol=1e-12)
    for mine, slope in zip(found, slopes, strict=True):
        # of a sigmoid close to 1, torch has 1 - y, which loses digits
        assert math.isclose(mine, slope.item(), rel_tol=1e-12, abs_tol=1e-15)

    symbols = sympy.symbols("a b", real=True)[: operation.arity]
    formula = SYMPY[name](*symbols)
    at = {symbol: sympy.Float(each, 40) for symbol, each in zip(symbols, point, strict=True)}
    assert math.isclose(y, formula.evalf(40, subs=at), rel_tol=1e-12)
    for mine, symbol in zip(found, symbols, strict=True):
        assert math.isclose(mine, sympy.diff(formula, symbol).evalf(40, subs=at), rel_tol=1e-12)


@pytest.mark.parametrize("x", [-700.0, -40.0, 0.0, 40.0, 700.0])
def test_sigmoid_and_tanh_keep_their_digits(x: float) -> None:
    """Far out too, where 1 - y and 1 - y² have none left."""
    e = sympy.exp(-sympy.Float(x, 50))
    assert math.isclose(value("sigmoid(x)", x=x), 1 / (1 + e), rel_tol=1e-15)
    assert math.isclose(gradient("sigmoid(x)", x=x)["x"], e / (1 + e) ** 2, rel_tol=1e-14)
    assert math.isclose(gradient("tanh(x/2)", x=x)["x"], 2 * e / (1 + e) ** 2, rel_tol=1e-14)


@pytest.mark.parametrize(
    ("text", "at", "expected"),
    [
        ("relu(x)", {"x": 0.0}, {"x": 0.0}),
        ("relu(x)", {"x": -0.0}, {"x": 0.0}),
        ("abs(x)", {"x": 0.0}, {"x": 0.0}),
        ("max(x, y)", {"x": 2.0, "y": 2.0}, {"x": 0.5, "y": 0.5}),
        ("min(x, y)", {"x": 2.0, "y": 2.0}, {"x": 0.5, "y": 0.5}),
        ("max(x, x)", {"x": 2.0}, {"x": 1.0}),
        ("x**2", {"x": 0.0}, {"x": 0.0}),
        ("x**2", {"x": -3.0}, {"x": -6.0}),
        ("x**1", {"x": 0.0}, {"x": 1.0}),
        ("x**0", {"x": 0.0}, {"x": 0.0}),
        ("x**-2", {"x": -2.0}, {"x": 0.25}),
        ("x**y", {"x": 0.0, "y": 2.0}, {"x": 0.0, "y": 0.0}),
        ("0**x", {"x": 2.0}, {"x": 0.0}),
        ("sqrt(0) + x", {"x": 2.0}, {"x": 1.0}),
        ("(-1)**2 * x", {"x": 2.0}, {"x": 1.0}),
    ],
)
def test_derivatives_at_special_points(text: str, at: dict[str, float], expected: dict[str, float]) -> None:
    """Kinks among them, with the subgradients that torch takes."""
    graph = parse(text, "program", at)
    assert gradient(text, **at) == methods.autograd(graph, at) == expected
    local = graph.local_derivatives(graph.forward(at))
    assert methods.forward(graph, local) == expected


@pytest.mark.parametrize("text", ["relu(x)", "abs(x)", "max(x, 0)", "min(0, x)"])
def test_a_kink_is_noted_where_an_input_leads_to_it(text: str) -> None:
    graph = parse(text, "program")
    subgradient = "0" if "," not in text else "1/2 of each argument"
    assert run(graph, {"x": 0.0}).notes == [f"out = {text} is at its kink: the subgradient {subgradient} is used"]
    assert run(graph, {"x": 1.0}).notes == []
    assert run(parse("x + abs(0)", "program"), {"x": 0.0}).notes == []


NO_VALUE = [
    ("log(x)", -1.0, "log(x), where x = -1, has no value: it needs an argument above 0"),
    ("log(x)", 0.0, "log(x), where x = 0, has no value: it needs an argument above 0"),
    ("sqrt(x)", -1.0, "sqrt(x), where x = -1, has no value: it needs an argument of at least 0"),
    ("1/x", 0.0, "1 / x, where x = 0, has no value: it needs a divisor other than 0"),
    (
        "x**-1",
        0.0,
        "x ** (-1), where x = 0, has no value: it needs a positive base, or 0 and an exponent of at least 0, "
        "or a negative one and a whole exponent",
    ),
    ("exp(x)", 710.0, "exp(x), where x = 710, is too large for a float64"),
    ("x*x", 1e200, "x * x, where x = 1e+200, is too large for a float64"),
    ("x+x", 1e308, "x + x, where x = 1e+308, is too large for a float64"),
    ("10**10**x", 10.0, "10 ** z1, where z1 = 1e+10, is too large for a float64"),
]


@pytest.mark.parametrize(("text", "x", "message"), NO_VALUE)
def test_a_value_outside_a_domain_names_the_node(text: str, x: float, message: str) -> None:
    with pytest.raises(ProgramError) as error:
        value(text, x=x)
    assert str(error.value) == f"out = {message}"


def test_a_negative_base_has_no_fractional_power() -> None:
    with pytest.raises(ProgramError, match=r"out = x \*\* 0.5, where x = -8, has no value"):
        value("x**0.5", x=-8)
    assert value("x**3", x=-2) == -8


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("a = x*x; sqrt(a)", {"x": 0.0}, "out = sqrt(a), where a = 0, has no finite derivative by a"),
        ("x**0.5", {"x": 0.0}, "out = x ** 0.5, where x = 0, has no finite derivative by x"),
        ("x**y", {"x": -2.0, "y": 2.0}, "out = x ** y, where x = -2 and y = 2, has no finite derivative by y"),
        ("1e-290/x", {"x": 1e-300}, "out = 1e-290 / x, where x = 1e-300, has no finite derivative by x"),
        ("x/1e-200/1e-200", {"x": 0.0}, "the adjoint of x is too large for a float64"),
    ],
)
def test_where_there_is_no_derivative(text: str, at: dict[str, float], message: str) -> None:
    value(text, **at)
    with pytest.raises(ProgramError) as error:
        gradient(text, **at)
    assert str(error.value).splitlines()[0] == message


def test_a_derivative_by_a_constant_may_be_undefined() -> None:
    """The exponent of (-3)² has none; the gradient does not need it, and neither do tangents."""
    done = run(parse("x**2 * sqrt(0 * 2)", "program"), {"x": -3.0}, {"x": 1.0})
    exponent = next(i for i, node in enumerate(done.graph.nodes) if node.constant == 2)
    assert math.isnan(done.adjoints[exponent]) or math.isinf(done.adjoints[exponent])
    assert done.adjoints[done.graph.inputs["x"]] == 0
    assert done.tangents is not None and all(map(math.isfinite, done.tangents))


# --- graphs -------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn, most: int = 12) -> tuple[Graph, dict[str, float]]:
    """A random graph at a point where its values are of moderate size and away from kinks and poles."""
    names = ["x", "y", "w"][: draw(st.integers(1, 3))]
    at = {name: draw(st.floats(-2, 2).filter(lambda x: abs(x) > 0.1)) for name in names}
    nodes, y = [Node(name, "input") for name in names], list(at.values())
    nodes.append(Node("c", "constant", constant=draw(st.sampled_from([0.5, 2.0, 3.0, -1.5]))))
    y.append(nodes[-1].constant or 0.0)
    for k in range(draw(st.integers(1, most))):
        name = draw(st.sampled_from(sorted(OPERATIONS)))
        parents = tuple(draw(st.integers(0, len(nodes) - 1)) for _ in range(OPERATIONS[name].arity))
        operands = [y[p] for p in parents]
        far = all(abs(each) > 0.05 for each in operands)
        if (name in POSITIVE and operands[0] < 0.05) or (name in ("div", "abs", "relu") and not far):
            name, parents = "sin", parents[:1]
        if name in ("max", "min") and abs(operands[0] - operands[1]) < 1e-3:
            name = "mul"
        result = OPERATIONS[name].value(*[y[p] for p in parents])
        if not abs(result) < 30:
            name, parents = "tanh", parents[:1]
            result = math.tanh(y[parents[0]])
        nodes.append(Node(f"z{k}", name, parents))
        y.append(result)
    return Graph(nodes, len(nodes) - 1), at


def close(found: float, expected: float, scale: float) -> bool:
    tiniest = sys.float_info.min  # below it, one way of computing may give 0 and another may not
    return abs(found - expected) <= 1e-9 * max(abs(expected), scale) + tiniest


def magnitude(graph: Graph, local: list[tuple[float, ...]]) -> list[float]:
    """The adjoints if no two terms cancelled, which their rounding is relative to."""
    return graph.backward([tuple(map(abs, each)) for each in local])


@given(graphs())
def test_adjoints_of_all_nodes_are_those_of_torch(drawn: tuple[Graph, dict[str, float]]) -> None:
    graph, at = drawn
    y: list[torch.Tensor] = []
    for node in graph.nodes:
        if node.parents:
            y.append(TORCH[node.operation](*[y[p] for p in node.parents]))
        else:
            root = at[node.name] if node.operation == "input" else node.constant
            y.append(torch.tensor(root, dtype=torch.float64, requires_grad=True))
    slopes = torch.autograd.grad(y[-1], y, allow_unused=True)
    done = run(graph, at)
    scales = magnitude(graph, done.local)
    for i, (slope, tensor) in enumerate(zip(slopes, y, strict=True)):
        assert math.isclose(done.values[i], tensor.item(), rel_tol=1e-9, abs_tol=1e-12)
        if graph.active[i]:
            assert close(done.adjoints[i], 0.0 if slope is None else slope.item(), scales[i])


@given(graphs(), st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_the_tangent_of_the_leaf_is_the_product_of_adjoints_and_seed(
    drawn: tuple[Graph, dict[str, float]], seed: list[float]
) -> None:
    graph, at = drawn
    direction = dict(zip(graph.inputs, seed, strict=False))
    done = run(graph, at, direction)
    assert done.tangents is not None
    scales = magnitude(graph, done.local)
    product = sum(done.adjoints[graph.inputs[name]] * each for name, each in direction.items())
    scale = sum(scales[graph.inputs[name]] * abs(each) for name, each in direction.items())
    assert close(done.tangents[graph.leaf], product, scale)


@settings(max_examples=40, deadline=None)
@given(graphs(most=7))
def test_symbolic_forward_and_backward_agree(drawn: tuple[Graph, dict[str, float]]) -> None:
    graph, at = drawn
    try:
        found = symbolic.symbolic(graph, at)
    except symbolic.NotSymbolic:
        assume(False)
    local = graph.local_derivatives(graph.forward(at))
    scales = magnitude(graph, local)
    forward, backward = methods.forward(graph, local), methods.backward(graph, local)
    for name, i in graph.inputs.items():
        if not math.isnan(found.gradient[name]):
            assert close(found.gradient[name], backward[name], scales[i])
        assert close(forward[name], backward[name], scales[i])


@settings(max_examples=50)
@given(graphs())
def test_finite_differences_are_near(drawn: tuple[Graph, dict[str, float]]) -> None:
    graph, at = drawn
    local = graph.local_derivatives(graph.forward(at))
    scales = magnitude(graph, local)
    assume(max(scales) < 100)
    found, exact = methods.finite_differences(graph, at), methods.backward(graph, local)
    for name, i in graph.inputs.items():
        assert math.isnan(found[name]) or abs(found[name] - exact[name]) < 1e-4 * max(1, scales[i])


def test_the_example_of_the_course() -> None:
    graph = parse(ASSIGNMENTS, "program", {"x": 1, "y": 2})
    done = run(graph, {"x": 1.0, "y": 2.0}, {"x": 1.0})
    assert listed(graph) == [
        *("z1 = x * y", "2", "z2 = x ** 2", "z3 = exp(z1)", "2", "z4 = 2 * z2", "z5 = z3 + z4", "out = sin(z5)")
    ]
    z5 = math.exp(2) + 2
    expected = math.cos(z5) * (2 * math.exp(2) + 4)
    assert done.values[-1] == math.sin(z5)
    assert done.adjoints[:2] == pytest.approx([expected, math.cos(z5) * math.exp(2)], rel=1e-14)
    assert done.tangents is not None and done.tangents[-1] == pytest.approx(expected, rel=1e-14)
    assert gradient(EXPRESSION, x=1, y=2) == pytest.approx(gradient(ASSIGNMENTS, x=1, y=2), rel=1e-14)


def test_costs() -> None:
    """N = 6, E = 10, d = 2; exp and sums take no operation for their derivatives, sin one, pow five."""
    found = {each.name: each for each in methods.gradients(parse(EXPRESSION, "program"), {"x": 1.0, "y": 2.0})}
    assert methods.Size.of(parse(EXPRESSION, "program")) == methods.Size(6, 6, 10, 2)
    assert found["finite differences"].operations == 2 * 2 * 6 + 2 * 2
    assert found["forward"].operations == 6 + 6 + 2 * 2 * 10
    assert found["backward"].operations == 6 + 6 + 2 * 10
    formulas = found["symbolic"].formulas
    assert formulas is not None
    x, y = sympy.symbols("x y", real=True)
    exact = sympy.sin(sympy.exp(x * y) + 2 * x**2)
    for symbol in (x, y):
        written = sympy.sympify(formulas[str(symbol)], {"x": x, "y": y})
        assert sympy.simplify(written - sympy.diff(exact, symbol)) == 0
    assert found["symbolic"].operations == sum(sympy.count_ops(formula) for formula in formulas.values())


def test_the_symbolic_way_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the length of the formula, by the size of its integers, and by time."""
    swell = parse("out = x" + "; out = sin(out) + out" * 40, "program")
    assert len(swell.nodes) == 81
    with pytest.raises(
        symbolic.NotSymbolic, match=r"has 2.2e\+12 operations, .* the graph has 80 \(expression swell\)"
    ):
        symbolic.symbolic(swell, {"x": 1.0})
    with pytest.raises(symbolic.NotSymbolic, match="integers of too many digits"):
        symbolic.symbolic(parse("(2*x)**(10**9)", "program"), {"x": 0.5})
    monkeypatch.setattr(symbolic, "SECONDS", 0.2)
    with pytest.raises(symbolic.NotSymbolic, match=r"did not come to an end in 0.2 s"):
        symbolic.symbolic(parse("x" + "**x" * 50, "program"), {"x": 0.9})


def test_what_would_take_too_long_is_left_out() -> None:
    graph = parse("+".join(f"x{i}" for i in range(2000)), "program")
    found = {each.name: each for each in methods.gradients(graph, dict.fromkeys(graph.inputs, 1.0))}
    assert {name for name, each in found.items() if each.gradient is None} == {
        *("finite differences", "symbolic", "forward")
    }
    assert found["finite differences"].operations == 2 * 2000 * 1999 + 2 * 2000
    assert found["backward"].gradient == found["torch.autograd"].gradient == dict.fromkeys(graph.inputs, 1.0)


def test_a_chain_of_100_000() -> None:
    lines = "\n".join(f"z{i} = sin(z{i - 1})" for i in range(1, 100_001))
    done = run(parse(lines, "program"), {"z0": 1.0}, {"z0": 1.0})
    expected, y = 1.0, 1.0
    for _ in range(100_000):
        expected, y = expected * math.cos(y), math.sin(y)
    assert len(done.graph.nodes) == 100_001 and done.values[-1] == y
    assert done.adjoints[0] == pytest.approx(expected, rel=1e-9)
    assert done.tangents is not None and done.tangents[-1] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("form", ["{}", "out = sin(({})/1e5)", "max(1 - ({}), {})"])
def test_a_sum_of_100_000_in_one_expression(form: str) -> None:
    """Which ast refuses as it is."""
    terms = "x" + "+x" * (99_999 if form == "{}" else 9_999)
    done = run(parse(form.format(terms, terms), "program"), {"x": 0.5})
    n = terms.count("x")
    expected = n if "sin" not in form else n / 1e5 * math.cos(n * 0.5 / 1e5)
    assert done.adjoints[0] == pytest.approx(expected, rel=1e-9)


# --- programs -----------------------------------------------------------------------------------------------


def test_a_product_with_itself_has_two_edges() -> None:
    graph = parse("x*x", "program")
    assert graph.nodes[-1].parents == (0, 0)
    assert gradient("x*x", x=3) == {"x": 6}


def test_a_shared_expression_is_one_node() -> None:
    assert listed(parse("sin(x*y) + x*y", "program")) == ["z1 = x * y", "z2 = sin(z1)", "out = z2 + z1"]
    assert listed(parse("a = x*y; b = x*y; out = a/b", "program")) == ["a = x * y", "out = a / a"]
    assert listed(parse("2*x + 2*x", "program")) == ["2", "z1 = 2 * x", "out = z1 + z1"]
    assert listed(parse("x*y + y*x", "program")) == ["z1 = x * y", "z2 = y * x", "out = z1 + z2"]


def test_a_name_rebinds_as_in_python() -> None:
    text = "x = x * y\nx = x + 1\ny = x\nout = y * y"
    graph = parse(text, "program")
    assert listed(graph) == ["x.2 = x * y", "1", "x.3 = x.2 + 1", "out = x.3 * x.3"]
    names: dict[str, Any] = {"x": 3.0, "y": 5.0}
    exec(text, names)
    assert value(text, x=3, y=5) == names["out"]
    assert listed(parse("x += y; x **= 2", "program")) == ["x.2 = x + y", "2", "x.3 = x.2 ** 2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2*x + 3", ["2", "z1 = 2 * x", "3", "out = z1 + 3"]),
        ("c = 2\nc*x + c", ["c", "z1 = c * x", "out = z1 + c"]),
        ("-x", ["out = -x"]),
        ("-2.50*x", ["-2.5", "out = -2.5 * x"]),
        ("-x**2", ["2", "z1 = x ** 2", "out = -z1"]),
        ("x**-y", ["z1 = -y", "out = x ** z1"]),
        ("+x", []),
        ("x**y**w", ["z1 = y ** w", "out = x ** z1"]),
        ("x - y - w", ["z1 = x - y", "out = z1 - w"]),
        ("x / y * w", ["z1 = x / y", "out = z1 * w"]),
        ("max(x, y, w)", ["z1 = max(x, y)", "out = max(z1, w)"]),
        ("pi*x + e", ["pi", "z1 = pi * x", "e", "out = z1 + e"]),
        ("e = x*2; e", ["2", "e = x * 2"]),
        ("a = b = sin(x)", ["a = sin(x)"]),
        ("z1 = x + y; sin(x*y)*z1", ["z1 = x + y", "z2 = x * y", "z3 = sin(z2)", "out = z3 * z1"]),
        ("out = x*y; z = 2*x", ["out = x * y"]),
        ("a = (x +\n     y)  # two lines\n\nb = a \\\n  * 2\n", ["a = x + y", "2", "b = a * 2"]),
        ("0x10 + 1_000*x + .5e-1", ["1000", "z1 = 1000 * x", "16", "z2 = 16 + z1", "0.05", "out = z2 + 0.05"]),
        ("7", ["out"]),
    ],
)
def test_what_a_program_means(text: str, expected: list[str]) -> None:
    assert listed(parse(text, "program")) == expected


def test_what_the_leaf_does_not_need_is_left_out() -> None:
    graph = parse("a = x*x; b = sin(q); out = a; c = b + r", "program", {"x": 1})
    assert listed(graph) == ["a = x * x"] and list(graph.inputs) == ["x"]
    assert graph.notes == ["left out, since the leaf does not need it: q, r, b, c"]
    parse("a = q; out = x", "program", {"x": 1, "q": 2})  # a value for it does no harm


NUMBERS = st.sampled_from(["2", "0.5", "1e-1", "3.", "0x1e", "7E+1", "pi"])
EXPRESSIONS = st.recursive(
    st.one_of(st.sampled_from(["x", "y", "é"]), NUMBERS),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", " + ", " - "]), inner).map("".join),
        st.tuples(inner, st.sampled_from(["+", "-"]), inner, st.sampled_from(["+", "-"]), inner).map("".join),
        inner.map("({})".format),
        inner.map("-{}".format),
        inner.map("- +{}".format),
        inner.map("{}**2".format),
        st.tuples(st.sampled_from(["sin", "tanh", "abs", "relu", "sigmoid"]), inner).map("{0[0]}({0[1]})".format),
        st.tuples(st.sampled_from(["max", "min"]), inner, inner, inner).map(
            "{0[0]}({0[1]}, {0[2]},{0[3]})".format
        ),
    ),
    max_leaves=12,
)
"""Texts of expressions; Python says what they are worth."""
FUNCTIONS = {
    **{name: getattr(math, name) for name in ("sin", "tanh", "pi")},
    "relu": lambda x: max(x, 0.0),
    "sigmoid": sigmoid,
    "__builtins__": {"abs": abs, "max": max, "min": min},
}


@given(EXPRESSIONS)
def test_an_expression_has_the_value_that_python_gives_it(text: str) -> None:
    at = {"x": 0.75, "y": -1.25, "é": 3.0}
    try:
        expected = float(eval(text, dict(FUNCTIONS), at))
        assert math.isfinite(expected)
    except (ZeroDivisionError, OverflowError, AssertionError):
        with pytest.raises(ProgramError):
            value(text, **at)
        return
    graph = parse(text, "program")
    assert graph.forward(at)[graph.leaf] == pytest.approx(expected, rel=1e-12)


@given(EXPRESSIONS)
def test_a_sum_that_is_cut_gives_the_same_graph(text: str) -> None:
    """Whatever is around it, and between its terms."""
    text = f"é = x # a + b\nout = max(({text}) +  # - c\n {text}, 2)"
    whole = parse(text, "program")
    plain, refused = parsing._ast, list[str]()

    def refusing(source: str) -> Any:
        if source in text and source not in refused:
            refused.append(source)
            raise RecursionError
        return plain(source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "_ast", refusing)
        cut = parse(text, "program")
    assert "".join(refused) == text
    assert cut.nodes == whole.nodes and cut.leaf == whole.leaf


# --- what is refused ----------------------------------------------------------------------------------------

HOSTILE = [
    "__import__('os').system('touch hacked')",
    "open('hacked', 'w')",
    "eval('1')",
    "().__class__.__bases__[0].__subclasses__()",
    "x.real",
    "math.exp(x)",
    "lambda: x",
    "(lambda x: x)(3)",
    "[x for x in y]",
    "[x]",
    "{x: y}",
    "x[0]",
    "'text'",
    "b'bytes'",
    'f"{open(chr(104), chr(119))}"',
    "x if y else z",
    "x and y",
    "not x",
    "x < y",
    "x @ y",
    "x // y",
    "x % y",
    "x << 3",
    "~x",
    "(y := x)",
    "x, y",
    "*x",
    "await x",
    "None",
    "True",
    "...",
    "1j",
    "import os",
    "def f(): pass",
    "for i in x: pass",
    "while 1: pass",
    "if x:\n  y = 1",
    "del x",
    "a, b = x, y",
    "a[0] = x",
    "a.b = x",
    "exp = 3",
    "x: int = 3",
    "sin(*x)",
    "sin(x=x)",
    "9" * 100_000,
    "9" * 400,
    "1e400",
    "0x" + "f" * 900_000,
    "a" * 101,
    "x" * 1_000_000,
    "x+" * 500_000 + "x",
    "(" * 100_000 + "x" + ")" * 100_000,
    "sin(" * 5_000 + "x" + ")" * 5_000,
    "-" * 100_000 + "x",
    "x" + "**x" * 100_000,
    "x" + "*x" * 100_000,
    "f" + "(x)" * 100_000,
    "(" * 999_999,
    "x = (\n" * 100_000,
    "'" * 999_999,
    "x\0y",
    "\ud800",
    "\ufeff\ufeffx",
    "x y",
    "",
    "  \n # nothing",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:30]))
def test_hostile_programs_are_refused(text: str) -> None:
    with pytest.raises(ProgramError) as error:
        parse(text, "program")
    assert str(error.value).startswith("program:")
    assert len(str(error.value)) < 1000
    assert not Path("hacked").exists()


def test_a_tower_of_powers_is_never_worked_out_as_an_integer() -> None:
    with pytest.raises(ProgramError, match=r"out = 10 \*\* z1, where z1 = 1e\+10, is too large for a float64"):
        value("10**10**10")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x + * y", "1:5: syntax error\n    x + * y\n        ^"),
        ("a = 1\nb = (a + x", "2:5: syntax error: '(' was never closed\n    b = (a + x\n        ^"),
        ("a = 2x", "1:5: invalid decimal literal\n    a = 2x\n        ^\n"
         "    a product is written with *, as in 2*x"),
        ("a = x\n\nb = é + sine(a)", "3:9: 'sine' is not a function\n    b = é + sine(a)\n            ^^^^\n"
         "    did you mean sin?"),
        ("ln(x)", "1:1: 'ln' is not a function\n    ln(x)\n    ^^\n    did you mean log?"),
        ("x(y)", "1:1: 'x' is not a function"),
        ("y = x; y(2)", "1:8: 'y' is not a function\n    y = x; y(2)\n           ^\n"
         "    a product is written with *, as in y*(...)"),
        ("2(x)", "1:1: only a function can be called"),
        ("1 + x^2", "1:1: '1 + x^2' is none of the allowed operations\n    1 + x^2\n    ^^^^^^^\n"
         "    a power is written **"),
        ("exp + 1", "1:1: exp is a function\n    exp + 1\n    ^^^\n    give it an argument: exp(x)"),
        ("sin(x, y)", "1:1: sin takes one argument, but it is given 2"),
        ("sin()", "1:1: sin takes one argument, but it is given 0"),
        ("max(x)", "1:1: max takes at least two arguments, but it is given 1"),
        ("x*y\nz = 2", "1:1: this value has no name\n    x*y\n    ^^^\n"
         "    only the last line may be a bare expression"),
        ("(" * 300 + "x" + ")" * 300, "1:201: this is nested too deeply to be read"),
        ("a = x\na = " + "y*" * 9000 + "y", "2:1: this is nested too deeply to be read"),
    ],
)  # fmt: skip
def test_errors_say_where(text: str, message: str) -> None:
    with pytest.raises(ProgramError) as error:
        parse(text, "program")
    assert str(error.value).startswith(f"program:{message}")


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("hidden = x\nb = hiden*x", ["x"], "program:2:5: no value is given for hiden\n    b = hiden*x\n"
         "        ^^^^^\n    did you mean hidden?"),
        ("u + v*w", ["v"], "program:1:1: no value is given for u, w\n    u + v*w\n    ^\n"
         "    add --at u=… --at w=…"),
        ("x", ["x", "q"], "--at q: the program has no such input\n    its inputs: x"),
        ("x", ["x", "X"], "--at X: the program has no such input\n    did you mean x?"),
        ("a = x; a", ["x", "a"], "--at a: the program has no such input\n    the program assigns it"),
        ("x*e", ["x", "e"], "--at e: the program has no such input\n"
         "    e is the constant 2.718282: name the input otherwise"),
    ],
)  # fmt: skip
def test_inputs_without_values_and_values_without_inputs(text: str, given: list[str], message: str) -> None:
    with pytest.raises(ProgramError) as error:
        parse(text, "program", given)
    assert str(error.value) == message


# --- the command --------------------------------------------------------------------------------------------


def test_graph_prints_nodes_gradients_and_formulas() -> None:
    out = succeeds("autodiff", "graph", EXPRESSION, "--at", "x=1", "--at", "y=2", "--forward", "x").out
    nodes, gradients, formulas = out.split("\n\n")
    header, x, _, z1, *_ = (re.sub(" +", " ", line) for line in nodes.splitlines())
    assert header == "node operation parents value y ∂y/∂parents adjoint z tangent ẏ"
    assert x == "x input 1 −18.7661 1"
    assert z1 == "z1 mul x, y 2 2, 1 −7.38434 2"
    rows = [line.split("  ") for line in gradients.splitlines()]
    assert [row[0] for row in rows[1:6]] == [each.name for each in methods.gradients(parse("x", ""), {"x": 1.0})]
    assert all("−18.766" in line and "−7.384" in line for line in gradients.splitlines()[1:6])
    assert formulas == (
        "∂out/∂x = (4*x + y*exp(x*y))*cos(2*x**2 + exp(x*y))\n∂out/∂y = x*exp(x*y)*cos(2*x**2 + exp(x*y))\n"
    )


def test_graph_as_json_has_everything() -> None:
    Path("program.txt").write_text(ASSIGNMENTS + "unused = 3\n", encoding="utf-8")
    found = succeeds("autodiff", "graph", "program.txt", "--at", "x=-1", "--at", "y=2", "--json").json
    assert [node["name"] for node in found["nodes"]] == ["x", "y", "z1", "2", "z2", "z3", "2", "z4", "z5", "out"]
    square = found["nodes"][4]
    assert square["parents"] == ["x", "2"] and square["value"] == 1
    assert square["local"] == [-2, None] and found["nodes"][3]["adjoint"] is None
    assert found["nodes"][-1]["adjoint"] == 1 and found["leaf"] == "out" and found["direction"] is None
    assert found["gradient"] == pytest.approx(gradient(EXPRESSION, x=-1, y=2))
    assert {each["name"]: each["difference"] < 1e-8 for each in found["methods"]} == dict.fromkeys(
        ("finite differences", "symbolic", "forward", "backward", "torch.autograd"), True
    )
    assert found["methods"][1]["formulas"].keys() == {"x", "y"}
    assert found["notes"] == ["left out, since the leaf does not need it: unused"]


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_graph_reads_stdin_and_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, ASSIGNMENTS.encode())
    done = succeeds("autodiff", "graph", "-", "--at", "x=1", "--at", "y=2", "-o", "graph.json", "--json")
    drawn = json.loads(Path("graph.json").read_text())
    assert drawn["nodes"] == done.json["nodes"]


def test_graph_of_many_nodes_shows_the_first_and_the_last() -> None:
    Path("long.txt").write_text("\n".join(f"z{i} = sin(z{i - 1})" for i in range(1, 1001)))
    out = succeeds("autodiff", "graph", "long.txt", "--at", "z0=1").out
    names = [line.split()[0] for line in out.split("\n\n")[0].splitlines()[1:-1]]
    assert names == [*(f"z{i}" for i in range(30)), "…", *(f"z{i}" for i in range(971, 1001))]
    assert "941 of 1,001 nodes are not shown; --json has all\n" in out
    assert "symbolic: left out: as one formula the function has 1,000 operations, over 300\n" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x*y", "--at", "x=1"], "error: expression:1:3: no value is given for y\n    x*y\n      ^\n"
         "    add --at y=…\n"),
        (["  log(x)", "--at", "x=-1"], f"error: out = {NO_VALUE[0][2]}\n"),
        (["x", "--at", "x=one"], "error: --at x=one: expected NAME=NUMBER with a finite number"),
        (["x", "--at", "x=inf"], "error: --at x=inf: expected NAME=NUMBER with a finite number"),
        (["x", "--at", "x"], "error: --at x: expected NAME=NUMBER with a finite number"),
        (["x", "--at", "x=1", "--at", "x=2"], "error: --at x=2: x has a value already\n"),
        (["x", "--at", "x=1", "--forward", "X"], "error: --forward X: the leaf does not depend on such an "
         "input\n    did you mean x?\n"),
        (["no/such.txt"], "error: no/such.txt: there is no such file, and it is no expression\n"),
        (["x", "--at", "x=1", "-o", "picture.gif"], "error: -o picture.gif: "),
        (["binary.txt"], "error: binary.txt: byte 4 is not UTF-8, so this is no text\n"),
        (["wrong.txt"], "error: wrong.txt:2:3: syntax error\n    b ? 3\n      ^\n"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(arguments: list[str], message: str) -> None:
    Path("binary.txt").write_bytes(b"a = \xff")
    Path("wrong.txt").write_text("a = 1\nb ? 3\n")
    done = mlpcli("autodiff", "graph", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(message)


def test_the_kink_is_told() -> None:
    out = succeeds("autodiff", "graph", "relu(x) + max(x, y)", "--at", "x=0", "--at", "y=1").out
    assert out.endswith("\n\nz1 = relu(x) is at its kink: the subgradient 0 is used\n")
