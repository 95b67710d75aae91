"""Your own tables, from CSV and Parquet files: numbers, and codes of categories, as float64.

A file is read in batches, and what a column holds is found over all files. The texts of a batch are gone before
the next, so that the peak of memory is little more than the numbers.
"""

import json
import logging
from collections.abc import Sequence
from hashlib import sha256

import torch

from mlpcli.config.data_schema import CsvData, ParquetData
from mlpcli.config.text import quoted
from mlpcli.data.cache import cached, found
from mlpcli.data.dataset import Source, Split
from mlpcli.data.files import absolute
from mlpcli.data.table_columns import (
    Read,
    Table,
    check_share,
    check_texts,
    check_types,
    check_varies,
    numbers_of,
    settle,
)
from mlpcli.data.table_errors import listed
from mlpcli.data.table_files import CsvFile, ParquetFile, TableFile, check_has
from mlpcli.data.table_targets import targets_of
from mlpcli.errors import DataError

log = logging.getLogger("mlpcli")

Section = CsvData | ParquetData


def read(section: Section) -> Source:
    """The rows of the files of `section`: float64 (rows, columns), as `Source.columns` says.

    Columns are in the order of the training file's header; those of the other files are matched by name. A
    column of texts has the values of all files as its categories, sorted. Classes are those of the training file,
    sorted: by value where they are numbers.

    Raises:
        DataError: a file is absent, unreadable or malformed, or a column does not fit what `section` says.
    """
    paths = [section.path.train, *(path for path in (section.path.validation, section.path.test) if path)]
    files = [absolute(path) for path in paths]
    # A run's own config states the task that `auto` has found, and the file need not be read again for that.
    auto = found(_entry(section.model_copy(update={"task": "auto"})), files=files)
    if auto is not None and section.task in ("auto", auto.task):
        source = auto
    else:
        source = cached(_entry(section), lambda: _read(section, paths), files=files)
    what = f"{len(source.classes)} classes" if source.classes else "regression"
    log.info("%s: predicting %s: %s", section.dataset, listed(section.targets), what)
    return source


def _entry(section: Section) -> str:
    """The name of the cache's entry: all of the section that the source depends on."""
    settings = section.model_dump(mode="json", exclude={"limit", "test", "standardize", "categorical", "path"})
    # Which splits are cut off matters to a class with one row.
    settings["path"] = [section.path.validation is None, section.path.test is None]
    settings["validation"] = section.validation > 0
    digest = sha256(json.dumps(settings).encode()).hexdigest()[:8]
    return f"{section.dataset}-{digest}"


def open_table(section: Section, path: str) -> TableFile:
    """A file of `section`, checked as far as that goes without its rows."""
    if isinstance(section, CsvData):
        return CsvFile(path, section.delimiter, section.missing)
    return ParquetFile(path, section.missing)


def _read(section: Section, paths: Sequence[str]) -> Source:
    files = [open_table(section, path) for path in paths]
    names = _input_names(section, files)
    insisted = {*section.categories, *_dictionaries(files[0])}
    reads = [Read(name, name in insisted) for name in names]
    reads += [Read(name, is_target=True) for name in section.targets]
    tables = [numbers_of(file, reads, len(names), files) for file in files]
    again = [read for read in reads if read.others]
    if again:
        for read in again:
            check_share(read, read.numbers / (read.numbers + read.others), files)
        reads = [Read(read.name, read.insisted, read.is_target, True if read.others else None) for read in reads]
        tables = [numbers_of(file, reads, len(names), files) for file in files]
    for read in reads:
        if read.is_text:
            check_texts(read, files)
    return _source(section, reads[: len(names)], reads[len(names) :], tables)


def _input_names(section: Section, files: Sequence[TableFile]) -> list[str]:
    """The input columns, in the order of the training file. Raises DataError where names or types do not fit."""
    train = files[0]
    for key, listing in (
        ("data.target", section.targets),
        ("data.columns", section.columns or []),
        ("data.drop", section.drop),
        ("data.categories", section.categories),
    ):
        for name in listing:
            check_has(train, name, f"which {key} names")
    left_out = {*section.drop, *section.targets}
    names = [name for name in train.names if name not in left_out]
    if section.columns is not None:
        names = [name for name in names if name in section.columns]
    if not names:
        raise train.header_error(
            f"no column is left to predict {listed(section.targets)} from", "expected columns beside it"
        )
    for name in section.categories:
        if name not in names:
            raise DataError(f"data.categories: {quoted(name)} is not among the columns that the model sees")
    for file in files:
        there = set(file.names) - left_out
        missing = [name for name in [*names, *section.targets] if name not in file.names]
        extra = [] if section.columns is not None else [name for name in file.names if name in there - set(names)]
        if missing or extra:
            found = [f"has no {listed(missing)}"] * bool(missing) + [f"has also {listed(extra)}"] * bool(extra)
            raise file.header_error(
                f"its columns differ from those of {train.shown}: it {' and '.join(found)}",
                "give all files the same columns, or list those in common in data.columns",
            )
        check_types(file, [*names, *section.targets])
    return names


def _dictionaries(file: TableFile) -> list[str]:
    from pyarrow import types

    return [name for name, kind in file.types.items() if types.is_dictionary(kind)]


def _source(section: Section, inputs: Sequence[Read], outputs: Sequence[Read], tables: Sequence[Table]) -> Source:
    columns = [settle(read, tables, index) for index, read in enumerate(inputs)]
    check_varies(inputs, tables)
    classes, targets = targets_of(section, outputs, tables)
    splits = iter(
        [Split(torch.from_numpy(table.inputs.data), y) for table, y in zip(tables, targets, strict=True)]
    )
    train = next(splits)
    validation = next(splits) if section.path.validation else None
    test = next(splits) if section.path.test else None
    return Source(train, test, classes, [] if classes else section.targets, validation, columns)
