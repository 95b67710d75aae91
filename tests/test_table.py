import csv
import datetime
import decimal
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from mlpcli.config.data_schema import CsvData, ParquetData
from mlpcli.data import table
from mlpcli.data.dataset import Column, Source
from mlpcli.data.table_stream import stream
from mlpcli.errors import DataError

MISSING = CsvData.model_fields["missing"].default
HEADER = "age,color,y\n"
GOOD = "".join(f"{n},{'red' if n % 3 else 'blue'},{n % 2}\n" for n in range(30))


def write(content: str | bytes, name: str = "t.csv") -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def read(content: str | bytes, **settings: Any) -> Source:
    write(content)
    return table.read(CsvData(dataset="csv", **{"path": "t.csv", "target": "y", **settings}))


def fails(content: str | bytes, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(content, **settings)
    return str(caught.value)


def write_parquet(name: str = "t.parquet", **columns: Any) -> str:
    parquet.write_table(pa.table(columns), name)
    return name


def read_parquet(**columns: Any) -> Source:
    return table.read(ParquetData(dataset="parquet", path=write_parquet(**columns), target="y"))


# --- what is read ---------------------------------------------------------------------------------------


def test_numbers_booleans_and_categories() -> None:
    source = read(
        "n,b,c,y\n 1 ,true,red,0\n2.5e1,False,blue,1\n,TRUE,NA,0\n+3,,red,1\n",
    )
    assert source.columns == [Column("n"), Column("b"), Column("c", ["blue", "red"])]
    expected = [[1, 1, 1], [25, 0, 0], [math.nan, 1, -1], [3, math.nan, 1]]
    np.testing.assert_array_equal(source.train.stored.numpy(), expected)
    assert source.train.stored.dtype == torch.float64
    assert source.classes == ["0", "1"]
    assert source.train.targets.tolist() == [0, 1, 0, 1]
    assert source.test is None and source.validation is None


def test_a_column_is_judged_by_all_of_the_file() -> None:
    """What starts as numbers for more than a batch becomes categories where half of it is text."""
    numbers = "".join(f"{n % 7},{n % 2}\n" for n in range(300_000))
    texts = "".join(f"a{n % 3},{n % 2}\n" for n in range(300_000))
    source = read("c,y\n" + numbers + texts)
    assert source.columns == [Column("c", ["0", "1", "2", "3", "4", "5", "6", "a0", "a1", "a2"])]
    expected = [n % 7 for n in range(300_000)] + [7 + n % 3 for n in range(300_000)]
    np.testing.assert_array_equal(source.train.stored[:, 0].numpy(), expected)


def test_numbers_that_are_categories() -> None:
    source = read("zip,y\n01234,0\n1234,1\n01234,1\n,0\n", categories=["zip"])
    assert source.columns == [Column("zip", ["01234", "1234"])]
    assert source.train.stored.tolist() == [[0], [1], [0], [-1]]


def test_the_columns_that_the_model_sees_keep_the_order_of_the_file() -> None:
    content = "a,b,c,y\n1,2,3,0\n4,5,6,1\n7,8,9,0\n1,2,3,1\n"
    assert [column.name for column in read(content, columns=["c", "a"]).columns] == ["a", "c"]
    assert [column.name for column in read(content, drop=["b"]).columns] == ["a", "c"]
    assert read(content, drop=["b"]).train.stored[0].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["10", "9", "10", "9"], "auto", ["9", "10"]),
        (["1.0", "2", "1", "2.0"], "auto", ["1", "2"]),
        (["no", "yes", "no", "yes"], "auto", ["no", "yes"]),
        (["True", "False", "True", "False"], "auto", ["False", "True"]),
        (["1.5", "2", "1", "2"], "auto", []),
        ([str(n) for n in range(21)] * 2, "auto", []),
        ([str(n) for n in range(20)] * 2, "auto", [str(n) for n in range(20)]),
        ([str(n) for n in range(21)] * 2, "classification", [str(n) for n in range(21)]),
        (["1", "2", "1", "2"], "regression", []),
        (["true", "false", "true", "false"], "regression", []),
    ],
)
def test_the_task_follows_from_the_target(values: list[str], task: str, classes: list[str]) -> None:
    source = read("x,y\n" + "".join(f"{n},{value}\n" for n, value in enumerate(values)), task=task)
    assert source.classes == classes
    assert source.task == ("classification" if classes else "regression")
    if classes:
        shown = [value.removesuffix(".0") for value in values]
        assert [classes[target] for target in source.train.targets.tolist()] == shown
    else:
        numbers = [{"true": 1.0, "false": 0.0}.get(value) for value in values]
        expected = [[float(v) if n is None else n] for n, v in zip(numbers, values, strict=True)]
        assert source.train.targets.tolist() == expected
        assert source.train.targets.dtype == torch.float64 and source.target_names == ["y"]


