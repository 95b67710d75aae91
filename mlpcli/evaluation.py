"""A model on a split -> numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlpcli.batches import Batches
from mlpcli.model import Inference
from mlpcli.objective import Metrics

CHUNK_NUMBERS = 2**19
"""Numbers of the widest layer that are in memory at once: what the CPU's cache holds. A constant: the same chunks
give the same sums, so evaluating a checkpoint again gives the numbers that training wrote, to the last digit."""


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


def chunk_rows(model: nn.Sequential) -> int:
    """Samples that are measured at once."""
    widest = max(max(m.in_features, m.out_features) for m in model if isinstance(m, nn.Linear))
    return max(1, CHUNK_NUMBERS // widest)


@torch.no_grad()
def evaluate(
    model: nn.Sequential,
    batches: Batches,
    metrics: Metrics,
    *,
    bfloat16: bool = False,
) -> Evaluation:
    """Measure the model in evaluation mode (dropout off, running statistics); its mode is restored.

    Args:
        model: maps prepared inputs (n, features) to outputs (n, k).
        batches: of at least one sample, in stored order.
        metrics: fresh sums to add to.
        bfloat16: whether the forward pass runs in bfloat16.
    """
    was_training = model.training
    model.eval()
    outputs_of = Inference(model, batches.batch_size, bfloat16)
    for inputs, targets in batches.epoch(0):
        metrics.add(outputs_of(inputs), targets)
    model.train(was_training)
    return Evaluation(len(batches), metrics.result(), metrics.confusion())
