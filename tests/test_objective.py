import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch.nn import functional as F

from mlpcli.objective import LOSSES, PENDING_BATCHES, PENDING_NUMBERS, Loss, Metrics
from mlpcli.progress import less_is_better

RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(40, 7)) * 3
CLASSES = RNG.integers(0, 7, size=40)
REAL = RNG.normal(size=(40, 7))
ONE_HOT = np.eye(7)[CLASSES]
SHARES = RNG.dirichlet(np.full(7, 0.5), size=40)
TARGETS = {"classes": CLASSES, "real": REAL, "shares": SHARES}


def log_softmax(z):
    return z - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)) - z.max(1, keepdims=True)


def huber(d, delta):
    return np.where(np.abs(d) <= delta, d * d / 2, delta * (np.abs(d) - delta / 2))


def loss_of(name, targets, **options):
    loss = Loss(name, **options)(torch.tensor(OUTPUTS), torch.tensor(targets))
    assert loss.shape == ()
    return loss.item()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy(smoothing):
    soft = (1 - smoothing) * ONE_HOT + smoothing / 7
    expected = -(soft * log_softmax(OUTPUTS)).sum(1).mean()
    assert loss_of("cross_entropy", CLASSES, label_smoothing=smoothing) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("targets", [CLASSES, REAL], ids=["classes", "real"])
def test_summed_over_coordinates_averaged_over_samples(targets):
    d = OUTPUTS - (ONE_HOT if targets is CLASSES else REAL)
    assert loss_of("mse", targets) == pytest.approx((d**2).sum(1).mean(), rel=1e-12)
    assert loss_of("mae", targets) == pytest.approx(np.abs(d).sum(1).mean(), rel=1e-12)
    assert loss_of("huber", targets, delta=0.7) == pytest.approx(huber(d, 0.7).sum(1).mean(), rel=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "mae", "huber"])
def test_gradient_is_that_of_finite_differences(name):
    outputs = torch.tensor(OUTPUTS[:6], requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: Loss(name)(z, torch.tensor(CLASSES[:6])), outputs)


WEIGHTS = [0.5, 2.0, 1.0, 0.25, 3.0, 1.5, 0.75]
WITH_ZERO = [0.5, 2.0, 0.0, 0.25, 3.0, 0.0, 0.75]


