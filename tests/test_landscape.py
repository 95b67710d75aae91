"""Paths on the loss surface: the plane, the objective on it, its contours, and the picture."""

import math
import re
import shutil
from pathlib import Path
from unittest.mock import patch
from xml.etree import ElementTree

import numpy as np
import pytest
from command import mlpcli, succeeds
from numpy.typing import NDArray
from PIL import Image
from torch.nn.utils import parameters_to_vector

from mlpcli.errors import UsageError
from mlpcli.network import open_target
from mlpcli.report.landscape import landscape, plane_of, survey
from mlpcli.report.landscape_contours import contours, log_levels, regions
from mlpcli.report.landscape_picture import Surface, Trail, draw
from mlpcli.runs import kept_checkpoints
from mlpcli.targets import open_any

Floats = NDArray[np.float64]

LINEAR = ["model.depth=1", "loss=mse", "optimizer={name: gd, lr: 0.05}", "training.precision=float64"]


def train(config: str, run: str, *overrides: str) -> Path:
    succeeds("train", config, "-q", "training.epochs=6", "training.keep_checkpoints=all", *overrides, "-o", run)
    return Path(run)


def points_of(run: Path) -> Floats:
    """The parameters of the kept checkpoints, one a row."""
    models = [open_target(file, "last")[1].model for _, file in kept_checkpoints(run)]
    return np.stack([parameters_to_vector(model.parameters()).detach().double().numpy() for model in models])


# --- the plane ----------------------------------------------------------------------------------------------


