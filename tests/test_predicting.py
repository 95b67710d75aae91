"""`mlpcli predict`: the answers of a model to files, against `eval` and plain torch, and what is no input."""

import csv
import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from command import mlpcli, succeeds
from PIL import Image
from pyarrow import parquet
from sklearn.datasets import load_diabetes, load_iris

from mlpcli import data, predicting
from mlpcli.checkpoints import load
from mlpcli.config import config_from_plain
from mlpcli.data import images, table_stream
from mlpcli.predictor import Predictor

BOLD = 'big, "bold"'
"""The name of a class, as awkward as a CSV file can hold it."""
COLUMNS = ("year", "size", "colour")

Rows = list[dict[str, Any]]


def write_csv(path: Path, header: Any, rows: Any) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def kinds(count: int, seed: int) -> list[list[str]]:
    """Rows of year, size, colour and the class, with numbers and categories that are missing or only here."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        size, colour = generator.normal(), generator.choice(["red", "green", "blue", "", f"only {seed}"])
        kind = BOLD if size + (colour == "red") > 0 else "small"
        shown = "" if generator.random() < 0.2 else f"{size:.4f}"
        rows.append([str(generator.integers(1990, 2020)), shown, str(colour), kind])
    return rows


def paint(path: Path, seed: int, size: tuple[int, int] = (9, 7)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> "Runs":
    return Runs(tmp_path_factory.mktemp("runs"))


class Runs:
    """Trained models by name, each made once, and the files that they were trained on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_csv(folder / "train.csv", [*COLUMNS, "kind"], kinds(90, 1))
        write_csv(folder / "test.csv", [*COLUMNS, "kind"], kinds(40, 2))
        generator = np.random.default_rng(3)
        for name, count in (("train", 80), ("test", 30)):
            x = generator.normal(size=(count, 3))
            table = {"a": x[:, 0], "b": x[:, 1], "near": x[:, 0] + 1e9, "input": x.sum(1)}
            parquet.write_table(pa.table(table), folder / f"{name}.parquet")
        for split, count in (("train", 8), ("test", 5)):
            for index in range(count):
                paint(folder / "pets" / split / ("cat" if index % 2 else "dog") / f"{index}.png", index)
        tables = {kind: f"path: {{train: train.{kind}, test: test.{kind}}}" for kind in ("csv", "parquet")}
        pets = "{dataset: image_folder, path: pets, image_size: 16"
        self.sections = {
            "csv": f"{{dataset: csv, target: kind, {tables['csv']}}}",
            "parquet": f"{{dataset: parquet, target: [near, input], {tables['parquet']}}}",
            "pets": f"{pets}, validation: 0}}",
            "hog": f"{pets}, validation: 0, features: {{name: hog, cell: 8, block: 1}}}}",
        }
        self.starters: dict[str, list[str]] = {
            "iris": ["iris"],
            "diabetes": ["diabetes"],
            "digits": ["digits"],
            "mse": ["digits", "loss=mse", "optimizer.lr=0.01", "training.precision=float64"],
        }

    def __getitem__(self, name: str) -> Path:
        run = self.folder / f"run of {name}"
        if not run.exists():
            arguments = self.starters.get(name, [f"{name}.yaml"])
            if name in self.sections:
                text = f"data: {self.sections[name]}\nmodel: {{width: [8]}}\n"
                (self.folder / f"{name}.yaml").write_text(text)
            with chdir(self.folder):
                epochs = ["training.epochs=3", "scheduler=constant", "training.threads=1"]
                succeeds("train", *arguments, *epochs, "-o", run, "-q")
        return run

    def evaluated(self, name: str) -> Any:
        run = self[name]
        with chdir(self.folder):
            return succeeds("eval", run, "--json").json

    def split(self, name: str) -> tuple[data.Dataset, dict[str, Any]]:
        state = load(self[name] / "checkpoints/best.pt")
        config = config_from_plain(state["config"])
        return data.load(config.data, config.seed), state


def predicted(run: Path, *arguments: object) -> Rows:
    rows: Rows = succeeds("predict", run, *map(str, arguments), "--json").json["predictions"]
    return rows


def read(file: str) -> Rows:
    """A file of predictions by other programs than wrote it; texts of CSV become numbers where they are."""
    if file.endswith(".parquet"):
        rows: Rows = parquet.read_table(file).to_pylist()
        return rows
    text = Path(file).read_text(encoding="utf-8")
    if file.endswith(".jsonl"):
        return [json.loads(line) for line in text.splitlines()]
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    return [{key: _number(key, value) for key, value in row.items()} for row in rows]


