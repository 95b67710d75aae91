"""Predicting against the bare forward pass, and where the time of `mlpcli predict` goes.

First what `Predictor` makes of stored rows (scaling, one-hot categories, forward pass, probabilities) and only
`model(prepared)` of the same nn.Sequential in inference mode, on float32 rows that are in memory, in the same
batches, in turn: of a table with 20 numbers and 2 categories, and of images of 28x28. Then a CSV file of that
table to a CSV file of predictions. Prints samples a second; medians with the least and the most.

    python bench/predict.py [--rounds N] [--rows N] [--threads N]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mlpcli import experiment
from mlpcli.config import parse_config
from mlpcli.evaluation import chunk_rows
from mlpcli.network import Network, open_target
from mlpcli.predicting import Chunk, predict
from mlpcli.prediction_files import batches, write_file
from mlpcli.predictor import Predictor

NUMBERS = 20
CATEGORIES = {"color": ["red", "green", "blue"], "shape": ["disc", "cube", "cone", "ring", "rod", "star"]}
TRAINED = 2000
"""Rows that a model is trained on: enough to have a model."""

TABLE = """
name: table
data: {dataset: csv, path: train.csv, target: kind}
model: {depth: 4, width: 128}
training: {epochs: 1, device: cpu, threads: THREADS}
"""
IMAGES = """
name: images
data: {dataset: fake, train_size: 2000, test_size: 100, image_size: [1, 28, 28]}
model: {width: [256, 128]}
training: {epochs: 1, device: cpu, threads: THREADS}
"""


def trained(config: str, threads: int) -> Path:
    """The run of a short training."""
    training = experiment.start(parse_config(config.replace("THREADS", str(threads)), "bench"), None)
    for _ in training.fit():
        pass
    training.run.close()
    return training.run.path


def write_csv(path: Path, rows: int) -> None:
    """The table; blocks of the same `TRAINED` rows."""
    rng = np.random.default_rng(0)
    lines = []
    for numbers in rng.normal(size=(TRAINED, NUMBERS)):
        fields = [*(f"{number:.6f}" for number in numbers), *(rng.choice(each) for each in CATEGORIES.values())]
        lines.append(",".join([*fields, "big" if numbers[:3].sum() > 0 else "small"]) + "\n")
    with path.open("w") as file:
        file.write(",".join([*(f"x{index}" for index in range(NUMBERS)), *CATEGORIES, "kind"]) + "\n")
        for start in range(0, rows, TRAINED):
            file.writelines(lines[: rows - start])


def table_rows(rows: int) -> Tensor:
    """As a table is stored: numbers, then codes of categories."""
    rng = np.random.default_rng(1)
    codes = [rng.integers(len(each), size=(rows, 1)) for each in CATEGORIES.values()]
    return torch.from_numpy(np.concatenate([rng.normal(size=(rows, NUMBERS)), *codes], 1))


def bare(network: Network, stored: Tensor) -> Callable[[], None]:
    """The forward pass alone, of rows that are prepared here."""
    size = chunk_rows(network.model)
    prepared = torch.cat([network.preprocessing(rows, torch.float32) for rows in stored.split(size)])

    def run() -> None:
        with torch.inference_mode():
            for rows in prepared.split(size):
                network.model(rows)

    return run


def in_turn(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, the first round left out."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return {name: each[1:] for name, each in seconds.items()}


def spread(values: list[float]) -> str:
    """Median, least and most."""
    digits = ".3f" if max(values) < 10 else ",.0f"
    return f"{statistics.median(values):{digits}} ({min(values):{digits}} to {max(values):{digits}})"


def against_forward(name: str, run: Path, stored: Tensor, rounds: int) -> None:
    """Prints both rates and their ratio."""
    _, network, _ = open_target(run, "last")
    predictor = Predictor(network)
    seconds = in_turn({"predict": lambda: predictor(stored), "forward": bare(network, stored)}, rounds)
    rates = {key: [len(stored) / each for each in values] for key, values in seconds.items()}
    ratios = [ours / floor for ours, floor in zip(rates["predict"], rates["forward"], strict=True)]
    print(
        f"{name}: predict {spread(rates['predict'])}, forward {spread(rates['forward'])}, ratio {spread(ratios)}"
    )


def end_to_end(run: Path, rows: int, rounds: int) -> None:
    """Prints the rate from file to file, and the share of each part of the time."""
    config, network, _ = open_target(run, "last")
    write_csv(Path("rows.csv"), rows)
    spent: list[dict[str, float]] = []

    def timed(iterator: Iterator[object], part: str) -> Iterator[object]:
        while True:
            started = time.perf_counter()
            each = next(iterator, None)
            spent[-1][part] += time.perf_counter() - started
            if each is None:
                return
            yield each

    answer = Predictor.__call__

    def answering(self: Predictor, stored: Tensor) -> Tensor:
        started = time.perf_counter()
        answers = answer(self, stored)
        spent[-1]["answer"] += time.perf_counter() - started
        return answers

    Predictor.__call__ = answering  # type: ignore[method-assign]  # to time it
    totals = []
    for _ in range(rounds):
        spent.append({"read and answer": 0.0, "answer": 0.0})
        started = time.perf_counter()
        chunks: Iterator[Chunk] = timed(  # type: ignore[assignment]  # it passes chunks on
            predict(network, config, ["rows.csv"], skip=False), "read and answer"
        )
        write_file(batches(chunks, network.description, 1), Path("answers.csv"))
        totals.append(time.perf_counter() - started)
    print(f"CSV to CSV: {spread([rows / each for each in totals])} rows/s")
    reading = [each["read and answer"] - each["answer"] for each in spent]
    writing = [total - each["read and answer"] for total, each in zip(totals, spent, strict=True)]
    for name, part in (("read", reading), ("answer", [each["answer"] for each in spent]), ("write", writing)):
        print(f"    {name}: {spread([a / b for a, b in zip(part, totals, strict=True)])} of the time")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print(f"torch {torch.__version__}, {given.threads} threads, n = {given.rounds}, samples/s")
        write_csv(Path("train.csv"), TRAINED)
        table, images = trained(TABLE, given.threads), trained(IMAGES, given.threads)
        against_forward("table", table, table_rows(given.rows), given.rounds)
        pixels = torch.randint(256, (60_000, 784), dtype=torch.uint8)
        against_forward("images", images, pixels, given.rounds)
        end_to_end(table, given.rows, given.rounds)


if __name__ == "__main__":
    main()
