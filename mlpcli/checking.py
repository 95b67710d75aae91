"""What `check` and `info` say. `describe` needs no torch: it knows data sets by their published facts."""

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlpcli.config import Config, to_plain
from mlpcli.config.data_schema import DataSection, DigitsData, ImageSection, TableData
from mlpcli.config.datasets import Facts, Task
from mlpcli.config.rules import engine, not_explicit
from mlpcli.config.schema import FULL_BATCH, LBFGS, Momentum, RMSprop
from mlpcli.layers import Front, Layer, mlp_layers, step_cost


def training_samples(data: DataSection, facts: Facts) -> int:
    """Samples that are left to train on after the test cut, the limit and the validation cut."""
    n = facts.train
    if isinstance(data, DigitsData | TableData):
        n = _kept(n, data.test, facts)
    n = min(n, data.limit or n)
    return _kept(n, data.validation, facts)


def _kept(samples: int, fraction: float, facts: Facts) -> int:
    """What a cut leaves: at least a sample of each class."""
    groups = facts.outputs if facts.task == "classification" else 1
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


@dataclass(frozen=True)
class Shape:
    """What of the data the network and its cost depend on.

    Attributes:
        task: `classification` or `regression`.
        features: length of the vector that the model sees of a sample.
        outputs: number of classes, or of targets.
        samples: to train on.
        front: what stands before the first affine layer.
    """

    task: Task
    features: int
    outputs: int
    samples: int
    front: Front | None = None


def known_shape(config: Config) -> Shape | None:
    """What is known before the data is read; None where that is not enough."""
    data, facts = config.data, config.data.facts
    extracts = isinstance(data, ImageSection) and data.features.name != "none"
    if facts is None or extracts or config.model.numeric_embedding.name != "none":
        return None
    return Shape(facts.task, facts.features, facts.outputs, training_samples(data, facts))


def layers_of(config: Config, features: int, outputs: int, front: Front | None) -> list[Layer]:
    """The layers of a config's network for such data."""
    model = config.model
    return mlp_layers(
        features,
        outputs,
        front=front,
        depth=len(model.widths) + 1,
        width=model.widths,
        activation=model.activation,
        dropout=model.dropout,
        normalization=model.normalization,
        bias=model.bias,
    )


def describe(config: Config, shape: Shape | None) -> dict[str, Any]:
    """The resolved config, the engine and, where the shape is known, layers and costs, as plain values."""
    report: dict[str, Any] = {
        "config": to_plain(config),
        "engine": {"name": engine(config), "because": not_explicit(config)},
    }
    if shape is None:
        return report
    layers = layers_of(config, shape.features, shape.outputs, shape.front)
    in_memory = min(config.training.batch_size or shape.samples, shape.samples)
    cost = step_cost(
        layers,
        samples=shape.samples if config.optimizer.name in FULL_BATCH else in_memory,
        in_memory=in_memory,
        bytes_per_number=8 if config.training.precision == "float64" else 4,
        optimizer_copies=optimizer_copies(config),
    )
    return report | {
        "task": shape.task,
        "training_samples": shape.samples,
        "layers": [asdict(layer) for layer in layers],
        "parameters": sum(layer.parameters for layer in layers),
        "step": asdict(cost) | {"bytes": cost.bytes},
    }


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
