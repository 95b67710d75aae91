"""Folders of images and tables in whole trainings: what streams, what is drawn at random, what goes together."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import mlpcli, succeeds
from PIL import Image
from stored_sets import write_folder

from mlpcli import data
from mlpcli.config import config_from_plain, load_config
from mlpcli.config.rules import settle
from mlpcli.data import cache
from mlpcli.experiment import build_trainer
from mlpcli.network import network_for
from mlpcli.runs import read_metrics

FOLDER = {"dataset": "image_folder", "path": "photos", "image_size": 8}


@pytest.fixture
def photos() -> Path:
    write_folder(Path("photos"))
    return Path("photos")


def write(config: dict[str, Any], name: str = "config.yaml") -> str:
    Path(name).write_text(json.dumps(config))
    return name


def of_photos(training: dict[str, Any] | None = None, **keys: Any) -> str:
    training = {"epochs": 3, "batch_size": 16} | (training or {})
    return write({"data": FOLDER | keys, "model": {"width": [16]}, "training": training})


def write_table(path: str = "people.csv", rows: int = 200, seed: int = 0) -> None:
    """Ages with gaps, cities, and an income that follows from both."""
    random = np.random.default_rng(seed)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "height", "city", "income", "rich"])
        for _ in range(rows):
            age, city = random.integers(18, 80), random.choice(["Bonn", "Köln", "Aachen"])
            income = 10 * age + 500 * (city == "Bonn") + random.normal()
            shown = "" if random.random() < 0.1 else age
            writer.writerow([shown, f"{random.normal(170, 10):.1f}", city, f"{income:.2f}", income > 600])


def of_people(target: str | list[str], model: dict[str, Any] | None = None, **keys: Any) -> str:
    drop = [name for name in ("income", "rich") if name not in target]
    section = {"dataset": "csv", "path": "people.csv", "target": target, "drop": drop} | keys
    optimizer = {"name": "adam", "lr": 0.01}
    return write(
        {
            "data": section,
            "model": {"width": [32]} | (model or {}),
            "optimizer": optimizer,
            "training": {"epochs": 40},
        }
    )


def weights(run: str) -> dict[str, torch.Tensor]:
    return dict(torch.load(f"{run}/checkpoints/last.pt", weights_only=True)["model"])


def assert_same(first: str, second: str) -> None:
    one, other = weights(first), weights(second)
    assert all(torch.equal(one[name], other[name]) for name in one)
    untimed = [[{**line, "seconds": 0} for line in read_metrics(Path(run))] for run in (first, second)]
    assert untimed[0] == untimed[1]


# --- folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["none", "hog", "pca"])
def test_streaming_is_reading_from_memory_bit_for_bit(photos: Path, features: str) -> None:
    sizes = {"none": {}, "hog": {"cell": 4, "block": 1}, "pca": {"components": 9}}
    config = of_photos(features={"name": features} | sizes[features])
    for name, value in (("memory", "true"), ("streamed", "false")):
        succeeds("train", config, f"data.in_memory={value}", "-o", name)
    assert_same("memory", "streamed")
    evaluated = [succeeds("eval", name, "--json").json for name in ("memory", "streamed")]
    assert {**evaluated[0], "checkpoint": ""} == {**evaluated[1], "checkpoint": ""}


def test_a_run_is_resumed_streaming_what_it_read_from_memory(photos: Path) -> None:
    config = of_photos()
    succeeds("train", config, "-o", "whole")
    succeeds("train", config, "training.epochs=1", "data.in_memory=true", "-o", "parts")
    succeeds("train", "--resume", "parts", "training.epochs=3", "data.in_memory=false")
    assert_same("whole", "parts")


def test_splits_of_their_own_are_used(photos: Path) -> None:
    (photos / "train").rename(photos / "validation")
    write_folder(Path("more"))
    Path("more/train").rename(photos / "train")
    splits = succeeds("check", of_photos(), "--data", "--json").json["data"]["splits"]
    assert {name: split["samples"] for name, split in splits.items()} == {
        "train": 100,
        "validation": 100,
        "test": 20,
    }


def test_class_folders_alone_are_cut(photos: Path) -> None:
    splits = succeeds("check", of_photos(path="photos/train"), "--data", "--json").json["data"]["splits"]
    assert {name: split["per_class"] for name, split in splits.items()} == {
        "train": [36, 36],
        "validation": [4, 4],
        "test": [10, 10],
    }


def test_a_folder_may_move(photos: Path) -> None:
    succeeds("train", of_photos(), "-o", "run")
    before = succeeds("eval", "run", "--json").json
    photos.rename("elsewhere")
    assert "photos" in mlpcli("eval", "run").err
    assert succeeds("eval", "run", "data.path=elsewhere", "--json").json == before
    succeeds("train", "--resume", "run", "data.path=elsewhere", "training.epochs=4")


def test_principal_components_are_of_the_training_split_alone(photos: Path) -> None:
    config = load_config(Path(of_photos(features={"name": "pca", "components": 5})))
    before = data.load(config.data, 0).extraction
    for file in (photos / "test").rglob("*.png"):
        Image.new("RGB", (9, 9), "red").save(file)
    after = data.load(config.data, 0).extraction
    assert before is not None and after is not None
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())


def test_principal_components_are_kept_with_the_run(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = of_photos(features={"name": "pca", "components": 9})
    succeeds("train", config, "-o", "whole")
    succeeds("train", config, "training.epochs=1", "-o", "parts")
    before = succeeds("eval", "whole", "--json").json
    shutil.rmtree(str(cache.folder()))
    monkeypatch.setattr(data, "fit_pca", None)  # another machine could round them otherwise
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        succeeds("train", "--resume", "parts", "training.epochs=3")
        assert succeeds("eval", "whole", "--json").json == before
    finally:
        torch.set_num_threads(threads)
    assert_same("whole", "parts")


def test_components_are_not_fitted_to_the_data_that_is_measured(photos: Path) -> None:
    succeeds("train", of_photos(features={"name": "pca", "components": 3}), "-o", "run")
    before = succeeds("eval", "run", "--json").json
    for index, file in enumerate(sorted((photos / "train").rglob("*.png"))):
        Image.new("RGB", (9, 9), (index, 7 * index % 256, 99)).save(file)
    done = succeeds("eval", "run", "--json")
    assert "another fingerprint" in done.err and done.json == before


def test_classes_are_numbered_as_the_model_has_them(photos: Path) -> None:
    """Whatever other class there is in the folder that is measured."""
    succeeds("train", of_photos(), "-o", "run")
    before = succeeds("eval", "run", "--json").json
    first = sorted((photos / "train").iterdir())[0]
    shutil.copytree(first, photos / "train" / "0 new")
    assert succeeds("eval", "run", "--json").json == before
    shutil.copytree(first, photos / "test" / "0 new")
    done = mlpcli("eval", "run")
    assert done.code == 2 and "class '0 new' is none of those that the model was trained on" in done.err


# --- augmentation -------------------------------------------------------------------------------------------

EVERYTHING = {
    "shift": 1,
    "flip": "horizontal",
    "rotate": 10,
    "scale": 0.1,
    "elastic": {"alpha": 4, "sigma": 2},
    "cutout": 2,
    "mixup": 0.4,
    "noise": 0.1,
}


@pytest.mark.parametrize("engine", ["explicit", "autograd"])
def test_an_augmented_run_is_resumed_exactly(photos: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = of_photos({"engine": engine}, augmentation=EVERYTHING)
    succeeds("train", config, "-o", "whole")
    succeeds("train", config, "training.epochs=1", "-o", "parts")
    succeeds("train", "--resume", "parts", "training.epochs=3")
    assert_same("whole", "parts")


def test_what_is_drawn_goes_on_in_the_middle_of_an_epoch(photos: Path) -> None:
    """Batches that are skipped draw nothing, and those after them draw what they would have drawn."""
    config = load_config(Path(of_photos(augmentation=EVERYTHING)))
    dataset = data.load(config.data, config.seed)
    config = settle(config, dataset.facts)
    batches = build_trainer(config, dataset, network_for(config, dataset)).batches
    whole = [[each.clone() for each in batch] for batch in batches.epoch(2)]
    rest = [[each.clone() for each in batch] for batch in batches.epoch(2, skip=2)]
    assert len(whole) == 6 and len(rest) == 4
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert not torch.equal(whole[2][0], next(iter(batches.epoch(3, skip=2)))[0])


def test_augmentation_leaves_the_other_splits_alone(photos: Path) -> None:
    for name, augmentation in (("plain", None), ("augmented", EVERYTHING)):
        config = of_photos({"epochs": 1}, augmentation=augmentation)
        succeeds("train", config, "optimizer={name: sgd, lr: 1e-30}", "-o", name)
    plain, augmented = (succeeds("eval", name, "--json").json["metrics"] for name in ("plain", "augmented"))
    assert plain == augmented
    losses = [read_metrics(Path(name))[0]["train"]["loss"] for name in ("plain", "augmented")]
    assert losses[0] != losses[1]


def test_the_picture_of_the_data(photos: Path) -> None:
    succeeds("check", of_photos(augmentation=EVERYTHING), "--data", "-o", "grid.png")
    with Image.open("grid.png") as image:
        assert image.format == "PNG" and image.width > 300
    of_photos()
    for arguments, message in (
        (["config.yaml", "-o", "other.png"], "add --data"),
        (["config.yaml", "--data", "-o", "other.jpg"], "must end with .png"),
        (["config.yaml", "--data", "-o", "other.png", "data.features=pca"], "the model sees pca features"),
        (["iris", "--data", "-o", "other.png"], "iris is a table"),
    ):
        done = mlpcli("check", *arguments)
        assert (done.code, done.out) == (2, "") and message in done.err
    assert not Path("other.png").exists()


# --- tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embedding", ["none", "piecewise_linear", "periodic"])
@pytest.mark.parametrize("categorical", ["one_hot", "embedding"])
def test_a_table_is_learned_and_its_run_resumed(categorical: str, embedding: str) -> None:
    write_table()
    config = of_people("income", {"numeric_embedding": embedding}, categorical=categorical)
    summary = succeeds("train", config, "-o", "whole", "--json").json
    assert summary["test"]["r2"] > 0.8
    assert succeeds("eval", "whole", "--json").json["metrics"] == summary["test"]
    resolved = load_config(Path("whole/config.yaml"))
    assert resolved.loss is not None and resolved.loss.name == "mse"
    succeeds("train", config, "training.epochs=15", "-o", "parts")
    succeeds("train", "--resume", "parts", "training.epochs=40")
    assert_same("whole", "parts")
    explicit = categorical == "one_hot" and embedding != "periodic"
    assert f"{'explicit' if explicit else 'autograd'} engine" in Path("whole/train.log").read_text()
    succeeds("train", "whole/config.yaml", "-o", "again")
    assert_same("whole", "again")


def test_another_table_is_measured_with_the_columns_and_categories_of_the_model() -> None:
    """Whatever the order of its columns, and whatever other categories it has."""
    write_table()
    succeeds("train", of_people("income"), "-o", "run")
    with open("people.csv", newline="") as file:
        header, *rows = csv.reader(file)

    def write_test(changed: dict[str, str], order: tuple[int, ...] = (0, 1, 2, 3, 4)) -> None:
        with open("test.csv", "w", newline="") as file:
            for row in [header, *rows]:
                csv.writer(file).writerow([changed.get(row[place], row[place]) for place in order])

    def measured() -> Any:
        overrides = ["data.path.train=people.csv", "data.path.test=test.csv"]
        return succeeds("eval", "run", *overrides, "--json").json["metrics"]

    write_test({})
    whole = measured()
    write_test({}, (2, 3, 0, 1, 4))
    Path("test.csv").replace("people.csv")
    write_test({}, (2, 3, 0, 1, 4))
    assert measured() == whole
    write_test({"Bonn": ""})
    without = measured()
    write_test({"Bonn": "Aa"})
    assert measured() == without != whole
    ages = {row[0]: f"about {int(row[0]) // 10}" for row in rows if row[0]}
    for changed, message in (
        ({"height": "size"}, "there is no column 'height', which the model was trained on"),
        (ages, "the column 'age' holds categories, but the model was trained on numbers"),
    ):
        write_test(changed)
        done = mlpcli("eval", "run", "data.path=test.csv")
        assert done.code == 2 and message in done.err, done.err


def test_a_table_is_parsed_once_for_its_run() -> None:
    """Whose config states the task that was found."""
    write_table()
    succeeds("train", of_people("rich"), "-o", "run")
    entries = sorted(Path(str(cache.folder())).iterdir())
    succeeds("eval", "run")
    assert sorted(Path(str(cache.folder())).iterdir()) == entries


def test_both_engines_learn_the_same_of_a_table() -> None:
    write_table()
    config = of_people("rich", {"numeric_embedding": "piecewise_linear"})
    for engine in ("explicit", "autograd"):
        overrides = [f"training.engine={engine}", "training.precision=float64", "training.epochs=5", "-o", engine]
        succeeds("train", config, *overrides)
    one, other = weights("explicit"), weights("autograd")
    assert all(torch.allclose(one[name], other[name], rtol=1e-9, atol=1e-12) for name in one)


def test_files_for_each_split() -> None:
    for index, name in enumerate(("train", "validation", "test")):
        write_table(f"{name}.csv", 60 + index, seed=index)
    path = {name: f"{name}.csv" for name in ("train", "validation", "test")}
    report = succeeds("check", of_people("rich", path=path), "--data", "--json").json
    assert [split["samples"] for split in report["data"]["splits"].values()] == [60, 61, 62]
    assert report["data"]["classes"] == ["False", "True"] and report["task"] == "classification"


@pytest.mark.parametrize(
    ("target", "change", "message"),
    [
        ("income", {"loss": "cross_entropy"}, "loss: cross_entropy needs classes, but csv is a regression task"),
        (
            "rich",
            {"loss": {"name": "cross_entropy", "class_weights": [1, 2, 3]}},
            "loss.class_weights: 3 class weights",
        ),
        (
            "rich",
            {"training": {"monitor": "validation.r2"}},
            "training.monitor: r2 is not measured for classification",
        ),
    ],
)
def test_what_does_not_go_with_the_data_is_a_problem_of_the_config(
    target: str, change: dict[str, Any], message: str
) -> None:
    write_table()
    config = json.loads(Path(of_people(target)).read_text()) | change
    for command in (["train"], ["check", "--data"]):
        done = mlpcli(*command, write(config))
        assert (done.code, done.out) == (2, "")
        assert message in done.err and "1 problem in the config" in done.err
    assert not Path("runs").exists()


ONE_FILE = {"dataset": "csv", "path": "a.csv", "target": "y"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": FOLDER | {"augmentation": {"shift": 1}}, "optimizer": "gd"}, "data.augmentation: gd steps by"),
        ({"data": FOLDER | {"augmentation": {}, "features": "hog"}}, "augmentation changes pixels, but the model"),
        ({"data": FOLDER | {"augmentation": {"cutout": 8}}}, "cutout 8 leaves nothing of an image whose shorter"),
        ({"data": FOLDER | {"augmentation": {"shift": 9.5}}}, "shift 9.5 leaves nothing of an image whose"),
        ({"data": FOLDER, "model": {"numeric_embedding": "periodic"}}, "periodic is for tables, but image_folder"),
        ({"data": ONE_FILE | {"task": "regression"}, "loss": "cross_entropy"}, "csv is a regression task"),
        ({"data": ONE_FILE | {"path": {"test": "b.csv"}}}, "missing key data.path.train"),
        ({"data": ONE_FILE | {"delimiter": "tab"}}, 'expected one of ",", ";", "\\t", "|", got text \'tab\''),
        ({"data": ONE_FILE | {"drop": ["y"]}}, "y is the target"),
        ({"data": ONE_FILE | {"target": ["y", "y"]}}, "a column is listed twice"),
        ({"data": ONE_FILE | {"columns": ["a"], "drop": ["a"]}}, "a is in columns too"),
    ],
)
def test_what_is_known_before_the_data_is_read(change: dict[str, Any], message: str) -> None:
    done = mlpcli("check", write(change))
    assert (done.code, done.out) == (2, "") and message in done.err


def test_a_resolved_config_is_resolved(photos: Path) -> None:
    report = succeeds("check", of_photos(), "--data", "--json").json["config"]
    assert report["loss"]["name"] == "cross_entropy"
    assert config_from_plain(report) == config_from_plain(config_from_plain(report).model_dump())
