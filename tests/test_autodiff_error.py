import math
import re
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import mpmath
import numpy as np
import pytest
import sympy
import torch
from command import mlpcli, succeeds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlpcli import plots
from mlpcli.autodiff.difference_error import DIFFERENCES, MOST, ErrorCurve, measured, steps
from mlpcli.autodiff.error_study import of_network, of_program
from mlpcli.autodiff.numeric_graph import along, taylor
from mlpcli.autodiff.parsing import parse
from mlpcli.errors import ProgramError
from mlpcli.objective import Loss

PROGRAMS = [
    ("sin(exp(x*y) + 2*x**2)", {"x": 0.7, "y": 0.3}),
    ("exp(x)", {"x": 1.0}),
    ("sin(x)", {"x": 0.8}),
    ("1/(1 + x**2)", {"x": 0.5}),
    ("tanh(x)*log(x)", {"x": 1.3}),
    ("sqrt(x)", {"x": 0.6}),
    ("exp(x)/(sin(x)**3 + cos(x)**3)", {"x": 1.5}),
    ("sigmoid(3*x - y)*x", {"x": 0.4, "y": 0.5}),
    ("exp(relu(x)*abs(y - x)) + max(x, y)**3", {"x": 1.2, "y": 0.5}),
    ("cos(x)/x", {"x": 2.0}),
]


def curves(text: str, at: dict[str, float], by: str = "x") -> dict[tuple[str, str], ErrorCurve]:
    found = of_program(parse(text, "program"), at, by).curves
    return {(curve.kind, curve.difference): curve for curve in found}


# --- slopes, best steps and best errors -----------------------------------------------------------------


@pytest.mark.parametrize(("text", "at"), PROGRAMS)
def test_slopes_are_those_of_theory(text: str, at: dict[str, float]) -> None:
    found = curves(text, at)
    orders = {"forward": 1, "central": 2, "5-point": 4, "complex": 2}
    for difference, order in orders.items():
        sides = found["float64", difference].measured
        assert sides.truncation == pytest.approx(order, abs=0.15)
        assert sides.round_off == (None if difference == "complex" else pytest.approx(-1, abs=0.15))
        single = found["float32", difference].measured
        if single.truncation is not None:  # 5-point differences have no room for one in float32
            assert single.truncation == pytest.approx(order, abs=0.15)
        assert single.round_off == (None if difference == "complex" else pytest.approx(-1, abs=0.2))
    assert found["float32", "complex"].measured.truncation is not None


@pytest.mark.parametrize(("text", "at"), PROGRAMS)
def test_best_steps_and_errors_are_near_those_of_theory(text: str, at: dict[str, float]) -> None:
    for curve in curves(text, at).values():
        assert curve.theory is not None and curve.theory.step and curve.theory.error
        assert curve.measured.step and curve.measured.error
        # theory takes the error of f to be one rounding, and a program does several
        assert 0.2 < curve.measured.step / curve.theory.step < 5
        assert 0.2 < curve.measured.error / curve.theory.error < 20


def derivatives_by_sympy(text: str, at: dict[str, float]) -> list[float]:
    names = {name: sympy.Symbol(name, real=True) for name in at}
    formula = sympy.sympify(text, locals=names | {"sigmoid": lambda a: 1 / (1 + sympy.exp(-a))})
    exact = {names[name]: sympy.Rational(value) for name, value in at.items()}
    return [float(formula.diff(names["x"], m).subs(exact).evalf(60)) if m else 0.0 for m in range(6)]


@pytest.mark.parametrize(("text", "at"), [case for case in PROGRAMS if "relu" not in case[0]])
def test_derivatives_are_those_of_sympy(text: str, at: dict[str, float]) -> None:
    series = taylor(parse(text, "program"), at, "x", MOST)
    assert series is not None
    assert [float(each) for each in series[1:6]] == pytest.approx(derivatives_by_sympy(text, at)[1:], rel=1e-14)


def test_formulas_of_theory() -> None:
    x, unit = 1.0, 2.0**-53
    f = math.exp(x)  # as are f″ and f‴
    found = curves("exp(x)", {"x": x})
    forward, central, five, step = (found["float64", each.name].theory for each in DIFFERENCES)
    assert forward and central and five and step
    assert forward.step == pytest.approx(2 * math.sqrt(unit))
    assert forward.error == pytest.approx(2 * math.sqrt(unit) * f)
    assert central.step == pytest.approx((3 * unit) ** (1 / 3))
    assert central.error == pytest.approx(f * ((3 * unit) ** (2 / 3) / 6 + unit / (3 * unit) ** (1 / 3)))
    h = five.step
    assert h == pytest.approx((45 * unit / 4) ** 0.2)
    assert five.error == pytest.approx(f * (h**4 / 30 + 1.5 * unit / h))
    assert (step.step, step.error) == (pytest.approx(math.sqrt(6 * unit)), pytest.approx(unit * f))
    assert [each.truncation for each in (forward, central, five, step)] == [1, 2, 4, 2]
    assert [each.round_off for each in (forward, central, five, step)] == [-1, -1, -1, None]


