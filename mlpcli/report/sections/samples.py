"""Samples of a split, as images where the data are images, else as the values of their columns."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mlpcli.config.data_schema import ImageSection
from mlpcli.report.answers import Answers
from mlpcli.report.charts import short
from mlpcli.report.gathering import shortened
from mlpcli.report.images import Bytes, pixels

MOST_COLUMNS = 8
"""Of a table's rows that are shown."""


def shows_images(answers: Answers) -> bool:
    """Whether the stored inputs are pixels."""
    section = answers.config.data
    return (
        isinstance(section, ImageSection)
        and section.features.name == "none"
        and len(answers.about.input_shape) == 3
    )


def rows_of(answers: Answers, indices: Sequence[int]) -> NDArray[np.float64]:
    """The stored inputs (n, features) of samples of the split, in the order of `indices`."""
    chosen = np.asarray(indices, np.int64)
    order = np.argsort(chosen, kind="stable")
    taken = answers.split.take(torch.from_numpy(chosen[order])).inputs.double().numpy()
    found = np.empty_like(taken)
    found[order] = taken
    return found


def images_of(answers: Answers, indices: Sequence[int]) -> Bytes:
    """Samples as images (n, height, width, 3)."""
    white = 16.0 if answers.about.name == "digits" else 255.0
    return pixels(rows_of(answers, indices), answers.about.input_shape, white)


def column_names(answers: Answers) -> list[str]:
    """Of the columns that are shown of a row."""
    columns = answers.about.columns
    if columns:
        return [shortened(column.name) for column in columns[:MOST_COLUMNS]]
    return [f"input {index}" for index in range(min(MOST_COLUMNS, answers.split.features))]


def values_of(answers: Answers, indices: Sequence[int]) -> list[list[str]]:
    """The values of those columns, for samples of the split."""
    columns = answers.about.columns
    found = []
    for row in rows_of(answers, indices):
        texts = []
        for index in range(len(column_names(answers))):
            categories = columns[index].categories if columns else None
            value = float(row[index])
            if categories is not None:
                code = int(value) if math.isfinite(value) else -1
                texts.append(shortened(categories[code]) if 0 <= code < len(categories) else "missing")
            else:
                texts.append(short(value) if math.isfinite(value) else "missing")
        found.append(texts)
    return found


def columns_note(answers: Answers) -> str:
    """That there are more columns than are shown."""
    more = len(answers.about.columns) - MOST_COLUMNS
    return f"The first {MOST_COLUMNS} of {MOST_COLUMNS + more} columns." if more > 0 else ""
