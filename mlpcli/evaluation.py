"""A model on a split -> numbers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlpcli.model import forward
from mlpcli.objective import Loss, Metrics

CHUNK_NUMBERS = 2**22
"""Numbers of the widest layer that are in memory at once. A constant: the same chunks give the same sums, so
evaluating a checkpoint again gives the numbers that training wrote, to the last digit."""


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a split.

    Attributes:
        samples: how many.
        metrics: by name.
        confusion: (classes, classes) counts, true class by predicted class; None in regression.
    """

    samples: int
    metrics: dict[str, float]
    confusion: Tensor | None = None

    def per_class(self) -> list[dict[str, float | None]]:
        """Precision, recall and number of samples of each class.

        Precision is None for a class that is never predicted, recall for a class without samples.
        """
        if self.confusion is None:
            return []
        rows: list[dict[str, float | None]] = []
        for index, row in enumerate(self.confusion):
            correct, samples = int(row[index]), int(row.sum())
            predicted = int(self.confusion[:, index].sum())
            rows.append(
                {
                    "precision": correct / predicted if predicted else None,
                    "recall": correct / samples if samples else None,
                    "samples": samples,
                }
            )
        return rows


@torch.no_grad()
def evaluate(
    model: nn.Sequential,
    loss: Loss,
    inputs: Tensor,
    targets: Tensor,
    prepare: Callable[[Tensor], Tensor],
    metrics: Metrics,
    *,
    confusion: bool = False,
    bfloat16: bool = False,
) -> Evaluation:
    """Measure the model in evaluation mode (dropout off, running statistics); its mode is restored.

    Args:
        model: maps prepared inputs (n, features) to outputs (n, k).
        loss: (outputs, targets) -> mean.
        inputs: (n, features) as stored, at least one.
        targets: (n,) class indices, or (n, k) standardised real numbers.
        prepare: maps a block of stored inputs to what the model sees.
        metrics: fresh sums to add to.
        confusion: whether to count predicted classes by true class.
        bfloat16: whether the forward pass runs in bfloat16.
    """
    widest = max([inputs.shape[1], *(m.out_features for m in model if isinstance(m, nn.Linear))])
    rows = max(1, CHUNK_NUMBERS // widest)
    counts: Tensor | None = None
    was_training = model.training
    model.eval()
    for chunk, expected in zip(inputs.split(rows), targets.split(rows), strict=True):
        outputs = forward(model, prepare(chunk), bfloat16)
        metrics.add(outputs, expected, loss(outputs, expected))
        if confusion and not metrics.regression:
            classes = outputs.shape[1]
            pairs = torch.bincount(expected * classes + outputs.argmax(1), minlength=classes * classes)
            counts = pairs if counts is None else counts + pairs
    model.train(was_training)
    square = None if counts is None else counts.view(outputs.shape[1], outputs.shape[1]).cpu()
    return Evaluation(len(inputs), metrics.result(), square)
