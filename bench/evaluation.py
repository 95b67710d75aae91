"""Evaluation against the matrix products of its forward pass, at the sizes M and L of the other benchmarks.

What `mlpcli eval` computes on a split of uint8 images (scaling, forward pass, loss, accuracy, confusion matrix),
and only the products by torch.mm into buffers, in the same chunks, in turn. Prints samples a second and the ratio.

    python bench/evaluation.py [PAIRS]
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from contestants import BATCH, WIDTHS, Task, generated_data, mlpcli_trainer

from mlpcli.batches import Batches
from mlpcli.evaluation import chunk_rows, evaluate
from mlpcli.objective import Metrics

SAMPLES = 10_000


def contestants(widths: list[int], batch: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Evaluation, and only its matrix products."""
    images, labels = generated_data(SAMPLES, widths[0])
    task = Task(images, np.empty((0, 0), np.float32), labels, widths, batch, "sgd", 1)
    trainer, model = mlpcli_trainer(task, threads=torch.get_num_threads())
    stored, targets = torch.from_numpy(images), torch.from_numpy(labels)
    batches = Batches(stored, targets, trainer.batches.prepare, chunk_rows(model), None)
    x = torch.randn(batches.batch_size, widths[0])
    weights = [layer.weight.detach().t() for layer in model if isinstance(layer, torch.nn.Linear)]
    outputs = [torch.empty(len(x), weight.shape[1]) for weight in weights]

    def evaluation() -> object:
        metrics = Metrics(trainer.loss, regression=False, top5=True, confusion=widths[-1])
        return evaluate(model, batches, metrics)

    def products() -> None:
        for start in range(0, SAMPLES, len(x)):
            n = min(len(x), SAMPLES - start)
            rows = x[:n]
            for weight, out in zip(weights, outputs, strict=True):
                rows = torch.mm(rows, weight, out=out[:n])

    return evaluation, products


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, n = {pairs}, samples/s")
    for size in ("M", "L"):
        functions = contestants(WIDTHS[size], BATCH[size])
        rates: list[list[float]] = []
        for _ in range(pairs + 1):
            rates.append([])
            for function in functions:
                started = time.perf_counter()
                function()
                rates[-1].append(SAMPLES / (time.perf_counter() - started))
        ratios = [a / b for a, b in rates[1:]]  # the first pair warms up
        ours, floor = (statistics.median(column) for column in zip(*rates[1:], strict=True))
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        print(
            f"{size}: evaluation {ours:,.0f}  products {floor:,.0f}  ratio {middle:.3f} ({low:.3f} to {high:.3f})"
        )


if __name__ == "__main__":
    main()
