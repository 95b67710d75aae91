import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from mlpcli.data.dataset import Column, Split
from mlpcli.data.encoding import TableEncoding

NAN = math.nan
COLUMNS = [Column("a"), Column("c", ["x", "y", "z", "w"]), Column("b"), Column("d", ["p", "q"]), Column("e")]
TRAIN = [
    [1.0, 0, NAN, 1, 5.0],
    [2.0, 2, 10.0, 1, 5.0],
    [4.0, 2, 30.0, -1, 5.0],
    [9.0, -1, NAN, -1, 5.0],
]
NEW = [[NAN, 1, NAN, 0, 6.0], [3.0, 2, 20.0, 1, NAN], [1.0, 3, 10.0, -1, 5.0], [0.0, 0, 0.0, 1, 0.0]]


def split(rows: list[list[float]] | NDArray[np.float64]) -> Split:
    stored = torch.tensor(np.asarray(rows), dtype=torch.float64)
    return Split(stored, torch.zeros(len(stored), dtype=torch.int64))


def fit(
    rows: Any, columns: list[Column], standardize: Any = "feature", categorical: Any = "one_hot"
) -> TableEncoding:
    return TableEncoding.fit(split(rows), columns, standardize, categorical)


def test_one_hot_rows_by_hand() -> None:
    encoding = fit(TRAIN, COLUMNS, "scale")
    assert (encoding.numbers, encoding.features, encoding.cardinalities) == (3, 3 + 1 + 2 + 1, [])
    expected = [
        # a, b, e | b is missing | x, z | q: y, w and p are not in the training split
        [(4 - 1) / 8, 0.5, 1, 1, 0, 0, 0],
        [(3 - 1) / 8, 0.5, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 0],
        [-1 / 8, -0.5, -5, 0, 1, 0, 1],
    ]
    found = encoding(torch.tensor(NEW, dtype=torch.float64), torch.float64)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-15)


def test_codes_for_an_embedding_by_hand() -> None:
    encoding = fit(TRAIN, COLUMNS, "none", "embedding")
    assert (encoding.numbers, encoding.features, encoding.cardinalities) == (3, 3 + 1 + 2, [3, 2])
    expected = [[4, 20, 6, 1, 0, 0], [3, 20, 5, 0, 2, 1], [1, 10, 5, 0, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert encoding(torch.tensor(NEW, dtype=torch.float64), torch.float32).tolist() == expected


def test_columns_without_a_value_in_the_training_split() -> None:
    """They are in another split: the number column is its indicator, and the categories have no input."""
    rows = [[NAN, -1, 1.0], [NAN, -1, 2.0]]
    columns = [Column("n"), Column("c", ["x"]), Column("m")]
    for categorical in ("one_hot", "embedding"):
        encoding = fit(rows, columns, "feature", categorical)
        assert encoding.features == 3 and encoding.cardinalities == []
        found = encoding(torch.tensor([[NAN, 0, 1.5], [7.0, -1, 1.5]], dtype=torch.float64), torch.float64)
        assert found.tolist() == [[0, 0, 1], [7, 0, 0]]


def test_only_the_training_split_counts() -> None:
    whole = split([*TRAIN, [1e9, 3, 1e9, 0, 1e9]])
    cut = TableEncoding.fit(whole.take(torch.arange(4)), COLUMNS, "feature", "one_hot")
    for name, value in fit(TRAIN, COLUMNS).state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, cut.state_dict()[name]), name


def test_years_and_timestamps_keep_their_digits() -> None:
    times = 1.7e9 + np.arange(1000) * 0.25
    encoding = fit(times[:, None], [Column("t")])
    found = encoding(torch.from_numpy(times[:, None]), torch.float32)
    expected = StandardScaler().fit_transform(times[:, None])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7)


