"""The starters: each loads, trains, is evaluated and repeats itself; the linear ones against closed forms."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import mlpcli, succeeds
from sklearn.linear_model import LogisticRegression
from stored_sets import write_cifar, write_folder, write_idx
from torch import Tensor
from torchvision import datasets

from mlpcli import data, starters
from mlpcli.config import load_config
from mlpcli.experiment import build_trainer
from mlpcli.model import build_mlp
from mlpcli.network import network_for

NAMES = starters.names()
EMBEDDED = ("digits", "iris", "wine", "breast_cancer", "diabetes")


def write_data(name: str, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of a starter's data; of sets that torchvision stores 30 training and 20 test images."""
    root = Path("data")
    if name in starters.WITH_TABLE:
        succeeds("init", "elsewhere.yaml", "--dataset", name)
        return
    writers: dict[str, Callable[[], None]] = {
        "mnist": lambda: write_idx(root),
        "fashion_mnist": lambda: write_idx(root, "FashionMNIST"),
        "cifar10": lambda: write_cifar(root, monkeypatch, datasets.CIFAR10),
        "image_folder": lambda: write_folder(root / "cats-dogs"),
    }
    if dataset not in EMBEDDED:
        writers[dataset]()


def checkpoint(run: str) -> Path:
    return Path(run, "checkpoints/last.pt")


def weights(run: str) -> Tensor:
    model = torch.load(checkpoint(run), weights_only=True)["model"]
    return torch.cat([value.reshape(-1) for value in model.values()])


