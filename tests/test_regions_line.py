"""The pieces of a line: closed forms, dense scans, bisection, and the plane that the line lies in."""

from itertools import pairwise

import numpy as np
import pytest
from exact_regions import exact_cells, network_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpcli.regions import line
from mlpcli.regions.line import Pieces, cut_line
from mlpcli.regions.piecewise import Bits, Floats, PiecewiseAffine
from mlpcli.regions.plane import cut_plane

FAMILY: list[tuple[list[int], list[float], float]] = [
    ([2, 3], [], 1.0),
    ([1, 1, 1], [0.0], 1.0),
    ([3, 20, 2], [0.0], 1.0),
    ([2, 8, 8, 3], [0.01, 0.2], 1.0),
    ([6, 12, 1, 5, 2], [0.0, 0.0, 0.0], 0.3),
    ([4, 9, 7, 10, 3], [0.0, 1.0, 0.0], 1.0),
    ([5, 30, 30, 30, 2], [0.0, 0.0, 0.0], 1.0),
    ([3, 12, 12, 2], [0.0, 0.0], 0.0),
    ([2, 7, 4], [1.0], 1.0),
    ([2, 7, 7, 2], [-1.0, 1.5], 1.0),
]


def somewhere(inputs: int, seed: int) -> tuple[Floats, Floats]:
    generator = np.random.default_rng(seed + 50)
    return generator.normal(size=inputs), generator.normal(size=inputs)


def on_axis(network: PiecewiseAffine, low: float, high: float) -> Pieces:
    return cut_line(network, np.zeros(1), np.ones(1), low, high)


