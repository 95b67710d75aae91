"""Areas, in-radii, affine maps and regions, decisions: closed forms, linear programs, autograd, fine grids."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from exact_regions import ExactCell, exact_cells, exact_decision, merged, minus, network_of, regular, square
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from scipy.optimize import linprog
from scipy.spatial import ConvexHull

from mlpcli.regions import measures, plane
from mlpcli.regions.decision import Decision, decide
from mlpcli.regions.piecewise import Floats, PiecewiseAffine
from mlpcli.regions.plane import Cells, cut_plane

FLAT = np.eye(2)


def cells_of(network: PiecewiseAffine, window: Floats) -> Cells:
    return cut_plane(network, np.zeros(2), FLAT, window)


def polygon(corners: Floats) -> Cells:
    """One cell."""
    return cells_of(PiecewiseAffine([np.eye(2)], [np.zeros(2)], []), corners)


def linear(weights: list[list[float]], biases: list[float]) -> PiecewiseAffine:
    return PiecewiseAffine([np.array(weights)], [np.array(biases)], [])


# --- Outlines, areas, centroids -----------------------------------------------------------------------------


def test_outlines_go_around_each_cell_counterclockwise() -> None:
    cells = cells_of(network_of([2, 12, 12, 1], seed=0), square(3.0))
    outline = measures.outlines(cells)
    around = {frozenset(pair) for pair in zip(cells.starts.tolist(), cells.ends.tolist(), strict=True)}
    for cell, (start, end) in enumerate(
        zip(outline.begins[:-1].tolist(), outline.begins[1:].tolist(), strict=True)
    ):
        vertices = outline.vertices[start:end].tolist()
        assert len(set(vertices)) == len(vertices) >= 3
        sides = {frozenset(pair) for pair in zip(vertices, vertices[1:] + vertices[:1], strict=True)}
        its = (cells.left == cell) | (cells.right == cell)
        assert sides <= around and len(sides) == its.sum()
    assert (measures.areas(cells, outline) > 0).all()


@pytest.mark.parametrize("place", [(0.0, 0.0), (1e3, -1e3)])
def test_area_and_centroid_of_known_polygons(place: tuple[float, float]) -> None:
    for corners, area, centre in (
        (square(0.5), 1.0, (0.0, 0.0)),
        (regular(6, 2.0), 6 * 3**0.5, (0.0, 0.0)),
        (np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 6.0]]), 9.0, (1.0, 2.0)),
        (np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]]), 2.0, (1.0, 0.5)),
        (np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 1e-6], [0.0, 1e-6]]), 4e-6, (2.0, 5e-7)),
    ):
        cells = polygon(corners + place)
        outline = measures.outlines(cells)
        assert measures.areas(cells, outline) == pytest.approx([area], rel=1e-6)
        np.testing.assert_allclose(measures.centroids(cells, outline), [np.add(centre, place)], atol=1e-9)


def test_lengths_of_edges_that_lines_make() -> None:
    network = PiecewiseAffine(
        [np.array([[1.0, 0.0], [1.0, 1.0]]), np.ones((1, 2))], [np.array([0.25, 0.0]), np.zeros(1)], [0.0]
    )
    cells = cells_of(network, square(1.0))
    length = measures.lengths(cells)
    for maker, expected in ((0, 2.0), (1, 8**0.5), (-1, 8.0)):
        assert length[cells.makers == maker].sum() == pytest.approx(expected)


# --- In-radii -----------------------------------------------------------------------------------------------


def in_radius(corners: Floats) -> float:
    cells = polygon(corners)
    (radius,) = measures.inradii(cells, measures.outlines(cells)).tolist()
    return float(radius)


def programmed(corners: Floats) -> float:
    """The largest circle in a polygon, by linear programming in units of its size."""
    size = np.ptp(corners, axis=0).max()
    start = (corners - corners[0]) / size
    along = np.roll(start, -1, axis=0) - start
    normal = np.column_stack((along[:, 1], -along[:, 0])) / np.hypot(along[:, 0], along[:, 1])[:, None]
    sides = np.column_stack((normal, np.ones(len(corners))))
    found = linprog((0, 0, -1), sides, (normal * start).sum(1), bounds=[(None, None)] * 3)
    return float(size * found.x[2])


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("sides", [3, 4, 5, 12, 24, 25, 60])
def test_in_radius_of_a_regular_polygon(sides: int, size: float) -> None:
    assert in_radius(regular(sides, size, 0.1)) == pytest.approx(size * np.cos(np.pi / sides), rel=1e-6)


@pytest.mark.parametrize("height", [1.0, 0.1, 1e-4, 1e-8])
def test_in_radius_of_a_rectangle_is_half_its_height(height: float) -> None:
    corners = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, height], [0.0, height]])
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
    assert in_radius(corners) == pytest.approx(height / 2, rel=1e-9)
    assert in_radius(corners @ turn) == pytest.approx(height / 2, rel=1e-6)


def test_in_radius_where_corners_lie_on_a_side() -> None:
    corners = np.array([[-1.0, -1.0], [-0.5, -1.0], [0.0, -1.0], [1.0, -1.0], [1.0, 1.0], [0.2, 1.0], [-1.0, 1.0]])
    assert in_radius(corners) == pytest.approx(1.0)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(4, 200), stretch=st.sampled_from([1.0, 0.05]))
def test_in_radius_of_random_polygons_is_that_of_the_linear_program(seed: int, count: int, stretch: float) -> None:
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(count, 2))
    if count > 30:  # many corners
        points /= np.hypot(*points.T)[:, None] * generator.uniform(1, 1.001, count)[:, None]
    points *= (1.0, stretch)
    corners = points[ConvexHull(points).vertices]
    assert in_radius(corners) == pytest.approx(programmed(corners), rel=1e-6)


def test_in_radii_of_all_cells_of_a_network() -> None:
    cells = cells_of(network_of([2, 10, 10, 1], seed=3), square(2.0))
    outline = measures.outlines(cells)
    radii = measures.inradii(cells, outline)
    for cell, (start, end) in enumerate(zip(outline.begins[:-1], outline.begins[1:], strict=True)):
        corners = cells.points[outline.vertices[start:end]]
        assert radii[cell] == pytest.approx(programmed(corners), rel=1e-5, abs=1e-10)


# --- Affine maps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [1.0, 0.0])
@pytest.mark.parametrize(
    ("sizes", "slopes"),
    [
        ([2, 3], []),
        ([2, 12, 2], [0.0]),
        ([2, 8, 8, 3], [0.01, 0.2]),
        ([5, 10, 1, 5, 2], [0.0, 0.0, 0.0]),
        ([4, 9, 7, 9, 3], [0.0, 1.0, 0.0]),
        ([3, 10, 10, 10, 1], [0.0, 0.0, 0.0]),
    ],
)
def test_inside_a_cell_the_network_is_its_affine_map(sizes: list[int], slopes: list[float], bias: float) -> None:
    network = network_of(sizes, 1, slopes, bias)
    generator = np.random.default_rng(2)
    origin, basis = bias * generator.normal(size=sizes[0]), generator.normal(size=(2, sizes[0]))
    cells = cut_plane(network, origin, basis, square(2.0))
    outline = measures.outlines(cells)
    found = measures.maps(cells, outline)
    for _ in range(5):  # a random point of each cell
        shares = generator.exponential(size=len(outline.vertices))
        shares /= np.add.reduceat(shares, outline.begins[:-1])[outline.owners]
        points = np.add.reduceat(shares[:, None] * cells.points[outline.vertices], outline.begins[:-1])
        outputs = network(origin + points @ basis)
        by_maps = found.values + np.einsum("nck,nk->nc", found.gradients, points - found.places)
        np.testing.assert_allclose(by_maps, outputs, atol=1e-9)
        for cell in range(0, len(cells), 7):
            weight, shift = network.affine_map(cells.patterns[cell])
            np.testing.assert_allclose(weight @ (origin + points[cell] @ basis) + shift, outputs[cell], atol=1e-9)
    jacobians = network.jacobians(cells.patterns, basis)
    exact = [network.affine_map(pattern)[0] @ basis.T for pattern in cells.patterns]
    np.testing.assert_allclose(jacobians, exact, atol=1e-12)
    thick = found.heights > 1e-3
    np.testing.assert_allclose(found.gradients[thick], jacobians[thick], atol=1e-9)


def test_jacobians_are_those_of_autograd() -> None:
    network = network_of([3, 7, 6, 2], 4, [0.0, 0.3])
    layers: list[torch.nn.Module] = []
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        linear.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        layers += [linear, torch.nn.LeakyReLU(network.slopes[layer])] if layer < 2 else [linear]
    model = torch.nn.Sequential(*layers)
    inputs = np.random.default_rng(5).normal(size=(20, 3))
    patterns = network.patterns_at(inputs)
    for one, pattern in zip(inputs, patterns, strict=True):
        jacobian = torch.autograd.functional.jacobian(model, torch.from_numpy(one)).numpy()
        np.testing.assert_allclose(network.jacobians(pattern[None], np.eye(3))[0], jacobian, atol=1e-12)
        np.testing.assert_allclose(network.affine_map(pattern)[0], jacobian, atol=1e-12)


# --- Affine regions -----------------------------------------------------------------------------------------


def affine_regions(network: PiecewiseAffine, cells: Cells) -> int:
    found = measures.maps(cells, measures.outlines(cells))
    numbers = measures.affine_regions(network, cells, FLAT, found)
    assert len(numbers) == len(cells)
    assert sorted(set(numbers.tolist())) == list(range(numbers.max() + 1))
    return int(numbers.max()) + 1


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    hidden=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    slope=st.sampled_from([0.0, 0.5]),
    parts=st.sampled_from([2, 8, None]),
    bias=st.sampled_from([0.0, 1.0]),
)
def test_affine_regions_are_those_of_rational_arithmetic(
    seed: int, hidden: list[int], slope: float, parts: int | None, bias: float
) -> None:
    """With narrow layers many cells are behind a layer that is all off, where neighbours have the same map."""
    network = network_of([2, *hidden, 1], seed, [0.0] * (len(hidden) - 1) + [slope], bias, parts)
    exact = exact_cells(network, square(2.0))
    cells = cells_of(network, square(2.0))
    assert len(cells) == len(exact)
    assert affine_regions(network, cells) == merged(exact, [tuple(cell.functions) for cell in exact])


def test_a_layer_that_is_off_hides_what_is_before_it() -> None:
    weights = [np.random.default_rng(0).normal(size=(8, 2)), -np.ones((3, 8)), np.ones((2, 3))]
    network = PiecewiseAffine(weights, [np.zeros(8), -np.ones(3), np.zeros(2)], [0.0, 0.0])
    cells = cells_of(network, square(1.0))
    assert len(cells) == 16
    assert affine_regions(network, cells) == 1


def test_maps_that_differ_by_little_are_two_affine_regions() -> None:
    weights = [np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 1e-8]])]
    network = PiecewiseAffine(weights, [np.zeros(2), np.zeros(1)], [0.0])
    assert affine_regions(network, cells_of(network, square(1.0))) == 4


def test_neurons_that_cancel_make_no_affine_regions() -> None:
    """Each cuts cells, but no map differs on its sides by more than rounding."""
    generator = np.random.default_rng(0)
    hidden, twice, out = network_of([2, 12, 1], seed=0), generator.permutation(12)[:6], generator.normal(size=6)
    network = PiecewiseAffine(
        [
            np.concatenate((hidden.weights[0][twice], hidden.weights[0][:4], hidden.weights[0][twice])),
            np.concatenate((out, generator.normal(size=4), -out))[None],
        ],
        [np.concatenate((hidden.biases[0][twice], hidden.biases[0][:4], hidden.biases[0][twice])), np.zeros(1)],
        [0.0],
    )
    four = PiecewiseAffine(
        [hidden.weights[0][:4], network.weights[1][:, 6:10]], [hidden.biases[0][:4], np.zeros(1)], [0.0]
    )
    cells = cells_of(network, square(3.0))
    found = affine_regions(network, cells)
    assert found == len(cells_of(four, square(3.0))) < len(cells)


def test_a_last_layer_of_zeros_has_one_affine_region() -> None:
    network = network_of([2, 6, 6, 2], seed=1)
    zero = PiecewiseAffine([*network.weights[:2], np.zeros((2, 6))], network.biases, network.slopes)
    cells = cells_of(zero, square(3.0))
    assert len(cells) == len(cells_of(network, square(3.0))) > 30
    assert affine_regions(zero, cells) == 1
    assert affine_regions(network, cells_of(network, square(3.0))) > 20


def test_maps_that_are_alike_in_two_places_are_two_affine_regions() -> None:
    """|x| > 1/2 on both sides, where the sum of the two units' outputs is 1 behind a layer that cuts off."""
    weights = [np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[-4.0, -4.0]]), np.ones((1, 1))]
    network = PiecewiseAffine(weights, [np.zeros(2), np.ones(1), np.zeros(1)], [0.0, 0.0])
    cells = cells_of(network, square(1.0))
    assert len(cells) == affine_regions(network, cells) == 4  # off, two slopes, off