@st.composite
def data(draw: st.DrawFn) -> tuple[list[Column], NDArray[np.float64], NDArray[np.float64]]:
    """Columns, training rows with at least a value in each column, and other rows."""
    columns, train, new = [], [], []
    size = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    for index in range(draw(st.integers(1, 6))):
        missing = draw(st.sampled_from([0.0, 0.3]))
        if draw(st.booleans()):
            columns.append(Column(str(index)))
            values = rng.normal(rng.normal() * 100, rng.uniform(0.1, 10), 2 * size)
            absent = NAN
        else:
            count = draw(st.integers(1, 5))
            columns.append(Column(str(index), [str(code) for code in range(count)]))
            values, absent = rng.integers(0, count, 2 * size).astype(np.float64), -1
        gone = rng.random(2 * size) < missing
        gone[0] = False
        values[gone] = absent
        train.append(values[:size])
        new.append(values[size:])
    return columns, np.stack(train, 1), np.stack(new, 1)


def oracle(columns: list[Column], train: NDArray[np.float64], new: NDArray[np.float64], scaler: Any) -> Any:
    """By scikit-learn."""
    numbers = [index for index, column in enumerate(columns) if column.categories is None]
    parts = []
    if numbers:
        scaler.fit(train[:, numbers])  # it leaves NaN out
        imputer = SimpleImputer(add_indicator=True).fit(scaler.transform(train[:, numbers]))
        parts.append(imputer.transform(scaler.transform(new[:, numbers])))
    for index, column in enumerate(columns):
        if column.categories is not None:
            known = np.unique(train[:, index][train[:, index] >= 0])
            encoder = OneHotEncoder(categories=[known], handle_unknown="ignore", sparse_output=False)
            parts.append(encoder.fit(known[:, None]).transform(new[:, [index]]))
    return np.concatenate(parts, 1)


@settings(max_examples=100, deadline=None)
@given(data(), st.sampled_from(["feature", "scale"]))
def test_it_does_what_scikit_learn_does(given_data: Any, standardize: str) -> None:
    columns, train, new = given_data
    scaler = StandardScaler() if standardize == "feature" else MinMaxScaler()
    encoding = fit(train, columns, standardize)
    found = encoding(torch.from_numpy(new), torch.float64)
    np.testing.assert_allclose(found.numpy(), oracle(columns, train, new, scaler), rtol=1e-9, atol=1e-9)
    one_hot = found[:, encoding.numbers + len(encoding.indicators) :]
    codes = fit(train, columns, standardize, "embedding")(torch.from_numpy(new), torch.float64)
    codes = codes[:, encoding.numbers + len(encoding.indicators) :]
    sizes = [size - 1 for size in fit(train, columns, standardize, "embedding").cardinalities]
    for block, code in zip(one_hot.split(sizes, 1), codes.T, strict=True):
        expected = torch.where(block.any(1), block.argmax(1) + 1, 0)
        assert torch.equal(code.long(), expected)


@settings(max_examples=60, deadline=None)
@given(data(), st.sampled_from(["feature", "scale", "none"]), st.sampled_from(["one_hot", "embedding"]))
def test_the_module_and_a_loaded_encoding_are_the_same_map(
    given_data: Any, standardize: str, categorical: str
) -> None:
    columns, train, new = given_data
    encoding = fit(train, columns, standardize, categorical)
    inputs = torch.from_numpy(new)
    before = inputs.clone()
    expected = encoding(inputs, torch.float32)
    assert expected.shape == (len(new), encoding.features)
    assert torch.equal(encoding.as_module()(inputs).to(expected.dtype), expected)
    saved = io.BytesIO()
    torch.save(encoding.state_dict(), saved)
    saved.seek(0)
    loaded = TableEncoding.from_state(torch.load(saved, weights_only=True))
    out = torch.full((len(new), encoding.features), NAN)
    assert loaded.into(inputs, out) is out and torch.equal(out, expected)
    assert loaded.cardinalities == encoding.cardinalities
    np.testing.assert_array_equal(inputs.numpy(), before.numpy())


@pytest.mark.parametrize("categorical", ["one_hot", "embedding"])
def test_the_module_is_exported_with_a_free_batch_size(categorical: str) -> None:
    encoding = fit(TRAIN, COLUMNS, "feature", categorical)
    inputs = torch.tensor(TRAIN, dtype=torch.float64)
    rows = torch.export.Dim("rows")
    program = torch.export.export(encoding.as_module(), (inputs,), dynamic_shapes=({0: rows},))
    new = torch.tensor(NEW * 3, dtype=torch.float64)
    assert torch.equal(program.module()(new), encoding(new, torch.float64))