# --- Closed forms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", [1, 2, 17, 64])
def test_n_units_cut_a_line_into_1_plus_n_pieces(units: int) -> None:
    network = network_of([1, units, 1], seed=units)
    kinks = -network.biases[0] / network.weights[0][:, 0]
    pieces = on_axis(network, kinks.min() - 1, kinks.max() + 1)
    assert len(pieces) == pieces.affine == 1 + units
    np.testing.assert_allclose(pieces.points[1:-1], np.sort(kinks), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(pieces.makers, [-1, *np.argsort(kinks), -1])


@pytest.mark.parametrize(("hidden", "mean", "deviation"), [((64,), 65.0, 0.0), ((32, 32), 65.2, 4.6)])
def test_random_networks_have_as_many_pieces_as_published(
    hidden: tuple[int, ...], mean: float, deviation: float
) -> None:
    seeds, counts = 40, []
    for seed in range(seeds):
        network = network_of([1, *hidden, 1], seed)
        # 1000 on both sides, or as far as the kinks of the first layer go, which are further out in one of 20
        kinks = np.abs(network.biases[0] / network.weights[0][:, 0])
        reach = max(1000.0, 2 * float(kinks.max()))
        counts.append(len(on_axis(network, -reach, reach)))
    assert abs(np.mean(counts) - mean) <= 3 * deviation / seeds**0.5
    assert deviation * 0.6 <= np.std(counts, ddof=1) <= deviation * 1.4


def test_a_sawtooth_doubles_with_each_layer() -> None:
    """Layers of |2x − 1| fold the segment: 2^depth affine regions."""
    fold, shift = np.array([[2.0], [-2.0]]), np.array([-1.0, 1.0])
    for depth in range(1, 11):
        weights = [fold, *[fold @ np.ones((1, 2))] * (depth - 1), np.ones((1, 2))]
        biases = [*[shift] * depth, np.zeros(1)]
        pieces = on_axis(PiecewiseAffine(weights, biases, [0.0] * depth), 0.0, 1.0)
        assert len(pieces) == pieces.affine == 2**depth
        assert pieces.by_layer == [2 ** (layer + 1) for layer in range(depth)]
        np.testing.assert_allclose(pieces.points, np.linspace(0, 1, 2**depth + 1), atol=1e-12)


# --- Oracles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sizes", "slopes", "bias"), FAMILY)
def test_pieces_are_the_activation_regions(sizes: list[int], slopes: list[float], bias: float, seed: int) -> None:
    network = network_of(sizes, seed, slopes, bias)
    origin, direction = somewhere(sizes[0], seed)
    pieces = cut_line(network, origin, direction, -4.0, 5.0)

    def patterns(places: Floats) -> Bits:
        return network.patterns_at(origin + places[:, None] * direction)

    assert (np.diff(pieces.points) > 0).all()
    assert (pieces.points[0], pieces.points[-1]) == (-4.0, 5.0)
    assert pieces.by_layer[-1:] == [len(pieces)][: len(slopes)]
    middles = (pieces.points[1:] + pieces.points[:-1]) / 2
    np.testing.assert_array_equal(patterns(middles), pieces.patterns)
    np.testing.assert_allclose(pieces.outputs, network(origin + pieces.points[:, None] * direction), atol=1e-11)

    scan = np.linspace(-4, 5, 20_001)
    found = np.searchsorted(pieces.points, scan[1:-1]) - 1
    clear = np.abs(scan[1:-1, None] - pieces.points).min(1) > 1e-9
    np.testing.assert_array_equal(patterns(scan[1:-1][clear]), pieces.patterns[found[clear]])

    layers = [network.unpack(pieces.patterns, layer) for layer in range(len(slopes))]
    if layers:
        changed = np.concatenate(layers, 1)[1:] != np.concatenate(layers, 1)[:-1]
        assert changed[np.arange(len(changed)), pieces.makers[1:-1]].all()
        assert bias == 0 or (changed.sum(1) == 1).all()


def bisected(network: PiecewiseAffine, low: float, high: float) -> list[float]:
    """Where the pattern changes between two places of the input, by halving until there is nothing between."""
    ends = network.patterns_at(np.array([[low], [high]]))
    if high - low < 1e-11:
        return [(low + high) / 2] if (ends[0] != ends[1]).any() else []
    inside = np.linspace(low, high, 66)[1:-1] if high - low > 1e-3 else np.array([(low + high) / 2])
    between = network.patterns_at(inside[:, None])
    if (ends[0] == ends[1]).all() and (between == ends[0]).all():
        return []
    places = [low, *inside.tolist(), high]
    return [each for one, two in pairwise(places) for each in bisected(network, one, two)]


@pytest.mark.parametrize("sizes", [[1, 6, 1], [1, 6, 6, 1], [1, 5, 5, 5, 2]])
def test_kinks_are_those_of_bisection(sizes: list[int]) -> None:
    network = network_of(sizes, seed=3)
    pieces = on_axis(network, -3.0, 3.0)
    assert np.diff(pieces.points).min() > 1e-3
    np.testing.assert_allclose(pieces.points[1:-1], bisected(network, -3.0, 3.0), atol=1e-10)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sizes", [[2, 20, 1], [3, 9, 9, 2], [2, 8, 8, 8, 3]])
def test_a_line_crosses_the_cells_of_its_plane(sizes: list[int], seed: int) -> None:
    network = network_of(sizes, seed)
    origin, along = somewhere(sizes[0], seed)
    basis = np.stack((along, np.random.default_rng(seed).normal(size=sizes[0])))
    window = np.array([[-2.0, -1.0], [2.0, -1.0], [2.0, 1.0], [-2.0, 1.0]])
    cells = cut_plane(network, origin, basis, window)
    pieces = cut_line(network, origin, along, -2.0, 2.0)
    vertices, begins = cells.corners()
    height = cells.points[vertices, 1]
    crossed = (np.minimum.reduceat(height, begins) < 0) & (np.maximum.reduceat(height, begins) > 0)
    assert {pattern.tobytes() for pattern in cells.patterns[crossed]} == {p.tobytes() for p in pieces.patterns}
    assert len(pieces) == crossed.sum()


# --- Degenerate ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    hidden=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    parts=st.sampled_from([1, 2, 4]),
    bias=st.sampled_from([0.0, 1.0]),
)
def test_degenerate_networks_have_the_pieces_of_rational_arithmetic(
    seed: int, hidden: list[int], parts: int, bias: float
) -> None:
    """Whole weights: kinks in one place, at the ends, and units that are zero on a piece."""
    network = network_of([1, *hidden, 1], seed, None, bias, parts)
    pieces = on_axis(network, -2.0, 2.0)
    flat = PiecewiseAffine([network.weights[0] * [1.0, 0.0], *network.weights[1:]], network.biases, network.slopes)
    exact = exact_cells(flat, np.array([[-2.0, 0.0], [2.0, 0.0], [2.0, 1.0], [-2.0, 1.0]]))
    exact.sort(key=lambda cell: min(corner[0] for corner in cell.corners))
    assert len(pieces) == len(exact)
    np.testing.assert_allclose(np.diff(pieces.points), [float(cell.area) for cell in exact], rtol=1e-9)
    layers = [network.unpack(pieces.patterns, layer) for layer in range(len(hidden))]
    assert np.concatenate(layers, axis=1).tolist() == [list(cell.signs) for cell in exact]


