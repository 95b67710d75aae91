import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mlpcli.objective import Metrics, less_is_better, make_loss

RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(40, 7)) * 3
CLASSES = RNG.integers(0, 7, size=40)
REAL = RNG.normal(size=(40, 7))
ONE_HOT = np.eye(7)[CLASSES]


def log_softmax(z):
    return z - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)) - z.max(1, keepdims=True)


def huber(d, delta):
    return np.where(np.abs(d) <= delta, d * d / 2, delta * (np.abs(d) - delta / 2))


def loss_of(name, targets, **options):
    loss = make_loss(name, **options)(torch.tensor(OUTPUTS), torch.tensor(targets))
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
    assert torch.autograd.gradcheck(lambda z: make_loss(name)(z, torch.tensor(CLASSES[:6])), outputs)


def test_unknown_loss():
    with pytest.raises(ValueError, match="no loss is called"):
        make_loss("accuracy")


def add_in_chunks(metrics, outputs, targets, sizes, loss):
    start = 0
    while start < len(outputs):
        for size in sizes:
            o, t = outputs[start : start + size], targets[start : start + size]
            if len(o):
                metrics.add(o, t, loss(o, t))
            start += size
    return metrics.result()


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_classification_metrics_in_any_chunks(sizes):
    outputs, targets = torch.tensor(OUTPUTS), torch.tensor(CLASSES)
    loss = make_loss("cross_entropy")
    got = add_in_chunks(Metrics(regression=False, top5=True), outputs, targets, sizes, loss)
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
        regression=True,
        scale=torch.tensor(std),
        deviation=(targets - targets.mean(0)).square().sum(0),
    )
    got = add_in_chunks(metrics, torch.tensor(OUTPUTS), targets, sizes, make_loss("mse"))
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
    metrics = Metrics(regression=True, scale=torch.ones(1).double(), deviation=torch.zeros(1, dtype=torch.float64))
    metrics.add(outputs, targets, torch.tensor(0.0))
    assert metrics.result()["r2"] == sk.r2_score(targets, outputs)


def test_metrics_continue_from_their_state():
    outputs, targets = torch.tensor(OUTPUTS), torch.tensor(CLASSES)
    loss = make_loss("cross_entropy")
    whole, first, second = (Metrics(regression=False) for _ in range(3))
    for metrics in (whole, first):
        metrics.add(outputs[:10], targets[:10], loss(outputs[:10], targets[:10]))
    second.load_state_dict(first.state_dict())
    for metrics in (whole, second):
        metrics.add(outputs[10:], targets[10:], loss(outputs[10:], targets[10:]))
    assert second.result() == whole.result()


def test_which_way_is_better():
    assert all(less_is_better(m) for m in ("loss", "error", "mse", "mae", "rmse"))
    assert not any(less_is_better(m) for m in ("accuracy", "top5_accuracy", "r2"))
