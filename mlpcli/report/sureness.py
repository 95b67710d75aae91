"""The 95 % intervals of the test metrics, from the answers sample by sample."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlpcli.report.answers import Answers
from mlpcli.report.statistics import Interval, mean, share, student

Floats = NDArray[np.float64]

NOT_NEGATIVE = {"loss", "mse", "mae"}
"""Metrics whose interval ends at 0."""
AGREES = 1e-4
"""How much, relatively, the mean of the samples' losses may differ from the loss that was measured."""


def intervals(answers: Answers, metrics: dict[str, float]) -> dict[str, Interval]:
    """An interval around each metric whose distribution over the samples is known.

    accuracy, error, top5_accuracy: Wilson's. loss, mse, mae: Student's, of the mean over the samples. rmse: the
    roots of that of mse. r2: Student's, of its linearisation in the sums that it is a ratio of (the delta method).
    None for a loss that probabilities do not determine.
    """
    n = len(answers.targets)
    found: dict[str, Interval] = {}
    if not n or not np.isfinite(answers.outputs).all():
        return found
    if answers.classifies:
        right = int((answers.predicted == answers.targets).sum())
        found["accuracy"], found["error"] = share(right, n), share(n - right, n)
        if "top5_accuracy" in metrics:
            found["top5_accuracy"] = share(round(metrics["top5_accuracy"] * n), n)
        losses = _cross_entropies(answers)
    else:
        difference = answers.outputs - answers.targets
        squares = mean((difference**2).sum(1))
        found["mse"], found["mae"] = squares, mean(np.abs(difference).sum(1))
        roots = (float(np.sqrt(max(each, 0.0))) for each in (squares.value, squares.low, squares.high))
        found["rmse"] = Interval(*roots)
        r2 = _r2(difference, answers.targets.astype(np.float64))
        if r2 is not None:
            found["r2"] = r2
        losses = _losses(answers)
    if losses is not None and np.isfinite(losses).all():
        found["loss"] = mean(losses)
    for name in NOT_NEGATIVE & found.keys():
        found[name] = replace(found[name], low=max(found[name].low, 0.0))
    # where the summary has other numbers, it was measured on other data
    return {
        name: found[name]
        for name, value in metrics.items()
        if name in found and abs(found[name].value - value) <= AGREES * max(abs(value), 1e-3)
    }


def _r2(difference: Floats, targets: Floats) -> Interval | None:
    n = len(targets)
    squares, deviation = difference**2, (targets - targets.mean(0)) ** 2
    if n < 2 or not deviation.sum(0).all():
        return None
    ratio = squares.sum(0) / deviation.sum(0)
    influence = ((squares - ratio * deviation) / deviation.mean(0)).mean(1)
    value = float((1 - ratio).mean())
    half = student(n - 1) * float(influence.std(ddof=1)) / float(np.sqrt(n))
    return Interval(value, value - half, value + half)


def _cross_entropies(answers: Answers) -> Floats | None:
    """Of each sample, as the training has it; None where the loss is another."""
    loss = answers.network.loss
    if loss.name != "cross_entropy":
        return None
    classes = answers.outputs.shape[1]
    with np.errstate(divide="ignore"):
        logs: Floats = -np.log(answers.outputs)
    weights = np.ones(classes) if loss.class_weights is None else loss.class_weights.cpu().double().numpy()
    of_target: Floats = logs[np.arange(len(logs)), answers.targets] * weights[answers.targets]
    if not loss.label_smoothing:
        return of_target
    found: Floats = (1 - loss.label_smoothing) * of_target + loss.label_smoothing / classes * (logs @ weights)
    return found


def _losses(answers: Answers) -> Floats | None:
    """Of each sample of a regression, in standardised units as the training has it."""
    network = answers.network
    if network.target_scale is None:
        return None
    difference = (answers.outputs - answers.targets) / network.target_scale.std.numpy()
    size: Floats = np.abs(difference)
    delta = network.loss.delta
    of_coordinate: dict[str, Floats] = {
        "mse": size**2,
        "mae": size,
        "huber": np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)),
    }
    found: Floats = of_coordinate[network.loss.name].sum(1)
    return found
