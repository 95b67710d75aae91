"""The training loop against a bare hand-written PyTorch loop, on 784-128-10, batch 64, SGD with momentum.

Both train on the same 60,000 in-memory samples (MNIST where MLPCLI_TEST_DATA holds it, else generated data of the
same shape), in turn, an epoch each, in one process. Prints seconds an epoch and the ratio, pair by pair.

    python bench/loop.py [PAIRS]
"""

import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from mlpcli import data
from mlpcli.config import config_from_plain
from mlpcli.data import Dataset
from mlpcli.experiment import build_trainer
from mlpcli.model import build_mlp
from mlpcli.network import build_network


def load() -> tuple[Dataset, dict[str, object]]:
    folder = os.environ.get("MLPCLI_TEST_DATA")
    if folder and (Path(folder) / "MNIST").is_dir():
        section: dict[str, object] = {"dataset": "mnist", "root": folder}
    else:
        section = {"dataset": "fake", "train_size": 60_000, "test_size": 10, "image_size": [1, 28, 28]}
    section |= {"validation": 0}
    config = config_from_plain({"data": section})
    return data.load(config.data, config.seed), section


def mlpcli_epochs(dataset: Dataset, section: dict[str, object], epochs: int) -> Iterator[float]:
    config = config_from_plain(
        {
            "data": section,
            "model": {"depth": 2, "width": 128},
            "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
            "training": {"epochs": epochs, "batch_size": 64, "device": "cpu"},
        }
    )
    network = build_network(config, dataset.preprocessing, dataset.target_scale, dataset.description)
    trainer = build_trainer(config, dataset, network)
    started = time.perf_counter()
    for record in trainer.run():
        if record is not None:
            yield time.perf_counter() - started
            started = time.perf_counter()


def bare_epochs(dataset: Dataset, epochs: int) -> Iterator[float]:
    inputs = dataset.preprocessing(dataset.train.inputs, torch.float32)  # standardised floats, made beforehand
    targets = dataset.train.targets
    model = build_mlp(inputs.shape[1], dataset.description.outputs, depth=2, width=128, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(epochs):
        started = time.perf_counter()
        order = torch.randperm(len(inputs))
        for i in range(0, len(inputs), 64):
            index = order[i : i + 64]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs[index]), targets[index])
            loss.backward()
            optimizer.step()
        yield time.perf_counter() - started


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    dataset, section = load()
    ours, bare = mlpcli_epochs(dataset, section, pairs + 1), bare_epochs(dataset, pairs + 1)
    times = [(next(ours), next(bare)) for _ in range(pairs + 1)][1:]  # the first pair warms up
    ratios = sorted(a / b for a, b in times)
    print(f"{dataset.description.name}, torch {torch.__version__}, {torch.get_num_threads()} threads, n = {pairs}")
    for name, values in (("mlpcli", [a for a, _ in times]), ("bare loop", [b for _, b in times])):
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:<10} min {low:.3f}  median {middle:.3f}  max {high:.3f} s/epoch")
    print(f"ratio      min {ratios[0]:.3f}  median {statistics.median(ratios):.3f}  max {ratios[-1]:.3f}")


if __name__ == "__main__":
    main()
