"""The targets of a table: classes or numbers."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mlpcli.config.data_schema import TableFileSection
from mlpcli.config.text import quoted
from mlpcli.data.table_columns import FEW, Read, Table, recode
from mlpcli.data.table_files import BOOLEANS, Floats, is_number

SOME = 10_000
"""Targets of which more than `FEW` different ones settle that they are no classes."""


def targets_of(
    section: TableFileSection, reads: Sequence[Read], tables: Sequence[Table]
) -> tuple[list[str], list[Tensor]]:
    """The names of the classes, none in regression, and the targets of each table.

    Returns:
        The targets are int64 (rows,) classes, or float64 (rows, outputs).

    Raises:
        DataError: one is missing, is none for the task, or is a class that cannot be learnt or tested.
    """
    for index, read in enumerate(reads):
        for table in tables:
            if table.targets.missing[index]:
                raise table.file.error(
                    f"the target {quoted(read.name)} is missing",
                    "leave the row out, or correct it",
                    read.name,
                    lambda text: text in ("", *section.missing) or (is_number(text) and math.isnan(float(text))),
                )
    if len(reads) == 1 and _is_classification(section, reads[0], tables[0].targets.data[:, 0]):
        return _classes(section, reads[0], tables)
    for index, read in enumerate(reads):
        if not read.is_text:
            continue
        if not read.is_boolean:
            raise tables[0].file.error(
                f"text in the target {quoted(read.name)}; regression predicts numbers",
                "data.task: classification predicts classes"
                if len(reads) == 1
                else "name other columns in data.target",
                read.name,
                lambda text: not is_number(text),
            )
        for table in tables:
            recode(table.targets.data[:, index], [*(BOOLEANS[text] for text in read.codes), np.nan])
    return [], [torch.from_numpy(table.targets.data) for table in tables]


def _is_classification(section: TableFileSection, read: Read, targets: Floats) -> bool:
    if section.task != "auto":
        return section.task == "classification"
    if read.is_text:
        return True
    if len(np.unique(targets[:SOME])) > FEW:
        return False
    different = np.unique(targets)
    return len(different) <= FEW and bool((different == np.trunc(different)).all())


def _classes(section: TableFileSection, read: Read, tables: Sequence[Table]) -> tuple[list[str], list[Tensor]]:
    if read.is_text:
        texts = np.array(list(read.codes), dtype=object)
        # Codes in the order of the sorted texts, which is the order of the classes too.
        order = np.argsort(texts).argsort().astype(np.float64)
        for table in tables:
            recode(table.targets.data[:, 0], [*order, np.nan])
        names = sorted(read.codes)
    train = tables[0]
    values, counts = np.unique(train.targets.data[:, 0], return_counts=True)
    if not read.is_text:
        for table in tables:
            if (table.targets.data != np.trunc(table.targets.data)).any():
                raise table.file.error(
                    f"a fraction in the target {quoted(read.name)}; classes are whole numbers or texts",
                    "data.task: regression predicts numbers",
                    read.name,
                    lambda text: is_number(text) and not float(text).is_integer(),
                )
    classes = [names[int(value)] if read.is_text else str(int(value)) for value in values]

    def is_class(name: str, text: str) -> bool:
        return text == name if read.is_text else is_number(text) and float(text) == float(name)

    if len(classes) == 1:
        message = f"the target {quoted(read.name)} has one class only, {quoted(classes[0])}"
        raise train.file.error(message, "there is nothing to tell apart; name another data.target", read.name)
    cut = section.path.test is None or (section.path.validation is None and section.validation > 0)
    if cut and (counts == 1).any():
        single = classes[int(np.flatnonzero(counts == 1)[0])]
        raise train.file.error(
            f"class {quoted(single)} has this one row, which cannot be in the training split and in another",
            "add rows of it, or leave it out",
            read.name,
            partial(is_class, single),
        )
    targets = []
    for table in tables:
        indices = np.searchsorted(values, table.targets.data[:, 0]).clip(max=len(values) - 1)
        unknown = np.flatnonzero(values[indices] != table.targets.data[:, 0])
        if len(unknown):
            value = int(table.targets.data[unknown[0], 0])
            name = names[value] if read.is_text else str(value)
            raise table.file.error(
                f"class {quoted(name)} is not in {train.file.shown}, so that it cannot be learnt",
                "add rows of it there, or leave it out here",
                read.name,
                partial(is_class, name),
            )
        targets.append(torch.from_numpy(indices.astype(np.int64)))
    return classes, targets
