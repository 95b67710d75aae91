"""How good a classifier's probabilities are: rates by class, curves, calibration, scores; by numpy alone, because
importing scikit-learn takes as long as a small training. The tests compare with it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 15
"""Of a calibration, of equal width (Guo et al. 2017)."""


def confusion(predicted: Ints, targets: Ints, classes: int) -> Ints:
    """(classes, classes) counts, true class by predicted class."""
    counts = np.bincount(targets * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


@dataclass(frozen=True)
class OfClass:
    """The rates of a class; NaN where there is nothing to divide by.

    Attributes:
        precision: NaN for a class that is never predicted.
        recall: NaN for a class without samples.
        f1: 2·hits/(samples + predictions).
        samples, predictions: of the class.
    """

    precision: float
    recall: float
    f1: float
    samples: int
    predictions: int


def by_class(counts: Ints) -> list[OfClass]:
    """The rates of each class, from a confusion matrix."""
    rows = []
    for index in range(len(counts)):
        hits, samples, predictions = (
            int(x) for x in (counts[index, index], counts[index].sum(), counts[:, index].sum())
        )
        rows.append(
            OfClass(
                hits / predictions if predictions else np.nan,
                hits / samples if samples else np.nan,
                2 * hits / (samples + predictions) if samples + predictions else np.nan,
                samples,
                predictions,
            )
        )
    return rows


@dataclass(frozen=True)
class Calibration:
    """Whether what has a probability of p happens in a share p of all cases.

    Attributes:
        edges: of the bins of confidence, the probability of the predicted class.
        counts: samples in each bin; a confidence at an edge belongs to the bin below it.
        confidence, accuracy: their means in each bin; NaN in an empty one.
        error: the expected calibration error Σ counts/n · |accuracy − confidence|.
        brier: the mean over the samples of Σ (probability − one-hot)² over the classes (Brier 1950), from 0 to 2.
        nll: the mean of −ln probability of the true class; infinite where one has probability 0.
    """

    edges: Floats
    counts: Ints
    confidence: Floats
    accuracy: Floats
    error: float
    brier: float
    nll: float


def calibration(probabilities: Floats, targets: Ints) -> Calibration:
    """Of (samples, classes) finite probabilities, at least one sample."""
    n = len(targets)
    predicted = probabilities.argmax(1)
    sure = probabilities[np.arange(n), predicted]
    right = (predicted == targets).astype(float)
    edges = np.linspace(0, 1, BINS + 1)
    which = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, BINS - 1)
    counts = np.bincount(which, minlength=BINS)
    sums = (np.bincount(which, values, minlength=BINS) for values in (sure, right))
    with np.errstate(invalid="ignore", divide="ignore"):
        confidence, accuracy = (total / counts for total in sums)
        of_target = probabilities[np.arange(n), targets]
        nll = float(-np.log(of_target).mean())
    filled = counts > 0
    error = float((counts[filled] / n * np.abs(accuracy - confidence)[filled]).sum())
    brier = float(((probabilities**2).sum(1) - 2 * of_target + 1).mean())
    return Calibration(edges, counts.astype(np.int64), confidence, accuracy, error, brier, nll)


@dataclass(frozen=True)
class Curve:
    """A curve of rates over the thresholds, and its area."""

    x: Floats
    y: Floats
    area: float


def roc(scores: Floats, positive: NDArray[np.bool_]) -> Curve | None:
    """True over false positive rate; None where all samples are of one class. The area is by trapezoids."""
    hits, misses = _cumulated(scores, positive)
    if not hits[-1] or not misses[-1]:
        return None
    x, y = (np.concatenate(([0.0], each / each[-1])) for each in (misses, hits))
    return Curve(x, y, float(np.trapezoid(y, x)))


def precision_recall(scores: Floats, positive: NDArray[np.bool_]) -> Curve | None:
    """Precision over recall; None without positives. The area is the average precision Σ ΔR·P, which does not
    interpolate between thresholds."""
    hits, misses = _cumulated(scores, positive)
    if not hits[-1]:
        return None
    precision, recall = hits / (hits + misses), hits / hits[-1]
    area = float((np.diff(recall, prepend=0.0) * precision).sum())
    return Curve(np.concatenate(([0.0], recall)), np.concatenate(([1.0], precision)), area)


def _cumulated(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Positives and negatives with at least each score, from the highest score on, equal scores together."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(positive[order])[ends].astype(float)
    return hits, ends + 1.0 - hits


def most_confident_mistakes(probabilities: Floats, targets: Ints, most: int) -> Ints:
    """The samples that are classified wrong with the highest probability, falling."""
    predicted = probabilities.argmax(1)
    wrong = np.flatnonzero(predicted != targets)
    order = np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")
    return wrong[order[:most]]


def most_confused(counts: Ints, most: int) -> list[tuple[int, int, int]]:
    """(true class, predicted class, samples) of the most frequent confusions, falling."""
    off = counts.copy()
    np.fill_diagonal(off, 0)
    flat = off.ravel()
    order = np.argsort(-flat, kind="stable")[:most]
    return [(int(i) // len(off), int(i) % len(off), int(flat[i])) for i in order if flat[i]]