def test_theory_takes_the_first_term_that_is_not_zero() -> None:
    at_inflection = curves("1 + sin(x)", {"x": 0.0})
    assert at_inflection["float64", "forward"].theory.truncation == 2  # type: ignore[union-attr]
    assert at_inflection["float64", "forward"].measured.truncation == pytest.approx(2, abs=0.15)
    cubic = curves("x**3", {"x": 2.0})
    assert cubic["float64", "5-point"].theory.truncation is None  # type: ignore[union-attr]
    assert cubic["float64", "5-point"].measured.truncation is None
    linear = curves("3*x", {"x": 1.1})
    assert {curve.measured.truncation for curve in linear.values()} == {None}


def test_a_function_that_is_zero_there_has_no_round_off() -> None:
    for curve in curves("sin(x)", {"x": 0.0}).values():
        assert curve.measured.round_off is None and curve.theory is not None and curve.theory.round_off is None


def test_errors_of_the_complex_step_end_at_the_last_digit() -> None:
    """A reference in float64 alone would hide that some are less than half a digit off."""
    curve = curves("exp(x)", {"x": 1.0})["float64", "complex"]
    small = curve.error[curve.h < 1e-10]
    assert small.max() < 4 * 2.0**-53 * math.e
    assert len(np.unique(small)) > 1 or small[0] % 2.0**-52 != 0


def test_the_complex_step_is_best_below_a_truncation_that_ends_late() -> None:
    """At 0.001 the truncation of log, 2e9 h²/6, reaches the last digit of f′ = 1000 at h = 2e-11 only."""
    found = curves("log(x)", {"x": 1e-3})["float64", "complex"].measured
    assert found.step is not None and 1e-12 < found.step < 1e-10
    assert found.error is not None and found.error < 4 * 2.0**-53 * 1000


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 2, 4]),
    st.floats(-6, 1),
    st.floats(-16, -12),
    st.integers(0, 2**31),
)
def test_slopes_are_found_in_made_up_curves(order: int, high: float, low: float, seed: int) -> None:
    h = steps(40)
    noise = np.random.default_rng(seed).uniform(-1, 1, len(h))
    error = np.abs(10**high * h**order + 10**low * noise / h)
    found = measured(h, error, 1.0, 1e-16, noisy=True)
    assert found.round_off == pytest.approx(-1, abs=0.15)
    if found.truncation is not None:
        assert found.truncation == pytest.approx(order, abs=0.15)
    best = (10 ** (low - high) / order) ** (1 / (order + 1))
    if best < 0.03:
        assert found.step is not None and 0.2 < found.step / best < 5
    if best < 0.003:
        assert found.truncation is not None


def test_a_curve_of_zeros_or_of_nothing_has_no_sides() -> None:
    h = steps(40)
    assert measured(h, np.zeros(len(h)), 1.0, 1e-16, noisy=True).error == 0
    assert measured(h, np.full(len(h), np.nan), 1.0, 1e-16, noisy=True).error is None


# --- the program in other number types ------------------------------------------------------------------


@pytest.mark.parametrize(("text", "at"), PROGRAMS)
def test_numpy_values_are_those_of_the_graph(text: str, at: dict[str, float]) -> None:
    graph = parse(text, "program")
    t = np.array([0.0, 1e-3, -1e-3])
    there = [graph.forward(at | {"x": at["x"] + each})[graph.leaf] for each in t]
    assert along(graph, at, "x", np.float64)(t) == pytest.approx(there, rel=1e-14)
    single = along(graph, at, "x", np.float32)(t.astype(np.float32))
    assert single.dtype == np.float32 and single == pytest.approx(there, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "slope"),
    [
        ("abs(x)", -1),
        ("relu(x)", 0),
        ("relu(-x)", -1),
        ("max(x, 2*x)", 1),
        ("min(x, 2*x)", 2),
        ("x**3", 12),
        ("x**-3", -3 / 16),
        ("x**2", -4),
        ("x**101", 101 * 2.0**100),
        ("x**-150", 150 * 2.0**-151),
        ("(-x)**2.5", -2.5 * 2**1.5),
        ("sigmoid(x)", 0.10499358540350662),
        ("2**x", 0.25 * math.log(2)),
    ],
)
def test_complex_steps_go_by_the_real_part(text: str, slope: float) -> None:
    phi = along(parse(text, "program"), {"x": -2.0}, "x", np.float64)
    assert (phi(np.array([1e-20j])).imag / 1e-20)[0] == pytest.approx(slope, rel=1e-13)