def _number(key: str, value: str) -> Any:
    if key == "row":
        return int(value)
    return float(value) if key.startswith(("probability", "prediction_")) else value


# --- predict = eval -----------------------------------------------------------------------------------------


def assert_as_eval(rows: Rows, true: list[str], result: Any) -> None:
    """Accuracy, confusion and the loss that the probabilities mean."""
    classes = result["classes"]
    assert len(rows) == len(true) == result["samples"]
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    losses = []
    for row, name in zip(rows, true, strict=True):
        confusion[classes.index(name), classes.index(row["prediction"])] += 1
        keys = [("prediction", "probability"), *((f"class_{k}", f"probability_{k}") for k in range(2, 11))]
        share = {row[key]: row[value] for key, value in keys if key in row}
        assert sorted(share) == sorted(classes) and sum(share.values()) == pytest.approx(1, abs=1e-5)
        assert list(share.values()) == sorted(share.values(), reverse=True)
        losses.append(-np.log(max(share[name], 1e-30)))
    assert confusion.tolist() == result["confusion"]
    assert np.mean(losses) == pytest.approx(result["metrics"]["loss"], rel=1e-4)


def test_a_csv_file_with_missing_values_and_new_categories_is_predicted_as_eval_does(runs: Runs) -> None:
    rows = predicted(runs["csv"], runs.folder / "test.csv", "--top", "9")
    assert_as_eval(rows, [row[3] for row in kinds(40, 2)], runs.evaluated("csv"))
    assert [row["row"] for row in rows] == list(range(1, 41))
    assert {row["input"] for row in rows} == {str(runs.folder / "test.csv")}


def test_a_csv_file_against_torch_and_the_definition_of_the_encoding(runs: Runs) -> None:
    state = load(runs["csv"] / "checkpoints/best.pt")
    saved, about = state["data"]["preprocessing"], state["data"]["description"]
    assert [column["name"] for column in about["columns"]] == list(COLUMNS)
    categories = about["columns"][2]["categories"]
    known = {name: int(saved["tables"][0][index + 1]) for index, name in enumerate(categories)}
    inputs = []
    for year, size, colour, _ in kinds(40, 5):
        numbers = [float(year), float(size or "nan")]
        scaled = (torch.tensor(numbers, dtype=torch.float64) - saved["shift"]) * saved["scale"]
        one_hot = [float(known.get(colour, 0) == code) for code in range(1, 1 + max(known.values()))]
        inputs.append([*torch.nan_to_num(scaled).tolist(), float(not size), *one_hot])
    x, weights = torch.tensor(inputs), list(state["model"].values())
    hidden = torch.relu(x @ weights[0].T + weights[1])
    expected = (hidden @ weights[2].T + weights[3]).softmax(1)
    write_csv(Path("new.csv"), COLUMNS, [row[:3] for row in kinds(40, 5)])  # one colour is in no other file
    rows = predicted(runs["csv"], "new.csv")
    assert [row["probability"] for row in rows] == pytest.approx(expected.max(1).values.tolist(), rel=1e-5)
    assert [row["prediction"] for row in rows] == [about["classes"][index] for index in expected.argmax(1)]


def test_the_target_may_be_absent_and_columns_may_be_others_in_another_order(runs: Runs) -> None:
    whole = predicted(runs["csv"], runs.folder / "test.csv")
    write_csv(
        Path("bare.csv"), ["colour", "note", "size", "year"], [[c, "x", s, y] for y, s, c, _ in kinds(40, 2)]
    )
    assert [row | {"input": whole[0]["input"]} for row in predicted(runs["csv"], "bare.csv")] == whole
    columns: dict[str, list[Any]] = {
        name: [row[index] or None for row in kinds(40, 2)] for index, name in enumerate(COLUMNS)
    }
    columns["size"] = [None if size is None else float(size) for size in columns["size"]]
    parquet.write_table(pa.table(columns), "bare.parquet")
    assert [row | {"input": whole[0]["input"]} for row in predicted(runs["csv"], "bare.parquet")] == whole


