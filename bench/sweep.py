"""What a sweep costs a trial beyond its training.

A trial's time is the difference between whole sweeps of many trials and of one, each `mlpcli sweep` in a process
of its own, divided by the difference in trials. Its training's time is that of the same trainings in one process,
which has imported torch: load the data, build, train, measure, write the run. Pairs are interleaved; prints
seconds.

    python bench/sweep.py [PAIRS]
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRIALS = 31
CONFIG = """
name: bench
data: {dataset: digits, validation: 0.2}
model: {depth: 2, width: 64}
optimizer: {name: sgd, lr: 0.1}
training: {epochs: 5, threads: 1}
sweep:
  space: {optimizer.lr: {log_uniform: [0.01, 1]}, model.dropout: {uniform: [0, 0.5]}}
"""
TRAININGS = """
import sys, time
from pathlib import Path
from mlpcli import experiment
from mlpcli.config import load_plan
config = load_plan(Path(sys.argv[1])).config
def train(number):
    training = experiment.start(config, Path(sys.argv[2], str(number)))
    for _ in training.fit():
        pass
    training.finish()
    training.run.close()
train(0)
started = time.perf_counter()
for number in range(1, int(sys.argv[3])):
    train(number)
print((time.perf_counter() - started) / (int(sys.argv[3]) - 1))
"""


def a_sweep(config: Path, folder: Path, trials: int, sampler: str, more: list[str]) -> float:
    """Seconds of a whole sweep."""
    output = folder / f"{time.monotonic_ns()}"
    overrides = [f"sweep.trials={trials}", f"sweep.sampler={sampler}", f"name=bench{output.name}"]
    command = [sys.executable, "-m", "mlpcli", "sweep", str(config), *overrides, "-o", str(output), "-q", *more]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return time.perf_counter() - started


def a_training(config: Path, folder: Path) -> float:
    """Seconds of one training, of many in one process."""
    output = folder / f"{time.monotonic_ns()}"
    command = [sys.executable, "-c", TRAININGS, str(config), str(output), str(TRIALS)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout)


def main() -> None:
    """Print the medians, and the least and the largest overhead of a trial."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "sweep.yaml"
        config.write_text(CONFIG, encoding="utf-8")
        ways = [("random", []), ("tpe", []), ("tpe", ["--storage", f"sqlite:///{folder}/trials.db"])]
        a_sweep(config, folder, 1, "random", [])
        for sampler, more in ways:
            trials, trainings = [], []
            for _ in range(pairs):
                one, many = (a_sweep(config, folder, count, sampler, more) for count in (1, TRIALS))
                trials.append((many - one) / (TRIALS - 1))
                trainings.append(a_training(config, folder))
            over = [trial - training for trial, training in zip(trials, trainings, strict=True)]
            where = "sqlite" if more else "journal"
            print(
                f"{sampler}, {where}: a trial {statistics.median(trials):.3f} s, its training "
                f"{statistics.median(trainings):.3f} s, beyond it {statistics.median(over):.3f} s "
                f"({min(over):.3f} to {max(over):.3f}, n={pairs})"
            )


if __name__ == "__main__":
    main()