@pytest.mark.parametrize(
    ("text", "x", "expected"),
    [
        ("log(x)", 1e-50, lambda m: (-1) ** (m - 1) * math.factorial(m - 1) * mpmath.mpf(10) ** (50 * m)),
        ("sin(x)", 0.0, lambda m: [0, 1, 0, -1][m % 4]),
        ("x**2", 1e30, lambda m: [0, 2e30, 2][m] if m < 3 else 0),
        ("exp(x)", -1e-20, lambda m: 1),
        ("1000 + cos(x)", 0.0, lambda m: [1, 0, -1, 0][m % 4]),
    ],
)
def test_derivatives_far_from_one(text: str, x: float, expected: object) -> None:
    series = taylor(parse(text, "program"), {"x": x}, "x", MOST)
    assert series is not None and callable(expected)
    for m in range(1, MOST + 1):
        assert abs(series[m] - expected(m)) <= abs(expected(m)) * 1e-12, m


def test_no_derivatives_where_the_domain_ends_beside_the_point() -> None:
    assert taylor(parse("sqrt(x + y)", "p"), {"x": 0.0, "y": 1e-50}, "x", MOST) is None


def test_kinks_and_types_are_noted() -> None:
    study = of_program(parse("abs(x) + x", "p"), {"x": 0.0}, "x")
    assert study.backward == 1 and "kink" in study.notes[0]
    assert all(curve.theory is None for curve in study.curves)
    tiny = of_program(parse("log(x)", "p"), {"x": 1e-50}, "x")
    assert {curve.kind for curve in tiny.curves} == {"float64"} and "float32" in tiny.notes[0]


def test_steps_that_leave_the_domain_are_left_out() -> None:
    curve = curves("log(x)", {"x": 0.01})["float64", "central"]
    assert np.isnan(curve.error[curve.h > 0.011]).all() and np.isfinite(curve.error[curve.h < 0.009]).all()
    assert curve.measured.truncation == pytest.approx(2, abs=0.15)


# --- a network ------------------------------------------------------------------------------------------


def test_network_slopes_are_those_of_theory() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    before = [parameter.clone() for parameter in model.parameters()]
    inputs, targets = torch.randn(16, 5, dtype=torch.float64), torch.randint(3, (16,))
    study = of_network(model, Loss("cross_entropy"), inputs, targets, seed=1)
    found = {(curve.kind, curve.difference): curve for curve in study.curves}
    assert len(found) == 6 and "complex is not available" in study.notes[0]
    for difference, order in (("forward", 1), ("central", 2), ("5-point", 4)):
        curve = found["float64", difference]
        assert curve.measured.truncation == pytest.approx(order, abs=0.15)
        assert curve.measured.round_off == pytest.approx(-1, abs=0.15)
        assert curve.theory is not None and curve.theory.step and curve.measured.step
        assert 0.1 < curve.measured.step / curve.theory.step < 10
    assert found["float32", "forward"].measured.round_off == pytest.approx(-1, abs=0.3)
    again = of_network(model, Loss("cross_entropy"), inputs, targets, seed=1)
    assert again.derivatives == study.derivatives
    assert of_network(model, Loss("cross_entropy"), inputs, targets, seed=2).derivatives != study.derivatives
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_derivatives_along_a_line_of_a_network() -> None:
    """The mean of (w x + b − y)² along a line is a parabola: its second derivative is the rest of the first."""
    model = torch.nn.Sequential(torch.nn.Linear(1, 1)).double()
    inputs = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    study = of_network(model, Loss("mse"), inputs, torch.zeros(2, 1, dtype=torch.float64), seed=0)
    f, first, second, *rest = study.derivatives
    assert len(study.derivatives) == 6 and rest == pytest.approx([0, 0, 0], abs=1e-12)
    assert second > 0 and f > 0 and first != 0
    central = next(curve for curve in study.curves if curve.difference == "central")
    assert central.measured.truncation is None  # exact for parabolas


# --- the command ----------------------------------------------------------------------------------------