@pytest.mark.parametrize("weights", [WEIGHTS, WITH_ZERO], ids=["positive", "with a zero"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_multiply_the_terms_and_the_mean_is_over_samples(weights, smoothing):
    w = np.array(weights)
    soft = (1 - smoothing) * ONE_HOT + smoothing / 7
    expected = -(w * soft * log_softmax(OUTPUTS)).sum(1).mean()
    options = {"label_smoothing": smoothing, "class_weights": torch.tensor(w)}
    assert loss_of("cross_entropy", CLASSES, **options) == pytest.approx(expected, rel=1e-12)
    torchs = F.cross_entropy(
        torch.tensor(OUTPUTS), torch.tensor(CLASSES), torch.tensor(w), reduction="sum", label_smoothing=smoothing
    )
    assert loss_of("cross_entropy", CLASSES, **options) == pytest.approx(torchs.item() / 40, rel=1e-14)


@pytest.mark.parametrize("weights", [None, WEIGHTS, WITH_ZERO], ids=["none", "positive", "with a zero"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_shares_of_classes(weights, smoothing):
    w = np.ones(7) if weights is None else np.array(weights)
    soft = (1 - smoothing) * SHARES + smoothing / 7
    expected = -(w * soft * log_softmax(OUTPUTS)).sum(1).mean()
    options = {"label_smoothing": smoothing, "class_weights": None if weights is None else torch.tensor(w)}
    assert loss_of("cross_entropy", SHARES, **options) == pytest.approx(expected, rel=1e-12)
    torchs = F.cross_entropy(
        torch.tensor(OUTPUTS), torch.tensor(SHARES), torch.tensor(w), reduction="sum", label_smoothing=smoothing
    )
    total = Loss("cross_entropy", **options).total(torch.tensor(OUTPUTS), torch.tensor(SHARES))
    assert total.item() == pytest.approx(torchs.item(), rel=1e-14)


@pytest.mark.parametrize("weights", [None, WITH_ZERO], ids=["none", "with a zero"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", LOSSES)
def test_a_class_is_the_share_1_of_it(name, smoothing, weights):
    weights = None if weights is None else torch.tensor(weights)
    loss = Loss(name, label_smoothing=smoothing, delta=0.7, class_weights=weights)
    outputs, classes, one_hot = (torch.tensor(array) for array in (OUTPUTS, CLASSES, ONE_HOT))
    torch.testing.assert_close(loss(outputs, one_hot), loss(outputs, classes), rtol=1e-13, atol=0)
    torch.testing.assert_close(loss.total(outputs, one_hot), loss.total(outputs, classes), rtol=1e-13, atol=0)
    of_classes, of_shares = torch.empty_like(outputs), torch.empty_like(outputs)
    loss.derivative(outputs, classes, of_classes), loss.derivative(outputs, one_hot, of_shares)
    torch.testing.assert_close(of_shares, of_classes, rtol=0, atol=1e-13)


def test_weighted_losses_of_chunks_add_up():
    loss = Loss("cross_entropy", 0.1, class_weights=torch.tensor(WITH_ZERO))
    outputs, targets = torch.tensor(OUTPUTS), torch.tensor(CLASSES)
    parts = sum(loss(outputs[a:b], targets[a:b]) * (b - a) / 40 for a, b in [(0, 1), (1, 9), (9, 40)])
    torch.testing.assert_close(parts, loss(outputs, targets), rtol=1e-13, atol=0)


def column_major(tensor):
    return tensor.t().contiguous().t()


LOSS_CASES = [
    *(
        ("cross_entropy", targets, s, w)
        for targets in ("classes", "shares")
        for s in (0.0, 0.1)
        for w in (None, WEIGHTS, WITH_ZERO)
    ),
    *((name, targets, 0.0, None) for name in LOSSES[1:] for targets in ("classes", "real", "shares")),
]


@pytest.mark.parametrize("layout", [torch.clone, column_major], ids=["rows", "columns"])
@pytest.mark.parametrize("out_layout", [torch.clone, column_major], ids=["into rows", "into columns"])
@pytest.mark.parametrize(("name", "kind", "smoothing", "weights"), LOSS_CASES)
def test_the_derivative_over_n_is_autograds(name, kind, smoothing, weights, layout, out_layout):
    weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    loss = Loss(name, label_smoothing=smoothing, delta=0.7, class_weights=weights)
    outputs, targets = layout(torch.tensor(OUTPUTS)), torch.tensor(TARGETS[kind])
    leaf = outputs.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf, targets) * 40, leaf)
    out = out_layout(torch.full((40, 7), math.nan, dtype=torch.float64))
    kept, kept_targets = outputs.clone(), targets.clone()
    loss.derivative(outputs, targets, out)
    assert (out - expected).abs().max() <= 1e-12
    assert expected.abs().max() > 0.1
    assert torch.equal(outputs, kept) and torch.equal(targets, kept_targets)


def test_the_derivative_of_large_outputs_is_finite():
    outputs = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.float32)
    out = torch.empty_like(outputs)
    Loss("cross_entropy").derivative(outputs, torch.tensor([1]), out)
    assert out.tolist() == [[1.0, -1.0, 0.0]]


def test_unknown_loss():
    with pytest.raises(ValueError, match="no loss is called"):
        Loss("accuracy")


def add_in_chunks(metrics, outputs, targets, sizes):
    start = 0
    while start < len(outputs):
        for size in sizes:
            o, t = outputs[start : start + size], targets[start : start + size]
            if len(o):
                metrics.add(o, t)
            start += size
    return metrics.result()


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_classification_metrics_in_any_chunks(sizes):
    outputs, targets = torch.tensor(OUTPUTS), torch.tensor(CLASSES)
    metrics = Metrics(Loss("cross_entropy"), regression=False, top5=True)
    got = add_in_chunks(metrics, outputs, targets, sizes)
    assert got == {
        "loss": pytest.approx(sk.log_loss(CLASSES, np.exp(log_softmax(OUTPUTS)), labels=range(7)), rel=1e-9),
        "accuracy": sk.accuracy_score(CLASSES, OUTPUTS.argmax(1)),
        "error": pytest.approx(1 - sk.accuracy_score(CLASSES, OUTPUTS.argmax(1))),
        "top5_accuracy": sk.top_k_accuracy_score(CLASSES, OUTPUTS, k=5, labels=range(7)),
    }


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_regression_metrics_in_their_own_units(sizes):
    mean, std = REAL.mean(0), REAL.std(0) * np.arange(1, 8)
    truth, predicted = REAL * std + mean, OUTPUTS * std + mean
    targets = torch.tensor(REAL)
    metrics = Metrics(
        Loss("mse"),
        regression=True,
        scale=torch.tensor(std),
        deviation=(targets - targets.mean(0)).square().sum(0),
    )
    got = add_in_chunks(metrics, torch.tensor(OUTPUTS), targets, sizes)
    mse = sk.mean_squared_error(truth, predicted) * 7  # scikit-learn averages over coordinates, we sum
    assert got == pytest.approx(
        {
            "loss": ((OUTPUTS - REAL) ** 2).sum(1).mean(),
            "mse": mse,
            "rmse": mse**0.5,
            "mae": sk.mean_absolute_error(truth, predicted) * 7,
            "r2": sk.r2_score(truth, predicted),
        }
    )


@pytest.mark.parametrize("value", [3.0, 4.0])
def test_r2_of_a_constant_target_is_scikit_learns(value):
    targets = torch.full((5, 1), 3.0, dtype=torch.float64)
    outputs = torch.full((5, 1), value, dtype=torch.float64)
    scale, deviation = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    metrics = Metrics(Loss("mse"), regression=True, scale=scale, deviation=deviation)
    metrics.add(outputs, targets)
    assert metrics.result()["r2"] == sk.r2_score(targets, outputs)


def test_metrics_continue_from_their_state():
    outputs, targets = torch.tensor(OUTPUTS), torch.tensor(CLASSES)
    whole, first, second = (Metrics(Loss("cross_entropy"), regression=False) for _ in range(3))
    for metrics in (whole, first):
        metrics.add(outputs[:10], targets[:10])
    second.load_state_dict(first.state_dict())
    for metrics in (whole, second):
        metrics.add(outputs[10:], targets[10:])
    assert second.result() == whole.result()


@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_metrics_of_shares_count_the_class_with_the_largest(sizes):
    outputs, shares = torch.tensor(OUTPUTS), torch.tensor(SHARES)
    soft, hard = (Metrics(Loss("cross_entropy"), regression=False, top5=True, confusion=7) for _ in range(2))
    got = add_in_chunks(soft, outputs, shares, sizes)
    expected = add_in_chunks(hard, outputs, shares.argmax(1), sizes)
    assert got.pop("loss") == pytest.approx(-(SHARES * log_softmax(OUTPUTS)).sum(1).mean(), rel=1e-12)
    expected.pop("loss")
    assert got == expected and 0 < got["accuracy"] < got["top5_accuracy"] < 1
    assert torch.equal(soft.confusion(), hard.confusion())


def test_metrics_of_shares_continue_from_their_state():
    outputs, shares = torch.tensor(OUTPUTS), torch.tensor(SHARES)
    whole, first, second = (classification(top5=True) for _ in range(3))
    for metrics in (whole, first):
        metrics.add(outputs[:10], shares[:10])
    second.load_state_dict(through_a_file(first.state_dict()))
    for metrics in (whole, second):
        metrics.add(outputs[10:], shares[10:])
    assert second.result() == whole.result()


def classification(loss=None, top5=False):
    return Metrics(loss or Loss("cross_entropy"), regression=False, top5=top5)


@pytest.mark.parametrize("size", [1, 16, 39, 40])
def test_a_batch_may_be_overwritten_after_it_was_added(size):
    outputs, targets = torch.tensor(OUTPUTS), torch.tensor(CLASSES)
    expected = add_in_chunks(classification(top5=True), outputs, targets, [size])
    buffer, target_buffer = torch.empty(size, 7, dtype=torch.float64), torch.empty(size, dtype=torch.int64)
    metrics = classification(top5=True)
    for o, t in zip(outputs.split(size), targets.split(size), strict=True):
        n = len(o)
        buffer[:n], target_buffer[:n] = o, t
        metrics.add(buffer[:n], target_buffer[:n])
        buffer.fill_(math.nan), target_buffer.fill_(0)
    assert metrics.result() == expected
    assert expected["accuracy"] == sk.accuracy_score(CLASSES, OUTPUTS.argmax(1))


def test_an_overwritten_batch_of_real_targets_counts_as_it_was():
    buffer, targets = torch.empty(8, 7), torch.empty(8, 7)
    metrics = Metrics(Loss("mse"), regression=True)
    for o, t in zip(torch.tensor(OUTPUTS).split(8), torch.tensor(REAL).split(8), strict=True):
        buffer.copy_(o), targets.copy_(t)
        metrics.add(buffer, targets)
        buffer.zero_(), targets.zero_()
    assert metrics.result()["loss"] == pytest.approx(((OUTPUTS - REAL) ** 2).sum(1).mean(), rel=1e-5)


def many(batches, size=3, last=None):
    """Batches of outputs and targets, more than wait together; the last one may be ragged."""
    generator = torch.Generator().manual_seed(1)
    sizes = [size] * batches + ([] if last is None else [last])
    return [
        (torch.randn(n, 4, generator=generator), torch.randint(0, 4, (n,), generator=generator)) for n in sizes
    ]


@pytest.mark.parametrize("look", [False, True], ids=["unseen", "looked at"])
def test_more_batches_than_wait_together(look):
    batches = many(2 * PENDING_BATCHES + 5, last=2)
    metrics = classification()
    for o, t in batches:
        metrics.add(o, t)
        if look:
            assert metrics.is_finite()
    outputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    got = metrics.result()
    assert metrics.samples == len(outputs) == 3 * (2 * PENDING_BATCHES + 5) + 2
    assert got["accuracy"] == (outputs.argmax(1) == targets).double().mean().item()
    exact = F.cross_entropy(outputs.double(), targets).item()
    assert got["loss"] == pytest.approx(exact, rel=1e-6)


def test_looking_changes_no_bit():
    looked, unseen = classification(), classification()
    for o, t in many(2 * PENDING_BATCHES + 5, last=2):
        for metrics in (looked, unseen):
            metrics.add(o, t)
        looked.is_finite(), looked.result()
    assert looked.result() == unseen.result()


@pytest.mark.parametrize("room", ["small", "large"])
def test_a_batch_larger_than_the_room(room, monkeypatch):
    monkeypatch.setattr("mlpcli.objective.PENDING_NUMBERS", 1 if room == "small" else PENDING_NUMBERS)
    monkeypatch.setattr("mlpcli.objective.PENDING_BATCHES", 2)
    outputs, targets = torch.tensor(OUTPUTS), torch.tensor(CLASSES)
    got = add_in_chunks(classification(), outputs, targets, [3, 2, 25, 3, 7])  # the room is for 3 or 6
    expected = add_in_chunks(classification(), outputs, targets, [40])
    assert got == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("stop", [0, 1, 63, 64, 65, 100, 133])  # 64 wait together; 133 is before the ragged one
def test_metrics_continue_from_any_batch_to_the_same_bits(stop):
    batches = many(2 * PENDING_BATCHES + 5, last=2)
    assert PENDING_BATCHES == 64 and stop <= len(batches) - 1
    whole, first, second = classification(), classification(), classification()
    second.add(*batches[7])  # a state replaces whatever was counted before
    for index, batch in enumerate(batches):
        whole.add(*batch)
        if index < stop:
            first.add(*batch)
    second.load_state_dict(through_a_file(first.state_dict()))
    for batch in batches[stop:]:
        second.add(*batch)
    assert second.result() == whole.result() and second.samples == whole.samples
    for name, total in whole.state_dict()["sums"].items():
        assert torch.equal(second.state_dict()["sums"][name], total), name


def test_metrics_continue_to_the_same_bits_in_the_epoch_after():
    batches = many(70, last=2)
    whole, first, second = classification(), classification(), classification()
    for metrics in (whole, first):
        for batch in batches:
            metrics.add(*batch)
        metrics.reset()
        assert metrics.samples == 0
        metrics.add(*batches[0])
    second.load_state_dict(through_a_file(first.state_dict()))
    for metrics in (whole, second):
        for batch in batches[1:]:
            metrics.add(*batch)
    assert second.result() == whole.result()


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 40, 69, 71])
def test_a_non_finite_output_is_noticed_while_it_waits_and_afterwards(value, place):
    metrics = classification()
    for index, (o, t) in enumerate(many(71, last=1)):
        if index == place:
            o[0, t[0]] = value
        metrics.add(o, t)
        assert metrics.is_finite() == (index < place)
    metrics.reset()
    assert metrics.is_finite()


def test_which_way_is_better():
    assert all(less_is_better(m) for m in ("loss", "error", "mse", "mae", "rmse"))
    assert not any(less_is_better(m) for m in ("accuracy", "top5_accuracy", "r2"))
