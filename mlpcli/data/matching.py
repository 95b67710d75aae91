"""Other data than a model was trained on, in the form of its own: its classes, columns and categories."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mlpcli.config.text import quoted
from mlpcli.data.dataset import Column, Description, Split
from mlpcli.errors import DataError


def as_trained(split: Split, found: Description, trained: Description) -> Split:
    """A split with its classes, columns and categories numbered as a model has them; no copy where they are.

    Columns are matched by name, and those that the model has not are left out. A category that it has not is −1,
    as a missing one.

    Args:
        split: of the data that was read.
        found: what describes that data.
        trained: what describes the data that the model was trained on.

    Raises:
        DataError: a column is absent or holds something else, or there are samples of a class that the model has
            not.
    """
    targets = split.targets
    if found.classes != trained.classes:
        targets = _classes(targets, found.classes, trained.classes)
    if found.columns != trained.columns:
        return Split(_inputs(split, found.columns, trained.columns), targets)
    return replace(split, targets=targets)


def _classes(targets: Tensor, found: Sequence[str], trained: Sequence[str]) -> Tensor:
    places = {name: index for index, name in enumerate(trained)}
    for index in targets.unique().tolist():
        if found[index] not in places:
            raise DataError(
                f"class {quoted(found[index])} is none of those that the model was trained on\n"
                "    leave its samples out"
            )
    return torch.tensor([places.get(name, -1) for name in found])[targets]


def _inputs(split: Split, found: Sequence[Column], trained: Sequence[Column]) -> Tensor:
    places = {column.name: index for index, column in enumerate(found)}
    for column in trained:
        if column.name not in places:
            raise DataError(f"there is no column {quoted(column.name)}, which the model was trained on")
        here = found[places[column.name]]
        if (here.categories is None) != (column.categories is None):
            kinds = ("numbers", "categories") if here.categories is None else ("categories", "numbers")
            raise DataError(
                f"the column {quoted(column.name)} holds {kinds[0]}, but the model was trained on {kinds[1]}"
            )
    inputs = split.inputs[:, [places[column.name] for column in trained]]
    for index, column in enumerate(trained):
        here = found[places[column.name]]
        if here.categories is not None and column.categories is not None and here.categories != column.categories:
            codes = {name: code for code, name in enumerate(column.categories)}
            final = torch.tensor([-1, *(codes.get(name, -1) for name in here.categories)], dtype=inputs.dtype)
            inputs[:, index] = final[inputs[:, index].long() + 1]
    return inputs