def test_the_directions_are_orthonormal_and_the_end_is_the_origin() -> None:
    points = np.random.default_rng(0).normal(size=(7, 40)) * np.linspace(1, 3, 40)
    plane = plane_of(points, points[-1])
    np.testing.assert_allclose(plane.directions @ plane.directions.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(plane.project(points)[-1], 0, atol=0)
    assert (plane.project(points)[0] <= 0).all(), "the path begins at negative numbers"
    # the directions are sums of the points, as running statistics need
    np.testing.assert_allclose(plane.shares @ (points - points[-1]), plane.directions, atol=1e-12)
    # an oracle: the eigenvectors of the covariance
    values, vectors = np.linalg.eigh(np.cov(points.T, bias=True))
    np.testing.assert_allclose(plane.explained, values[::-1][:2] / values.sum())
    np.testing.assert_allclose(np.abs(plane.directions @ vectors[:, ::-1][:, :2]), np.eye(2), atol=1e-6)


def test_points_on_a_line_have_a_plane_too() -> None:
    points = np.outer(np.arange(4.0), np.ones(9))
    plane = plane_of(points, points[-1])
    np.testing.assert_allclose(plane.directions @ plane.directions.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(plane.explained, [1, 0], atol=1e-12)
    np.testing.assert_allclose(plane.shares[1], 0)


def test_points_that_do_not_move_have_no_plane() -> None:
    with pytest.raises(UsageError, match="the same in every kept checkpoint"):
        plane_of(np.ones((4, 9)), np.ones(9))
    with pytest.raises(UsageError, match="single parameter"):
        plane_of(np.arange(4.0)[:, None], np.ones(1))


def test_the_objective_of_a_linear_model_is_the_closed_form() -> None:
    """J(θ) = J(θ*) + (θ − θ*)ᵀ H (θ − θ*) with H = XᵀX/n, for the mean of squares, all over the grid."""
    run = train("diabetes", "runs/linear", *LINEAR)
    surface = survey([run], nodes=9)
    opened = open_any(str(run))
    train_split = opened.split("train")
    inputs, targets = next(iter(opened.network.batches(train_split, len(train_split)).epoch(0)))
    x = np.column_stack((inputs.numpy(), np.ones(len(inputs))))
    y = targets.numpy()[:, 0]
    best, *_ = np.linalg.lstsq(x, y)
    least, hessian = float(np.square(x @ best - y).mean()), x.T @ x / len(x)
    points = points_of(run)
    plane = plane_of(points, points[-1])
    for row, at_y in enumerate(surface.y):
        for column, at_x in enumerate(surface.x):
            away = plane.origin + np.array([at_x, at_y]) @ plane.directions - best
            assert surface.z[row, column] == pytest.approx(least + away @ hessian @ away, rel=1e-9)
    (trail,) = surface.trails
    assert trail.epochs == list(range(7))
    np.testing.assert_allclose(trail.coordinates, plane.project(points), atol=1e-9)
    assert trail.losses == pytest.approx([least + (p - best) @ hessian @ (p - best) for p in points])
    low, high = trail.coordinates.min(0), trail.coordinates.max(0)
    assert surface.x[0] < low[0] and high[0] < surface.x[-1] and surface.y[0] < low[1] and high[1] < surface.y[-1]


def test_running_statistics_follow_the_parameters() -> None:
    """With batch normalization and dropout the path's losses are those that `eval` measures."""
    run = train("iris", "runs/batch", "model={normalization: batch, dropout: 0.3, width: 8, depth: 2}")
    (trail,) = survey([run], nodes=3).trails
    for epoch, loss in zip(trail.epochs, trail.losses, strict=True):
        file = run / f"checkpoints/epoch-{epoch:04}.pt"
        measured = succeeds("eval", file, "--split", "train", "--json").json["metrics"]["loss"]
        assert loss == pytest.approx(measured, rel=1e-5)


def test_the_samples_are_a_part_of_the_split_and_always_the_same() -> None:
    run = train("iris", "runs/iris")
    first, again = survey([run], samples=20, nodes=3), survey([run], samples=20, nodes=3)
    assert first.samples == 20 and "on 20 of 96 training samples" in first.about
    np.testing.assert_array_equal(first.z, again.z)
    assert not np.array_equal(first.z, survey([run], nodes=3).z)


# --- contours -----------------------------------------------------------------------------------------------


def interpolated(x: Floats, y: Floats, z: Floats, point: Floats) -> float:
    """z at a point on an edge of the grid, linear along it."""
    column = min(int(np.searchsorted(x, point[0], "right")) - 1, len(x) - 2)
    row = min(int(np.searchsorted(y, point[1], "right")) - 1, len(y) - 2)
    across = (point[0] - x[column]) / (x[column + 1] - x[column])
    up = (point[1] - y[row]) / (y[row + 1] - y[row])
    low = z[row, column] * (1 - across) + z[row, column + 1] * across
    high = z[row + 1, column] * (1 - across) + z[row + 1, column + 1] * across
    return float(low * (1 - up) + high * up)


@pytest.mark.parametrize("level", [0.1, 0.5, 1.3])
def test_on_a_contour_the_height_is_its_level(level: float) -> None:
    x, y = np.linspace(-1, 1, 12), np.linspace(-1.2, 1.2, 15)
    z = np.random.default_rng(1).uniform(size=(15, 12)) + x[None, :] ** 2 * y[:, None]
    lines = contours(x, y, z, level)
    assert lines
    for line in lines:
        for point in line:
            on_edge = np.isclose(point[0], x).any() or np.isclose(point[1], y).any()
            assert on_edge and interpolated(x, y, z, point) == pytest.approx(level, abs=1e-9)
        closed = np.array_equal(line[0], line[-1])
        ends = np.abs([line[0], line[-1]])
        assert closed or all(math.isclose(end[0], 1) or math.isclose(end[1], 1.2) for end in ends)


def test_a_round_hill_has_one_closed_contour_of_its_radius() -> None:
    x = y = np.linspace(-2, 2, 81)
    (line,) = contours(x, y, x[None, :] ** 2 + y[:, None] ** 2, 1.0)
    np.testing.assert_array_equal(line[0], line[-1])
    np.testing.assert_allclose(np.hypot(*line.T), 1, atol=2e-3)


def area(lines: list[Floats]) -> float:
    """Inside an odd number of lines, where inner ones run the other way or not."""
    sizes = [abs(float((line[:-1, 0] * line[1:, 1] - line[1:, 0] * line[:-1, 1]).sum())) / 2 for line in lines]
    return 2 * max(sizes) - sum(sizes)  # one line around all others


def test_what_is_above_a_level_is_closed_along_the_border() -> None:
    x = y = np.linspace(-2, 2, 81)
    z = x[None, :] ** 2 + y[:, None] ** 2
    assert area(regions(x, y, z, 1.0)) == pytest.approx(16 - math.pi, abs=0.02)
    assert area(regions(x, y, z, -1.0)) == pytest.approx(16)
    assert regions(x, y, z, 9.0) == []
    for line in regions(x, y, z, 5.0):
        np.testing.assert_array_equal(line[0], line[-1])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.004, 3.1, [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]),
        (1e-9, 5, None),
        (0.0, 5, None),
        (1.0, 1.2, None),
    ],
)
def test_levels_are_few_and_spread_as_logarithms(low: float, high: float, expected: list[float] | None) -> None:
    levels = log_levels(low, high)
    assert expected is None or levels == expected
    assert 5 <= len(levels) <= 10 and levels == sorted(set(levels))
    assert all(low < level < high for level in levels)


def test_a_flat_surface_has_no_levels() -> None:
    assert log_levels(2.0, 2.0) == [] and log_levels(-1.0, 0.0) == []


# --- the picture, and the command ---------------------------------------------------------------------------


def surface(names: list[str], *, tall: bool = False) -> Surface:
    x, y = np.linspace(-3, 3, 21), np.linspace(-2, 2, 15)
    if tall:
        x, y = y, x
    z = 0.01 + x[None, :] ** 2 + 2 * y[:, None] ** 2
    random = np.random.default_rng(3)
    trails = [
        Trail(name, [0, 5, 10], np.stack((random.uniform(-2, 2, 3), random.uniform(-1.5, 1.5, 3)), 1), [1.0] * 3)
        for name in names
    ]
    return Surface(trails, x, y, z, (0.8, 0.15), "mse", 100, "mse on 100 training samples")


