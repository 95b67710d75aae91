"""How a training gets faster with processes: measured on one and two here, and a model of a step for more of them.

Everything is measured in turn, ROUNDS times; printed are the median, the least and the most. The training is MNIST
on 784-512-512-10 with batches of 256, where MLPCLI_TEST_DATA says where its files are.

    python bench/parallel.py [--rounds N] [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WIDTHS = (784, 512, 512, 10)
BATCH = 256
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


# --- measuring ------------------------------------------------------------------------------------------


def spread(values: Sequence[float], unit: str, digits: int = 2) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} {unit} ({low:,.{digits}f} to {high:,.{digits}f})"


def program(processes: int) -> list[str]:
    bins = Path(sys.executable)
    if processes == 1:
        return [str(bins.with_name("mlpcli"))]
    return [str(bins.with_name("torchrun")), "--nproc-per-node", str(processes), "-m", "mlpcli"]


def trained(processes: int, folder: str, arguments: Sequence[str]) -> tuple[float, float]:
    """Samples per second of the training passes, and seconds of the whole command."""
    command = [*program(processes), "train", "mnist", "-q", "--json", "report=false", *arguments]
    environment = {**os.environ, "MLPCLI_CACHE": str(Path(folder, "cache")), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
    return json.loads(done.stdout)["samples_per_second"], time.perf_counter() - began


def trainings(root: str, rounds: int) -> dict[str, Any]:
    """Strong and weak scaling, and what a start costs."""
    shared = [
        f"data.root={root}",
        "data.download=false",
        "model={depth: 3, width: 512}",
        "optimizer={name: sgd, lr: 0.05, momentum: 0.9}",
        "scheduler=constant",
        "training.diagnostics=false",
    ]
    long = [*shared, "training.epochs=2", f"training.batch_size={BATCH}"]
    contest: dict[str, tuple[int, list[str]]] = {
        "1 process, 1 thread": (1, [*long, "training.threads=1"]),
        "1 process, 2 threads": (1, [*long, "training.threads=2"]),
        "2 processes, 1 thread each": (2, [*long, "training.threads=1"]),
        "2 processes, batches of 512": (2, [*long, "training.threads=1", f"training.batch_size={2 * BATCH}"]),
    }
    short = [*shared, "training.epochs=1", "data.limit=256", "training.threads=1"]
    rates: dict[str, list[float]] = {name: [] for name in contest}
    starts: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        trained(1, folder, short)  # fills the cache
        for turn in range(rounds):
            for name in list(contest)[:: 1 if turn % 2 else -1]:
                rates[name].append(trained(contest[name][0], folder, contest[name][1])[0])
            for processes in (1, 2) if turn % 2 else (2, 1):
                starts[processes].append(trained(processes, folder, short)[1])
    for name, values in rates.items():
        print(f"{name:28} {spread(values, 'samples/s', 0)}")
    two = rates["2 processes, 1 thread each"]
    for name in ("1 process, 1 thread", "1 process, 2 threads"):
        ratios = [a / b for a, b in zip(two, rates[name], strict=True)]
        print(f"2 processes over {name}: {spread(ratios, 'times')}")
    weak = rates["2 processes, batches of 512"]
    ratios = [a / b for a, b in zip(weak, rates["1 process, 1 thread"], strict=True)]
    print(f"weak scaling, 2 processes with batches of 512: {spread(ratios, 'times')}")
    more = [b - a for a, b in zip(starts[1], starts[2], strict=True)]
    print(
        f"a start: {spread(starts[1], 's')} alone, {spread(starts[2], 's')} of two processes: "
        f"{spread(more, 's')} more"
    )
    return {"samples_per_second": rates, "start_seconds": {str(key): value for key, value in starts.items()}}


def sums(rounds: int) -> dict[str, list[tuple[int, float]]]:
    """(bytes, seconds) of a sum over two processes, through shared memory and by gloo."""
    command = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2", __file__, "--sums"]
    found: dict[str, list[tuple[int, float]]] = {"shared": [], "gloo": []}
    for _ in range(rounds):
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        for name, measured in json.loads(done.stdout).items():
            found[name] += [(size, seconds) for size, seconds in measured]
    return found


def sums_here() -> None:
    """What one of those processes does."""
    import torch

    from mlpcli.ranks import join
    from mlpcli.sums import GroupSums

    torch.set_num_threads(1)
    ranks = join()
    ranks.settle(60)
    measured: dict[str, list[tuple[int, float]]] = {"shared": [], "gloo": []}
    for numbers in (16, 4096, 65_536, 262_144, 669_706, 2_000_000):
        shared = ranks.sums(torch.empty(numbers))
        for name, each in (
            ("shared", shared),
            ("gloo", GroupSums(shared.flat.clone(), ranks.group, ranks.answers)),
        ):
            measured[name].append((4 * numbers, seconds_of(lambda each=each, n=numbers: each.begin(0, n)())))
    if ranks.first:
        print(json.dumps(measured))
    ranks.leave()


def seconds_of(step: Callable[[], object], times: int = 60) -> float:
    """The median of several calls, after some to warm up."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[times // 6 :])


