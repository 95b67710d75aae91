"""The rows of a table for a trained model: in order, some at a time, in memory that does not grow."""

import csv
import logging
import math
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlpcli.config.text import quoted
from mlpcli.data.dataset import Column
from mlpcli.data.files import absolute
from mlpcli.data.table_errors import DELIMITERS
from mlpcli.data.table_files import (
    BOOLEANS,
    CsvFile,
    Floats,
    ParquetFile,
    Skipped,
    TableFile,
    as_numbers,
    as_texts,
    check_has,
    is_number,
)
from mlpcli.errors import DataError

Rows = NDArray[np.int64]

log = logging.getLogger("mlpcli")


def stream(
    path: str,
    columns: Sequence[Column],
    missing: Sequence[str],
    delimiter: str,
    rows_at_once: int,
    skipped: list[str] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of a file as a model's training data has them.

    Columns are matched by name; others in the file are ignored. A category that is not among those of its column
    is −1, as a missing one is.

    Args:
        path: ends in .parquet; else it is CSV, and separated by tabs where it ends in .tsv.
        columns: that the model was trained on.
        missing: texts that stand for a missing value.
        delimiter: of CSV files.
        rows_at_once: rows of each chunk but the last.
        skipped: where it is given, a row with too few or too many fields, or without a number where one should
            be, is left out, and a line that says so is added here, at the latest with the chunk after it. It may
            be emptied between chunks.

    Yields:
        The numbers of the rows, int64 (n,), counted from 1 below the header without empty lines, and the rows,
        float64 (n, columns).

    Raises:
        DataError: the file is absent, unreadable or malformed, a column is absent, or a row is bad and
            `skipped` is None.
    """
    file: TableFile
    if path.lower().endswith(".parquet"):
        file = ParquetFile(path, missing)
    else:
        file = CsvFile(path, _delimiter(path, columns, delimiter), missing)
    for column in columns:
        check_has(file, column.name, "which the model was trained on")
    waiting: list[tuple[Rows, Floats]] = []
    count = 0
    for rows, values in _batches(file, columns, skipped):
        waiting.append((rows, values))
        count += len(rows)
        if count < rows_at_once:
            continue
        rows, values = (np.concatenate(each) for each in zip(*waiting, strict=True))
        whole = count - count % rows_at_once
        for start in range(0, whole, rows_at_once):
            part = slice(start, start + rows_at_once)
            yield torch.from_numpy(rows[part]), torch.from_numpy(values[part])
        waiting, count = [(rows[whole:], values[whole:])], count - whole
    if count:
        rows, values = (np.concatenate(each) for each in zip(*waiting, strict=True))
        yield torch.from_numpy(rows), torch.from_numpy(values)


def _delimiter(path: str, columns: Sequence[Column], known: str) -> str:
    """What separates the columns of a CSV file: the first that finds all `columns` in its header, else `known`."""
    if path.lower().endswith(".tsv"):
        return "\t"
    try:
        with absolute(path).open(encoding="utf-8-sig", newline="") as file:
            header = file.readline(2**20)
    except (OSError, ValueError):  # reading the file says what is wrong
        return known
    for delimiter in (known, *DELIMITERS):
        names = {name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])}
        if names >= {column.name for column in columns}:
            return delimiter
    return known


def _batches(
    file: TableFile, columns: Sequence[Column], skipped: list[str] | None
) -> Iterator[tuple[Rows, Floats]]:
    """The good rows of each batch, and their numbers."""
    ragged: deque[Skipped] = deque()
    last = 0
    unseen: Counter[str] = Counter()
    names = [column.name for column in columns]
    numbers = [column.name for column in columns if column.categories is None]
    for batch in file.batches(names, numbers, None if skipped is None else ragged.append):
        size = len(batch[0])
        candidates = np.arange(last + 1, last + 1 + size + len(ragged))
        rows = np.setdiff1d(candidates, [each.row for each in ragged], assume_unique=True)[:size]
        last = int(rows[-1]) if size else last
        values = np.empty((size, len(columns)))
        reasons: dict[int, str] = {}
        bad = np.zeros(size, dtype=np.bool_)
        for index, (column, array) in enumerate(zip(columns, batch, strict=True)):
            values[:, index], wrong = _encoded(column, array)
            if column.categories is not None:
                unseen[column.name] += int((values[:, index] < 0).sum()) - array.null_count
            if wrong is None:
                continue
            if skipped is None:
                raise _no_number(file, column)
            for place in np.flatnonzero(wrong).tolist():
                text = quoted(as_texts(array)[place].as_py())
                reasons.setdefault(
                    int(rows[place]), f"{text} in the column {quoted(column.name)} is no finite number"
                )
            bad |= wrong
        if skipped is not None:
            _report(file, ragged, reasons, last, skipped)
        yield (rows[~bad], values[~bad]) if bad.any() else (rows, values)
    if skipped is not None:
        _report(file, ragged, {}, sys.maxsize, skipped)
    for name, count in unseen.items():
        if count:
            log.warning(
                "%s: %s values in the column %s are categories that the model does not know; they count as "
                "missing",
                file.shown,
                f"{count:,}",
                quoted(name),
            )


def _report(
    file: TableFile,
    ragged: deque[Skipped],
    reasons: dict[int, str],
    last: int,
    skipped: list[str],
) -> None:
    """Takes the `ragged` rows up to `last`, and adds them and the other bad rows to `skipped`, in order."""
    while ragged and ragged[0].row <= last:
        each = ragged.popleft()
        reasons[each.row] = f"the header has {len(file.names)} fields, this row {each.fields}"
    skipped += [f"{file.shown}: row {row}: {why}" for row, why in sorted(reasons.items())]


def _encoded(column: Column, array: Any) -> tuple[Floats, NDArray[np.bool_] | None]:
    """The numbers or codes of a batch, and which are no finite numbers; None where all are, or are missing."""
    if column.categories is not None:
        return _codes(column.categories, array), None
    values = as_numbers(array)
    if values is None:
        texts = as_texts(array).dictionary_encode()
        # One more for missing values, and None for what is no number.
        numbers = [*map(_number, texts.dictionary.to_pylist()), np.nan]
        indices = texts.indices.fill_null(len(numbers) - 1).to_numpy(zero_copy_only=False)
        wrong = np.array([number is None for number in numbers])[indices]
        values = np.array([np.nan if number is None else number for number in numbers])[indices]
    else:
        wrong = np.zeros(0, dtype=np.bool_)
    infinite = np.isinf(values)
    if not wrong.any() and not infinite.any():
        return values, None
    return values, infinite | wrong if len(wrong) else infinite


def _codes(categories: Sequence[str], array: Any) -> Floats:
    import pyarrow as pa
    from pyarrow import compute

    codes = compute.index_in(as_texts(array), pa.array(categories, pa.string())).fill_null(-1)
    result: Floats = codes.to_numpy(zero_copy_only=False).astype(np.float64)
    return result


def _number(text: str) -> float | None:
    if text in BOOLEANS:
        return BOOLEANS[text]
    return float(text) if is_number(text) else None


def _no_number(file: TableFile, column: Column) -> DataError:
    def wrong(text: str) -> bool:
        number = _number(text)
        return text not in ("", *file.missing) and (number is None or math.isinf(number))

    return file.error(
        f"the column {quoted(column.name)} is one of finite numbers",
        "correct the value, or leave the row out",
        column.name,
        wrong,
    )
