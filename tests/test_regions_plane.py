"""The cells of a plane: closed forms, forward passes, rational arithmetic, and what must not change them."""

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from exact_regions import exact_cells, network_of, regular, square
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlpcli.errors import FailedError
from mlpcli.regions import measures, plane
from mlpcli.regions.piecewise import Bits, Floats, PiecewiseAffine
from mlpcli.regions.plane import Cells, cut_plane
from mlpcli.regions.resolution import COARSEST, FINEST, Inconsistent, settled

FLAT = np.eye(2)
"""The basis of the plane of a network with two inputs."""


def cells_of(network: PiecewiseAffine, window: Floats) -> Cells:
    return cut_plane(network, np.zeros(2), FLAT, window)


def signs(network: PiecewiseAffine, patterns: Bits) -> NDArray[np.bool_]:
    """(n, hidden units): which are positive."""
    layers = [network.unpack(patterns, layer) for layer in range(len(network.slopes))]
    return np.concatenate([np.zeros((len(patterns), 0), bool), *layers], axis=1)


def areas_of(cells: Cells) -> Floats:
    return measures.areas(cells, measures.outlines(cells))


def one_layer(weights: Any, biases: Any) -> PiecewiseAffine:
    """A hidden layer with these lines, and the sum of its units."""
    weights, biases = np.asarray(weights, float), np.asarray(biases, float)
    return PiecewiseAffine([weights, np.ones((1, len(weights)))], [biases, np.zeros(1)], [0.0])


def crossings(weights: Floats, biases: Floats) -> Floats:
    """Where each two of the lines w·x + b = 0 cross."""
    pairs = [list(pair) for pair in combinations(range(len(weights)), 2)]
    return np.array([np.linalg.solve(weights[pair], -biases[pair]) for pair in pairs]).reshape(-1, 2)


# --- Closed forms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", [1, 2, 3, 10, 40])
def test_n_lines_in_general_position_make_1_plus_n_plus_n_over_2_regions(units: int) -> None:
    network = network_of([2, units, 1], seed=units)
    far = np.abs(crossings(network.weights[0], network.biases[0])).max(initial=10.0)
    assert len(cells_of(network, square(2 * far))) == 1 + units + units * (units - 1) // 2


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), lines=st.integers(1, 25), corners=st.integers(3, 12))
def test_k_lines_with_c_crossings_cut_a_convex_window_into_1_plus_k_plus_c(
    seed: int, lines: int, corners: int
) -> None:
    generator = np.random.default_rng(seed)
    angles = np.sort(generator.uniform(0, 2 * np.pi, corners - 3)).tolist()
    window = np.concatenate([regular(1, 2.0, angle) for angle in sorted([*angles, 0.1, 2.2, 4.3])])
    normal = generator.normal(size=(lines, 2))
    shift = generator.normal(size=lines)

    at_corners = window @ normal.T + shift
    cutting = int(((at_corners.min(0) < 0) & (at_corners.max(0) > 0)).sum())
    points, sides = crossings(normal, shift), np.roll(window, -1, axis=0) - window
    off = points[:, None] - window
    inside = int((sides[:, 0] * off[..., 1] - sides[:, 1] * off[..., 0] > 0).all(1).sum())
    assert len(cells_of(one_layer(normal, shift), window)) == 1 + cutting + inside


@pytest.mark.parametrize(
    ("hidden", "mean", "deviation"),
    # Mean ± standard deviation over randomly initialised networks. One hidden layer of 30 units has 466 regions by
    # the closed form. 464 ± 2 was found in a narrower window, which did not hold all crossings of nearly parallel
    # lines: it is off by one of its deviations, and no number of seeds comes closer.
    [((30,), 464, 2), ((15, 15), 481, 69), ((10, 10, 10), 455, 85)],
)
def test_random_networks_have_as_many_regions_as_published(
    hidden: tuple[int, ...], mean: float, deviation: float
) -> None:
    seeds = 40
    counts = [len(cells_of(network_of([2, *hidden, 1], seed), square(1000.0))) for seed in range(seeds)]
    error = deviation if len(hidden) == 1 else deviation / seeds**0.5
    assert abs(np.mean(counts) - mean) < 3 * error
    if len(hidden) == 1:
        assert 464.5 < np.mean(counts) <= 466 == max(counts)
    else:
        assert 0.6 * deviation < np.std(counts, ddof=1) < 1.4 * deviation


# --- Against forward passes ---------------------------------------------------------------------------------

