"""The table starters against scikit-learn's MLPs at their defaults, on the same splits.

python bench/table_accuracy.py table_classification 3
python bench/table_accuracy.py table_regression 3 model.numeric_embedding=none

Both see numbers standardised by the training data. scikit-learn gets the validation split too, as it needs none.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.neural_network import MLPClassifier, MLPRegressor

from mlpcli import data
from mlpcli.config import load_config
from mlpcli.data.dataset import Dataset, Split


def main() -> None:
    name, seeds, *overrides = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        config = str(Path(folder, "config.yaml"))
        subprocess.run([sys.executable, "-m", "mlpcli", "init", config, "--dataset", name, "-q"], check=True)
        ours, theirs = [], []
        for seed in range(int(seeds)):
            started = time.perf_counter()
            command = [sys.executable, "-m", "mlpcli", "train", config, f"seed={seed}", *overrides]
            done = subprocess.run(
                [*command, "--json", "-q", "-o", f"{folder}/{seed}"], check=True, capture_output=True, text=True
            )
            test = json.loads(done.stdout)["test"]
            metric = "accuracy" if "accuracy" in test else "r2"
            ours.append(test[metric])
            print(
                f"seed {seed}: mlpcli {ours[-1]:.4f} in {time.perf_counter() - started:.1f} s",
                end="  ",
                flush=True,
            )
            started = time.perf_counter()
            settings = load_config(Path(config), [f"seed={seed}"])
            theirs.append(scikit_learn(data.load(settings.data, seed), metric, seed))
            print(f"scikit-learn {theirs[-1]:.4f} in {time.perf_counter() - started:.1f} s", flush=True)
    for who, values in (("mlpcli", ours), ("scikit-learn", theirs)):
        mean = statistics.mean(values)
        print(
            f"{metric} of {who:<12} mean {mean:.4f}  ({min(values):.4f} to {max(values):.4f}), n = {len(values)}"
        )


def scikit_learn(dataset: Dataset, metric: str, seed: int) -> float:
    """The test metric of the default MLP on the training and the validation split together."""

    def inputs(*splits: Split | None) -> np.ndarray:
        prepared = [dataset.preprocessing(split.inputs, torch.float64) for split in splits if split is not None]
        return torch.cat(prepared).numpy()

    def targets(*splits: Split | None) -> np.ndarray:
        found = torch.cat([split.targets for split in splits if split is not None])
        return (found if metric == "accuracy" else dataset.target_scale.standardize(found)[:, 0]).numpy()

    train = dataset.train, dataset.validation
    model = (MLPClassifier if metric == "accuracy" else MLPRegressor)(random_state=seed)
    model.fit(inputs(*train), targets(*train))
    return float(model.score(inputs(dataset.test), targets(dataset.test)))


if __name__ == "__main__":
    main()
