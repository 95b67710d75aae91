"""Predictions as CSV, JSON Lines or Parquet, written as they come."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet
from torch import Tensor

from mlpcli.data import Description
from mlpcli.errors import UsageError
from mlpcli.predicting import Chunk
from mlpcli.runs import write_whole

FORMATS = (".csv", ".jsonl", ".parquet")
"""Endings of the files that are written."""


def batches(chunks: Iterator[Chunk], description: Description, top: int) -> Iterator[pa.RecordBatch]:
    """Predictions as columns, a batch for each chunk.

    `input`; `row` for tables; then for classes `prediction`, `probability` and, with `top` above 1, `class_2`,
    `probability_2`, …; for regression `prediction`, or `prediction_` and its name for each of several targets.
    A prediction is null where the model's answer is no finite number.

    Raises:
        UsageError: `top` is above 1, but there are no classes.
    """
    if top > 1 and not description.classes:
        raise UsageError(f"--top {top} asks for classes, but the model predicts values (regression)")
    for chunk in chunks:
        if isinstance(chunk.inputs, str):
            columns: dict[str, Any] = {"input": pa.repeat(chunk.inputs, len(chunk.answers))}
        else:
            columns = {"input": pa.array(chunk.inputs, pa.string())}
        if chunk.rows is not None:
            columns["row"] = pa.array(chunk.rows)
        if description.classes:
            columns |= _of_classes(chunk.answers, description.classes, top)
        else:
            several = len(description.target_names) > 1
            names = [f"prediction_{name}" if several else "prediction" for name in description.target_names]
            columns |= {name: _finite(chunk.answers[:, index]) for index, name in enumerate(names)}
        yield pa.RecordBatch.from_pydict(columns)


def _of_classes(answers: Tensor, classes: list[str], top: int) -> dict[str, Any]:
    names = pa.array(classes, pa.string())
    largest, order = answers.topk(min(top, len(classes)), dim=1)
    unknown = ~answers.isfinite().all(1).numpy()
    columns = {}
    for place in range(order.shape[1]):
        keys = ("prediction", "probability") if place == 0 else (f"class_{place + 1}", f"probability_{place + 1}")
        for key, values in zip(keys, (order, largest), strict=True):
            columns[key] = pa.array(values[:, place].numpy(), mask=unknown)
        columns[keys[0]] = names.take(columns[keys[0]])
    return columns


def _finite(values: Tensor) -> pa.Array:
    return pa.array(values.numpy(), mask=~values.isfinite().numpy())


def check_ending(file: Path) -> None:
    """Raises UsageError unless the ending of `file` is that of a format."""
    if file.suffix.lower() not in FORMATS:
        raise UsageError(f"-o {file}: the ending says the format: {', '.join(FORMATS)}")


def write_file(found: Iterator[pa.RecordBatch], path: Path) -> int:
    """Write them to `path`, whole or not at all; how many there were.

    Args:
        found: of one schema, the first without rows.
        path: its ending says the format.

    Raises:
        StorageError: it could not be written.
    """
    count = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal count
        for batch in found:
            count += batch.num_rows
            yield batch

    def write(file: BinaryIO) -> None:
        if path.suffix.lower() == ".parquet":
            _write_parquet(counted(), file)
            return
        for text in as_csv(counted()) if path.suffix.lower() == ".csv" else as_json_lines(counted()):
            file.write(text.encode())

    write_whole(path, write)
    return count


def as_csv(found: Iterator[pa.RecordBatch]) -> Iterator[str]:
    """A header, then a line for each prediction (RFC 4180, but for line feeds alone); null is nothing."""
    start = ""  # printed with the first predictions: what fails before them prints nothing
    for number, batch in enumerate(found):
        if number == 0:
            header = io.StringIO()
            csv.writer(header, lineterminator="\n").writerow(batch.schema.names)
            start = header.getvalue()
            continue
        fields = [_field(column) for column in batch.columns]
        lines = pc.binary_join_element_wise(*fields, ",", null_handling="replace")
        yield start + "\n".join([*lines.to_pylist(), ""])
        start = ""
    yield start


def _field(column: pa.Array) -> pa.Array:
    """As texts, in quotes where they need it; pyarrow's own writer puts all texts in quotes, or none."""
    texts = column.cast(pa.string())
    if not pa.types.is_string(column.type):
        return texts
    special = pc.match_substring_regex(texts, '[",\r\n]')
    if not pc.any(special).as_py():
        return texts
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(texts, '"', '""'), '"', "")
    return pc.if_else(special, quoted, texts)


def as_json_lines(found: Iterator[pa.RecordBatch]) -> Iterator[str]:
    """An object on a line of its own for each prediction."""
    for batch in found:
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain(batch))


def plain(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """An object for each prediction. Its numbers have the digits of float32 that mean something, as in CSV."""
    columns = {
        name: column.cast(pa.string()).cast(pa.float64()) if pa.types.is_float32(column.type) else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    rows: list[dict[str, Any]] = pa.RecordBatch.from_pydict(columns).to_pylist()
    return rows


def _write_parquet(found: Iterator[pa.RecordBatch], file: BinaryIO) -> None:
    first = next(found)
    with parquet.ParquetWriter(file, first.schema) as writer:
        for batch in found:
            writer.write_batch(batch)
