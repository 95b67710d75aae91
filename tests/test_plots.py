"""Pictures of curves: which points have a place, where the ticks stand, and what is written beside them."""

import math
import struct
import xml.etree.ElementTree as ElementTree
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mlpcli import axes, plots
from mlpcli.axes import MOST_TICKS, MOST_WIDE_TICKS, Scale, linear_number, linear_ticks
from mlpcli.errors import UsageError
from mlpcli.plots import Curve, Panel

SVG = "{http://www.w3.org/2000/svg}"


def panel(*curves: Curve, x_scale: Scale = "linear", y_scale: Scale = "linear") -> Panel:
    return Panel("title", "x", "y", curves, x_scale, y_scale)


def drawn(*panels: Panel) -> ElementTree.Element:
    plots.draw(panels, "heading", Path("a.svg"))
    return ElementTree.parse("a.svg").getroot()


def words(root: ElementTree.Element, anchor: str) -> list[str | None]:
    """The texts that end at their place (beside y axes) or have it in their middle (below x axes)."""
    return [each.text for each in root.iter(f"{SVG}text") if each.attrib["text-anchor"] == anchor]


def lines(root: ElementTree.Element, style: str) -> list[list[tuple[float, ...]]]:
    return [
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        for line in root.iter(f"{SVG}polyline")
        if line.attrib["class"].split()[0] == style
    ]


def test_a_legend_wider_than_a_panel_goes_on_below() -> None:
    names = [f"a curve with a long name, {index}" for index in range(5)]
    root = drawn(panel(*(Curve(name, (1.0, 10.0), (1.0, 10.0), index) for index, name in enumerate(names))))
    texts = {each.text: each for each in root.iter(f"{SVG}text")}
    for name in names:
        assert float(texts[name].attrib["x"]) + 6 * len(name) <= float(root.attrib["width"])
        assert float(texts[name].attrib["y"]) < float(root.attrib["height"])


def test_other_endings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\.svg or \.png"):
        plots.check_ending(Path("a.gif"))


# --- logarithmic axes ---------------------------------------------------------------------------------------


def test_axes_are_logarithmic_unless_they_are_asked_not_to_be() -> None:
    root = drawn(Panel("title", "x", "y", (Curve("", [1, 1000], [0.01, 100], 0),)))
    assert words(root, "middle") == ["x", "1", "3", "10", "30", "100", "300", "1,000"]
    assert words(root, "end") == ["0.01", "0.1", "1", "10", "100"]


def test_points_without_a_logarithm_are_left_out() -> None:
    curve = Curve("c", [1, 10, 100, 1000], [0.0, -1.0, math.nan, 5.0], 0)
    log = panel(curve, x_scale="log", y_scale="log")
    assert log.points(curve) == [(1000, 5.0)]
    root = drawn(log, panel(Curve("", [1], [0.0], 0), x_scale="log", y_scale="log"))
    assert "nothing here is above 0" in words(root, "middle")


@given(st.floats(1e-20, 1e20), st.floats(1.0, 1e30))
def test_logarithmic_axes_have_some_ticks(low: float, ratio: float) -> None:
    ticks = axes._log_ticks(*axes._log_range([low, low * ratio]))
    assert 1 <= len(ticks) <= MOST_TICKS


@pytest.mark.parametrize(
    ("value", "text"), [(1e-8, "1e-8"), (0.01, "0.01"), (2000, "2,000"), (5e-4, "5e-4"), (1e5, "1e5")]
)
def test_ticks_are_short(value: float, text: str) -> None:
    assert axes.number(value) == text


