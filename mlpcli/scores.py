"""Scores of a classifier that need every sample's probabilities, or that weigh classes alike. By scikit-learn."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def scores(probabilities: Array, targets: Array) -> dict[str, float]:
    """What `eval` adds to a classifier's metrics.

    balanced_accuracy: the mean over the classes of their recall (Brodersen et al. 2010). macro_f1: the mean of
    their F1. roc_auc, average_precision: of the second of two classes; of more, the mean over the classes, each
    against the rest. Classes without samples are left out. Where all samples are of one class the last two are
    absent, and where a probability is not finite all are.

    Args:
        probabilities: (samples, classes).
        targets: int64 (samples,) class indices.
    """
    from sklearn import metrics  # takes 0.7 s

    if not np.isfinite(probabilities).all():
        return {}
    predicted = probabilities.argmax(1)
    present = np.unique(targets)
    recall = metrics.recall_score(targets, predicted, labels=present, average=None, zero_division=0)
    f1 = metrics.f1_score(targets, predicted, labels=present, average=None, zero_division=0)
    found = {"balanced_accuracy": float(np.mean(recall)), "macro_f1": float(np.mean(f1))}
    if len(present) > 1:
        positives = present if probabilities.shape[1] > 2 else [1]
        curves = [(targets == index, probabilities[:, index]) for index in positives]
        found["roc_auc"] = float(np.mean([metrics.roc_auc_score(*curve) for curve in curves]))
        found["average_precision"] = float(np.mean([metrics.average_precision_score(*each) for each in curves]))
    return found
