"""From the rows of a table as they are stored to what a model sees, by the training split alone."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlpcli.data.dataset import Column, Split

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TableEncoding:
    """What a model does to the rows of a table first.

    A stored row has numbers, with NaN where they are missing, and codes of categories, with −1 where they are
    missing or unknown. A prepared row is

    * each number x as (x - shift) * scale, a missing one as the mean of the training split;
    * an indicator, 1 where the number is missing and 0 else, of each number column of which the training split
      misses some;
    * of each column of categories a 0 or 1 for each category of the training split, or with
      `categorical="embedding"` one code: 1, 2, … for these. Missing and other categories are zeros.

    Attributes:
        columns: length of a stored row.
        number_columns: int64 (numbers,), where a stored row has its numbers.
        shift, scale: float64 (numbers,).
        fill: float64 (numbers,), the prepared value of a missing number.
        indicators: int64 (m,), which of the numbers have one.
        code_columns: int64 (c,), where a stored row has its codes.
        tables: for each of them int64 (categories + 1,), from code + 1 to the prepared code: 1, 2, … for the
            categories of the training split, at least one, and 0 for all else.
        categorical: `one_hot` or `embedding`.
    """

    columns: int
    number_columns: Tensor
    shift: Tensor
    scale: Tensor
    fill: Tensor
    indicators: Tensor
    code_columns: Tensor
    tables: list[Tensor]
    categorical: Literal["one_hot", "embedding"]
    _on: dict[torch.device, "_Placed"] = field(default_factory=dict, init=False, repr=False)

    @property
    def numbers(self) -> int:
        """How many numbers a prepared row starts with."""
        return len(self.number_columns)

    @property
    def cardinalities(self) -> list[int]:
        """Of each code in a prepared row, how many values it takes, 0 included; empty for one-hot categories."""
        return self._sizes if self.categorical == "embedding" else []

    @property
    def features(self) -> int:
        """Length of a prepared row."""
        widths = [1 if self.categorical == "embedding" else size - 1 for size in self._sizes]
        return self.numbers + len(self.indicators) + sum(widths)

    @property
    def _sizes(self) -> list[int]:
        return [int(table.max()) + 1 for table in self.tables]

    def __call__(self, inputs: Tensor, dtype: torch.dtype) -> Tensor:
        """A new tensor (n, features) of `dtype`, on the device of `inputs` (n, columns); they stay as they are."""
        return self.into(inputs, torch.empty((len(inputs), self.features), dtype=dtype, device=inputs.device))

    def into(self, inputs: Tensor, out: Tensor) -> Tensor:
        """Likewise, written into `out`, which is returned.

        Args:
            inputs: float64 (n, columns), on the device of `out`.
            out: float (n, features). Numbers are scaled before they are rounded to its type, so that those
                far from 0, such as years, keep their digits.
        """
        if out.device not in self._on:
            self._on[out.device] = _Placed(self, out.device)
        placed = self._on[out.device]
        first = self.numbers + len(self.indicators)
        if self.numbers:
            values = _columns_of(inputs, placed.number_runs)
            if len(self.indicators):
                out[:, self.numbers : first] = values.index_select(1, placed.indicators).isnan()
            scaled = torch.mul(values - placed.shift, placed.scale, out=out[:, : self.numbers])
            if placed.fills:
                torch.where(scaled.isnan(), placed.fill.to(out.dtype), scaled, out=scaled)
            else:
                scaled.nan_to_num_(0.0, math.inf, -math.inf)
        if self.tables:
            codes = _columns_of(inputs, placed.code_runs).long().add_(placed.starts)
            if self.categorical == "embedding":
                out[:, first:] = placed.codes[codes]
            else:
                # Each column writes once into a block of its own: 0 where the category is not known.
                out[:, first:].zero_().scatter_(1, placed.places[codes], placed.ones[out.dtype][codes])
        return out

    def as_module(self) -> nn.Module:
        """The same map as a module, of operations that ONNX has too."""
        return EncodingModule(self)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain types, for a checkpoint."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The inverse of `state_dict`."""
        return cls(**state)

    @classmethod
    def fit(
        cls,
        train: Split,
        columns: Sequence[Column],
        standardize: Literal["feature", "scale", "none"],
        categorical: Literal["one_hot", "embedding"],
    ) -> Self:
        """The encoding that a training split calls for.

        Args:
            train: float64 rows, at least one.
            columns: what they hold.
            standardize: `feature` gives each number column mean 0 and population standard deviation 1, `scale`
                maps its range to [0, 1], `none` leaves it. Missing values are not counted; constants are shifted
                only.
            categorical: what becomes of categories. Columns without a category in `train` are left out.
        """
        numbers = [index for index, column in enumerate(columns) if column.categories is None]
        count, mean, std, low, high = _statistics(train, numbers)
        shift, spread = {
            "feature": (mean, std),
            "scale": (low, high - low),
            "none": (np.zeros_like(mean), np.ones_like(mean)),
        }[standardize]
        scale = 1 / np.where(spread == 0, 1.0, spread)
        tables = _tables(train, columns)
        return cls(
            columns=len(columns),
            number_columns=torch.tensor(numbers, dtype=torch.int64),
            shift=torch.from_numpy(shift),
            scale=torch.from_numpy(scale),
            fill=torch.from_numpy((mean - shift) * scale),
            indicators=torch.from_numpy(np.flatnonzero(count < len(train))),
            code_columns=torch.tensor(list(tables), dtype=torch.int64),
            tables=list(tables.values()),
            categorical=categorical,
        )


