"""The changes of a batch against slow changes of one image at a time, and what their draws are."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from torch.nn import functional as F

from mlpcli.augmentation import Augment, smoothing
from mlpcli.explicit import Explicit
from mlpcli.model import build_mlp
from mlpcli.objective import Loss

SHAPES = [(1, 12, 12), (3, 9, 14), (2, 15, 7)]
CLASSES = 5
EVERYTHING = {
    "shift": 2.5,
    "flip": "both",
    "rotate": 40.0,
    "scale": 0.3,
    "elastic": (20.0, 2.0),
    "cutout": 4,
    "mixup": 0.7,
    "noise": 0.3,
}


def batch(n, shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n)
    inputs = torch.randn(n, math.prod(shape), generator=generator, dtype=dtype)
    return inputs, torch.randint(CLASSES, (n,), generator=generator)


def tensors(draws):
    return {name: value for name, value in vars(draws).items() if value is not None}


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# --- one image at a time ---


def change_of_places(draws, i, shape, elastic):
    """Row and column from which each pixel takes its value, in numpy and in pixels."""
    _, height, width = shape
    angle, factor = float(draws.angles[i]), float(draws.factors[i])
    forward = factor * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    forward = forward @ np.diag([-1.0 if flipped else 1.0 for flipped in draws.flips[i].tolist()])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    moved = np.zeros((height, width, 2))
    if elastic is not None:
        alpha, sigma = elastic
        field = draws.field[i].double().numpy()
        for axis in (0, 1):
            moved[..., axis] = alpha * ndimage.gaussian_filter(field[..., axis], sigma, mode="constant")
    places = np.zeros((2, height, width))
    for row in range(height):
        for column in range(width):
            there = np.array([column, row]) - centre - draws.shifts[i].double().numpy()
            x, y = centre + np.linalg.inv(forward) @ there + moved[row, column]
            places[:, row, column] = y, x
    return places


def slowly(inputs, targets, draws, shape, options):
    """Inputs and targets, changed by scipy and loops."""
    _, height, width = shape
    images = inputs.double().view(-1, *shape).numpy().copy()
    for i in range(len(images)):
        places = change_of_places(draws, i, shape, options.get("elastic"))
        for c, channel in enumerate(images[i].copy()):
            images[i, c] = ndimage.map_coordinates(channel, places, order=1, mode="nearest")
        side = options.get("cutout", 0)
        if side:
            column, row = draws.centres[i].tolist()
            for r in range(row - side // 2, row - side // 2 + side):
                for c in range(column - side // 2, column - side // 2 + side):
                    if 0 <= r < height and 0 <= c < width:
                        images[i, :, r, c] = 0
    labels = np.eye(CLASSES)[targets.numpy()]
    if options.get("mixup"):
        share = draws.shares.double().numpy()
        partners = draws.partners.numpy()
        mixed = [share[i] * images[i] + (1 - share[i]) * images[partners[i]] for i in range(len(images))]
        labels = np.array(
            [share[i] * labels[i] + (1 - share[i]) * labels[partners[i]] for i in range(len(images))]
        )
        images = np.array(mixed)
    flat = images.reshape(len(images), -1)
    if options.get("noise"):
        flat = flat + options["noise"] * draws.noise.double().numpy()
    return torch.from_numpy(flat), torch.from_numpy(labels)


CHANGES = {
    "everything": EVERYTHING,
    "resampling": {key: EVERYTHING[key] for key in ("shift", "flip", "rotate", "scale", "elastic")},
    **{key: {key: value} for key, value in EVERYTHING.items()},
    "flip across": {"flip": "horizontal"},
    "flip down and shift": {"flip": "vertical", "shift": 1.5},
    "an odd square": {"cutout": 3},
    "a square of one pixel": {"cutout": 1},
    "a square larger than the image": {"cutout": 40},
    "a field without smoothing": {"elastic": (1.5, 0.1)},
    "a field smoother than the image": {"elastic": (500.0, 9.0)},
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CHANGES)
def test_each_sample_is_what_scipy_makes_of_it(name, shape):
    options = CHANGES[name]
    inputs, targets = batch(6, shape)
    augment = Augment(shape, 3, CLASSES, **options)
    draws = augment.draw(inputs, 2, 7)
    expected, labels = slowly(inputs, targets, draws, shape, options)
    assert not torch.equal(expected, inputs)
    got, got_labels = augment.apply(inputs.clone(), targets, draws)
    assert (got - expected).abs().max() <= 1e-11
    if "mixup" in options:
        assert (got_labels - labels).abs().max() <= 1e-15
    else:
        assert got_labels is targets


def test_float32_agrees_to_rounding():
    shape = SHAPES[1]
    inputs, targets = batch(16, shape, torch.float32)
    augment = Augment(shape, 3, CLASSES, **EVERYTHING)
    draws = augment.draw(inputs, 2, 7)
    expected, labels = slowly(inputs, targets, draws, shape, EVERYTHING)
    got, got_labels = augment.apply(inputs.clone(), targets, draws)
    assert got.dtype == got_labels.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(got_labels.double(), labels, rtol=0, atol=1e-6)


def test_rotation_scale_and_shift_are_torchvisions():
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import affine

    shape = (3, 20, 26)
    inputs, targets = batch(8, shape)
    images = inputs.view(-1, *shape)
    images[:, :, :5], images[:, :, -5:], images[..., :7], images[..., -7:] = 0, 0, 0, 0  # it pads with zeros
    augment = Augment(shape, 1, CLASSES, shift=2, rotate=30, scale=0.2)
    draws = augment.draw(inputs, 1, 1)
    expected = [
        affine(
            image,
            math.degrees(draws.angles[i]),
            draws.shifts[i].tolist(),
            float(draws.factors[i]),
            [0.0, 0.0],
            InterpolationMode.BILINEAR,
        )
        for i, image in enumerate(images)
    ]
    got, _ = augment.apply(inputs.clone(), targets, draws)
    torch.testing.assert_close(got.view_as(images), torch.stack(expected), rtol=0, atol=1e-5)  # float32 inside


@given(side=st.integers(1, 40), sigma=st.floats(0.05, 12))
@settings(max_examples=40, deadline=None)
def test_the_smoothing_is_scipys(side, sigma):
    vector = np.random.default_rng(side).normal(size=side)
    expected = ndimage.gaussian_filter1d(vector, sigma, mode="constant")
    np.testing.assert_allclose(smoothing(side, sigma).numpy() @ vector, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("flip", ["horizontal", "vertical", "both"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_flips_only_mirror(shape, flip):
    inputs, targets = batch(64, shape, torch.float32)
    augment = Augment(shape, 0, CLASSES, flip=flip)
    draws = augment.draw(inputs, 0, 0)
    got, _ = augment.apply(inputs.clone(), targets, draws)
    seen = set()
    for image, changed, flips in zip(inputs, got, draws.flips.tolist(), strict=True):
        axes = [2 - axis for axis in (0, 1) if flips[axis]]
        assert torch.equal(changed.view(shape), image.view(shape).flip(axes))
        seen.add(tuple(flips))
    possible = {"horizontal": {(False, False), (True, False)}, "vertical": {(False, False), (False, True)}}
    assert seen == possible.get(flip, {(a, b) for a in (False, True) for b in (False, True)})


# --- what does nothing ---


def test_without_any_change_the_batch_is_itself():
    inputs, targets = batch(7, SHAPES[1])
    kept = inputs.clone()
    got, labels = Augment(SHAPES[1], 0, CLASSES)(inputs, targets, 1, 1)
    assert got.data_ptr() == inputs.data_ptr() and torch.equal(got, kept) and labels is targets


def test_a_resampling_that_moves_nothing_changes_nothing():
    inputs, targets = batch(7, SHAPES[1])
    tiny = Augment(SHAPES[1], 0, CLASSES, shift=1e-12, rotate=1e-11, scale=1e-12, elastic=(1e-12, 2.0))
    got, _ = tiny(inputs.clone(), targets, 1, 1)
    assert (got - inputs).abs().max() <= 1e-10


# --- what the draws are ---


def test_the_draws_depend_on_seed_epoch_and_step_alone():
    shape = SHAPES[0]
    inputs, targets = batch(9, shape)
    expected = Augment(shape, 4, CLASSES, **EVERYTHING)(inputs.clone(), targets, 3, 5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    other = Augment(shape, 4, CLASSES, **EVERYTHING)
    for epoch, step in [(3, 5), (3, 6), (4, 5), (5, 3), (3, 5)]:  # whatever came before
        got = other(inputs.clone(), targets, epoch, step)
        assert same(got, expected) == ((epoch, step) == (3, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert not same(Augment(shape, 5, CLASSES, **EVERYTHING)(inputs.clone(), targets, 3, 5), expected)


def test_the_draws_do_not_depend_on_the_number_of_threads():
    shape = (1, 28, 28)
    inputs, _ = batch(256, shape, torch.float32)
    augment, threads, drawn = Augment(shape, 4, CLASSES, **EVERYTHING), torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            drawn.append(tensors(augment.draw(inputs, 1, 2)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(drawn[0][name], value) for name, value in drawn[1].items())


def test_every_sample_has_draws_of_its_own():
    inputs, _ = batch(50, SHAPES[0])
    for name, value in tensors(Augment(SHAPES[0], 4, CLASSES, **EVERYTHING).draw(inputs, 1, 1)).items():
        distinct = len(torch.unique(value, dim=0))
        assert distinct == {"flips": 4, "centres": distinct}.get(name, 50), name
        assert distinct > 30 or name == "flips"


@pytest.mark.parametrize("left_out", EVERYTHING)
def test_what_is_off_is_not_drawn_and_leaves_the_places_of_the_rest(left_out):
    inputs, _ = batch(20, SHAPES[0])
    every = Augment(SHAPES[0], 4, CLASSES, **EVERYTHING).draw(inputs, 1, 1)
    options = {key: value for key, value in EVERYTHING.items() if key != left_out}
    draws = Augment(SHAPES[0], 4, CLASSES, **options).draw(inputs, 1, 1)
    places = {"shift": "shifts", "flip": "flips", "rotate": "angles", "scale": "factors"}
    for key, name in places.items():
        if key != left_out:
            assert torch.equal(getattr(draws, name), getattr(every, name)), name
    if left_out in places:
        assert len(torch.unique(getattr(draws, places[left_out]))) == 1
    else:
        missing = {
            "elastic": ["field"],
            "cutout": ["centres"],
            "mixup": ["shares", "partners"],
            "noise": ["noise"],
        }
        assert vars(every).keys() - tensors(draws).keys() == set(missing[left_out])


@given(
    n=st.integers(1, 30),
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9)),
    shift=st.floats(0, 50),
    rotate=st.floats(0, 180),
    scale=st.floats(0, 0.99),
    cutout=st.integers(1, 12),
    mixup=st.floats(1e-300, 1e6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=60, deadline=None)
def test_the_draws_are_within_their_bounds(n, shape, shift, rotate, scale, cutout, mixup, dtype):
    options = {"shift": shift, "rotate": rotate, "scale": scale, "cutout": cutout, "mixup": mixup}
    augment = Augment(shape, 0, CLASSES, **options, flip="both", elastic=(3.0, 1.0), noise=0.1)
    inputs, targets = batch(n, shape, dtype)
    draws, (_, height, width) = augment.draw(inputs, 1, n), shape
    rounding = 1 + 1e-6
    assert draws.shifts.shape == (n, 2) and draws.shifts.abs().max() <= shift * rounding
    assert draws.angles.shape == (n,) and draws.angles.abs().max() <= math.radians(rotate) * rounding
    assert draws.factors.shape == (n,) and (draws.factors - 1).abs().max() <= scale + 1e-6
    assert draws.field.shape == (n, height, width, 2) and -1 <= draws.field.min() <= draws.field.max() < 1
    assert draws.centres.shape == (n, 2) and draws.centres.min() >= 0
    assert draws.centres[:, 0].max() < width and draws.centres[:, 1].max() < height
    assert draws.shares.shape == (n,) and 0 <= draws.shares.min() <= draws.shares.max() <= 1
    assert draws.partners.sort().values.tolist() == list(range(n))
    assert draws.noise.shape == inputs.shape
    got, labels = augment.apply(inputs, targets, draws)
    assert got.shape == inputs.shape and got.dtype == labels.dtype == dtype and bool(got.isfinite().all())
    torch.testing.assert_close(labels.sum(1), torch.ones(n, dtype=dtype), rtol=0, atol=1e-6)


def test_shifts_angles_factors_and_fields_are_uniform():
    inputs, _ = batch(5000, (1, 2, 1))
    draws = Augment((1, 2, 1), 0, CLASSES, shift=3, rotate=20, scale=0.25, elastic=(1.0, 1.0)).draw(inputs, 0, 0)
    for values, centre, most in [
        (draws.shifts[:, 0], 0, 3),
        (draws.shifts[:, 1], 0, 3),
        (draws.angles, 0, math.radians(20)),
        (draws.factors, 1, 0.25),
        (draws.field.flatten(), 0, 1),
    ]:
        assert stats.kstest(values.numpy(), stats.uniform(centre - most, 2 * most).cdf).pvalue > 0.01
    independent = torch.stack([*draws.shifts.T, draws.angles, draws.factors, *draws.field.view(-1, 4).T])
    assert (torch.corrcoef(independent) - torch.eye(8)).abs().max() < 0.05


def test_flips_are_fair_and_centres_uniform():
    inputs, _ = batch(6000, (1, 3, 4))
    draws = Augment((1, 3, 4), 0, CLASSES, flip="both", cutout=1).draw(inputs, 0, 0)
    flips = torch.bincount(draws.flips[:, 0] * 2 + draws.flips[:, 1] * 1, minlength=4)
    centres = torch.bincount(draws.centres[:, 1] * 4 + draws.centres[:, 0], minlength=12)
    assert stats.chisquare(flips).pvalue > 0.01 and stats.chisquare(centres).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 3.0, 40.0])
def test_shares_are_drawn_from_the_beta_distribution(alpha):
    inputs, _ = batch(20_000, (1, 1, 1))
    shares = Augment((1, 1, 1), 0, CLASSES, mixup=alpha).draw(inputs, 0, 0).shares
    assert stats.kstest(shares.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_the_limits_of_mixup_are_none_and_halves():
    inputs, _ = batch(1000, (1, 1, 1))
    none, halves = (Augment((1, 1, 1), 0, 2, mixup=alpha).draw(inputs, 0, 0).shares for alpha in (1e-9, 1e12))
    assert set(none.tolist()) == {0.0, 1.0} and 0.4 < none.mean() < 0.6
    torch.testing.assert_close(halves, torch.full_like(halves, 0.5), rtol=0, atol=1e-4)


def test_noise_is_gaussian_with_its_standard_deviation():
    inputs, targets = batch(200, (1, 10, 10))
    got, _ = Augment((1, 10, 10), 0, CLASSES, noise=0.3)(inputs.clone(), targets, 0, 0)
    assert stats.kstest((got - inputs).flatten().numpy(), stats.norm(0, 0.3).cdf).pvalue > 0.01


# --- targets ---


def test_regression_targets_are_mixed_as_the_inputs_are():
    inputs, _ = batch(30, (1, 2, 3))
    got, targets = Augment((1, 2, 3), 0, None, mixup=1.0)(inputs.clone(), inputs[:, :2].clone(), 0, 0)
    assert not torch.equal(got, inputs)
    torch.testing.assert_close(targets, got[:, :2], rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "mae", "huber"])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.0, 1.0, 1.5]], ids=["none", "weights"])
def test_both_engines_agree_on_mixed_targets(name, weights):
    weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    loss = Loss(name, 0.1 if name == "cross_entropy" else 0.0, class_weights=weights)
    inputs, targets = Augment((1, 3, 3), 0, CLASSES, mixup=0.5)(*batch(12, (1, 3, 3)), 0, 0)
    ours, plain = (build_mlp(9, CLASSES, depth=3, width=6, activation="tanh", seed=1).double() for _ in range(2))
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.0, momentum=0.5)
    engine = Explicit(ours, loss, optimizer, 12)
    engine.gradient(inputs, targets)
    outputs = plain(inputs)
    if name == "cross_entropy":
        scale = 1 if weights is None else weights
        soft = 0.9 * targets + 0.1 / CLASSES
        objective = -(scale * soft * F.log_softmax(outputs, 1)).sum() / 12
    else:
        oracle = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}[name]
        objective = oracle(outputs, targets, reduction="sum") / 12
    expected = torch.autograd.grad(objective, list(plain.parameters()))
    for parameter, gradient in zip(ours.parameters(), expected, strict=True):
        velocity = optimizer.state[parameter]["momentum_buffer"]  # a first one is the gradient
        torch.testing.assert_close(velocity, gradient, rtol=1e-10, atol=1e-13)
