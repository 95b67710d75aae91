"""Charts: what is drawn of many points, of none, and that no number of classes makes texts meet."""

import io
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from chart_texts import assert_apart
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mlpcli.report import charts, images
from mlpcli.report.charts import Series, curves, histogram, points, thinned
from mlpcli.report.charts_grid import confusion_chart
from mlpcli.report.drawing import Chart, Dot, Path, png, svg

NAMES = {2: ["cat", "dog"], 3: ["a" * 80, "<b>&", ""]}


def matrix(classes: int) -> Chart:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 900, (classes, classes)) * (rng.random((classes, classes)) < 0.3)
    np.fill_diagonal(counts, 12_000)
    names = NAMES.get(classes, [f"class {i}" for i in range(classes)])
    return confusion_chart("confusion", "Confusion", counts, names, rates=False)


def learning(epochs: int) -> Chart:
    xs = range(1, epochs + 1)
    series = [
        Series("training", xs, [1 / x for x in xs], 0),
        Series("validation", xs, [math.nan if x == 3 else 1.2 / x + 0.1 for x in xs], 1),
    ]
    return curves("loss", "Loss", "loss", series, best=epochs)


CHARTS = {
    **{f"{n} classes": matrix(n) for n in (1, 2, 3, 10, 12, 13, 50, 51, 1000)},
    **{f"{n} epochs": learning(n) for n in (1, 2, 40, 10_000)},
    "nothing": curves("loss", "Loss", "loss", [Series("training", [1, 2], [math.nan, math.inf], 0)]),
    "points": points("p", "P", "x", "y", [0, 1e9], [math.nan, -1e9], diagonal=True),
    "one bin": histogram("h", "H", "x", [0.0, 1.0], [("", [5], 0)]),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_a_small_picture_in_both_formats(name: str) -> None:
    chart = CHARTS[name]
    text = svg(chart)
    root = ElementTree.fromstring(text)
    assert root.attrib["aria-label"] == chart.title
    assert "nan" not in text
    assert len(text) < 500_000
    picture = Image.open(io.BytesIO(png(chart)))
    assert picture.width == 2 * (chart.width + 16)


@pytest.mark.parametrize("name", CHARTS)
def test_no_texts_of_a_chart_meet_and_none_sticks_out(name: str) -> None:
    assert_apart(CHARTS[name])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=2000))
def test_thinning_keeps_ends_and_extremes(values: list[float]) -> None:
    pairs = list(enumerate(values))
    kept = thinned(pairs, 100)
    assert len(kept) <= 102
    assert kept == sorted(kept) and set(kept) <= set(pairs)
    assert {min(values), max(values), values[-1]} <= {y for _, y in kept}


def test_a_gap_is_left_where_a_value_is_missing() -> None:
    chart = curves("a", "A", "y", [Series("", range(5), [1, 2, math.nan, 3, 4], 0)])
    lines = [shape for shape in chart.shapes if isinstance(shape, Path) and shape.style == "line"]
    assert [len(line.points) for line in lines] == [2, 2]


def test_a_point_tells_its_value() -> None:
    chart = curves("a", "A", "y", [Series("training", [1, 2], [0.25, 0.125], 0)])
    assert [shape.tip for shape in chart.shapes if isinstance(shape, Dot)] == [
        "epoch 1: training 0.25",
        "epoch 2: training 0.125",
    ]


def test_names_are_escaped() -> None:
    chart = confusion_chart("c", "<script>", np.array([[1, 2], [3, 4]]), ["<b>", '"&'], rates=True)
    text = svg(chart)
    assert "<script>" not in text and "<b>" not in text
    assert "true &lt;b&gt;, predicted &quot;&amp;: 2 (66.7% of true)" in text


@pytest.mark.parametrize("shape", [(3, 224, 224), (1, 300, 200), (3, 32, 32), (1, 28, 28)])
def test_images_take_little_room_whatever_their_size(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    features = math.prod(shape)
    samples = images.pixels(rng.uniform(0, 255, (8, features)), shape, 255)
    assert max(samples.shape[1:3]) <= 64
    row = images.strip(samples, [False, True] * 4)
    assert 20 * len(images.encoded(row, shape[0] == 3)) < 1_000_000  # noise, which takes the most
    grid = images.weight_grid(rng.normal(size=(64, features)), shape, 16)
    assert len(images.encoded(grid)) < 400_000


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.12345, "0.1235"), (1234.56, "1,235"), (98765.4, "98,765"), (1e-5, "1e-5"), (-3e7, "-3e7")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert charts.short(value) == text