def test_values_of_two_targets_are_predicted_as_eval_measures_them(runs: Runs) -> None:
    rows = predicted(runs["parquet"], runs.folder / "test.parquet")
    true = parquet.read_table(runs.folder / "test.parquet").to_pylist()
    assert list(rows[0]) == ["input", "row", "prediction_near", "prediction_input"]
    squares = [
        sum((row[f"prediction_{key}"] - target[key]) ** 2 for key in ("near", "input"))
        for row, target in zip(rows, true, strict=True)
    ]
    # `near` is 10⁹ and varies by 1: of float32 nothing would be left
    assert np.sqrt(np.mean(squares)) == pytest.approx(runs.evaluated("parquet")["metrics"]["rmse"], rel=1e-5)
    assert len({row["prediction_near"] for row in rows}) == 30


def test_embedded_tables_from_a_csv_file_with_their_columns(runs: Runs) -> None:
    dataset, _ = runs.split("iris")
    write_csv(Path("iris.csv"), load_iris().feature_names, dataset.test.inputs.tolist())
    true = [dataset.description.classes[index] for index in dataset.test.targets]
    assert_as_eval(predicted(runs["iris"], "iris.csv", "--top", "3"), true, runs.evaluated("iris"))

    dataset, state = runs.split("diabetes")
    write_csv(Path("diabetes.csv"), load_diabetes().feature_names, dataset.test.inputs.tolist())
    rows = predicted(runs["diabetes"], "diabetes.csv")
    train, weights = dataset.train.inputs, [each.double() for each in state["model"].values()]
    x = (dataset.test.inputs - train.mean(0)) / train.std(0, correction=0)
    outputs = torch.tanh(x @ weights[0].T + weights[1])
    for place in range(2, len(weights), 2):
        outputs = outputs @ weights[place].T + weights[place + 1]
        outputs = outputs if place == len(weights) - 2 else torch.tanh(outputs)
    expected = outputs * dataset.train.targets.std(correction=0) + dataset.train.targets.mean()
    assert [row["prediction"] for row in rows] == pytest.approx(expected[:, 0].tolist(), rel=1e-5)


@pytest.mark.parametrize("name", ["pets", "hog"])
def test_a_folder_of_images_is_predicted_as_eval_does(name: str, runs: Runs) -> None:
    folder = runs.folder / "pets/test"
    rows = predicted(runs[name], folder, "--top", "2")
    assert [row["input"] for row in rows] == [
        str(folder / file) for file in ("cat/1.png", "cat/3.png", "dog/0.png", "dog/2.png", "dog/4.png")
    ]
    assert_as_eval(rows, [Path(row["input"]).parent.name for row in rows], runs.evaluated(name))


@pytest.mark.parametrize("name", ["digits", "mse"])
def test_images_of_the_size_of_a_set_that_has_one(name: str, runs: Runs) -> None:
    dataset, _ = runs.split(name)
    chosen = dataset.test.take(torch.arange(50))
    Path("digits").mkdir()
    for index, pixels in enumerate(chosen.inputs.numpy()):
        scaled = np.rint(pixels.reshape(8, 8) * (255 / 16)).astype(np.uint8)
        Image.fromarray(scaled).save(f"digits/{index:02}.png")
    rows = predicted(runs[name], "digits", "--top", "10")
    classes, outputs = dataset.description.classes, _outputs(runs[name], dataset, chosen.inputs)
    assert [row["prediction"] for row in rows] == [classes[index] for index in outputs.argmax(1)]
    if name == "mse":
        expected = _nearest_probabilities(outputs).sort(1, descending=True).values
    else:
        expected = outputs.softmax(1).sort(1, descending=True).values
    keys = ["probability", *(f"probability_{place}" for place in range(2, 11))]
    found = torch.tensor([[row[key] for key in keys] for row in rows], dtype=torch.float64)
    precise = name == "mse"  # trained in float64
    torch.testing.assert_close(found, expected, rtol=1e-12 if precise else 1e-4, atol=1e-12 if precise else 1e-6)
    torch.testing.assert_close(found.sum(1), torch.ones(50, dtype=torch.float64), rtol=0, atol=1e-6)