# --- Decisions ----------------------------------------------------------------------------------------------


def check_parts(cells: Cells, found: Decision) -> None:
    area = measures.areas(cells, measures.outlines(cells))
    assert found.areas.sum() == pytest.approx(area.sum(), rel=1e-12)
    assert (found.areas >= -1e-12).all()
    one, two = found.boundary[:, 0], found.boundary[:, 1]
    assert found.length == pytest.approx(np.hypot(*(one - two).T).sum())
    assert (found.regions == 1) == (len(found.boundary) == 0)


@pytest.mark.parametrize("block", [8, 4000])
@pytest.mark.parametrize(("hidden", "outputs", "seed"), [((10,), 2, 14), ((8, 8), 3, 43), ((10, 10, 10), 4, 13)])
def test_decisions_are_those_of_a_fine_grid(
    hidden: tuple[int, ...], outputs: int, seed: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plane, "BLOCK_CELLS", block)
    network = network_of([2, *hidden, outputs], seed)
    cells = cells_of(network, square(3.0))
    found = decide(cells)
    check_parts(cells, found)
    count = 1200
    ticks = (np.arange(count) + 0.5) / count * 6 - 3
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    classes = network(grid).argmax(1).reshape(count, count)
    assert found.regions == sum(label(classes == each)[1] for each in range(outputs)) > 2
    shares = np.bincount(classes.ravel(), minlength=outputs) / count**2 * 36
    np.testing.assert_allclose(found.areas, shares, atol=4 * found.length * 6 / count / count**0.5)

    # the boundary is where the largest two are equal, and a step to its sides changes the class
    middle, step = found.boundary.mean(1), found.boundary[:, 1] - found.boundary[:, 0]
    ordered = np.sort(network(middle), axis=1)
    assert (ordered[:, -1] - ordered[:, -2]).max() < 1e-9
    long = np.hypot(*step.T) > 1e-4
    across = 1e-7 * np.column_stack((-step[:, 1], step[:, 0]))[long] / np.hypot(*step[long].T)[:, None]
    assert (network(middle[long] + across).argmax(1) != network(middle[long] - across).argmax(1)).all()

    centres = measures.centroids(cells, measures.outlines(cells))
    pure = found.classes >= 0
    np.testing.assert_array_equal(network(centres).argmax(1)[pure], found.classes[pure])


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    hidden=st.lists(st.integers(1, 4), max_size=2),
    outputs=st.integers(1, 5),
    parts=st.sampled_from([1, 2, 8]),
    bias=st.sampled_from([0.0, 1.0]),
)
def test_decisions_are_those_of_rational_arithmetic(
    seed: int, hidden: list[int], outputs: int, parts: int, bias: float
) -> None:
    """Without hidden layers the regions are those of a power diagram; with whole weights, ties are many."""
    network = network_of([2, *hidden, outputs], seed, None, bias, parts)
    exact = exact_cells(network, square(2.0))
    cells = cells_of(network, square(2.0))
    found = decide(cells)
    check_parts(cells, found)
    regions, areas = exact_decision(exact)
    assert found.regions == regions
    np.testing.assert_allclose(found.areas, [float(area) for area in areas], atol=1e-9)