def test_a_table_for_each_input() -> None:
    out = succeeds("autodiff", "error", "sin(exp(x*y) + 2*x**2)", "--at", "x=0.7", "--at", "y=0.3").out
    assert out.count("float64     forward") == 2 and "by x: f = 0.800371" in out and "by y: f" in out
    only = succeeds("autodiff", "error", "x*y", "--at", "x=0.7", "--at", "y=0.3", "--by", "y").out
    assert "by y" in only and "by x" not in only


def test_a_file_of_assignments() -> None:
    Path("program.txt").write_text("z = x * x\nout = sin(z)\n")
    (study,) = succeeds("autodiff", "error", "program.txt", "--at", "x=1.5", "--json").json["studies"]
    assert study["backward"] == pytest.approx(3 * math.cos(2.25))


def test_json_has_the_curves() -> None:
    report = succeeds("autodiff", "error", "exp(x)", "--at", "x=1", "--json").json
    (study,) = report["studies"]
    assert len(study["curves"]) == 8
    for curve in study["curves"]:
        assert len(curve["h"]) == len(curve["error"]) == 601
        assert curve["h"][0] == pytest.approx(0.1) and curve["h"][-1] == pytest.approx(1e-16)
        assert set(curve["measured"]) == set(curve["theory"]) == {"truncation", "round_off", "step", "error"}


def test_json_of_what_overflows_has_nulls() -> None:
    (study,) = succeeds("autodiff", "error", "sqrt(x)", "--at", "x=1e-300", "--json").json["studies"]
    assert study["derivatives"][2] is None and study["derivatives"][0] == pytest.approx(1e-150)


@pytest.mark.parametrize("arguments", [["iris"], ["iris", "model.activation=relu", "--samples", "8"]])
def test_a_config(arguments: list[str]) -> None:
    done = succeeds("autodiff", "error", *arguments)
    assert "a random direction of the parameters" in done.out
    assert ("relu has kinks" in done.out) == (len(arguments) > 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x*y", "--at", "x=1"], "expression:1:3: no value is given for y"),
        (["x*y", "x=1"], "inputs get their values with --at x=1"),
        (["x*y", "--at", "x=1", "--at", "y=1", "--by", "z"], "--by: 'z' is not one of x, y"),
        (["3*4"], "no input"),
        (["sqrt(x)", "--at", "x=0"], "no finite derivative"),
        (["log(x)", "--at", "x=-1"], "no value"),
        (["x", "--at", "x=1", "-o", "a.jpg"], ".svg or .png"),
        (["+".join("abcdfghij"), *[f"--at={name}=1" for name in "abcdfghij"]], "--by a"),
        (["iris", "model.depth=0"], "model.depth"),
        (["iris", "--checkpoint", "first"], "--checkpoint"),
        (["no-such.yaml"], "no-such.yaml"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str) -> None:
    done = mlpcli("autodiff", "error", *arguments)
    assert done.code == 2 and message in done.err, done
    assert not done.out and not list(Path().iterdir())


# --- pictures -------------------------------------------------------------------------------------------


def test_the_picture_as_svg() -> None:
    succeeds("autodiff", "error", "x*y**2", "--at", "x=1", "--at", "y=2", "-o", "a.svg")
    root = ElementTree.parse("a.svg").getroot()
    width, height = (float(root.attrib[key]) for key in ("width", "height"))
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("step h") == 4 and "theory" in texts and "complex" in texts
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        for x, y in (map(float, point.split(",")) for point in line.attrib["points"].split()):
            assert 0 <= x <= width and 0 <= y <= height
    assert "prefers-color-scheme: dark" in Path("a.svg").read_text()


def test_the_picture_as_png() -> None:
    succeeds("autodiff", "error", "sin(x)", "--at", "x=1", "-o", "a.png")
    assert struct.unpack(">II", Path("a.png").read_bytes()[16:24]) == (1920, 856)
    with Image.open("a.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1_000_000) or []}
    for light, _ in plots.COLOURS:
        r, g, b = (int(part, 16) for part in re.findall("..", light[1:]))
        assert any(abs(r - c[0]) + abs(g - c[1]) + abs(b - c[2]) < 40 for c in colours), light


def test_an_undefined_program_is_told_before_anything_is_computed() -> None:
    with pytest.raises(ProgramError):
        of_program(parse("log(x)", "p"), {"x": -1.0}, "x")


def test_a_misspelt_starter_is_no_program() -> None:
    done = mlpcli("autodiff", "error", "iriss")
    assert (done.code, done.out) == (2, "") and "did you mean iris?" in done.err
    assert succeeds("autodiff", "error", "iriss", "--at", "iriss=1", "--json").json["studies"]