def steps(rounds: int) -> list[tuple[int, int, float]]:
    """(samples, parameters, seconds) of steps of a single thread, for several batches and widths."""
    import torch

    from mlpcli.explicit import Explicit
    from mlpcli.model import build_mlp
    from mlpcli.objective import Loss

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    measured = []
    for _ in range(rounds):
        for width in (256, 512, 1024):
            for samples in (16, 64, 128, 256, 512):
                model = build_mlp(784, 10, depth=3, width=width, seed=0)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
                engine = Explicit(model, Loss("cross_entropy"), optimizer, samples)
                inputs, targets = torch.randn(samples, 784), torch.randint(10, (samples,))
                parameters = sum(p.numel() for p in model.parameters())
                seconds = seconds_of(lambda e=engine, x=inputs, y=targets: e.step(x, y, 0.01), 24)
                measured.append((samples, parameters, seconds))
    return measured


# --- the model ------------------------------------------------------------------------------------------


def fitted(rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> np.ndarray:
    """Non-negative coefficients with the least relative squared error."""
    from scipy.optimize import nnls

    weights = 1 / np.asarray(seconds)
    return np.asarray(nnls(np.asarray(rows) * weights[:, None], np.ones(len(rows)))[0])


def parameters_of(width: float) -> float:
    return 784 * width + width + width * width + width + 10 * width + 10


class Model:
    """Seconds of a step: c₀ + c₁ samples·parameters + c₂ parameters (the update, and reading θ) on each rank, and
    for the sum over P of them 2(P − 1)α + 2(P − 1)/P β bytes, that of a ring."""

    def __init__(self, step: Sequence[tuple[int, int, float]], gloo: Sequence[tuple[int, float]]) -> None:
        self.step = fitted([(1, n * p, p) for n, p, _ in step], [seconds for *_, seconds in step])
        # of two ranks: 2α + β bytes
        self.alpha, self.beta = fitted([(2, size) for size, _ in gloo], [seconds for _, seconds in gloo])
        self.error = statistics.median(abs(self.alone(n, p) / s - 1) for n, p, s in step)

    def alone(self, samples: float, parameters: float) -> float:
        return float(self.step @ (1, samples * parameters, parameters))

    def seconds(self, ranks: int, batch: float, parameters: float) -> float:
        ring = 2 * (ranks - 1) * self.alpha + 2 * (ranks - 1) / ranks * self.beta * 4 * parameters
        return self.alone(batch / ranks, parameters) + ring

    def width_that_pays(self, ranks: int, batch: float) -> int | None:
        """The least width from which twice the ranks take less time."""
        for width in (2**k for k in range(4, 17)):
            p = parameters_of(width)
            if self.seconds(2 * ranks, batch, p) < self.seconds(ranks, batch, p):
                return width
        return None


def report(model: Model, shared: Sequence[tuple[int, float]]) -> dict[str, Any]:
    c0, c1, c2 = model.step
    print(
        f"a step: {c0 * 1e6:.0f} µs + {c1 * 1e12:.1f} ps a sample and parameter ({6 / c1 / 1e9:.0f} Gflop/s) + "
        f"{c2 * 1e9:.2f} ns a parameter; median error {100 * model.error:.0f} %"
    )
    print(
        f"gloo: α = {model.alpha * 1e6:.0f} µs, "
        f"β = {model.beta * 1e9:.2f} ns a byte ({1 / model.beta / 1e9:.2f} GB/s)"
    )
    a, b = fitted([(2, size) for size, _ in shared], [seconds for _, seconds in shared])
    print(f"shared memory: α = {a * 1e6:.1f} µs, β = {b * 1e9:.3f} ns a byte ({1 / b / 1e9:.1f} GB/s)")
    parameters = parameters_of(512)
    predicted = 1 / (model.alone(BATCH / 2, parameters) + 2 * a + b * 4 * parameters) * BATCH
    print(f"the model says for two processes with shared memory: {predicted:,.0f} samples/s")
    print(
        "ranks   strong: batch 256   batch 16,384   weak: 256 each   width from which twice the ranks pay (16,384)"
    )
    table = []
    for ranks in RANKS:
        strong = [model.seconds(1, n, parameters) / model.seconds(ranks, n, parameters) for n in (256, 16_384)]
        weak = ranks * model.seconds(1, 256, parameters) / model.seconds(ranks, 256 * ranks, parameters)
        pays = model.width_that_pays(ranks, 16_384)
        table.append((ranks, *strong, weak, pays))
        print(
            f"{ranks:5}   {strong[0]:17.2f}x {strong[1]:13.2f}x {weak:15.2f}x   {'none' if pays is None else pays}"
        )
    return {"step": list(model.step), "alpha": model.alpha, "beta": model.beta, "shared": [a, b], "table": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sums", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sums:
        sums_here()
        return
    print(f"n = {options.rounds}, {os.cpu_count()} cores")
    results: dict[str, Any] = {}
    root = os.environ.get("MLPCLI_TEST_DATA")
    if root:
        results["trainings"] = trainings(os.path.abspath(root), options.rounds)
    measured = sums(options.rounds)
    for size in sorted({size for size, _ in measured["gloo"]}):
        shared, gloo = ([s * 1e3 for n, s in measured[name] if n == size] for name in ("shared", "gloo"))
        print(f"a sum of {size:9,} bytes: shared {spread(shared, 'ms', 3)}, gloo {spread(gloo, 'ms', 3)}")
    results["sums"] = measured
    step = steps(options.rounds)
    results["model"] = report(Model(step, measured["gloo"]), measured["shared"])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
