"""CSV and Parquet files: their columns, their rows in batches of bounded memory, and where a value stands.

pyarrow reads both. docs/tables.md says why.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpcli.config.text import clean, quoted
from mlpcli.data.files import absolute, unreadable
from mlpcli.data.table_errors import (
    DELIMITERS,
    absent,
    check_bytes,
    error_in,
    find,
    line_breaks,
    listed,
    malformed,
    records,
)
from mlpcli.errors import DataError

Floats = NDArray[np.float64]
Wrong = Callable[[str], bool]

BLOCK = 1 << 20
"""Bytes of a CSV file that become a batch."""
ROWS = 1 << 14
"""Rows of a Parquet file that become a batch."""
EXACT = 2**53
"""Up to here a float64 holds every whole number."""
BOOLEANS = {"false": 0.0, "False": 0.0, "FALSE": 0.0, "true": 1.0, "True": 1.0, "TRUE": 1.0}


@dataclass(frozen=True)
class Skipped:
    """A row that has not as many fields as the header.

    Attributes:
        row: its number below the header, from 1; empty lines are not counted.
        fields: how many it has.
    """

    row: int
    fields: int


class _TextAmongNumbers(Exception):
    """A column that was to come as numbers has a text."""


class CsvFile:
    """A CSV file whose bytes, header and first row have been checked.

    Attributes:
        shown: its path as the user wrote it.
        names: of its columns, in order.
        types: of the columns that the file states; none.
    """

    def __init__(self, shown: str, delimiter: str, missing: Sequence[str]) -> None:
        self.shown, self.path = shown, absolute(shown)
        self.delimiter, self.missing = delimiter, list(missing)
        self.types: dict[str, Any] = {}
        unbalanced = check_bytes(shown, self.path)
        rows = records(self.path, delimiter)
        header = next(rows, None)
        if header is None:
            raise DataError(
                f"{shown}:1:1: the file has no text\n    expected a header line with the names of the columns"
            )
        self.header, self.names = header, [name.strip() for name in header.fields]
        self._check_header()
        if next(rows, None) is None:
            raise self.header_error("the file has a header and no rows", "expected a row for each sample below it")
        if unbalanced:
            self._check_rows()

    def batches(
        self,
        names: Sequence[str],
        numbers: Collection[str] = (),
        skip: Callable[[Skipped], object] | None = None,
    ) -> Iterator[list[Any]]:
        """The columns `names`, as arrays of texts, None where they are missing; some thousand rows at a time.

        Args:
            names: of columns of the file.
            numbers: those of them that come as float64, which is faster, until one of them has a text.
            skip: where it is given, rows with too few or too many fields are left out, and it is called with
                each, in order, before the batch after it comes. All columns are texts then.

        Raises:
            DataError: a row has not as many fields as the header, or the file cannot be read.
        """
        done = 0
        try:
            for batch in self._batches(names, () if skip else numbers, skip):
                done += len(batch[0])
                yield batch
        except _TextAmongNumbers:
            for batch in self._batches(names, (), skip):
                size = len(batch[0])
                if done < size:
                    yield [array[done:] for array in batch]
                done = max(0, done - size)

    def _batches(
        self, names: Sequence[str], numbers: Collection[str], skip: Callable[[Skipped], object] | None
    ) -> Iterator[list[Any]]:
        import pyarrow as pa
        from pyarrow import csv

        def handler(row: Any) -> str:
            assert skip is not None
            skip(Skipped(row.number - self._lines_of_header, row.actual_columns))
            return "skip"

        try:
            reader = csv.open_csv(
                self.path,
                # Rows are numbered by one thread only.
                csv.ReadOptions(
                    use_threads=skip is None,
                    block_size=self._block,
                    column_names=self.names,
                    skip_rows=self._lines_of_header,
                ),
                csv.ParseOptions(
                    delimiter=self.delimiter,
                    newlines_in_values=True,
                    invalid_row_handler=handler if skip else None,
                ),
                csv.ConvertOptions(
                    include_columns=list(names),
                    column_types={name: pa.float64() if name in numbers else pa.string() for name in names},
                    null_values=self.missing,
                    strings_can_be_null=True,
                ),
            )
            for batch in _one_ahead(reader):
                yield [self._trimmed(column) if is_text(column.type) else column for column in batch.columns]
        except pa.ArrowInvalid as error:
            if numbers and "conversion error to double" in str(error):
                raise _TextAmongNumbers from error
            self._check_rows()
            raise DataError(f"{self.shown}: cannot be read as CSV: {error}") from error
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _trimmed(self, texts: Any) -> Any:
        """Texts without spaces around them, as the names in the header are, and None where one is missing then."""
        import pyarrow as pa
        from pyarrow import compute

        trimmed = compute.utf8_trim(texts, " ")
        if trimmed.equals(texts):
            return texts
        missing = compute.is_in(trimmed, pa.array(self.missing, pa.string()))
        return compute.if_else(missing, pa.scalar(None, pa.string()), trimmed)

    def header_error(self, message: str, hint: str) -> DataError:
        """The error at the header."""
        return error_in(self.shown, self.header, 0, self.delimiter, message, hint)

    def error(self, message: str, hint: str, name: str, wrong: Wrong | None = None) -> DataError:
        """The error at the first value of the column `name` that is `wrong`; None for its name in the header."""
        index = self.names.index(name)
        row = find(self.path, self.delimiter, index, wrong) if wrong else self.header
        return error_in(self.shown, row or self.header, index, self.delimiter, message, hint)

    def expected(self, rows: int) -> int:
        """About how many rows there are where the first batch has `rows`; mostly some more."""
        return rows * (self.path.stat().st_size // self._block + 1)

    @property
    def _block(self) -> int:
        return max(BLOCK, 64 * len(self.header.raw))

    @property
    def _lines_of_header(self) -> int:
        return self.header.line + line_breaks(self.header.raw)

    def _check_rows(self) -> None:
        error = malformed(self.shown, self.path, self.delimiter, len(self.names))
        if error is not None:
            raise error

    def _check_header(self) -> None:
        header, names = self.header, self.names
        if header.broken:
            self._check_rows()
        if len(names) == 1:
            for other in DELIMITERS:
                if other != self.delimiter and other in names[0]:
                    split = DELIMITERS.get(self.delimiter, f'"{self.delimiter}"')
                    message = f"the header is one column when it is split at {split}"
                    hint = f"did you mean data.delimiter: {DELIMITERS[other]}?"
                    raise self.header_error(message, hint)
        for index, name in enumerate(names):
            if not name:
                message, hint = f"column {index + 1} has no name", "every column needs a name in the header"
            elif name in names[:index]:
                message, hint = f"column {quoted(name)} is there twice", "every column needs a name of its own"
            else:
                continue
            raise error_in(self.shown, header, index, self.delimiter, message, hint)


class ParquetFile:
    """A Parquet file whose columns have been checked.

    Attributes:
        shown: its path as the user wrote it.
        names: of its columns, in order.
        types: of its columns, pyarrow's.
    """

    def __init__(self, shown: str, missing: Sequence[str]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self.shown, self.path, self.missing = shown, absolute(shown), list(missing)
        try:
            if self.path.is_dir():
                raise DataError(f"{shown}: this is a folder; expected a Parquet file")
            with self.path.open("rb") as file:
                start = file.read(4)
            if start != b"PAR1":
                raise DataError(f"{shown}: this is no Parquet file\n    set data.dataset: csv if it is text")
            self._file = parquet.ParquetFile(self.path)
        except FileNotFoundError:
            raise absent(shown, self.path) from None
        except pa.ArrowException as error:
            raise DataError(f"{shown}: damaged: {str(error).splitlines()[0]}") from error
        except OSError as error:
            raise unreadable(self.path, error) from error
        schema = self._file.schema_arrow
        self.names: list[str] = list(schema.names)
        for index, name in enumerate(self.names):
            if name in self.names[:index]:
                raise DataError(
                    f"{shown}: column {quoted(name)} is there twice\n    every column needs a name of its own"
                )
        self.types = dict(zip(self.names, schema.types, strict=True))
        if self._file.metadata.num_rows == 0:
            raise DataError(f"{shown}: the file has columns and no rows\n    expected a row for each sample")

    def batches(
        self,
        names: Sequence[str],
        numbers: Collection[str] = (),
        skip: Callable[[Skipped], object] | None = None,
    ) -> Iterator[list[Any]]:
        """The columns `names`, as arrays of their own types; some thousand rows at a time. None is skipped."""
        import pyarrow as pa

        try:
            for batch in self._file.iter_batches(ROWS, columns=list(names)):
                yield [self._without_missing(batch.column(name)) for name in names]
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.shown}: damaged: {str(error).splitlines()[0]}") from error

    def header_error(self, message: str, hint: str) -> DataError:
        """The error for its columns."""
        return DataError(f"{clean(self.shown, 1000)}: {message}\n    {hint}")

    def error(self, message: str, hint: str, name: str, wrong: Wrong | None = None) -> DataError:
        """The error at the first value of the column `name` that is `wrong`; None for the column itself."""
        place = f"{clean(self.shown, 1000)}: column {quoted(name)}"
        found = self._find(name, wrong) if wrong else None
        if found is not None:
            place += f", row {found[0]} ({quoted(found[1]) if found[1] else 'null'})"
        return DataError(f"{place}: {message}" + (f"\n    {hint}" if hint else ""))

    def expected(self, rows: int) -> int:
        """How many rows there are."""
        return int(self._file.metadata.num_rows)

    def _find(self, name: str, wrong: Wrong) -> tuple[int, str] | None:
        """The number of the first row, from 1, whose value is `wrong`, and the value as text; a null is ''."""
        row = 0
        for (column,) in self.batches([name]):
            for value in as_texts(column).to_pylist():
                row += 1
                if wrong(value or ""):
                    return row, value or ""
        return None

    def _without_missing(self, column: Any) -> Any:
        """The texts that stand for a missing value become nulls."""
        from pyarrow import compute, types

        kind = column.type
        if types.is_dictionary(kind):
            column = column.dictionary_decode()
        if not is_text(column.type):
            return column
        import pyarrow as pa

        column = column.cast(pa.string())
        absent = compute.is_in(column, pa.array(self.missing, pa.string()))
        return compute.if_else(absent, pa.scalar(None, pa.string()), column)


TableFile = CsvFile | ParquetFile


def _one_ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The same, each read by another thread while the one before is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def check_has(file: TableFile, name: str, why: str) -> None:
    """Raises DataError where the file has no column of this name; `why` says who wants it."""
    if name in file.names:
        return
    near = get_close_matches(name, file.names, n=1, cutoff=0.5)
    near = near or [each for each in file.names if each.lower() == name.lower()]
    hint = f"did you mean {quoted(near[0])}? " if near else ""
    raise file.header_error(f"there is no column {quoted(name)}, {why}", f"{hint}there are: {listed(file.names)}")


def is_text(kind: Any) -> bool:
    """Whether values of a pyarrow type are texts."""
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def as_texts(array: Any) -> Any:
    """A pyarrow array of any simple type as one of texts."""
    import pyarrow as pa

    return array if pa.types.is_string(array.type) else array.cast(pa.string())


def as_numbers(array: Any) -> Floats | None:
    """A pyarrow array of texts, booleans or numbers as float64, with NaN for nulls; None where one is no number.

    Spaces around a number are ignored. Whole numbers that float64 cannot hold are none.
    """
    import pyarrow as pa
    from pyarrow import compute

    try:
        numbers = array.cast(pa.float64())
    except pa.ArrowInvalid:
        if not is_text(array.type):
            return None
        try:
            numbers = compute.utf8_trim_whitespace(array).cast(pa.float64())
        except pa.ArrowInvalid:
            return None
    result: Floats = numbers.to_numpy(zero_copy_only=False)
    return result


def is_number(text: str) -> bool:
    """Whether `as_numbers` takes a text for a number."""
    if "_" in text or not text.isascii():
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True
