"""What `check` and `info` say. `describe` needs no torch: it knows data sets by their published facts."""

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpcli.config import Config, to_plain
from mlpcli.config.data_schema import DataSection, DigitsData, TableData
from mlpcli.config.rules import engine, not_explicit
from mlpcli.config.schema import FULL_BATCH, LBFGS, Momentum, RMSprop
from mlpcli.layers import mlp_layers, step_cost

if TYPE_CHECKING:
    from mlpcli.data import Dataset


def training_samples(data: DataSection) -> int:
    """Samples that are left to train on after the test cut, the limit and the validation cut."""
    n = data.facts.train
    if isinstance(data, DigitsData | TableData):
        n = _kept(n, data.test, data)
    n = min(n, data.limit or n)
    return _kept(n, data.validation, data)


def _kept(samples: int, fraction: float, data: DataSection) -> int:
    """What a cut leaves: at least a sample of each class."""
    groups = data.facts.outputs if data.facts.task == "classification" else 1
    return max(samples - round(samples * fraction), min(samples, groups))


def optimizer_copies(config: Config) -> int:
    """Numbers that the optimizer keeps for each parameter."""
    optimizer = config.optimizer
    if isinstance(optimizer, Momentum):
        return int(optimizer.momentum > 0)
    if isinstance(optimizer, LBFGS):
        return 2 * optimizer.history_size + 3
    if isinstance(optimizer, RMSprop):
        return 1 + int(optimizer.momentum > 0)
    return 1 if optimizer.name == "adagrad" else 2


def describe(config: Config) -> dict[str, Any]:
    """The resolved config, the layers, and what a step costs, as plain values."""
    facts, model = config.data.facts, config.model
    layers = mlp_layers(
        facts.features,
        facts.outputs,
        depth=len(model.widths) + 1,
        width=model.widths,
        activation=model.activation,
        dropout=model.dropout,
        normalization=model.normalization,
        bias=model.bias,
    )
    samples = training_samples(config.data)
    in_memory = min(config.training.batch_size or samples, samples)
    cost = step_cost(
        layers,
        samples=samples if config.optimizer.name in FULL_BATCH else in_memory,
        in_memory=in_memory,
        bytes_per_number=8 if config.training.precision == "float64" else 4,
        optimizer_copies=optimizer_copies(config),
    )
    return {
        "config": to_plain(config),
        "engine": {"name": engine(config), "because": not_explicit(config)},
        "task": facts.task,
        "training_samples": samples,
        "layers": [asdict(layer) | {"flops": layer.flops} for layer in layers],
        "parameters": sum(layer.parameters for layer in layers),
        "step": asdict(cost) | {"bytes": cost.bytes},
    }


def describe_data(dataset: "Dataset") -> dict[str, Any]:
    """The data as it was read: splits, classes, ranges and fingerprint, as plain values."""
    description = dataset.description
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    plain: dict[str, Any] = description.to_plain() | {"splits": {}}
    for name, split in splits.items():
        if split is None:
            continue
        lows, highs = zip(*(inputs.aminmax() for inputs, _ in split.chunks()), strict=True)
        row: dict[str, Any] = {
            "samples": len(split),
            "dtype": str(split.stored.dtype).removeprefix("torch."),
            "minimum": float(min(lows)),
            "maximum": float(max(highs)),
        }
        if description.task == "classification":
            row["per_class"] = split.targets.bincount(minlength=description.outputs).tolist()
        else:
            row["target_mean"] = split.targets.mean(0).tolist()
        plain["splits"][name] = row
    return plain


def machine() -> dict[str, Any]:
    """Versions, devices, threads, where data and runs are looked for, and the cache."""
    import torch

    from mlpcli.data import cache
    from mlpcli.environment import versions

    return {
        "versions": versions(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "data": str(Path("data").resolve()),
        "runs": str(Path("runs").resolve()),
        "cache": str(cache.folder()),
        "cache_bytes": cache.size(),
        "starters": str(_starters()),
    }


def _starters() -> Path:
    from mlpcli import starters

    return starters.directory()