def test_there_are_starters_for_what_people_try_first() -> None:
    assert {"digits", "digits_gd", "digits_linear", "mnist", "mnist_linear", "fashion_mnist", "cifar10"} <= set(
        NAMES
    )
    assert {"iris", "breast_cancer", "diabetes"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_starter_is_checked_and_described(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(starters.find(name))
    assert config.name == name
    assert len(starters.summary(name)) > 20 and not starters.summary(name).startswith("#")
    write_data(name, config.data.dataset, monkeypatch)
    report = succeeds("check", name, "--data", "--json").json
    assert report["config"]["name"] == name and report["parameters"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_starter_trains_is_evaluated_and_repeats_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(starters.find(name))
    write_data(name, config.data.dataset, monkeypatch)
    limited = ["data.limit=60", "training.epochs=1"]
    summary = succeeds("train", name, *limited, "--json").json
    assert summary["run"] == f"runs/{name}" and summary["status"] == "finished"
    evaluated = succeeds("eval", f"runs/{name}", "--json").json
    assert evaluated["metrics"] == summary["test"]

    # the resolved config, trained again, gives the same run: every byte of its checkpoint, and its numbers
    again = succeeds("train", f"runs/{name}/config.yaml", "-o", "again", "--json").json
    assert checkpoint("again").read_bytes() == checkpoint(f"runs/{name}").read_bytes()
    measured = ("epochs", "steps", "best", "train", "validation", "test")
    assert [again[key] for key in measured] == [summary[key] for key in measured]

    other = succeeds("train", name, *limited, "seed=1", "-o", "other").code
    assert other == 0 and not torch.equal(weights("other"), weights("again"))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_a_starter_trains_on_the_real_set(name: str, real_data: Path) -> None:
    limited = [f"data.root={real_data}", "data.download=false", "data.limit=3000", "training.epochs=2"]
    summary = succeeds("train", name, *limited, "--json").json
    assert summary["test"]["accuracy"] > 0.7


def test_an_adapted_starter_trains_on_the_set_of_its_name() -> None:
    succeeds("init", "wine.yaml", "--dataset", "wine")
    summary = succeeds("train", "wine.yaml", "training.epochs=30", "--json").json
    assert summary["run"] == "runs/wine" and summary["test"]["accuracy"] > 0.8


# --- what depends on what -----------------------------------------------------------------------------------


def splits(name: str, *overrides: str) -> list[Tensor]:
    section = load_config(starters.find(name), overrides)
    loaded = data.load(section.data, section.seed)
    return [split.inputs for split in (loaded.train, loaded.validation, loaded.test) if split is not None]


def same(first: list[Tensor], second: list[Tensor]) -> list[bool]:
    return [torch.equal(one, other) for one, other in zip(first, second, strict=True)]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.dropout=0.5", "model.depth=4", "optimizer=adam", "training.batch_size=7"], [True, True, True]),
        (["data.validation=0.3"], [False, False, True]),
        (["seed=1"], [False, False, False]),
    ],
)
def test_what_the_splits_depend_on(overrides: list[str], expected: list[bool]) -> None:
    assert same(splits("digits"), splits("digits", *overrides)) == expected


def test_the_fingerprint_of_a_run_says_whether_the_data_was_the_same() -> None:
    prints = []
    for index, overrides in enumerate((["model.dropout=0.5"], ["model.width=8"], ["data.validation=0.3"])):
        succeeds("train", "iris", "training.epochs=1", *overrides, "-o", str(index))
        prints.append(torch.load(checkpoint(str(index)), weights_only=True)["data"]["description"]["fingerprint"])
    assert prints[0] == prints[1] != prints[2]


def stream(seed: int, name: str) -> int:
    """The seed of a stream, as `mlpcli.seeds` promises it: 63 bits of a SHA-256."""
    return int.from_bytes(sha256(f"{seed}/{name}".encode()).digest()[:8]) // 2


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_weights_shuffle_and_dropout_have_a_seed_each(seed: int, dropout: float) -> None:
    """However many random numbers dropout draws."""
    overrides = ["training.epochs=1", f"model.dropout={dropout}", "optimizer.lr=1e-30", f"seed={seed}"]
    succeeds("train", "iris", *overrides, "-o", "run")  # a step this small leaves the weights as they began
    model = build_mlp(4, 3, depth=2, width=16, activation="tanh", seed=stream(seed, "init"))
    assert torch.equal(weights("run"), torch.cat([each.detach().reshape(-1) for each in model.parameters()]))
    assert torch.initial_seed() == stream(seed, "dropout")

    config = load_config(Path("run/config.yaml"))
    dataset = data.load(config.data, config.seed)
    network = network_for(config, dataset)
    assert build_trainer(config, dataset, network).batches.shuffle_seed == stream(seed, "shuffle")


# --- closed forms -------------------------------------------------------------------------------------------


def prepared(name: str, *overrides: str) -> tuple[data.Dataset, Callable[[data.Split], Any]]:
    config = load_config(starters.find(name), overrides)
    dataset = data.load(config.data, config.seed)
    return dataset, lambda split: dataset.preprocessing(split.inputs, torch.float64).numpy()


def test_the_linear_model_of_the_digits_is_logistic_regression() -> None:
    summary = succeeds("train", "digits_linear", "--json").json
    dataset, inputs = prepared("digits_linear")
    oracle = LogisticRegression(max_iter=2000).fit(inputs(dataset.train), dataset.train.targets.numpy())
    expected = oracle.score(inputs(dataset.test), dataset.test.targets.numpy())
    assert summary["test"]["accuracy"] == pytest.approx(expected, abs=0.005)


def test_linear_regression_of_diabetes_is_least_squares() -> None:
    overrides = ["model={depth: 1}", "optimizer={name: lbfgs, max_iter: 50}", "~training.early_stopping"]
    overrides += ["loss=mse", "data.validation=0", "training={epochs: 4, precision: float64}"]
    summary = succeeds("train", "diabetes", *overrides, "-o", "run", "--json").json
    state = torch.load("run/checkpoints/last.pt", weights_only=True)
    weight, bias = (state["model"][key].numpy() for key in ("0.weight", "0.bias"))
    shift, scale = (state["data"]["preprocessing"][key].numpy() for key in ("shift", "scale"))
    mean, std = (state["data"]["target_scale"][key].numpy() for key in ("mean", "std"))
    # y = mean + std (W (x - shift) scale + b), as a function of x in its own units
    slopes = std * weight[0] * scale
    intercept = mean + std * bias - slopes @ shift

    dataset, _ = prepared("diabetes", "data.validation=0")
    columns, test = (np.insert(split.inputs.numpy(), 10, 1, axis=1) for split in (dataset.train, dataset.test))
    expected, *_ = np.linalg.lstsq(columns, dataset.train.targets.numpy()[:, 0], rcond=None)
    assert slopes == pytest.approx(expected[:-1], rel=1e-4)
    assert intercept == pytest.approx(expected[-1:], rel=1e-4)
    assert (test @ [*slopes, *intercept]) == pytest.approx(test @ expected, rel=1e-4)
    squares = (test @ expected - dataset.test.targets.numpy()[:, 0]) ** 2
    assert summary["test"]["mse"] == pytest.approx(squares.mean(), rel=1e-5)


def test_gradient_descent_needs_no_more_than_its_config_says() -> None:
    """digits_gd takes one step an epoch, on all of the training split."""
    summary = succeeds("train", "digits_gd", "training.epochs=7", "data.limit=100", "--json").json
    assert (summary["epochs"], summary["steps"]) == (7, 7)


# --- names --------------------------------------------------------------------------------------------------


def test_a_path_goes_before_a_starter_s_name_and_a_directory_does_not() -> None:
    Path("digits").mkdir()
    assert succeeds("check", "digits", "--json").json["config"]["data"]["dataset"] == "digits"
    Path("digits").rmdir()
    Path("digits").write_text("data: {dataset: iris}\n")
    assert succeeds("check", "digits", "--json").json["config"]["data"]["dataset"] == "iris"
    assert succeeds("check", "digits_gd", "--json").json["config"]["name"] == "digits_gd"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "there is no file and no starter config 'digit'\n    did you mean digits? there are: "),
        ("x" * 300, "there is no file and no starter config 'xxx"),
        ("digits.yaml", "digits.yaml: no such file"),
        ("./digits", "digits: no such file"),
        ("absent/digits", "absent/digits: no such file"),
    ],
)
def test_names_that_mean_nothing(name: str, message: str) -> None:
    for command in ("check", "train"):
        done = mlpcli(command, name)
        assert (done.code, done.out) == (2, "")
        assert message in done.err


def test_a_runs_own_config_gives_the_same_run_whatever_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orthogonal weights come from a QR decomposition, which rounds by the number of threads."""
    wide = ["model.init=orthogonal", "model.width=600", "training.epochs=1"]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        succeeds("train", "digits", *wide, "-o", "first")
        succeeds("train", "first/config.yaml", "-o", "second")
        assert torch.equal(weights("first"), weights("second"))
    finally:
        torch.set_num_threads(before)