def test_several_targets(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="mlpcli"):
        source = read("x,y,z\n1,2,3\n4,5,6\n", target=["z", "y"])
    assert source.columns == [Column("x")] and source.target_names == ["z", "y"] and source.classes == []
    assert source.train.targets.tolist() == [[3, 2], [6, 5]]
    assert "csv: predicting 'z', 'y': regression" in caplog.text


def test_a_file_for_each_split() -> None:
    write("y,color,age\n1,green,5\n", "test.csv")
    write("age,color,y\n6,red,0\n", "validation.csv")
    path = {"train": "t.csv", "validation": "validation.csv", "test": "test.csv"}
    source = read("age,color,y\n1,red,0\n2,blue,1\n", path=path)
    assert source.columns == [Column("age"), Column("color", ["blue", "green", "red"])]
    assert source.train.stored.tolist() == [[1, 2], [2, 0]]
    assert source.validation is not None and source.validation.stored.tolist() == [[6, 2]]
    assert source.test is not None and source.test.stored.tolist() == [[5, 1]]
    assert source.test.targets.tolist() == [1]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + HEADER + GOOD,
        (HEADER + GOOD).replace("\n", "\r\n"),
        (HEADER + GOOD).replace("\n", "\r"),
        HEADER + GOOD.replace("\n", "\n\n"),
        (HEADER + GOOD).rstrip("\n"),
        "\n\n" + HEADER + GOOD,
        HEADER.replace(",", ", ") + GOOD,
        '"age","color","y"\n' + GOOD.replace("red", '"red"'),
    ],
)
def test_the_same_table_written_otherwise(content: str) -> None:
    expected, found = read(HEADER + GOOD), read(content)
    assert found.columns == expected.columns
    assert torch.equal(found.train.stored, expected.train.stored)
    assert torch.equal(found.train.targets, expected.train.targets)


def test_spaces_around_a_field_do_not_count() -> None:
    spaced = "\n".join(", ".join(line.split(",")) for line in (HEADER + GOOD).splitlines()) + "\n"
    expected, found = read(HEADER + GOOD), read(spaced)
    assert found.columns == expected.columns and torch.equal(found.train.stored, expected.train.stored)
    assert read(HEADER + GOOD + "5, NA ,1\n").train.stored[-1].tolist() == [5, -1]


def test_a_trained_model_finds_the_delimiter_and_names_what_it_does_not_know(
    caplog: pytest.LogCaptureFixture,
) -> None:
    columns = read(HEADER + GOOD).columns
    for delimiter in ",;\t|":
        write((HEADER + "30,red,1\n31,mauve,0\n").replace(",", delimiter), "other.csv")
        ((_, rows),) = stream("other.csv", columns, MISSING, ",", 10)
        assert rows.tolist() == [[30, columns[1].categories.index("red")], [31, -1]]
        assert "other.csv: 1 values in the column 'color' are categories that" in caplog.messages[-1]


def test_other_delimiters() -> None:
    expected = read(HEADER + GOOD).train.stored
    for delimiter in ";\t|":
        content = (HEADER + GOOD).replace(",", delimiter)
        assert torch.equal(read(content, delimiter=delimiter).train.stored, expected)


