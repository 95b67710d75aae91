"""What `check --data` says and draws: the data as it is read, and the network that it leads to."""

from pathlib import Path
from typing import Any

import torch

from mlpcli import data, pictures
from mlpcli.checking import Shape
from mlpcli.checking import describe as describe_config
from mlpcli.config import Config
from mlpcli.config.data_schema import ImageSection
from mlpcli.config.rules import settle
from mlpcli.data import Dataset
from mlpcli.errors import UsageError
from mlpcli.network import augmentation, front_for

SHOWN = 24
"""Images in the picture."""


def load(config: Config) -> tuple[Config, Dataset]:
    """The data of a config, and the config with what only its data could decide."""
    dataset = data.load(config.data, config.seed)
    return settle(config, dataset.facts), dataset


def describe(config: Config, dataset: Dataset) -> dict[str, Any]:
    """What `checking.describe` says of the config, and the data."""
    about = dataset.description
    front, _ = front_for(config, dataset)
    shape = Shape(about.task, about.features, about.outputs, len(dataset.train), front)
    return describe_config(config, shape) | {"data": describe_data(dataset)}


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """The data as it was read: splits, classes, ranges and fingerprint, as plain values."""
    description = dataset.description
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    plain: dict[str, Any] = description.to_plain() | {"splits": {}}
    if description.columns:
        plain["columns"] = _columns(dataset)
    for name, split in splits.items():
        if split is None:
            continue
        row: dict[str, Any] = {
            "samples": len(split),
            "dtype": str(split.stored.dtype).removeprefix("torch."),
        }
        if not description.columns:
            lows, highs = zip(*(inputs.aminmax() for inputs, _ in split.chunks()), strict=True)
            row |= {"minimum": float(min(lows)), "maximum": float(max(highs))}
        if description.task == "classification":
            row["per_class"] = split.targets.bincount(minlength=description.outputs).tolist()
        else:
            row["target_mean"] = split.targets.mean(0).tolist()
        plain["splits"][name] = row
    return plain


def _columns(dataset: Dataset) -> list[dict[str, Any]]:
    """What the training split has in each column: missing values, the range of numbers, how many categories."""
    rows = []
    for index, column in enumerate(dataset.description.columns):
        values = torch.cat([inputs[:, index] for inputs, _ in dataset.train.chunks()])
        present = values[values >= 0 if column.categories else ~values.isnan()]
        row: dict[str, Any] = {"name": column.name, "missing": len(values) - len(present)}
        if column.categories is not None:
            row["categories"] = len(present.unique())
        elif len(present):
            row |= {"minimum": float(present.min()), "maximum": float(present.max())}
        rows.append(row)
    return rows


def check_drawn(config: Config, file: Path) -> None:
    """Raises UsageError where the model sees no pixels that `draw` could show, or the file has another ending."""
    section = config.data
    if not isinstance(section, ImageSection):
        raise UsageError(f"-o {file} draws images, but {section.dataset} is a table")
    if section.features.name != "none":
        raise UsageError(f"-o {file} draws pixels, but the model sees {section.features.name} features of them")
    if file.suffix.lower() != ".png":
        raise UsageError(f"-o {file}: the picture is a PNG, so its name must end with .png")


def draw(config: Config, dataset: Dataset, file: Path) -> None:
    """Write a PNG of training images with their labels, before and after augmentation.

    Args:
        config: that `check_drawn` accepts.
        dataset: its data.
        file: to write, whole or not at all.

    Raises:
        StorageError: it could not be written.
    """
    section, about = config.data, dataset.description
    chosen = torch.linspace(0, len(dataset.train) - 1, min(SHOWN, len(dataset.train))).long()
    shown = dataset.train.take(chosen)
    white = 16 if section.dataset == "digits" else 255
    change = augmentation(config, about)
    after = None
    if change is not None:
        scaled = dataset.preprocessing(shown.inputs, torch.float32)
        changed, _ = change(scaled, shown.targets, 0, 0)
        raw = changed.double() / dataset.preprocessing.scale + dataset.preprocessing.shift
        after = raw.view(-1, *about.input_shape) * (255 / white)
    pictures.sample_grid(
        shown.inputs.view(-1, *about.input_shape).double() * (255 / white),
        after,
        [about.classes[target] for target in shown.targets.tolist()],
        file,
        f"{config.name}: {len(shown)} of {len(dataset.train):,} training images"
        + ("" if after is None else ", each beside what data.augmentation makes of it"),
    )