def test_units_that_are_zero_in_one_place_make_one_point() -> None:
    for factor in (1.0, 3.0, -0.7):
        weight, bias = np.array([[0.3], [0.3 * factor], [1.0]]), np.array([0.1, 0.1 * factor, 0.5])
        pieces = on_axis(PiecewiseAffine([weight, np.ones((1, 3))], [bias, np.zeros(1)], [0.0]), -1.0, 1.0)
        np.testing.assert_allclose(pieces.points, [-1, -0.5, -1 / 3, 1])
        np.testing.assert_array_equal(pieces.patterns[:, 0] >> 6, [1, 1, 2] if factor < 0 else [0, 0, 3])


def test_kinks_too_near_to_tell_apart_make_one_point_at_which_both_are_zero() -> None:
    """The second unit's terms are larger, so that rounding reaches further; the first is positive until 1e-11."""
    network = PiecewiseAffine(
        [np.array([[-1.0, 0.0], [1.0, 1e3]]), np.ones((1, 2))], [np.array([1e-11, -1e3]), np.zeros(1)], [0.0]
    )
    pieces = cut_line(network, np.array([0.0, 1.0]), np.array([1.0, 0.0]), -1.0, 1.0)
    assert len(pieces) == 2
    assert pieces.patterns.tolist() == [[0b10000000], [0b01000000]]


