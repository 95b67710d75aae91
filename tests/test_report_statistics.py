"""What the report computes, against scipy and scikit-learn, and the rules of its sentences."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import calibration as sk_calibration
from sklearn import metrics

from mlpcli.report import classifying
from mlpcli.report.statistics import mean, share, student
from mlpcli.report.verdict import verdicts

RNG = np.random.default_rng(0)


def answers(samples: int, classes: int, ties: bool = False) -> tuple[classifying.Floats, classifying.Ints]:
    """Probabilities that are often right, and what is."""
    targets = RNG.integers(0, classes, samples)
    scores = RNG.normal(size=(samples, classes)) + 1.5 * np.eye(classes)[targets]
    if ties:
        scores = scores.round()
    probabilities = np.exp(scores)
    return probabilities / probabilities.sum(1, keepdims=True), targets.astype(np.int64)


# --- intervals ----------------------------------------------------------------------------------------------


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_share_is_that_of_scipy(counts: tuple[int, int]) -> None:
    found = share(*counts)
    expected = stats.binomtest(*counts).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize("samples", [2, 3, 9, 10, 11, 40, 10_000])
def test_the_interval_of_a_mean_is_that_of_scipy(samples: int) -> None:
    values = RNG.gamma(2.0, size=samples)
    found = mean(values)
    error = values.std(ddof=1) / math.sqrt(samples)
    expected = stats.t.interval(0.95, samples - 1, loc=values.mean(), scale=error)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-5)


def test_quantiles_of_student_are_those_of_scipy() -> None:
    for degrees in range(1, 300):
        assert student(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=5e-6)


# --- classifiers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 5, 60])
def test_rates_by_class_are_those_of_scikit_learn(classes: int) -> None:
    probabilities, targets = answers(300, classes)
    predicted = probabilities.argmax(1)
    counts = classifying.confusion(predicted, targets, classes)
    labels = range(classes)
    assert counts.tolist() == metrics.confusion_matrix(targets, predicted, labels=labels).tolist()
    expected = metrics.precision_recall_fscore_support(targets, predicted, labels=labels, zero_division=np.nan)
    found = classifying.by_class(counts)
    for values, theirs in zip(
        zip(*((of.precision, of.recall, of.f1, of.samples) for of in found), strict=True), expected, strict=True
    ):
        np.testing.assert_allclose(values, theirs)


@pytest.mark.parametrize("ties", [False, True])
def test_curves_of_two_classes_are_those_of_scikit_learn(ties: bool) -> None:
    probabilities, targets = answers(400, 2, ties)
    scores = probabilities[:, 1].round(1) if ties else probabilities[:, 1]
    roc = classifying.roc(scores, targets == 1)
    both = classifying.precision_recall(scores, targets == 1)
    assert roc is not None and both is not None
    assert roc.area == pytest.approx(metrics.roc_auc_score(targets, scores))
    assert both.area == pytest.approx(metrics.average_precision_score(targets, scores))
    x, y, _ = metrics.roc_curve(targets, scores, drop_intermediate=False)
    np.testing.assert_allclose((roc.x, roc.y), (x, y))
    precision, recall, _ = metrics.precision_recall_curve(targets, scores)
    np.testing.assert_allclose((both.x, both.y), (recall[::-1], precision[::-1]))


def test_one_class_has_no_curve() -> None:
    scores = np.array([0.1, 0.7])
    assert classifying.roc(scores, np.array([True, True])) is None
    assert classifying.precision_recall(scores, np.array([False, False])) is None


def test_calibration_is_what_its_definition_says() -> None:
    probabilities, targets = answers(2000, 4)
    found = classifying.calibration(probabilities, targets)
    sure, right = probabilities.max(1), probabilities.argmax(1) == targets
    error = 0.0
    for low, high in zip(found.edges, found.edges[1:], strict=False):
        inside = (sure > low) & (sure <= high)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert found.error == pytest.approx(error)
    assert found.counts.sum() == 2000
    assert found.nll == pytest.approx(metrics.log_loss(targets, probabilities, labels=range(4)))
    assert found.brier == pytest.approx(((probabilities - np.eye(4)[targets]) ** 2).sum(1).mean())
    theirs, confidence = sk_calibration.calibration_curve(right, sure, n_bins=classifying.BINS)
    filled = found.counts > 0
    np.testing.assert_allclose(found.accuracy[filled], theirs)
    np.testing.assert_allclose(found.confidence[filled], confidence)


def test_a_sure_classifier_is_in_the_last_bin() -> None:
    found = classifying.calibration(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    assert found.counts.tolist() == [0] * 14 + [2]
    assert (found.error, found.brier, found.nll) == (0.5, 1.0, math.inf)


def test_mistakes_come_by_their_confidence_and_confusions_by_their_number() -> None:
    probabilities = np.array([[0.9, 0.1, 0], [0.6, 0.4, 0], [0.2, 0.3, 0.5], [0.05, 0.95, 0]])
    targets = np.array([1, 1, 2, 0])
    assert classifying.most_confident_mistakes(probabilities, targets, 2).tolist() == [3, 0]
    counts = classifying.confusion(probabilities.argmax(1), targets, 3)
    assert classifying.most_confused(counts, 5) == [(1, 0, 2), (0, 1, 1)]


# --- what the curves say ------------------------------------------------------------------------------------


def rules(train: Sequence[float], validation: Sequence[float], **more: bool) -> list[str]:
    epochs = range(1, len(train) + 1)
    found = verdicts(epochs, train, validation, validation, "validation.loss", **more)
    assert all(each.text and each.because for each in found)
    return [each.rule for each in found]


def test_each_rule_of_the_curves() -> None:
    falling = [1 / epoch for epoch in range(1, 21)]
    flat = [0.5 + 0.5 / epoch**3 for epoch in range(1, 21)]
    late = [*flat[:10], *(0.5 + 0.02 * epoch for epoch in range(10))]
    assert rules(falling, falling) == ["improving"]
    assert rules(falling, falling, stopped_early=True) == ["levelled"]
    assert rules(falling, flat) == ["levelled"]
    assert rules(falling, late) == ["overfitting"]
    assert rules(late, late) == ["levelled"]  # the training loss did not fall
    assert rules([*falling, 1.0], [*flat, 0.5]) == ["unstable"]
    assert rules([*falling, math.nan], [*flat, 0.5]) == ["diverged"]
    assert rules(falling, flat, diverged=True) == ["diverged"]
    assert rules(falling[:4], falling[:4]) == ["short"]
    assert rules(falling, [math.nan] * 20) == ["levelled"]
    assert rules([math.nan] * 20, [math.nan] * 20) == ["levelled"]


def test_a_validation_loss_that_rose_with_that_of_training_is_not_called_level() -> None:
    rising = [1.0, 0.5, 0.55, 0.6, 0.65, 0.7]
    (found,) = verdicts(range(1, 7), rising, rising, rising, "validation.loss")
    assert found.rule == "levelled"
    assert "has not risen" not in found.text and "0.5 at its lowest and is 0.7 at the end" in found.text


def test_an_accuracy_improves_upwards() -> None:
    accuracy = [0.02 * epoch for epoch in range(1, 21)]
    (found,) = verdicts(range(1, 21), accuracy[::-1], accuracy[::-1], accuracy, "validation.accuracy")
    assert found.rule == "improving"


def test_overfitting_names_the_epoch_of_the_lowest_validation_loss() -> None:
    validation = [1.0, 0.6, 0.4, 0.5, 0.6, 0.7]
    (found,) = verdicts(range(1, 7), [1 / k for k in range(1, 7)], validation, validation, "validation.loss")
    assert "since epoch 3" in found.text


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=40))
def test_any_curve_has_a_verdict(pairs: list[tuple[float, float]]) -> None:
    train, validation = ([pair[i] for pair in pairs] for i in (0, 1))
    assert rules(train, validation)