FAMILY: list[tuple[list[int], list[float], float]] = [
    ([2, 3], [], 1.0),
    ([2, 1, 2], [0.0], 1.0),
    ([2, 12, 2], [0.0], 1.0),
    ([3, 8, 8, 1], [0.0, 0.0], 1.0),
    ([2, 8, 8, 3], [0.01, 0.2], 1.0),
    ([6, 12, 1, 5, 2], [0.0, 0.0, 0.0], 0.3),
    ([4, 9, 7, 10, 3], [0.0, 1.0, 0.0], 1.0),
    ([5, 6, 6, 6, 2], [0.1, 0.1, 0.1], 1.0),
    ([2, 10, 10, 10, 4], [0.0, 0.0, 0.0], 1.0),
    ([2, 7, 4], [1.0], 1.0),
    ([3, 5, 9, 2], [1.0, 0.0], 0.5),
    ([2, 6, 6, 3], [0.0, 0.0], 0.0),
    ([4, 10, 10, 2], [0.0, 0.0], 0.0),
    ([2, 6, 5, 4, 2], [0.2, 0.0, 0.3], 0.0),
    ([2, 7, 7, 2], [-1.0, 1.5], 1.0),
]


def some_plane(inputs: int, seed: int, through_zero: bool) -> tuple[Floats, Floats]:
    generator = np.random.default_rng(seed + 100)
    if inputs == 2:
        return np.zeros(2), FLAT
    return (0.0 if through_zero else 0.3) * generator.normal(size=inputs), generator.normal(size=(2, inputs))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sizes", "slopes", "bias"), FAMILY)
def test_cells_are_the_activation_regions(sizes: list[int], slopes: list[float], bias: float, seed: int) -> None:
    network = network_of(sizes, seed, slopes, bias)
    origin, basis = some_plane(sizes[0], seed, through_zero=bias == 0)
    window = regular(5, 3.0, 0.2) if seed == 1 else square(3.0)
    cells = cut_plane(network, origin, basis, window)
    outline = measures.outlines(cells)
    assert cells.resolution == FINEST
    assert len(cells.points) - len(cells.starts) + len(cells) == 1
    assert cells.by_layer == sorted(cells.by_layer)
    assert cells.by_layer[-1:] == [len(cells)][: len(slopes)]

    area = measures.areas(cells, outline)
    x, y = window.T
    assert area.min() > 0
    assert area.sum() == pytest.approx((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2, rel=1e-12)

    corner = cells.points[outline.vertices]
    side = corner[outline.following] - corner
    turn = side[:, 0] * side[outline.following, 1] - side[:, 1] * side[outline.following, 0]
    length = np.hypot(side[:, 0], side[:, 1])
    assert length.min() > 0
    assert (turn >= -1e-12 * 3 * length[outline.following]).all()

    centres = measures.centroids(cells, outline)
    assert len(np.unique(cells.patterns, axis=0)) == len(cells)
    np.testing.assert_array_equal(network.patterns_at(origin + centres @ basis), cells.patterns)
    np.testing.assert_allclose(network(origin + cells.points @ basis), cells.outputs, atol=1e-12)

    ticks = np.linspace(-3, 3, 151) + 1e-4
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    step = np.roll(window, -1, axis=0) - window
    off = grid[:, None] - window
    grid = grid[(step[:, 0] * off[..., 1] - step[:, 1] * off[..., 0] > 0).all(1)]
    listed = {pattern.tobytes() for pattern in cells.patterns}
    assert {pattern.tobytes() for pattern in network.patterns_at(origin + grid @ basis)} <= listed


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("sizes", "slopes", "bias"), [each for each in FAMILY if each[2] > 0])
def test_an_edge_is_where_its_maker_is_zero_and_nothing_else_changes(
    sizes: list[int], slopes: list[float], bias: float, seed: int
) -> None:
    network = network_of(sizes, seed, slopes, bias)
    origin, basis = some_plane(sizes[0], seed, through_zero=False)
    cells = cut_plane(network, origin, basis, square(2.0))
    inner = np.flatnonzero((cells.left >= 0) & (cells.right >= 0))
    np.testing.assert_array_equal(inner, np.flatnonzero(cells.makers >= 0))

    positive = signs(network, cells.patterns)
    changed = positive[cells.left[inner]] != positive[cells.right[inner]]
    np.testing.assert_array_equal(changed.sum(1), 1)
    np.testing.assert_array_equal(changed.argmax(1) if len(inner) else [], cells.makers[inner])
    # a maker is positive on the left of its edges
    assert positive[cells.left[inner], cells.makers[inner]].all()

    for ends in (cells.starts[inner], cells.ends[inner]):
        values, rows = origin + cells.points[ends] @ basis, []
        for layer in range(len(network.slopes)):
            rows.append(values @ network.weights[layer].T + network.biases[layer])
            values = network.bend(layer, rows[-1])
        if rows:
            assert (
                np.abs(np.concatenate(rows, 1)[np.arange(len(inner)), cells.makers[inner]]).max(initial=0.0)
                < 1e-12
            )


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    hidden=st.lists(st.integers(1, 5), max_size=3),
    slope=st.sampled_from([0.0, 0.0, 0.25, 1.0]),
    parts=st.sampled_from([1, 2, 4]),
    bias=st.sampled_from([0.0, 1.0]),
    half=st.sampled_from([1.0, 2.0, 8.0]),
    block=st.sampled_from([8, 4000]),
)
def test_degenerate_networks_have_the_cells_of_rational_arithmetic(
    seed: int, hidden: list[int], slope: float, parts: int, bias: float, half: float, block: int
) -> None:
    """Small whole weights: lines through one point, through corners, along edges; units that are zero on cells."""
    slopes = [slope if layer == 1 else 0.0 for layer in range(len(hidden))]
    network = network_of([2, *hidden, 1], seed, slopes, bias, parts)
    expected = exact_cells(network, square(half))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plane, "BLOCK_CELLS", block)
        cells = cells_of(network, square(half))
    assert len(cells) == len(expected)
    assert len(cells.points) - len(cells.starts) + len(cells) == 1
    np.testing.assert_allclose(np.sort(areas_of(cells)), sorted(float(cell.area) for cell in expected), rtol=1e-9)
    found = sorted(map(tuple, signs(network, cells.patterns).tolist()))
    assert found == sorted(cell.signs for cell in expected)