@pytest.mark.parametrize("tall", [False, True])
@pytest.mark.parametrize(
    "names", [["one"], [f"run {index}" for index in range(10)], ["<b>&\x1b" + "long name " * 30]]
)
def test_pictures_hold_all_that_is_drawn(names: list[str], tall: bool) -> None:
    width, height = draw(surface(names, tall=tall), Path("a.svg"))
    root = ElementTree.parse("a.svg").getroot()
    texts = ["".join(element.itertext()) for element in root.iter() if element.tag.endswith("text")]
    assert not any("<style>" in text for text in texts)
    for index, name in enumerate(names):
        assert chr(65 + index) in texts, "a letter at the end of each path"
        assert any(text.startswith(f"{chr(65 + index)}  {name[:4].replace(chr(27), '')}") for text in texts)
    assert any("principal component 1: 80.0 % of the variance" in text for text in texts)
    paths = [each for each in root.iter() if re.match(r"path c\d", each.get("class", ""))]
    assert len(paths) == 2 * len(names), "each in the plane and in the legend"
    numbers = [float(each) for path in paths for each in re.split("[ ,]", path.get("points", ""))]
    assert min(numbers) >= 0 and max(numbers[0::2]) <= width and max(numbers[1::2]) <= height
    for text, element in zip(texts, (e for e in root.iter() if e.tag.endswith("text")), strict=True):
        if element.get("text-anchor") == "start":
            size = 15 if element.get("class") == "heading" else 11.5
            assert float(element.get("x", 0)) + 0.56 * size * len(text) <= width + 8, text
    if tall:  # a PNG takes a second
        return
    draw(surface(names), Path("a.png"))
    with Image.open("a.png") as picture:
        assert picture.size == pytest.approx((2 * width, 2 * height), abs=2)


def test_the_paths_of_two_runs_share_a_plane() -> None:
    gd = train("iris", "runs/gd", "optimizer={name: gd, lr: 0.1}", "~training.batch_size", "model.dropout=0")
    sgd = train("iris", "runs/sgd", "optimizer={name: sgd, lr: 0.01}", "model.dropout=0.2")
    done = succeeds("compare", gd, sgd, "--landscape", "paths.svg", "-o", "page.html", "--json", "-q").json
    drawn = done["landscape"]
    assert drawn["paths"][0]["coordinates"][-1] == [0, 0] and len(drawn["paths"][1]["epochs"]) == 7
    assert drawn["paths"][0]["coordinates"][0] == pytest.approx(drawn["paths"][1]["coordinates"][0]), "same init"
    assert 0 < sum(drawn["explained_variance"]) <= 1 + 1e-9
    assert "data:image/svg+xml;base64," in Path("page.html").read_text(encoding="utf-8")
    assert succeeds("compare", gd, "--landscape", "one.png", "-q").out == "one.png\n"


def test_runs_without_a_path_are_refused() -> None:
    run = train("iris", "runs/iris")
    succeeds("train", "iris", "-q", "training.epochs=2", "-o", "runs/none")
    succeeds("train", "iris", "-q", "training.epochs=2", "training.keep_checkpoints=2", "-o", "runs/two")
    other = train("iris", "runs/other", "model.activation=gelu")
    for name, problem in (
        ("runs/none", "runs/none has kept no checkpoints"),
        ("runs/two", "runs/two has kept 2 checkpoints"),
        (other, "of another architecture"),
    ):
        done = mlpcli("compare", run, name, "--landscape", "x.svg")
        assert done.code == 2 and problem in done.err and not Path("x.svg").exists()
    assert "train with training.keep_checkpoints=20" in mlpcli("compare", "runs/none", "--landscape", "x.svg").err
    assert mlpcli("compare", run, "--landscape", "x.gif").code == 2
    assert "there is no folder" in mlpcli("compare", run, "--landscape", "nowhere/x.svg").err


def test_of_many_checkpoints_some_are_used() -> None:
    run = train("iris", "runs/iris")
    other = train("iris", "runs/other", "loss=mse", "seed=1")
    with patch("mlpcli.report.landscape.MOST", 4):
        done = succeeds("compare", run, other, "--landscape", "x.svg", "--json")
    drawn = done.json["landscape"]
    assert [path["epochs"] for path in drawn["paths"]] == [[0, 2, 4, 6]] * 2
    assert "runs/other has another data than runs/iris/checkpoints/epoch-0006.pt" in done.err
    assert "runs/other has another loss" in done.err
    assert "of A on 96 training samples" in Path("x.svg").read_text(encoding="utf-8")


def test_checkpoints_that_the_run_has_not_reached_are_left_out() -> None:
    """They are of a training that was killed between a kept checkpoint and its line of metrics."""
    run = train("iris", "runs/iris")
    shutil.copyfile(run / "checkpoints/epoch-0006.pt", run / "checkpoints/epoch-0009.pt")
    assert landscape([run], Path("x.svg"), nodes=3)["paths"][0]["epochs"] == list(range(7))