def _nearest_probabilities(outputs: torch.Tensor) -> torch.Tensor:
    """max(output − t, 0), with the t for which they sum to 1, found by bisection."""
    low, high = outputs.amin(1, keepdim=True) - 1, outputs.amax(1, keepdim=True)
    for _ in range(100):
        middle = (low + high) / 2
        above = (outputs - middle).clamp(min=0).sum(1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (outputs - low).clamp(min=0)


def _outputs(run: Path, dataset: data.Dataset, inputs: torch.Tensor) -> torch.Tensor:
    """Of a network of affine layers and ReLU on digits, computed in float64."""
    weights = [each.double() for each in load(run / "checkpoints/best.pt")["model"].values()]
    train = dataset.train.inputs.double()
    x = (inputs.double() - train.mean()) / train.std(correction=0)
    for place in range(0, len(weights), 2):
        x = x @ weights[place].T + weights[place + 1]
        x = x if place == len(weights) - 2 else x.relu()
    return x


# --- inputs -------------------------------------------------------------------------------------------------


def test_inputs_stay_in_their_order_over_chunks_of_any_size(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    test, train, folder = runs.folder / "test.csv", runs.folder / "train.csv", runs.folder / "pets"
    given = [(runs["csv"], test, train, test), (runs["pets"], folder / "test", folder / "train/cat/1.png", folder)]
    whole = [predicted(*each) for each in given]
    assert [len(rows) for rows in whole] == [40 + 90 + 40, 5 + 1 + 13]
    assert [row["row"] for row in whole[0]] == [*range(1, 41), *range(1, 91), *range(1, 41)]
    for size in (1, 3, 7):
        monkeypatch.setattr(predicting, "ROWS", size)
        monkeypatch.setattr(predicting, "IMAGES", size)
        for each, expected in zip(given, whole, strict=True):
            rows = predicted(*each)
            for name in expected[0]:
                found, wanted = ([row[name] for row in some] for some in (rows, expected))
                assert found == (pytest.approx(wanted, rel=1e-5) if name == "probability" else wanted)


def test_globs_and_nested_folders(runs: Runs) -> None:
    run = runs["pets"]
    for index, file in enumerate(("b/x/1.png", "b/2.jpg", "a.png", "[odd].png")):
        paint(Path("photos", file), index)
    Path("photos/b/notes.txt").write_text("no image")

    def files(*inputs: str) -> list[str]:
        return [row["input"].removeprefix("photos/") for row in predicted(run, *inputs)]

    assert files("photos") == ["[odd].png", "a.png", "b/2.jpg", "b/x/1.png"]
    assert files("photos/*.png") == ["[odd].png", "a.png"]
    assert files("photos/*") == ["[odd].png", "a.png", "b/2.jpg", "b/x/1.png"]
    assert files("photos/**/*.png") == ["[odd].png", "a.png", "b/x/1.png"]
    assert files("photos/[odd].png") == ["[odd].png"]  # the file itself, before any glob
    assert files("photos/b/**", "--on-bad-file", "skip") == ["b/2.jpg", "b/x/1.png"]


def test_names_that_files_of_predictions_can_hardly_hold(runs: Runs) -> None:
    names = ["a,b.png", 'say "x".png', "two\nlines.png", "grün.png", os.fsdecode(b"\xff.png")]
    for index, name in enumerate(names):
        paint(Path("odd", name), index)
    shown = sorted(f"odd/{name}" for name in [*names[:4], "\\xff.png"])
    for ending in ("csv", "jsonl", "parquet"):
        succeeds("predict", runs["pets"], "odd", "-o", f"answers.{ending}")
        assert sorted(row["input"] for row in read(f"answers.{ending}")) == shown


# --- files that are written ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "file"), [("csv", "test.csv"), ("parquet", "test.parquet"), ("pets", "pets")])
def test_all_formats_hold_the_same(name: str, file: str, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "ROWS", 16)
    monkeypatch.setattr(predicting, "IMAGES", 4)
    top = ["--top", "2"] if name != "parquet" else []
    arguments = [str(runs[name]), str(runs.folder / file), *top]
    for ending in ("csv", "jsonl", "parquet"):
        assert succeeds("predict", *arguments, "-o", f"answers.{ending}").out == f"answers.{ending}\n"
    done = succeeds("predict", *arguments)
    text = Path("answers.csv").read_bytes()
    assert done.out.encode() == text and done.err == ""
    rows = read("answers.csv")
    assert rows == read("answers.jsonl") == succeeds("predict", *arguments, "--json").json["predictions"]
    stored = read("answers.parquet")
    assert [list(row) for row in stored] == [list(row) for row in rows]
    for ours, other in zip(rows, stored, strict=True):
        for key, value in ours.items():
            exact = np.float32(value) if key.startswith("probability") else value
            assert exact == other[key]
    again = io.StringIO()
    csv.writer(again, lineterminator="\n").writerows(csv.reader(io.StringIO(text.decode(), newline="")))
    assert again.getvalue().encode() == text  # quotes just where they are needed
    assert name != "csv" or '"big, ""bold"""' in done.out


def test_json_says_where_the_predictions_are(runs: Runs) -> None:
    done = succeeds("predict", runs["csv"], runs.folder / "test.csv", "-o", "answers.csv", "--json")
    assert done.json == {"output": "answers.csv", "count": 40}


def test_an_answer_that_is_no_number_is_missing(runs: Runs) -> None:
    write_csv(Path("far.csv"), COLUMNS, [["2000", "1", "red"], ["2000", "1e300", "red"]])
    for ending in ("csv", "jsonl", "parquet"):
        succeeds("predict", runs["csv"], "far.csv", "-o", f"answers.{ending}", "--top", "2")
    found = {ending: read(f"answers.{ending}") for ending in ("jsonl", "parquet")}
    assert found["jsonl"] == predicted(runs["csv"], "far.csv", "--top", "2")
    for first, second in found.values():
        assert None not in first.values()
        assert list(second.values()) == ["far.csv", 2, None, None, None, None]
    assert Path("answers.csv").read_text().splitlines()[2] == "far.csv,2,,,,"


# --- inputs that cannot be predicted ------------------------------------------------------------------------


@pytest.fixture
def bad(runs: Runs) -> Iterator[Runs]:
    """Inputs of every kind that a model cannot take, in the working directory."""
    paint(Path("good.png"), 1)
    paint(Path("small.png"), 1, (8, 8))
    Path("broken.png").write_bytes(Path("good.png").read_bytes()[:60])
    Path("empty").mkdir()
    write_csv(Path("good.csv"), COLUMNS, [["2000", "1", "red"]])
    write_csv(Path("other.csv"), ["year", "Size", "colour"], [["2000", "1", "red"]])
    write_csv(Path("ragged.csv"), COLUMNS, [["2000", "1", "red"], ["2000", "2"], ["2001", "3", "red"]])
    write_csv(Path("text.csv"), COLUMNS, [["2000", "1", "red"], ["2000", "tall", "red"], ["2000", "inf", "red"]])
    write_csv(Path("header.csv"), COLUMNS, [])
    write_csv(Path("iris.csv"), load_iris().feature_names, [[5, 3, 2, ""], [5, 3, 2, 1]])
    Path("open.csv").write_text('year,size,colour\n2000,1,red\n2000,1,"red\n')
    Path("fake.parquet").write_text("no parquet")
    parquet.write_table(pa.table({name: pa.array([], pa.string()) for name in COLUMNS}), "none.parquet")
    yield runs


BAD: list[tuple[str, list[str], str]] = [
    ("pets", ["broken.png"], "broken.png: damaged"),
    ("digits", ["good.png"], "good.png: 9 x 7 pixels, but the model was trained on images of 8 x 8"),
    ("csv", ["other.csv"], "other.csv:1:1: there is no column 'size', which the model was trained on"),
    ("csv", ["ragged.csv"], "ragged.csv:3:"),
    ("csv", ["text.csv"], "text.csv:3:6: "),
    ("csv", ["header.csv"], "the file has a header and no rows"),
    ("csv", ["none.parquet"], "none.parquet: the file has columns and no rows"),
    ("csv", ["open.csv"], "the quote is never closed"),
    ("csv", ["fake.parquet"], "fake.parquet: this is no Parquet file"),
    ("iris", ["iris.csv"], "iris.csv: row 1 has no value in the column petal width (cm), but iris, which"),
    ("pets", ["good.csv"], "good.csv is a table, but the model was trained on images (image_folder)"),
    ("csv", ["good.png"], "good.png is no table (.csv, .tsv or .parquet), but the model was trained on one (csv)"),
]


@pytest.mark.parametrize(("name", "inputs", "message"), BAD)
def test_what_does_not_fit_is_named_and_nothing_is_written(
    name: str, inputs: list[str], message: str, bad: Runs
) -> None:
    Path("out").mkdir()
    Path("out/there.csv").write_text("earlier")
    for output in ([], ["-o", "out/new.parquet"], ["-o", "out/there.csv"]):
        done = mlpcli("predict", bad[name], *inputs, *output)
        assert (done.code, done.out) == (2, "") and message in done.err, done
    assert {path.name: path.read_text() for path in Path("out").iterdir()} == {"there.csv": "earlier"}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("name", "inputs", "message"), BAD)
def test_what_does_not_fit_is_skipped_and_named(
    name: str, inputs: list[str], message: str, first: bool, bad: Runs
) -> None:
    good = {"pets": ["good.png"], "digits": ["small.png"], "csv": ["good.csv"], "iris": []}[name]
    named = message.partition(", but")[0] if name == "iris" else message
    if "ragged" in inputs[0] or "text" in inputs[0]:
        named = f"{inputs[0]}: row 2: "  # by its number: it was not looked for
    order = [*inputs, *good] if first else [*good, *inputs]
    done = succeeds("predict", bad[name], *order, "--on-bad-file", "skip", "--json")
    rows = {"ragged.csv": [1, 3], "text.csv": [1], "open.csv": [], "iris.csv": [2]}.get(inputs[0], [])
    found = done.json["predictions"]
    of_bad, of_good = [[inputs[0], row] for row in rows], [[file, 1] for file in good]
    expected = of_bad + of_good if first else of_good + of_bad
    assert [row["input"] for row in found] == [file for file, _ in expected]
    if name in ("csv", "iris"):
        assert [[row["input"], row["row"]] for row in found] == expected
    assert "warning: left out: " in done.err and named in done.err and "Traceback" not in done.err


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_where_nothing_is_left_the_file_has_no_predictions(ending: str, bad: Runs) -> None:
    """Columns alone, of the types that they would have."""
    file, whole = f"none.{ending}", f"whole.{ending}"
    for arguments in (["csv", "header.csv", "good.csv"], ["pets", "broken.png", "good.png"]):
        name, empty, good = arguments
        succeeds("predict", bad[name], empty, "--on-bad-file", "skip", "-o", file)
        succeeds("predict", bad[name], good, "-o", whole)
        if ending == "parquet":
            assert parquet.read_schema(file) == parquet.read_schema(whole)
            assert parquet.read_table(file).num_rows == 0
        else:
            header = Path(whole).read_text().splitlines()[:1] if ending == "csv" else []
            assert Path(file).read_text().splitlines() == header
    done = succeeds("predict", bad["csv"], "header.csv", "--on-bad-file", "skip")
    assert done.out == "input,row,prediction,probability\n"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("pets", ["absent.png"], "there is no file or folder absent.png"),
        ("pets", [""], "there is no file or folder "),
        ("pets", ["absent/*.png"], "nothing matches absent/*.png"),
        ("pets", ["empty"], "empty: no images in this folder"),
        ("csv", ["empty"], "empty is a folder\n    name the tables in it: 'empty/*.csv'"),
        (
            "csv",
            ["good.csv", "-o", "answers.txt"],
            "-o answers.txt: the ending says the format: .csv, .jsonl, .parquet",
        ),
        ("csv", ["good.csv", "-o", "./good.csv"], "good.csv is an input too, which the predictions would replace"),
        ("diabetes", ["good.csv", "--top", "2"], "--top 2 asks for classes, but the model predicts values"),
        ("csv", ["good.csv", "--top", "0"], "--top"),
        ("csv", ["good.csv", "--on-bad-file", "ignore"], "--on-bad-file: 'ignore' is not one of error, skip"),
        ("csv", ["good.csv", "--checkpoint", "first"], "--checkpoint: 'first' is not one of best, last"),
        ("csv", ["good.csv", "--device", "cuda:9"], "training.device: cuda:9 is not on this machine"),
    ],
)
def test_commands_that_cannot_be_carried_out(name: str, arguments: list[str], message: str, bad: Runs) -> None:
    before = Path("good.csv").read_text()
    done = mlpcli("predict", bad[name], *arguments)
    assert (done.code, done.out) == (2, "") and message in done.err, done
    assert Path("good.csv").read_text() == before