# --- linear axes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.3, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (-0.01, 20.3, [0, 5, 10, 15, 20]),
        (3.7, 21.1, [4, 6, 8, 10, 12, 14, 16, 18, 20]),
        (0, 130_000, [0, 20_000, 40_000, 60_000, 80_000, 100_000, 120_000]),
        (1e-9, 9e-9, [1e-9, 2e-9, 3e-9, 4e-9, 5e-9, 6e-9, 7e-9, 8e-9, 9e-9]),
    ],
)
def test_ticks_of_linear_axes(low: float, high: float, ticks: list[float]) -> None:
    assert linear_ticks(low, high) == ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.9, 3.1, [1, 2, 3]), (-0.5, 0.5, [0]), (0, 43, [0, 5, 10, 15, 20, 25, 30, 35, 40])],
)
def test_ticks_of_counts_are_whole(low: float, high: float, ticks: list[float]) -> None:
    assert linear_ticks(low, high, whole=True) == ticks


FINITE = st.floats(-1e300, 1e300)
ENDS = st.one_of(
    st.tuples(FINITE, FINITE),
    st.tuples(st.floats(-1e6, 1e6), st.floats(1e-5, 1e6)).map(lambda ends: (ends[0], ends[0] + ends[1])),
).map(sorted)


@given(ENDS, st.integers(2, 20))
def test_linear_ticks_are_round_few_and_everywhere(ends: list[float], most: int) -> None:
    low, high = ends
    if high - low <= max(1e-9 * max(-low, high), 1e-290):
        return
    ticks = linear_ticks(low, high, most)
    assert len(ticks) <= most and all(low <= tick <= high for tick in ticks)
    if most >= 7:
        assert len(ticks) >= (3 if most >= 9 else 2)
    if len(ticks) > 1:
        gaps = np.diff(ticks)
        step = float(gaps[0])
        assert gaps == pytest.approx(step, rel=1e-5)
        assert ticks[0] - low < 1.001 * step and high - ticks[-1] < 1.001 * step
        digit = float(f"{step:.4e}".partition("e")[0])
        assert digit in (1, 2, 5)
        rounded = Fraction(f"{step:.4e}")
        assert ticks == [float(round(Fraction(tick) / rounded) * rounded) for tick in ticks]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (3.0, "3"),
        (1.5, "1.5"),
        (-2.5, "-2.5"),
        (0.15, "0.15"),
        (2000.0, "2,000"),
        (120_000.0, "120,000"),
        (-1000.25, "-1,000.25"),
        (1_000_000.0, "1e6"),
        (-1_250_000.0, "-1.25e6"),
        (0.00015, "0.00015"),
        (0.000015, "1.5e-5"),
        (-2e-300, "-2e-300"),
    ],
)
def test_numbers_of_linear_axes(value: float, text: str) -> None:
    assert linear_number(value) == text


@given(ENDS)
def test_numbers_of_linear_axes_tell_the_ticks(ends: list[float]) -> None:
    low, high = axes._linear_range(ends)
    ticks = linear_ticks(low, high)
    assert [float(linear_number(tick).replace(",", "")) for tick in ticks] == ticks


@given(st.lists(st.one_of(FINITE, st.floats(-1e-290, 1e-290), st.integers(-3, 3).map(float)), min_size=1))
def test_linear_axes_hold_their_values_and_have_a_tick(values: list[float]) -> None:
    for most in (MOST_TICKS, MOST_WIDE_TICKS):
        axis = axes.Axis("linear", values, most)
        assert 1 <= len(axis.ticks()) <= most
        assert all(0 <= axis.share(value) <= 1 for value in values)
        assert all(0 <= axis.share(tick) <= 1 for tick, _ in axis.ticks())
        if axis.whole:
            assert all(tick == round(tick) for tick, _ in axis.ticks())


def test_zero_and_negative_numbers_have_a_place_on_linear_axes() -> None:
    curve = Curve("c", [-1.0, 0.0, 1.0, 2.0, math.inf], [0.0, -2.5, math.nan, 2.5, 1.0], 0)
    assert panel(curve).points(curve) == [(-1.0, 0.0), (0.0, -2.5), (2.0, 2.5)]
    assert panel(curve, x_scale="log").points(curve) == [(2.0, 2.5)]
    assert panel(curve, y_scale="log").points(curve) == [(2.0, 2.5)]