def test_linear_networks_decide_by_a_voronoi_diagram() -> None:
    """p·x − ‖p‖²/2 is the largest where p is the nearest point."""
    points = np.random.default_rng(1).uniform(-1, 1, size=(9, 2))
    network = linear(points.tolist(), (-(points**2).sum(1) / 2).tolist())
    found = decide(cells_of(network, square(1.0)))
    assert found.regions == 9
    window = [tuple(map(float, corner)) for corner in square(1.0)]
    for point, area in zip(points, found.areas, strict=True):
        corners = np.array(window)
        for other in points[(points != point).any(1)]:
            side = (corners - (point + other) / 2) @ (point - other)
            after, beyond = np.roll(corners, -1, axis=0), np.roll(side, -1)
            kept: list[Floats] = []
            for a, b, at_a, at_b in zip(corners, after, side, beyond, strict=True):
                kept += [a] if at_a >= 0 else []
                kept += [a + at_a / (at_a - at_b) * (b - a)] if at_a * at_b < 0 else []
            corners = np.array(kept)
        x, y = corners.T
        assert area == pytest.approx((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2, rel=1e-9)


def test_two_classes_and_a_line() -> None:
    found = decide(cells_of(linear([[1.0, 0.0], [0.0, 0.0]], [-0.5, 0.0]), square(1.0)))
    assert found.regions == 2
    assert found.length == pytest.approx(2.0)
    np.testing.assert_allclose(found.areas, [1.0, 3.0])
    np.testing.assert_allclose(np.sort(found.boundary[0], axis=0), [[0.5, -1.0], [0.5, 1.0]])
    diagonal = decide(cells_of(linear([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), square(1.0)))
    assert diagonal.length == pytest.approx(8**0.5)
    np.testing.assert_allclose(diagonal.areas, [2.0, 2.0])


def test_a_boundary_along_edges_of_cells() -> None:
    network = PiecewiseAffine(
        [np.array([[1.0, 0.0]]), np.array([[1.0], [0.0]])], [np.zeros(1), np.array([0.0, 0.0])], [0.0]
    )
    cells = cells_of(network, square(1.0))
    # where the unit is off both outputs are 0, and the first of equal ones counts
    assert decide(cells).regions == 1
    later = PiecewiseAffine([network.weights[0], network.weights[1][::-1]], network.biases, network.slopes)
    found = decide(cells_of(later, square(1.0)))
    assert found.regions == 2
    assert found.length == pytest.approx(2.0)
    np.testing.assert_allclose(found.areas, [2.0, 2.0])
    assert sorted(found.classes.tolist()) == [-1, 0]  # the corners on the boundary are the first output's


def test_a_class_that_is_the_largest_at_no_corner_of_a_cell_but_between_others() -> None:
    """One cell, on which three of four outputs have the corners and the last a strip between two sides."""
    found = decide(cells_of(linear([[10.0, 0.0], [-10.0, 0.0], [0.0, 0.0]], [-5.0, -5.0, 0.0]), square(1.0)))
    np.testing.assert_allclose(found.areas, [1.0, 1.0, 2.0])
    assert found.regions == 3
    assert found.length == pytest.approx(4.0)


def test_equal_outputs_go_to_the_first() -> None:
    generator = np.random.default_rng(0)
    hidden, twice = network_of([2, 40, 40, 5], seed=2), generator.permutation(5)
    network = PiecewiseAffine(
        [*hidden.weights[:2], np.concatenate((hidden.weights[2], hidden.weights[2][twice]))],
        [*hidden.biases[:2], np.concatenate((hidden.biases[2], hidden.biases[2][twice]))],
        hidden.slopes,
    )
    once, found = decide(cells_of(hidden, square(3.0))), decide(cells_of(network, square(3.0)))
    assert found.regions == once.regions > 1
    np.testing.assert_allclose(found.areas, [*once.areas, 0, 0, 0, 0, 0], atol=1e-12)
    assert found.length == pytest.approx(once.length)


@pytest.mark.parametrize("seed", range(10))
def test_outputs_that_only_rounding_tells_apart_are_equal(seed: int) -> None:
    hidden, zeros = network_of([2, 9, 1], seed), np.zeros((1, 9))
    order = np.random.default_rng(seed).permutation(9)
    once, again = np.hstack((hidden.weights[1], zeros)), np.hstack((zeros, hidden.weights[1][:, order]))
    for rows in ((once, again), (again, once)):
        network = PiecewiseAffine(
            [np.vstack((hidden.weights[0], hidden.weights[0][order])), np.vstack(rows)],
            [np.concatenate((hidden.biases[0], hidden.biases[0][order])), np.array([0.7, 0.7])],
            [0.0],
        )
        cells = cells_of(network, square(3.0))
        found = decide(cells)
        assert found.regions == 1
        np.testing.assert_allclose(found.areas, [36.0, 0.0], atol=1e-12)


def test_one_output_decides_nothing() -> None:
    found = decide(cells_of(network_of([2, 5, 1], seed=0), square(1.0)))
    assert (found.regions, found.length, found.boundary.shape) == (1, 0.0, (0, 2, 2))
    np.testing.assert_allclose(found.areas, [4.0])


def test_the_exact_cells_that_others_are_compared_with() -> None:
    """The oracle itself, on what is known."""
    network = network_of([2, 4, 3], seed=1, parts=8)
    cells = exact_cells(network, square(8.0))
    assert sum(cell.area for cell in cells) == 256
    one = (Fraction(0), Fraction(0), Fraction(1))
    regions, areas = exact_decision([ExactCell(cells[0].corners, (), [one, one, minus(one, one)])])
    assert regions == 1 and areas == [cells[0].area, 0, 0]