def test_a_second_read_is_from_the_cache_until_the_file_or_a_setting_changes() -> None:
    first = read(HEADER + GOOD)
    again = table.read(CsvData(dataset="csv", path="t.csv", target="y"))
    assert again.columns == first.columns and torch.equal(again.train.stored, first.train.stored)
    assert len(read(HEADER + GOOD + "99,red,1\n").train) == len(first.train) + 1
    assert read(HEADER + GOOD, target="age").target_names == ["age"]
    assert read(HEADER + GOOD, missing=["blue"]).columns[1] == Column("color", ["red"])


# --- against Python's csv module ------------------------------------------------------------------------

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from(',;"\n\r \t'), max_size=6
)


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    """A header and rows: a column of numbers, one of texts, and a target."""
    size = draw(st.integers(4, 12))
    numbers = st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.sampled_from(["", "NA", "7", "-0"])
    column = draw(st.lists(numbers, min_size=size, max_size=size))
    texts = draw(st.lists(TEXTS, min_size=size, max_size=size))
    rows = [[a, b, str(n % 2)] for n, (a, b) in enumerate(zip(column, texts, strict=True))]
    return [["n", "c", "y"], ["1", "first", "0"], ["2", "second", "1"], *rows]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables(), st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_table_is_read_as_it_was_written(rows: list[list[str]], delimiter: str, end: str, quote: bool) -> None:
    text = io.StringIO()
    # Minimal quoting leaves a carriage return bare, which then ends a line.
    quote = quote or any("\r" in row[1] for row in rows)
    quoting = csv.QUOTE_ALL if quote else csv.QUOTE_MINIMAL
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    source = read(text.getvalue(), delimiter=delimiter, categories=["c"])
    texts = [row[1].strip(" ") for row in rows[1:]]
    categories = sorted({text for text in texts if text not in MISSING})
    assert source.columns == [Column("n"), Column("c", categories)]
    expected = [
        [math.nan if n in MISSING else float(n), -1 if c in MISSING else categories.index(c)]
        for (n, _, _), c in zip(rows[1:], texts, strict=True)
    ]
    np.testing.assert_array_equal(source.train.stored.numpy(), expected)
    assert source.train.targets.tolist() == [int(row[2]) for row in rows[1:]]
    for rows_at_once in (1, 3, 1000):
        streamed = list(stream("t.csv", source.columns, MISSING, delimiter, rows_at_once))
        assert [len(part) for _, part in streamed[:-1]] == [rows_at_once] * (len(streamed) - 1)
        np.testing.assert_array_equal(torch.cat([part for _, part in streamed]).numpy(), expected)
        assert torch.cat([numbers for numbers, _ in streamed]).tolist() == list(range(1, len(rows)))


# --- what is wrong, and where ---------------------------------------------------------------------------