# --- Taken apart --------------------------------------------------------------------------------------------


def adjacent(cells: Cells) -> set[frozenset[bytes]]:
    inner = (cells.left >= 0) & (cells.right >= 0)
    pairs = zip(cells.patterns[cells.left[inner]], cells.patterns[cells.right[inner]], strict=True)
    return {frozenset((one.tobytes(), two.tobytes())) for one, two in pairs}


def edges_of_makers(cells: Cells) -> dict[int, float]:
    total: Counter[int] = Counter()
    for maker, length in zip(cells.makers.tolist(), measures.lengths(cells).tolist(), strict=True):
        total[maker] += length
    return dict(total)


@pytest.mark.parametrize(("block", "parts"), [(2, 2), (8, 2), (8, 4), (8, 8), (30, 8), (80, 4)])
@pytest.mark.parametrize("sizes", [[2, 25, 2], [2, 8, 8, 8, 3], [3, 12, 12, 2]])
def test_taken_apart_the_cells_are_the_same(
    sizes: list[int], block: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(sizes, seed=7)
    origin, basis = some_plane(sizes[0], 7, through_zero=False)
    whole = cut_plane(network, origin, basis, square(3.0))
    monkeypatch.setattr(plane, "BLOCK_CELLS", block)
    monkeypatch.setattr(plane, "PARTS", parts)
    cells = cut_plane(network, origin, basis, square(3.0))
    assert len(whole) > 1.5 * block  # or nothing was taken apart
    assert cells.by_layer == whole.by_layer
    assert (len(cells.points), len(cells.starts)) == (len(whole.points), len(whole.starts))
    assert cells.resolution == whole.resolution
    assert adjacent(cells) == adjacent(whole)
    assert edges_of_makers(cells) == pytest.approx(edges_of_makers(whole), rel=1e-9)
    for each in (cells, whole):
        assert len(np.unique(each.patterns, axis=0)) == len(each)
    of_pattern = {p.tobytes(): a for p, a in zip(whole.patterns, areas_of(whole).tolist(), strict=True)}
    taken = {p.tobytes(): a for p, a in zip(cells.patterns, areas_of(cells).tolist(), strict=True)}
    assert taken == pytest.approx(of_pattern, rel=1e-9, abs=1e-13)


# --- Degenerate, each with its count ------------------------------------------------------------------------


def test_lines_through_one_point_make_twice_as_many_cells() -> None:
    for units in range(1, 12):
        cells = cells_of(network_of([2, units, 1], seed=units, bias=0.0), square(1.0))
        assert len(cells) == 2 * units
        assert cells.resolution == FINEST


def test_without_biases_all_cells_of_a_deep_network_are_cones() -> None:
    network = network_of([2, 8, 8, 8, 2], seed=3, bias=0.0)
    cells = cells_of(network, regular(64, turned=0.01))
    angles = np.linspace(0, 2 * np.pi, 200_001)[:-1]
    around = network.patterns_at(np.column_stack((np.cos(angles), np.sin(angles))))
    assert len(cells) == (around != np.roll(around, 1, axis=0)).any(1).sum() > 30
    middle = np.flatnonzero(np.hypot(*cells.points.T) < 1e-12)
    assert len(middle) == 1
    vertices, begins = cells.corners()
    assert (np.add.reduceat(vertices == middle[0], begins) == 1).all()


def test_a_neuron_twice_cuts_once() -> None:
    single = network_of([2, 9, 1], seed=1)
    weight, bias = np.tile(single.weights[0], (2, 1)), np.tile(single.biases[0], 2)
    assert len(cells_of(one_layer(weight, bias), square(3.0))) == len(cells_of(single, square(3.0)))


@pytest.mark.parametrize("factor", [3.0, 0.1, -1.0, -0.7])
def test_a_multiple_of_a_neuron_cuts_no_more(factor: float) -> None:
    single = network_of([2, 9, 1], seed=2)
    double = one_layer(
        np.concatenate((single.weights[0], factor * single.weights[0])),
        np.concatenate((single.biases[0], factor * single.biases[0])),
    )
    cells = cells_of(double, square(3.0))
    assert len(cells) == len(cells_of(single, square(3.0)))
    positive = signs(double, cells.patterns)
    np.testing.assert_array_equal(positive[:, 9:], positive[:, :9] if factor > 0 else ~positive[:, :9])


def test_neurons_that_cancel_in_the_next_layer_leave_it_off() -> None:
    generator = np.random.default_rng(0)
    for units in range(2, 14):
        weight, bias, out = (
            generator.normal(size=(units, 2)),
            generator.normal(size=units),
            generator.normal(size=units),
        )
        network = PiecewiseAffine(
            [np.tile(weight, (2, 1)), np.concatenate((out, -out))[None], np.ones((1, 1))],
            [np.tile(bias, 2), np.zeros(1), np.zeros(1)],
            [0.0, 0.0],
        )
        cells = cells_of(network, square(0.1 if units % 2 else 3.0))
        assert not signs(network, cells.patterns)[:, -1].any()
        assert cells.by_layer[0] == cells.by_layer[1]


def test_a_line_through_a_corner_of_the_window_and_the_diagonal() -> None:
    assert len(cells_of(one_layer([[1, -1]], [0]), square(1.0))) == 2
    assert len(cells_of(one_layer([[2, -1]], [-1]), square(1.0))) == 2  # through (1, 1) and (0, -1)
    assert len(cells_of(one_layer([[1, 1]], [2]), square(1.0))) == 1  # only touches (-1, -1)
    assert len(cells_of(one_layer([[1, 1]], [-2]), square(1.0))) == 1


def test_a_line_through_a_vertex() -> None:
    cells = cells_of(one_layer([[1, 0], [0, 1], [1, 1], [1, -1]], [0, 0, 0, 0]), square(1.0))
    assert (len(cells), len(cells.points), len(cells.starts)) == (8, 9, 16)
    assert len(cells_of(one_layer([[1, 0], [0, 1], [1, 2]], [-0.25, -0.5, -1.25]), square(1.0))) == 6


def test_a_line_along_an_edge_of_the_window_cuts_nothing() -> None:
    for weight, bias, positive in (
        ([1, 0], 1, True),
        ([-1, 0], -1, False),
        ([0, 3], -3, False),
        ([0, -2], 2, True),
    ):
        network = one_layer([weight], [bias])
        cells = cells_of(network, square(1.0))
        assert len(cells) == 1 and len(cells.points) == 4
        assert signs(network, cells.patterns).tolist() == [[positive]]


def test_a_unit_that_is_zero_on_a_whole_cell_counts_as_off() -> None:
    network = PiecewiseAffine(
        [np.array([[1.0, 0.0]]), np.array([[2.0], [-1.0], [0.0]]), np.ones((1, 3))],
        [np.zeros(1), np.zeros(3), np.zeros(1)],
        [0.0, 0.0],
    )
    cells = cells_of(network, square(1.0))
    found = sorted(signs(network, cells.patterns).tolist())
    assert found == [[False] * 4, [True, True, False, False]]


def test_where_all_weights_are_zero_there_is_one_cell() -> None:
    for bias in (0.0, 1.0, -1.0):
        network = PiecewiseAffine(
            [np.zeros((4, 2)), np.zeros((3, 4)), np.zeros((2, 3))],
            [np.full(4, bias), np.full(3, bias), np.full(2, bias)],
            [0.0, 0.0],
        )
        cells = cells_of(network, square(1.0))
        assert len(cells) == 1 and cells.by_layer == [1, 1]
        assert signs(network, cells.patterns).tolist() == [[bias > 0] * 7]
        np.testing.assert_array_equal(cells.outputs, np.full((4, 2), bias))


@pytest.mark.parametrize("sizes", [[2, 3], [2, 5, 3], [2, 5, 4, 3]])
def test_affine_networks_have_one_cell(sizes: list[int]) -> None:
    network = network_of(sizes, 0, [1.0] * (len(sizes) - 2))
    cells = cells_of(network, square(1.0))
    assert len(cells) == 1
    assert cells.patterns.shape == (1, network.code_starts[-1])
    assert not cells.patterns.any()


def test_hidden_layers_of_one_unit() -> None:
    ones = [np.array([[1.0, 0.0]]), *(np.ones((1, 1)) for _ in range(3))]
    network = PiecewiseAffine(ones, [np.zeros(1), np.array([-0.25]), np.array([-0.25]), np.zeros(1)], [0.0] * 3)
    cells = cells_of(network, square(1.0))
    assert cells.by_layer == [2, 3, 4]  # x > 0, x > 1/4, x > 1/2
    np.testing.assert_allclose(np.sort(areas_of(cells)), [0.5, 0.5, 1.0, 2.0])


@pytest.mark.parametrize("half", [1e-6, 1e6])
def test_windows_of_any_size(half: float) -> None:
    network = network_of([2, 12, 12, 2], seed=4)
    scaled = PiecewiseAffine(network.weights, [half * bias for bias in network.biases], network.slopes)
    cells, usual = cells_of(scaled, square(3 * half)), cells_of(network, square(3.0))
    assert len(cells) == len(usual)
    np.testing.assert_allclose(np.sort(areas_of(cells)) / half**2, np.sort(areas_of(usual)), rtol=1e-7, atol=1e-13)
    assert len(cells_of(network, square(1e-6))) == 1
    assert len(cells_of(network, square(1e6))) >= len(usual)


def test_what_float64_cannot_tell_apart_is_said() -> None:
    tried = []

    def attempt(epsilon: float) -> None:
        tried.append(epsilon)
        raise Inconsistent

    with pytest.raises(FailedError, match="too thin for float64"):
        settled(attempt)
    assert tried[0] == FINEST and tried == sorted(tried) and tried[-1] <= COARSEST


def test_a_contradiction_is_settled_more_coarsely() -> None:
    def attempt(epsilon: float) -> float:
        if epsilon < 1e-11:
            raise Inconsistent
        return epsilon

    assert 1e-11 <= settled(attempt) < 1e-9


# --- What must not change the cells -------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.3, 1.5707963, 2.9])
@pytest.mark.parametrize("sides", [4, 48])
def test_turning_the_basis_and_the_window_changes_nothing(sides: int, angle: float) -> None:
    network = network_of([4, 9, 9, 2], seed=5)
    origin, basis = some_plane(4, 5, through_zero=False)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    window = regular(sides, 2.0)
    cells = cut_plane(network, origin, basis, window)
    turned = cut_plane(network, origin, turn @ basis, window @ turn.T)
    assert turned.by_layer == cells.by_layer
    assert adjacent(turned) == adjacent(cells)
    np.testing.assert_allclose(np.sort(areas_of(turned)), np.sort(areas_of(cells)), rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_units_changes_nothing(seed: int) -> None:
    network = network_of([2, 10, 10, 2], seed)
    one, two = (np.random.default_rng(seed).permutation(10) for _ in range(2))
    weights, biases = network.weights, network.biases
    permuted = PiecewiseAffine(
        [weights[0][one], weights[1][two][:, one], weights[2][:, two]],
        [biases[0][one], biases[1][two], biases[2]],
        network.slopes,
    )
    cells, other = cells_of(network, square(3.0)), cells_of(permuted, square(3.0))
    assert other.by_layer == cells.by_layer
    np.testing.assert_allclose(np.sort(areas_of(other)), np.sort(areas_of(cells)), rtol=1e-8, atol=1e-13)


def test_doing_it_again_gives_the_same_bytes() -> None:
    network = network_of([2, 30, 30, 2], seed=6)
    one, two = cells_of(network, square(3.0)), cells_of(network, square(3.0))
    for name in ("points", "outputs", "starts", "ends", "left", "right", "makers", "patterns"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()