# --- the machine --------------------------------------------------------------------------------------------


def test_a_table_of_any_length_is_read_in_chunks(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were read and are not yet answered, however long the file is."""
    rows = [",".join(row[:3]) for row in kinds(1000, 4)]
    Path("long.csv").write_text("\n".join(["year,size,colour", *(rows * 200), ""]))
    waiting, most = 0, 0
    read_batches, answer = table_stream._batches, Predictor.__call__

    def counting(*arguments: Any) -> Iterator[Any]:
        nonlocal waiting, most
        for batch in read_batches(*arguments):
            waiting += len(batch[0])
            most = max(most, waiting)
            yield batch

    def answering(self: Predictor, stored: torch.Tensor) -> torch.Tensor:
        nonlocal waiting
        waiting -= len(stored)
        return answer(self, stored)

    monkeypatch.setattr("mlpcli.data.table_files.BLOCK", 1 << 16)
    monkeypatch.setattr(predicting, "ROWS", 5000)
    monkeypatch.setattr(table_stream, "_batches", counting)
    monkeypatch.setattr(Predictor, "__call__", answering)
    assert succeeds("predict", runs["csv"], "long.csv", "-o", "a.csv", "--json").json["count"] == 200_000
    assert waiting == 0 and 5000 <= most < 5000 + 2 * (1 << 16) // 10
    answers = read("a.csv")
    assert [row["row"] for row in answers] == list(range(1, 200_001))
    assert [row["prediction"] for row in answers[-1000:]] == [row["prediction"] for row in answers[:1000]]


def test_wide_rows_are_fewer_at_once() -> None:
    assert predicting._at_once(2**16, 22) == 2**16
    assert predicting._at_once(2**16, 10_000) * 10_000 <= predicting.NUMBERS
    assert predicting._at_once(256, 10**9) == 1


def test_images_are_decoded_one_chunk_ahead(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, answered, most = 0, 0, 0
    decode, answer = images.decode, Predictor.__call__

    def decoding(*arguments: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return decode(*arguments)

    def answering(self: Predictor, stored: torch.Tensor) -> torch.Tensor:
        nonlocal answered, most
        most = max(most, decoded - answered)
        answered += len(stored)
        return answer(self, stored)

    for index in range(40):
        paint(Path("many", f"{index:02}.png"), index)
    monkeypatch.setattr(predicting, "IMAGES", 4)
    monkeypatch.setattr(images, "decode", decoding)
    monkeypatch.setattr(Predictor, "__call__", answering)
    assert len(predicted(runs["pets"], "many")) == answered == 40
    assert most <= 8


def test_a_full_disk_leaves_the_earlier_file(runs: Runs) -> None:
    write_csv(Path("long.csv"), COLUMNS, [row[:3] for row in kinds(500, 4)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = runs["csv"]
    for ending in ("csv", "jsonl", "parquet"):
        file = Path(f"answers.{ending}")
        file.write_text("earlier")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # larger files are refused, as by a full disk
        try:
            done = mlpcli("predict", run, "long.csv", "-o", file)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert done.code == 1 and f"error: cannot write {file}: " in done.err and "Traceback" not in done.err
        assert file.read_text() == "earlier"
    assert not list(Path().glob(".*"))


def test_a_folder_that_is_not_there_is_said(bad: Runs) -> None:
    done = mlpcli("predict", bad["csv"], "good.csv", "-o", "no/such/answers.csv")
    assert done.code == 2 and "error: -o no/such/answers.csv: there is no folder no/such" in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", ["csv", "pets"])
def test_a_signal_leaves_nothing_half_made(
    name: str, number: signal.Signals, code: int, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    answer = Predictor.__call__

    def answering(self: Predictor, stored: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            signal.raise_signal(number)
        return answer(self, stored)

    run = runs[name]
    monkeypatch.setattr(predicting, "ROWS", 4)
    monkeypatch.setattr(predicting, "IMAGES", 4)
    monkeypatch.setattr(Predictor, "__call__", answering)
    Path("there.csv").write_text("earlier")
    given = runs.folder / ("test.csv" if name == "csv" else "pets")
    done = mlpcli("predict", run, given, "-o", "there.csv")
    assert (done.code, done.out) == (code, "") and "Traceback" not in done.err and calls == 2
    assert [(path.name, path.read_text()) for path in Path().iterdir()] == [("there.csv", "earlier")]


def test_a_reader_that_stops_ends_the_command_quietly(runs: Runs) -> None:
    rows = [",".join(row[:3]) for row in kinds(1000, 4)]
    Path("long.csv").write_text("\n".join(["year,size,colour", *(rows * 150), ""]))
    with subprocess.Popen(
        [sys.executable, "-m", "mlpcli", "predict", runs["csv"], "long.csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"input,row,prediction,probability\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