def test_a_kink_where_one_is_already_makes_no_piece() -> None:
    """A later layer that is zero where the first is, up to rounding."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        weight, place = generator.normal(), generator.uniform(0.1, 0.9)
        network = PiecewiseAffine(
            [np.array([[weight], [1.0]]), np.array([[0.0, -3.0 * weight]]), np.ones((1, 1))],
            [np.array([-weight * place, 0.0]), np.array([3.0 * weight * place]), np.zeros(1)],
            [0.0, 0.0],
        )
        assert on_axis(network, -1.0, 1.0).by_layer == [3, 3]


def test_kinks_at_the_ends_cut_nothing() -> None:
    network = PiecewiseAffine(
        [np.array([[1.0], [-1.0]]), np.ones((1, 2))], [np.array([1.0, 1.0]), np.zeros(1)], [0.0]
    )
    pieces = on_axis(network, -1.0, 1.0)
    assert len(pieces) == 1 and pieces.makers.tolist() == [-1, -1]
    assert pieces.patterns.tolist() == [[0b11000000]]


def test_a_network_that_is_constant_or_affine_has_one_piece() -> None:
    constant = PiecewiseAffine([np.zeros((4, 1)), np.zeros((2, 4))], [np.zeros(4), np.ones(2)], [0.0])
    for network in (constant, network_of([1, 3], 0), network_of([1, 5, 4, 2], 0, [1.0, 1.0])):
        pieces = on_axis(network, -1.0, 1.0)
        assert len(pieces) == pieces.affine == 1
        assert not pieces.patterns.any()


def test_a_line_through_cones_from_zero_and_back() -> None:
    network = network_of([3, 12, 12, 2], seed=0, bias=0.0)
    _, direction = somewhere(3, 1)
    pieces = cut_line(network, np.zeros(3), direction, -1.0, 1.0)
    assert len(pieces) == 2
    assert pieces.points.tolist() == [-1.0, 0.0, 1.0]
    assert len(cut_line(network, np.zeros(3), direction, 0.0, 1.0)) == 1


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_far_from_where_the_coordinate_is_zero(offset: float) -> None:
    network = network_of([3, 20, 20, 2], seed=1)
    origin, direction = somewhere(3, 1)
    near, far = (
        cut_line(network, origin - shift * direction, direction, shift - 3, shift + 3) for shift in (0.0, offset)
    )
    assert len(far) == len(near)
    assert far.affine == near.affine
    np.testing.assert_allclose(far.points - offset, near.points, atol=1e-12 * offset)


# --- Affine regions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sizes", [[1, 10, 1], [1, 6, 2, 1], [1, 4, 2, 3, 1], [1, 3, 1, 3, 1]])
def test_affine_regions_are_those_whose_maps_differ(sizes: list[int], seed: int) -> None:
    network = network_of(sizes, seed)
    pieces = on_axis(network, -5.0, 5.0)
    slopes = [network.affine_map(pattern)[0] for pattern in pieces.patterns]
    differ = sum(np.abs(one - two).max() > 1e-9 for one, two in pairwise(slopes))
    assert pieces.affine == 1 + differ


def test_a_last_layer_of_zeros_has_one_affine_region() -> None:
    network = network_of([1, 20, 20, 2], seed=0)
    zero = PiecewiseAffine([*network.weights[:2], np.zeros((2, 20))], network.biases, network.slopes)
    pieces = on_axis(zero, -5.0, 5.0)
    assert len(pieces) > 20 and pieces.affine == 1


def test_neurons_that_cancel_make_no_affine_regions() -> None:
    generator = np.random.default_rng(0)
    weight, bias, out = generator.normal(size=(6, 1)), generator.normal(size=6), generator.normal(size=6)
    network = PiecewiseAffine(
        [np.concatenate((weight, [[1.0]], weight)), np.concatenate((out, [0.1], -out))[None]],
        [np.concatenate((bias, [0.3], bias)), np.zeros(1)],
        [0.0],
    )
    reach = 1 + float(np.abs(bias / weight[:, 0]).max())
    pieces = on_axis(network, -reach, reach)
    assert len(pieces) == 8
    assert pieces.affine == 2


# --- Parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [1, 60, 1000])
@pytest.mark.parametrize("sizes", [[3, 30, 2], [3, 30, 30, 30, 2], [2, 5, 40, 5, 1]])
def test_in_small_parts_the_pieces_are_the_same(
    sizes: list[int], numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(sizes, seed=2)
    origin, direction = somewhere(sizes[0], 2)
    whole = cut_line(network, origin, direction, -5.0, 5.0)
    monkeypatch.setattr(line, "BLOCK_NUMBERS", numbers)
    parts = cut_line(network, origin, direction, -5.0, 5.0)
    assert parts.by_layer == whole.by_layer
    assert parts.affine == whole.affine
    np.testing.assert_array_equal(parts.patterns, whole.patterns)
    np.testing.assert_array_equal(parts.makers, whole.makers)
    # products of another size round otherwise
    np.testing.assert_allclose(parts.points, whole.points, atol=1e-13)
    np.testing.assert_allclose(parts.outputs, whole.outputs, atol=1e-12)