class _Placed:
    """The tensors of an encoding on a device, and the tables of all its columns, one after the other.

    Attributes:
        number_runs, code_runs: adjacent columns of numbers, and of codes.
        fills: whether a missing number becomes anything but 0.
        starts: int64 (c,); `code + starts` is where a column's tables have that code.
        codes: the prepared code.
        places: which of the one-hot features is set.
        ones: what it is set to: 0 for missing and other categories.
    """

    def __init__(self, encoding: TableEncoding, device: torch.device) -> None:
        self.fills = bool(encoding.fill.any())
        self.number_runs, self.code_runs = _runs(encoding.number_columns), _runs(encoding.code_columns)
        self.shift, self.scale, self.fill = (x.to(device) for x in (encoding.shift, encoding.scale, encoding.fill))
        self.indicators = encoding.indicators.to(device)
        self.starts = _starts(encoding.tables).to(device)
        widths = [0, *itertools.accumulate(int(table.max()) for table in encoding.tables)]
        if encoding.tables:
            places = [
                (table - 1).clamp(min=0) + width for table, width in zip(encoding.tables, widths, strict=False)
            ]
            self.codes, self.places = torch.cat(encoding.tables).to(device), torch.cat(places).to(device)
            self.ones = {dtype: (self.codes > 0).to(dtype) for dtype in (torch.float32, torch.float64)}


def _runs(columns: Tensor) -> list[slice]:
    """Ascending columns as slices of adjacent ones."""
    runs: list[slice] = []
    for column in columns.tolist():
        first = runs.pop().start if runs and runs[-1].stop == column else column
        runs.append(slice(first, column + 1))
    return runs


def _columns_of(inputs: Tensor, runs: Sequence[slice]) -> Tensor:
    """The columns of some runs: half the time of selecting them by index."""
    parts = [inputs[:, run] for run in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _starts(tables: Sequence[Tensor]) -> Tensor:
    """Where in all tables, one after the other, the code 0 of each stands: int64 (c,)."""
    return torch.tensor(
        [1, *(1 + end for end in itertools.accumulate(map(len, tables)))][: len(tables)], dtype=torch.int64
    )


class EncodingModule(nn.Module):
    """A `TableEncoding` as a module: (n, columns), float64 or float32 -> float64 (n, features)."""

    number_columns: Tensor
    shift: Tensor
    scale: Tensor
    fill: Tensor
    indicators: Tensor
    code_columns: Tensor
    codes: Tensor
    starts: Tensor
    feature_columns: Tensor
    feature_codes: Tensor

    def __init__(self, encoding: TableEncoding) -> None:
        super().__init__()
        self.one_hot = encoding.categorical == "one_hot"
        self.has = bool(encoding.numbers), bool(len(encoding.indicators)), bool(encoding.tables)
        for name, value in encoding.state_dict().items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value)
        if encoding.tables:
            sizes = torch.tensor([int(table.max()) for table in encoding.tables])
            self.register_buffer("codes", torch.cat(encoding.tables))
            self.register_buffer("starts", _starts(encoding.tables))
            self.register_buffer("feature_columns", torch.arange(len(sizes)).repeat_interleave(sizes))
            self.register_buffer(
                "feature_codes", torch.cat([torch.arange(1, size + 1) for size in sizes.tolist()])
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """The prepared rows."""
        inputs = inputs.to(torch.float64)
        parts = []
        has_numbers, has_indicators, has_codes = self.has
        if has_numbers:
            values = inputs.index_select(1, self.number_columns)
            missing = values.isnan()
            parts.append(torch.where(missing, self.fill, (values - self.shift) * self.scale))
            if has_indicators:
                parts.append(missing.index_select(1, self.indicators).to(torch.float64))
        if has_codes:
            codes = self.codes[inputs.index_select(1, self.code_columns).to(torch.int64) + self.starts]
            if self.one_hot:
                codes = codes.index_select(1, self.feature_columns) == self.feature_codes
            parts.append(codes.to(torch.float64))
        return torch.cat(parts, 1)


def _statistics(train: Split, numbers: Sequence[int]) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Count, mean, standard deviation, least and largest of the values of each number column that are not missing.

    Of a column without any, mean and range are 0.
    """
    low, high = np.full((2, len(numbers)), np.nan)
    count, total, squares = np.zeros((3, len(numbers)))
    for values in _columns(train, numbers):
        low, high = np.fmin(low, np.fmin.reduce(values)), np.fmax(high, np.fmax.reduce(values))
        count += (~np.isnan(values)).sum(0)
        total += np.nansum(values, 0)
    mean = total / np.maximum(count, 1)
    for values in _columns(train, numbers):
        values -= mean
        squares += np.nansum(np.square(values, out=values), 0)
    std = np.sqrt(squares / np.maximum(count, 1))
    low, high = np.nan_to_num(low), np.nan_to_num(high)
    # The rounding of the mean must not make a constant look as if it varied.
    return count, np.where(low == high, low, mean), np.where(low == high, 0.0, std), low, high


def _columns(train: Split, columns: Sequence[int]) -> Iterator[Floats]:
    """Copies of some columns, chunk by chunk."""
    return (inputs.numpy()[:, columns] for inputs, _ in train.chunks())


def _tables(train: Split, columns: Sequence[Column]) -> dict[int, Tensor]:
    """`TableEncoding.tables` by column, without those of which the training split has no category."""
    sizes = {
        index: len(column.categories) for index, column in enumerate(columns) if column.categories is not None
    }
    found = {index: np.zeros(size + 1, dtype=np.bool_) for index, size in sizes.items()}
    for codes in _columns(train, list(sizes)):
        for seen, column in zip(found.values(), codes.T.astype(np.int64), strict=True):
            seen[column + 1] = True
    tables = {}
    for index, seen in found.items():
        seen[0] = False
        if seen.any():
            tables[index] = torch.from_numpy(np.where(seen, seen.cumsum(), 0))
    return tables
