"""Trains one config over and over in forked children that are killed at random instants; used by test_robustness.

Forking from a process that has imported everything makes a kill cost milliseconds, so that 30 of them fall all
over a run: into its creation, its epochs, its checkpoints and its end. Prints the number of kills and of runs
that reached their end.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import sklearn.datasets  # noqa: F401  # imported here so that no child spends its life importing
import torch

import mlpcli.experiment  # noqa: F401  # likewise
from mlpcli.cli import main

CONFIG = [
    "iris",
    "seed=5",
    "model={depth: 3, width: 8, dropout: 0.2, normalization: batch}",
    "optimizer={name: adamw, lr: 0.01}",
    "scheduler={name: one_cycle}",
    "training={epochs: 60, batch_size: 16, checkpoint_seconds: 0.003, keep_checkpoints: 9, device: cpu}",
]


def start(arguments: list[str]) -> int:
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        code = 1
        try:
            main(arguments)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def train(run: Path) -> int:
    return start(
        ["train", "-q", "--resume", str(run)] if run.exists() else ["train", "-q", *CONFIG, "-o", str(run)]
    )


def storm(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    assert os.waitpid(train(folder / "reference"), 0)[1] == 0
    chance = random.Random(seed)
    done, runs = 0, 0
    while done < kills:
        child = train(folder / f"stormy-{runs}")
        time.sleep(chance.uniform(0, 0.12))
        if done == kills - 1:  # the last run goes on to its end
            assert os.waitpid(child, 0)[1] == 0
            runs += 1
            break
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):  # it was faster than the kill
            assert os.WEXITSTATUS(status) == 0, f"a resumed run ended with {os.WEXITSTATUS(status)}"
            runs += 1
        else:
            done += 1
    if (folder / f"stormy-{runs}").exists():
        assert os.waitpid(train(folder / f"stormy-{runs}"), 0)[1] == 0
        runs += 1
    print(done, runs)


if __name__ == "__main__":
    storm(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
