"""What the columns of a table hold: numbers or categories, found over all files, batch by batch."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlpcli.config.text import quoted
from mlpcli.data.dataset import Column
from mlpcli.data.table_files import (
    BOOLEANS,
    EXACT,
    Floats,
    TableFile,
    as_numbers,
    as_texts,
    is_number,
    is_text,
)
from mlpcli.errors import DataError

MOSTLY = 0.9
"""A column of which this share is numbers is one of numbers, and the rest is wrong; likewise with dates."""
FEW = 20
"""Up to so many different whole numbers are classes, and up to so many different texts are always categories."""
BLOCK = 1 << 12
"""Rows that are looked at together."""
MANY = 100_000
"""Different texts from which on a column is looked at before all of it has been read."""

DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})|\d{1,2} [A-Za-z]{3,9}\.? \d{4}"
    r"|[A-Za-z]{3,9}\.? \d{1,2}, \d{4})([T ]+\d{1,2}:\d{2}.*)?|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp][Mm])?"
)
DECIMAL_COMMA = re.compile(r"[+-]?\d+(\.\d{3})*,\d+")
THOUSANDS = re.compile(r"[+-]?\d{1,3}([,' ]\d{3})+(\.\d+)?")


@dataclass(eq=False)
class Read:
    """What is known of a column from the batches that were read.

    Attributes:
        name: of the column.
        insisted: whether the config has it as a column of categories.
        is_target: whether it is to be predicted.
        is_text: whether it holds texts; None while all of it is missing.
        codes: of each text, in the order in which they appeared.
        counts: how often each appeared.
        numbers, others: how many values of a column of numbers are numbers, and how many are not.
    """

    name: str
    insisted: bool = False
    is_target: bool = False
    is_text: bool | None = None
    codes: dict[str, int] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    numbers: int = 0
    others: int = 0

    def values(self, array: Any) -> Floats:
        """The numbers, or codes of the texts, of a batch; NaN where they are missing."""
        self.decide(array)
        if self.is_text:
            return self._encoded(array)
        numbers = as_numbers(array)
        if numbers is None:
            good = sum(count for text, count in _counted(array) if is_number(text))
            self.numbers += good
            self.others += len(array) - array.null_count - good
            return np.full(len(array), np.nan)
        self.numbers += len(array) - array.null_count
        return numbers

    def decide(self, array: Any) -> None:
        """Takes what most of the first batch with values is for what the column holds."""
        if self.is_text is None and array.null_count < len(array):
            self.is_text = self.insisted or (as_numbers(array) is None and not _mostly_numbers(array))

    def _encoded(self, array: Any) -> Floats:
        texts = as_texts(array).dictionary_encode()
        mapping = np.empty(len(texts.dictionary))
        for index, text in enumerate(texts.dictionary.to_pylist()):
            code = self.codes.setdefault(text, len(self.codes))
            if code == len(self.counts):
                self.counts.append(0)
            mapping[index] = code
        indices: Floats = texts.indices.to_numpy(zero_copy_only=False)
        present = ~np.isnan(indices) if texts.null_count else slice(None)
        found = indices[present].astype(np.intp)
        for index, count in enumerate(np.bincount(found, minlength=len(mapping)).tolist()):
            self.counts[int(mapping[index])] += count
        result = np.full(len(indices), np.nan)
        result[present] = mapping[found]
        return result

    def share(self, wanted: Callable[[str], Any]) -> float:
        """The share of the values of a column of texts that are `wanted`."""
        total = sum(self.counts)
        return sum(n for text, n in zip(self.codes, self.counts, strict=True) if wanted(text)) / max(1, total)

    @property
    def is_boolean(self) -> bool:
        """Whether its texts are true and false."""
        return bool(self.is_text) and not self.insisted and self.codes.keys() <= BOOLEANS.keys()


def _counted(array: Any) -> list[tuple[str, int]]:
    """The different texts of a batch and how often each is there."""
    values, counts = as_texts(array).drop_null().value_counts().flatten()
    return list(zip(values.to_pylist(), counts.to_pylist(), strict=True))


def _mostly_numbers(array: Any) -> bool:
    good = sum(count for text, count in _counted(array) if is_number(text))
    return bool(good >= MOSTLY * (len(array) - array.null_count))


class Rows:
    """A matrix that grows in place: the system moves its pages, so that there is one copy of them.

    Attributes:
        low, high: the least and the largest value of each column that is not NaN.
        missing: whether a column has NaN.
    """

    def __init__(self, columns: int) -> None:
        self.data, self.size = np.empty((0, columns)), 0
        self.low, self.high = np.full((2, columns), np.nan)
        self.missing = np.zeros(columns, dtype=np.bool_)

    def append(self, columns: Sequence[Floats], expected: int) -> None:
        """Appends the rows that arrays of their columns make up; about `expected` rows will come in all."""
        new = self.size + len(columns[0])
        if self.size == 0:
            self.data = np.empty((max(new, expected), len(columns)))
        elif new > len(self.data):
            self._resize(new * 9 // 8)
        for index, column in enumerate(columns):
            self.data[self.size : new, index] = column
            self.low[index] = np.fmin.reduce(column, initial=self.low[index])
            self.high[index] = np.fmax.reduce(column, initial=self.high[index])
            self.missing[index] |= np.isnan(column).any()
        self.size = new

    def trim(self) -> None:
        """Gives back what no row has come for."""
        self._resize(self.size)

    def _resize(self, rows: int) -> None:
        self.data.resize((rows, self.data.shape[1]), refcheck=False)


@dataclass(eq=False)
class Table:
    """A file and its numbers: inputs (rows, columns) and targets (rows, outputs)."""

    file: TableFile
    inputs: Rows
    targets: Rows


def numbers_of(file: TableFile, reads: Sequence[Read], inputs: int, files: Sequence[TableFile]) -> Table:
    """All rows of a file."""
    import pyarrow as pa

    names = [read.name for read in reads]
    table = Table(file, Rows(inputs), Rows(len(reads) - inputs))
    looked_at = dict.fromkeys(names, MANY)
    for read, array in zip(reads, next(file.batches(names)), strict=True):
        read.decide(array if not pa.types.is_boolean(array.type) else array.cast(pa.string()))
    numbers = [read.name for read in reads if read.is_text is False]
    for batch in file.batches(names, numbers):
        columns = [_values(file, read, array) for read, array in zip(reads, batch, strict=True)]
        expected = file.expected(len(columns[0])) if table.inputs.size == 0 else 0
        table.inputs.append(columns[:inputs], expected)
        table.targets.append(columns[inputs:], expected)
        for read in reads:
            if len(read.codes) > looked_at[read.name]:
                check_texts(read, files)
                looked_at[read.name] *= 2
    for matrix, part in ((table.inputs, reads[:inputs]), (table.targets, reads[inputs:])):
        matrix.trim()
        for index in np.flatnonzero(np.isinf(matrix.low) | np.isinf(matrix.high)).tolist():
            raise file.error(
                "an infinite number",
                "correct it, or add its text to data.missing",
                part[index].name,
                lambda text: is_number(text) and math.isinf(float(text)),
            )
    return table


def _values(file: TableFile, read: Read, array: Any) -> Floats:
    import pyarrow as pa

    if not read.is_text and pa.types.is_integer(array.type) and as_numbers(array) is None:
        raise file.error(
            "a whole number with more digits than float64 holds",
            f"data.drop: [{read.name}] if it identifies rows, or store it as a float",
            read.name,
            lambda text: bool(text) and abs(int(text)) > EXACT,
        )
    return read.values(array.cast(pa.string()) if pa.types.is_boolean(array.type) else array)


def check_types(file: TableFile, names: Iterable[str]) -> None:
    """Raises DataError where a Parquet file states a type that is neither number nor text."""
    from pyarrow import types

    for name in names:
        kind = file.types.get(name)
        if kind is None:
            continue
        if types.is_temporal(kind):
            raise _date_error(file, name, None, str(kind))
        value = kind.value_type if types.is_dictionary(kind) else kind
        simple = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_null, is_text)
        if not any(check(value) for check in simple):
            hint = f"data.drop: [{name}], or store it as columns of numbers or texts"
            raise file.error(f"its type {kind} is neither numbers nor text", hint, name)


def check_texts(read: Read, files: Sequence[TableFile]) -> None:
    """Raises DataError where the texts of a column are no categories."""
    if read.insisted or read.is_boolean:
        return
    if read.share(DATE.fullmatch) >= MOSTLY:
        file, wrong = _containing(read, files, DATE.fullmatch)
        raise _date_error(file, read.name, wrong, "text")
    share, different = read.share(is_number), sum(map(is_number, read.codes))
    check_share(read, share if share < 0.5 or different <= FEW else 1.0, files)
    for pattern, what in ((THOUSANDS, "separators of thousands"), (DECIMAL_COMMA, "a decimal comma")):
        if share + read.share(pattern.fullmatch) >= MOSTLY:  # no text is both
            file, wrong = _containing(read, files, pattern.fullmatch)
            raise file.error(
                f"numbers with {what} are text here",
                "write them as 1234.5",
                read.name,
                wrong,
            )
    total = sum(read.counts)
    if len(read.codes) > FEW and len(read.codes) > total / 2:
        raise files[0].error(
            f"column {quoted(read.name)} has {len(read.codes)} different texts in {total} rows: it looks like "
            "free text or identifiers, from which nothing can be learnt",
            "name another column in data.target"
            if read.is_target
            else f"data.drop: [{read.name}] leaves it out; data.categories: [{read.name}] insists on it",
            read.name,
        )


def check_share(read: Read, share: float, files: Sequence[TableFile]) -> None:
    """Raises DataError at the first text of a column of numbers."""
    if share < MOSTLY:
        return
    file, wrong = _containing(read, files, lambda text: not is_number(text))
    raise file.error(
        f"text in the column {quoted(read.name)}, which is one of numbers",
        "correct it, or leave the row out"
        if read.is_target
        else f"add it to data.missing if it stands for a missing value; data.categories: [{read.name}] takes the "
        "column for categories",
        read.name,
        wrong,
    )


def _containing(
    read: Read, files: Sequence[TableFile], wrong: Callable[[str], object]
) -> tuple[TableFile, Callable[[str], bool]]:
    """The first file with a value that is `wrong` and not missing, and a test for it."""

    def bad(text: str) -> bool:
        return text not in files[0].missing and bool(wrong(text))

    for file in files:
        for (array,) in file.batches([read.name]):
            if any(bad(text) for text, _ in _counted(array)):
                return file, bad
    return files[0], bad


def _date_error(file: TableFile, name: str, wrong: Callable[[str], bool] | None, kind: str) -> DataError:
    return file.error(
        f"column {quoted(name)} holds dates or times ({kind}), which a network cannot learn from",
        f"data.drop: [{name}], or put numbers in its place: year, month, day of the week, days since a date",
        name,
        wrong,
    )


def settle(read: Read, tables: Sequence[Table], index: int) -> Column:
    """Puts the codes of the sorted categories, or 0 and 1 for booleans, in input column `index` of all tables."""
    if not read.is_text:
        return Column(read.name)
    if read.is_boolean:
        categories, final, missing = None, [BOOLEANS[text] for text in read.codes], np.nan
    else:
        categories = sorted(read.codes)
        order = {text: float(code) for code, text in enumerate(categories)}
        final, missing = [order[text] for text in read.codes], -1.0
    for table in tables:
        recode(table.inputs.data[:, index], [*final, missing])
    return Column(read.name, categories)


def recode(column: Floats, final: Sequence[float]) -> None:
    """Replaces each code, in place; the last of `final` is for NaN."""
    mapping = np.array(final)
    for start in range(0, len(column), BLOCK):
        part = column[start : start + BLOCK]
        part[:] = mapping[np.where(np.isnan(part), len(mapping) - 1, part).astype(np.intp)]


def check_varies(reads: Sequence[Read], tables: Sequence[Table]) -> None:
    """Raises DataError for the first input column that is the same in all rows of all files."""
    low = np.fmin.reduce([table.inputs.low for table in tables])
    high = np.fmax.reduce([table.inputs.high for table in tables])
    missing = np.any([table.inputs.missing for table in tables], axis=0)
    for index in np.flatnonzero(np.isnan(low) | ((low == high) & ~missing)).tolist():
        name = reads[index].name
        same = "has no values" if np.isnan(low[index]) else "is the same in all rows"
        raise tables[0].file.error(
            f"column {quoted(name)} {same}, so that nothing can be learnt from it", f"data.drop: [{name}]", name
        )