DAYS = "".join(f"2020-01-{n:02},{n},{n % 2}\n" for n in range(1, 30))
NAMES = "".join(f"name {n},{n},{n % 2}\n" for n in range(30))
COMMAS = "".join(f'"{n},5",{n},{n % 2}\n' for n in range(30))
THOUSANDS = "".join(f'"{n},500",{n},{n % 2}\n' for n in range(1, 30))
BAD: dict[str, tuple[str | bytes, dict[str, Any], str, str]] = {
    "too few fields": (HEADER + GOOD + "31,red\n", {}, "32:7", "this row has 2 fields, the header has 3"),
    "one field": (HEADER + "31\n" + GOOD, {}, "2:3", "this row has 1 field, the header has 3"),
    "too many fields": (HEADER + GOOD + "1,red,0,5\n", {}, "32:9", "this row has 4 fields"),
    "spaces alone": (HEADER + "  \n" + GOOD, {}, "2:3", "this row has 1 field"),
    "text among numbers": (HEADER + GOOD + "x,red,0\n", {}, "32:1", "text in the column 'age'"),
    "and in the first line": (HEADER + "x,red,0\n" + GOOD, {}, "2:1", "text in the column 'age'"),
    "many odd texts among numbers": (
        HEADER + GOOD + "none,red,0\n" * 20,
        {},
        "32:1",
        "text in the column 'age', which is one of numbers",
    ),
    "after quoted newlines": (
        HEADER + '1,"a\nb\r\nc",0\n2,"a\nb\r\nc",1\n' + GOOD + "1,red,0\nx,red,0\n",
        {},
        "39:1",
        "text in the column 'age'",
    ),
    "behind quoted newlines": ('c,n,y\n"a\nb",1,0\n"a\nb",inf,1\nc,2,0\n', {}, "5:4", "an infinite number"),
    "infinite": (HEADER + GOOD + "-inf,red,1\n", {}, "32:1", "an infinite number"),
    "overflow": (HEADER + GOOD + "1e999,red,1\n", {}, "32:1", "an infinite number"),
    "unclosed quote": (HEADER + GOOD + '3,"red,1\n' + GOOD, {}, "32:3", "the quote is never closed"),
    "unclosed quote, last column": (HEADER + GOOD + '3,red,"1\n' + GOOD, {}, "32:7", "the quote is never closed"),
    "unclosed quote, column unused": (
        HEADER + GOOD + '3,"red,1\n' + GOOD,
        {"drop": ["color"]},
        "32:3",
        "the quote is never closed",
    ),
    "unclosed quote before much": (HEADER + '3,"red,1\n' + GOOD * 20_000, {}, "2:3", "the quote is never closed"),
    "text behind a quote": (HEADER + '3,"red"x,1\n3,"red,1\n', {}, "2:3", "text follows a closing quote"),
    "target missing": (HEADER + GOOD + "31,red,NA\n", {}, "32:8", "the target 'y' is missing"),
    "target NaN": (HEADER + GOOD + "31,red,nan\n", {"missing": [""]}, "32:8", "the target 'y' is missing"),
    "class with one row": (HEADER + GOOD + "31,red,7\n", {}, "32:8", "class '7' has this one row"),
    "text class with one row": ("x,y\n1,a\n2,a\n3,b\n", {}, "4:3", "class 'b' has this one row"),
    "single class": ("x,y\n1,a\n2,a\n3,a\n", {}, "1:3", "has one class only, 'a'"),
    "text target in regression": (
        "x,y\n1,a\n2,b\n3,a\n4,b\n",
        {"task": "regression"},
        "2:3",
        "text in the target 'y'; regression predicts numbers",
    ),
    "text in several targets": (
        "x,y,z\n1,5,a\n2,6,b\n3,7,a\n",
        {"target": ["y", "z"]},
        "2:5",
        "text in the target 'z'",
    ),
    "fractions in classification": (
        "x,y\n1,1\n2,2.5\n3,1\n",
        {"task": "classification"},
        "3:3",
        "a fraction in the target 'y'",
    ),
    "free text as target": (
        "x,y\n" + "".join(f"{n},name {n}\n" for n in range(30)),
        {},
        "1:3",
        "column 'y' has 30 different texts in 30 rows",
    ),
    "constant": ("x,z,y\n5,1,0\n5,2,1\n5,3,0\n", {}, "1:1", "column 'x' is the same in all rows"),
    "constant category": ("x,z,y\n1,a,0\n2,a,1\n5,a,0\n", {}, "1:3", "column 'z' is the same in all rows"),
    "all missing": ("x,z,y\n1,,0\n2,,1\n5,NA,0\n", {}, "1:3", "column 'z' has no values"),
    "repeated column": ("a,b,a,y\n1,2,3,0\n", {}, "1:5", "column 'a' is there twice"),
    "column without a name": ("a,,y\n1,2,3\n", {}, "1:3", "column 2 has no name"),
    "row names without a name": (",a,y\n1,2,3\n", {}, "1:1", "column 1 has no name"),
    "delimiter at the end": ("a,y,\n1,2,\n", {}, "1:5", "column 3 has no name"),
    "no such target": (HEADER + GOOD, {"target": "Y"}, "1:1", "there is no column 'Y', which data.target names"),
    "no such column": (HEADER + GOOD, {"columns": ["agee"]}, "1:1", "'agee', which data.columns names"),
    "nothing to drop": (HEADER + GOOD, {"drop": ["aeg"]}, "1:1", "'aeg', which data.drop names"),
    "no such categories": (HEADER + GOOD, {"categories": ["zip"]}, "1:1", "'zip', which data.categories names"),
    "no column left": (HEADER + GOOD, {"drop": ["age", "color"]}, "1:1", "no column is left to predict 'y'"),
    "wrong delimiter": (HEADER.replace(",", ";") + "1;2;3\n", {}, "1:1", 'one column when it is split at ","'),
    "header only": (HEADER, {}, "1:1", "the file has a header and no rows"),
    "header only, no newline": (HEADER[:-1], {}, "1:1", "the file has a header and no rows"),
    "empty": ("", {}, "1:1", "the file is empty"),
    "blank": ("\n\n", {}, "1:1", "the file has no text"),
    "latin-1": ((HEADER + GOOD).encode() + b"1,caf\xe9,1\n", {}, "32:6", "not UTF-8: byte 0xe9"),
    "latin-1 behind UTF-8": ("\ufeffägé,y\n1,ü".encode() + b"\xe9\n", {}, "2:4", "not UTF-8: byte 0xe9"),
    "cut UTF-8": ((HEADER + GOOD).encode() + b"1,red,\xc3", {}, "32:7", "not UTF-8: byte 0xc3"),
    "UTF-16": ((HEADER + GOOD).encode("utf-16"), {}, "1:1", "this is UTF-16"),
    "NUL": ((HEADER + GOOD).encode() + b"1,r\0d,1\n", {}, "32:4", "a NUL byte"),
    "dates": ("d,n,y\n" + DAYS, {}, "2:1", "column 'd' holds dates or times"),
    "identifiers": ("i,n,y\n" + NAMES, {}, "1:1", "column 'i' has 30 different texts in 30 rows"),
    "decimal commas": ("x,n,y\n" + COMMAS, {}, "2:1", "numbers with a decimal comma"),
    "thousands": ("x,n,y\n" + THOUSANDS, {}, "2:1", "numbers with separators of thousands"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_with_line_and_column(case: str) -> None:
    content, settings, place, message = BAD[case]
    found = fails(content, **settings)
    assert found.startswith(f"t.csv:{place}: "), found
    assert message in found.splitlines()[0]


@pytest.mark.parametrize(
    ("content", "settings", "hint"),
    [
        (HEADER + GOOD, {"drop": ["aeg"]}, "did you mean 'age'? there are: 'age', 'color', 'y'"),
        (HEADER + GOOD, {"target": "Y"}, "did you mean 'y'?"),
        ("a;b;y\n1;2;3\n", {}, 'did you mean data.delimiter: ";"?'),
        ("a\tb\ty\n1\t2\t3\n", {}, 'did you mean data.delimiter: "\\t"?'),
        (HEADER + GOOD + "x,red,0\n", {}, "data.missing"),
        (HEADER + GOOD + "x,red,0\n", {}, "data.categories: [age]"),
        ("i,n,y\n" + NAMES, {}, "data.drop: [i]"),
        ("d,n,y\n" + DAYS, {}, "year, month"),
        ("x,z,y\n5,1,0\n5,2,1\n5,3,0\n", {}, "data.drop: [x]"),
        (HEADER + "1,5,red,0\n", {}, "decimal point"),
    ],
)
def test_what_to_do_is_said(content: str, settings: dict[str, Any], hint: str) -> None:
    assert hint in fails(content, **settings).splitlines()[-1]


def test_an_error_shows_the_line_and_points_at_the_field() -> None:
    lines = fails(HEADER + GOOD + "12,red,NA\n").splitlines()
    assert lines[1:3] == ["    12,red,NA", "           ^^"]


def test_advice_works() -> None:
    assert len(read(HEADER + GOOD + "x,red,0\n", missing=["x"]).train) == 31
    assert read(HEADER + GOOD + "x,red,0\n", categories=["age"]).columns[0].categories is not None
    assert len(read("i,n,y\n" + NAMES, drop=["i"]).columns) == 1
    assert len(read("i,n,y\n" + NAMES, categories=["i"]).columns[0].categories or []) == 30


@pytest.mark.parametrize(
    "date",
    ["2020-01-31", "2020-01-31T10:20:30Z", "2020-01-31 10:20", "31.01.2020", "1/31/20", "31 Jan 2020", "10:20:30"],
)
def test_dates_in_many_forms(date: str) -> None:
    assert "dates or times" in fails("d,x,y\n" + f"{date},1,0\n{date},2,1\n" * 2)


def test_paths_that_are_no_csv_file() -> None:
    Path("folder").mkdir()
    write(HEADER + GOOD, "table.csv")
    assert fails("", path="folder") == "folder: this is a folder; expected a CSV file"
    assert "tabel.csv: there is no such file" in fails("", path="tabel.csv")
    assert fails("", path="tabel.csv").endswith("table.csv?")
    write_parquet(x=[1, 2], y=[0, 1])
    assert "this is a Parquet file" in fails("", path="t.parquet")
    assert "an archive or a spreadsheet" in fails(b"PK\x03\x04rest")


def test_files_with_different_columns() -> None:
    write("age,size,y\n1,2,0\n", "test.csv")
    found = fails(HEADER + GOOD, path={"train": "t.csv", "test": "test.csv"})
    assert found.startswith("test.csv:1:1: its columns differ from those of t.csv: it has no 'color' and has also")
    write("age,y\n5,0\n6,1\n", "test.csv")
    source = read(HEADER + GOOD, path={"train": "t.csv", "test": "test.csv"}, columns=["age"])
    assert source.test is not None and source.test.stored.tolist() == [[5], [6]]


@pytest.mark.parametrize("good", [0, 20_000])
def test_an_error_in_the_test_file_names_it(good: int) -> None:
    write("x,y\n" + "1,a\n" * good + "1,c\n", "test.csv")
    paths = {"train": "t.csv", "test": "test.csv"}
    found = fails("x,y\n1,a\n2,b\n3,a\n4,b\n", path=paths)
    assert found.startswith(f"test.csv:{good + 2}:3: class 'c' is not in t.csv")
    write("x,y\n" + "1,7\n" * good + "wrong,7\n", "test.csv")
    found = fails("x,y\n" + "".join(f"{n},{n % 2 + 6}\n" for n in range(30)), path=paths)
    assert found.startswith(f"test.csv:{good + 2}:1: text in the column 'x'")


def test_a_class_with_one_row_is_fine_where_nothing_is_cut_off() -> None:
    write("x,y\n1,a\n", "test.csv")
    path = {"train": "t.csv", "test": "test.csv"}
    assert read("x,y\n1,a\n2,a\n3,b\n", path=path, validation=0).classes == ["a", "b"]
    assert "class 'b' has this one row" in fails("x,y\n1,a\n2,a\n3,b\n", path=path, validation=0.1)


def test_text_far_behind_in_a_column_of_numbers() -> None:
    lines = [f"{n},{n % 2}\n" for n in range(250_000)]
    lines[249_000] = "oops,1\n"
    assert fails("x,y\n" + "".join(lines)).startswith("t.csv:249002:1: text in the column 'x'")
    lines[249_000] = "7\n"
    assert fails("x,y\n" + "".join(lines)).startswith("t.csv:249002:2: this row has 1 field")


# --- Parquet --------------------------------------------------------------------------------------------


def test_parquet_types() -> None:
    source = read_parquet(
        small=pa.array([1, None, 3, 4], pa.int8()),
        big=pa.array([1, 2**53, 3, 4], pa.int64()),
        single=pa.array([0.5, math.nan, None, 2], pa.float32()),
        price=pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-3.50"), decimal.Decimal("0.00")]),
        flag=pa.array([True, False, None, True]),
        text=pa.array(["b", "a", "NA", None], pa.large_string()),
        word=pa.array(["b", "a", "b", None]).dictionary_encode(),
        y=["no", "yes", "no", "yes"],
    )
    categories = {"text": ["a", "b"], "word": ["a", "b"]}
    names = ["small", "big", "single", "price", "flag", "text", "word"]
    assert source.columns == [Column(name, categories.get(name)) for name in names]
    nan = math.nan
    expected = [
        [1, 1, 0.5, 1.25, 1, 1, 1],
        [nan, 2**53, nan, nan, 0, 0, 0],
        [3, 3, nan, -3.5, nan, -1, 1],
        [4, 4, 2, 0, 1, -1, -1],
    ]
    np.testing.assert_array_equal(source.train.stored.numpy(), expected)
    assert source.classes == ["no", "yes"]
    (_, streamed), *_ = stream("t.parquet", source.columns, MISSING, ",", 100)
    np.testing.assert_array_equal(streamed.numpy(), expected)


def test_parquet_targets() -> None:
    assert read_parquet(x=[1, 2, 3, 4], y=[True, False, True, False]).classes == ["false", "true"]
    assert read_parquet(x=[1, 2, 3, 4], y=[2, 10, 2, 10]).classes == ["2", "10"]
    assert read_parquet(x=[1, 2, 3, 4], y=[2, 1.5, 2, 1]).target_names == ["y"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([[1], [2]]), "column 'x': its type list<"),
        (pa.array([{"a": 1}, {"a": 2}]), "column 'x': its type struct<"),
        (pa.array([b"a", b"b"]), "column 'x': its type binary is neither numbers nor text"),
        (
            pa.array([datetime.datetime(2020, 1, 1)] * 2),
            "column 'x': column 'x' holds dates or times (timestamp[us])",
        ),
        (pa.array([datetime.date(2020, 1, 1)] * 2), "holds dates or times (date32[day])"),
        (pa.array([1, 2**53 + 1]), "column 'x', row 2 ('9007199254740993'): a whole number with more digits"),
        (pa.array([1.0, -math.inf]), "column 'x', row 2 ('-inf'): an infinite number"),
        (pa.array([3, 3]), "column 'x' is the same in all rows"),
        (pa.array([None, None]), "column 'x' has no values"),
        (pa.array([None, None], pa.string()), "column 'x' has no values"),
    ],
)
def test_bad_parquet_columns(values: pa.Array, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_parquet(z=[1, 2], x=values, y=[0.5, 1])
    assert str(caught.value).startswith("t.parquet: column 'x'")
    assert message in str(caught.value)


def test_bad_parquet_files() -> None:
    def fails_with(path: str) -> str:
        with pytest.raises(DataError) as caught:
            table.read(ParquetData(dataset="parquet", path=path, target="y"))
        return str(caught.value)

    write(HEADER + GOOD)
    assert fails_with("t.csv").startswith("t.csv: this is no Parquet file")
    assert "there is no such file" in fails_with("none.parquet")
    Path("folder").mkdir()
    assert "this is a folder" in fails_with("folder")
    content = Path(write_parquet(x=list(range(1000)), y=list(range(1000)))).read_bytes()
    write(content[: len(content) // 2], "cut.parquet")
    assert fails_with("cut.parquet").startswith("cut.parquet: damaged: ")
    write(content[:10] + b"\xff" * 3000 + content[3010:], "damaged.parquet")
    assert fails_with("damaged.parquet").startswith("damaged.parquet: damaged: ")
    write_parquet(x=pa.array([], pa.int64()), y=pa.array([], pa.int64()))
    assert "columns and no rows" in fails_with("t.parquet")
    write_parquet(x=[1, 2, 3], y=[0, None, 1])
    assert fails_with("t.parquet").startswith("t.parquet: column 'y', row 2 (null): the target 'y' is missing")


# --- the stream for predictions -------------------------------------------------------------------------

AGE_AND_COLOR = [Column("color", ["blue", "red"]), Column("age")]


def streamed(path: str, skipped: list[str] | None = None, rows_at_once: int = 4) -> Any:
    parts = list(stream(path, AGE_AND_COLOR, MISSING, ",", rows_at_once, skipped))
    return [torch.cat(each).tolist() for each in zip(*parts, strict=True)]


def test_columns_are_matched_by_name_and_unseen_categories_have_no_code() -> None:
    rows, values = streamed(write("other,age,color\nx,1,red\ny,2,green\nz,3,\n"))
    assert rows == [1, 2, 3] and values == [[1, 1], [-1, 2], [-1, 3]]


def test_the_ending_tells_the_format() -> None:
    expected = [[1, 2], [[1, 1], [0, 2]]]
    assert streamed(write("age,color\n1,red\n2,blue\n")) == expected
    assert streamed(write("age\tcolor\n1\tred\n2\tblue\n", "t.tsv")) == expected
    assert streamed(write_parquet("t.PARQUET", age=[1, 2], color=["red", "blue"])) == expected
    assert streamed(write_parquet(age=["1", " 2"], color=["red", "blue"])) == expected


def test_booleans_far_behind_numbers_lose_no_row() -> None:
    """Reading changes from numbers to texts within the file."""
    content = "age,color\n" + "".join(f"{n},red\n" for n in range(150_000)) + "true,blue\nFALSE,red\n 7 ,blue\n"
    rows, values = streamed(write(content), None, 100_000)
    assert rows == list(range(1, 150_004))
    assert [age for _, age in values] == [*range(150_000), 1, 0, 7]
    assert [color for color, _ in values] == [1] * 150_000 + [0, 1, 0]


def test_a_bad_row_ends_the_stream_with_its_place() -> None:
    def error(path: str) -> str:
        with pytest.raises(DataError) as caught:
            streamed(path)
        return str(caught.value)

    assert error(write(HEADER + GOOD + "old,red,0\n")).startswith("t.csv:32:1: the column 'age' is one of finite")
    assert error(write(HEADER + GOOD + "inf,red,0\n")).startswith("t.csv:32:1: ")
    assert error(write(HEADER + GOOD + "1,red\n")).startswith("t.csv:32:6: this row has 2 fields")
    assert error(write("Age,color\n1,red\n")).startswith(
        "t.csv:1:1: there is no column 'age', which the model was"
    )
    assert "did you mean 'Age'? there are: 'Age', 'color'" in error(write("Age,color\n1,red\n"))
    found = error(write_parquet(age=["1", "old"], color=["red", "blue"]))
    assert found.startswith("t.parquet: column 'age', row 2 ('old'): ")


BODY = "1,red,0\n\nold,blue,2\n3\n4,green,5\n5,5,5,5\ninf,blue,1\n,,\ntrue,red,1\n7\n"


@pytest.mark.parametrize("header", [HEADER, "\n\n" + HEADER, 'age,color,"y\nz"\n'])
def test_bad_rows_can_be_left_out(header: str) -> None:
    skipped: list[str] = []
    rows, values = streamed(write(header + BODY), skipped=skipped)
    assert rows == [1, 4, 7, 8]
    np.testing.assert_array_equal(values, [[1, 1], [-1, 4], [-1, math.nan], [1, 1]])
    assert skipped == [
        "t.csv: row 2: 'old' in the column 'age' is no finite number",
        "t.csv: row 3: the header has 3 fields, this row 1",
        "t.csv: row 5: the header has 3 fields, this row 4",
        "t.csv: row 6: 'inf' in the column 'age' is no finite number",
        "t.csv: row 9: the header has 3 fields, this row 1",
    ]


def test_rows_keep_their_numbers_over_many_batches() -> None:
    bad: Callable[[int], bool] = lambda n: n % 997 == 0  # noqa: E731
    ragged: Callable[[int], bool] = lambda n: n % 1009 == 1  # noqa: E731
    lines = [("?!" if bad(n) else str(n)) + ("" if ragged(n) else ",red") + "\n" for n in range(1, 100_001)]
    skipped: list[str] = []
    rows, values = streamed(write("age,color\n" + "".join(lines) * 2), skipped, 10_000)
    numbers = [
        n for n in range(1, 200_001) if not bad((n - 1) % 100_000 + 1) and not ragged((n - 1) % 100_000 + 1)
    ]
    assert rows == numbers
    assert [age for _, age in values] == [(n - 1) % 100_000 + 1 for n in numbers]
    assert len(skipped) == 200_000 - len(numbers)
    assert [int(line.split()[2][:-1]) for line in skipped] == sorted(set(range(1, 200_001)) - set(numbers))