def test_a_linear_panel_as_svg() -> None:
    epochs = [float(epoch) for epoch in range(1, 6)]
    root = drawn(panel(Curve("regions", epochs, [12.0, 800.0, 1400.0, 2300.0, 3000.0], 0, "dots")))
    assert words(root, "middle") == ["x", "0", "1", "2", "3", "4", "5"]  # no half an epoch
    assert words(root, "end") == ["0", "500", "1,000", "1,500", "2,000", "2,500", "3,000"]
    curve = lines(root, "dots")[0]
    gaps = np.diff(curve, axis=0)
    assert gaps[:, 0] == pytest.approx(gaps[0, 0], abs=0.11)  # equal lengths are equal differences
    assert -gaps[:, 1] / -gaps[:, 1].sum() == pytest.approx(np.array([788, 600, 900, 700]) / 2988, abs=1e-3)
    left, bottom = lines(root, "axis")[0][1]
    assert left < curve[0][0] and curve[0][1] < bottom


@pytest.mark.parametrize(
    ("values", "low"),
    [
        ((0.0, 10.0), 0.0),
        ((1.5, 10.0), 0.0),
        ((2.0, 10.0), 0.0),
        ((5.0, 10.0), 4.85),
        ((-1.0, 9.0), -1.3),
        ((-10.0, 0.0), -10.3),
    ],
)
def test_axes_begin_at_zero_where_that_is_near(values: tuple[float, float], low: float) -> None:
    assert axes._linear_range(values)[0] == pytest.approx(low)
    root = drawn(panel(Curve("", [5.0, 6.0], values, 0)))
    bottom = lines(root, "axis")[0][1][1]
    on_the_axis = [line for line in lines(root, "grid") if line[0][1] == line[1][1] == bottom]
    assert len(on_the_axis) == (low == 0)  # the tick of 0 is where the plane ends


@pytest.mark.parametrize("value", [0.0, 5.0, 0.5, -0.25, 1e-310, -1e250])
def test_one_number_has_a_tick(value: float) -> None:
    root = drawn(panel(Curve("", [value], [value], 0, "dots")))
    assert words(root, "end") and len(list(root.iter(f"{SVG}circle"))) == 1


def test_dashes_stay_inside_the_range_of_the_others() -> None:
    root = drawn(panel(Curve("c", [0, 1], [0, 1], 0), Curve("t", [0, 0.5, 1], [0.5, 0.9, 1e6], 1, "dashes")))
    assert [len(line) for line in lines(root, "dashes")] == [2, 2]  # and the one in the legend
    assert words(root, "end")[-1] == "1"


@pytest.mark.parametrize(
    ("x_scale", "y_scale", "message"),
    [
        ("log", "log", "nothing here is above 0"),
        ("linear", "linear", "nothing here is finite"),
        ("log", "linear", "nothing here is finite with its x above 0"),
        ("linear", "log", "nothing here is finite with its y above 0"),
    ],
)
def test_an_empty_panel_says_why(x_scale: Scale, y_scale: Scale, message: str) -> None:
    root = drawn(panel(Curve("", [math.nan], [math.nan], 0), x_scale=x_scale, y_scale=y_scale))
    assert message in words(root, "middle")


def test_a_linear_panel_as_png() -> None:
    plots.draw([panel(Curve("c", [-2.0, 0.0, 2.0], [4.0, 0.0, 4.0], 0, "dots"))], "heading", Path("a.png"))
    assert struct.unpack(">II", Path("a.png").read_bytes()[16:24]) == (960, 856)
    with Image.open("a.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    blue = np.abs(pixels - [0x0B, 0x5C, 0xBF]).sum(2) < 40
    middle = int(plots.SCALE * (plots.LEFT + plots.WIDTH / 2))
    bottom = int(plots.SCALE * (plots.HEADING + plots.TOP + plots.HEIGHT))
    assert blue[bottom - 3 : bottom + 3, middle - 3 : middle + 3].any()  # the point (0, 0)
