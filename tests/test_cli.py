"""The command line: what it prints where, what it writes, and the exit code of each way in which it can end."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import typer.main
import yaml
from command import Done, mlpcli, succeeds
from sklearn import datasets as sklearn_sets
from sklearn import metrics as oracle
from stored_sets import write_idx
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm
from typer import rich_utils

from mlpcli import checking, checkpoints, console, data, starters
from mlpcli.cli import app
from mlpcli.config import config_from_plain, load_config, parse_config
from mlpcli.model import build_mlp
from mlpcli.optim import make_optimizer
from mlpcli.runs import read_metrics

SMALL = ("data.limit=300", "model.width=32", "training.epochs=4", "optimizer.lr=0.05")
"""Overrides of the starter digits, for a run of a moment."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, for tests that only read it."""
    folder = tmp_path_factory.mktemp("digits")
    with chdir(folder):
        # the best epoch is not the last one
        succeeds("train", "digits", *SMALL, "training.monitor=validation.accuracy", "-q")
    return folder / "runs/digits"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def summary_of(run: Path | str) -> Any:
    return json.loads(Path(run, "summary.json").read_text())


def without_seconds(run: Path | str) -> list[dict[str, Any]]:
    return [{**line, "seconds": None} for line in read_metrics(Path(run))]


# --- train --------------------------------------------------------------------------------------------------

EPOCH = (
    r"epoch {}/3  train loss \d\.\d{{4}} accuracy \d\.\d{{4}}  validation loss \d\.\d{{4}} accuracy \d\.\d{{4}}"
    r"  [\d,]+ samples/s(  best)?"
)


def test_stdout_has_the_path_and_the_metrics_and_stderr_a_line_an_epoch() -> None:
    done = succeeds("train", "iris", "training.epochs=3")
    path, test, best = done.out.splitlines()
    summary, lines = summary_of("runs/iris"), read_metrics(Path("runs/iris"))
    assert path == "runs/iris"
    assert test == f"test loss {summary['test']['loss']:.4f} accuracy {summary['test']['accuracy']:.4f}"
    assert best.startswith(f"epoch {summary['best']['epoch']} of 3 was best by validation.loss; ")
    opening, *epochs = done.err.splitlines()[:-3]  # without the curves
    assert (
        opening
        == "runs/iris: iris (96 train, 24 validation, 30 test), 131 parameters, cpu, 1 thread, explicit engine"
    )
    assert len(epochs) == len(lines) == 3
    for number, line in enumerate(epochs, 1):
        assert re.fullmatch(EPOCH.format(number), line), line
        assert f"validation loss {lines[number - 1]['validation']['loss']:.4f}" in line
    assert Path("runs/iris/train.log").read_text() == done.err
    assert sorted(contents(Path("runs/iris"))) == [
        "checkpoints/best.pt",
        "checkpoints/last.pt",
        "config.yaml",
        "diagnostics.jsonl",
        "environment.json",
        "metrics.jsonl",
        "summary.json",
        "train.log",
    ]


def test_quiet_leaves_only_the_result() -> None:
    done = succeeds("train", "iris", "training.epochs=1", "-q")
    assert done.err == "" and done.out.startswith("runs/iris\ntest loss ")
    assert Path("runs/iris/train.log").read_text().count("\n") == 2  # which has it all the same
    done = succeeds("train", "--resume", "runs/iris", "training.epochs=2", "-q")
    assert done.err == "" and "log scale" in Path("runs/iris/train.log").read_text()


def test_json_is_one_object_that_equals_the_summary() -> None:
    done = succeeds("train", "iris", "training.epochs=2", "--json")
    assert done.json == {"run": "runs/iris", **summary_of("runs/iris")}
    assert done.json["status"] == "finished" and done.json["epochs"] == 2 and done.json["steps"] == 12
    assert done.err.count("\nepoch ") == 2


def test_the_curves_of_a_training_end_its_log() -> None:
    done = succeeds("train", "iris", "training.epochs=9")
    header, train, validation = done.err.splitlines()[-3:]
    assert header.split() == ["loss", "log", "scale", "first", "best", "at", "epoch", "last"]
    lines = read_metrics(Path("runs/iris"))
    for split, row in (("train", train), ("validation", validation)):
        losses = [line[split]["loss"] for line in lines]
        name, curve, *values = row.split()
        assert name == split and len(curve) == 9 and set(curve) <= set("▁▂▃▄▅▆▇█")
        best = losses.index(min(losses)) + 1
        assert values == [f"{losses[0]:.4f}", f"{min(losses):.4f}", str(best), f"{losses[-1]:.4f}"]
    alone = succeeds("train", "iris", "training.epochs=2", "data.validation=0").err.splitlines()
    assert alone[-1].startswith("train") and "log scale" in alone[-2]
    assert "log scale" not in succeeds("train", "iris", "training.epochs=1").err  # no curve


@pytest.mark.parametrize("arguments", [["--no-color", "train", "--help"], ["train", "--help", "--no-color"], []])
def test_colours_can_be_left_out(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rich_utils, "FORCE_TERMINAL", True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "")
    coloured = re.compile(r"\x1b\[[\d;]*3\d[;m]")
    assert coloured.search(succeeds("train", "--help").out)
    assert coloured.search(mlpcli("train", "iris", "--bogus").err)
    if not arguments:
        monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured.search(succeeds(*(arguments or ["train", "--help"])).out)
    assert not coloured.search(mlpcli("train", "iris", "--bogus", *[a for a in arguments if a[2] == "n"]).err)


class EagerBar(tqdm):  # type: ignore[type-arg]
    """A bar that shows itself in the shortest training."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "delay": 0, "mininterval": 0})


def test_a_terminal_gets_a_bar_instead_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "tqdm", EagerBar)
    monkeypatch.setattr(console, "REFRESH_SECONDS", 0)
    done = succeeds("train", "iris", "training.epochs=3", terminal=True)
    assert re.search(r"\repoch 3/3: +\d+%\|.*\| \d+/288 .*loss \d\.\d{4} accuracy \d\.\d{4}\]", done.err)
    assert "train loss" not in done.err  # the lines
    bar, curves = done.err.rsplit("\r", 1)
    assert bar.endswith(" ") and curves.startswith("loss ")  # the bar is taken away
    assert Path("runs/iris/train.log").read_text().count("train loss") == 3
    assert succeeds("train", "iris", "training.epochs=1", "-q", terminal=True).err == ""


def test_runs_are_numbered_and_named() -> None:
    for expected in ("runs/iris", "runs/iris-2", "runs/iris-3"):
        assert succeeds("train", "iris", "training.epochs=1", "-q").out.startswith(f"{expected}\n")
    assert succeeds("train", "iris", "training.epochs=1", "name=flowers").out.startswith("runs/flowers\n")
    assert succeeds("train", "iris", "training.epochs=1", "-o", "a/b", "--json").json["run"] == "a/b"
    assert sorted(path.name for path in Path("runs").iterdir()) == ["flowers", "iris", "iris-2", "iris-3"]


def test_an_existing_run_is_never_overwritten(digits: Path) -> None:
    before = contents(digits)
    done = mlpcli("train", "iris", "-o", digits)
    assert (done.code, done.out) == (2, "")
    assert "already holds a run, and a run is never overwritten" in done.err
    assert f"mlpcli train --resume {digits}" in done.err
    assert contents(digits) == before


def test_a_name_that_is_no_text_in_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    name = os.fsdecode(b"run\xff")
    monkeypatch.setattr(sys, "argv", ["mlpcli", "train", "iris", "-o", name])
    assert succeeds("train", "iris", "training.epochs=1", "-o", name).code == 0
    assert json.loads(Path(name, "environment.json").read_text())["command_line"] == sys.argv
    assert succeeds("eval", name, "--json").json["metrics"] == summary_of(name)["test"]


def test_the_config_of_a_run_is_resolved_and_says_what_was_overridden(digits: Path) -> None:
    config = yaml.safe_load((digits / "config.yaml").read_text())
    assert config["model"] == {
        "depth": 3,
        "width": 32,
        "activation": "relu",
        "dropout": 0.2,
        "normalization": "none",
        "bias": True,
        "init": "default",
        "numeric_embedding": {"name": "none"},
    }
    assert config["data"]["limit"] == 300 and config["optimizer"]["lr"] == 0.05
    environment = json.loads((digits / "environment.json").read_text())
    assert torch.__version__.startswith(environment["versions"]["torch"])
    assert environment["seed"] == 0 and environment["device"] == "cpu"


def test_without_a_validation_split_the_training_loss_chooses() -> None:
    done = succeeds("train", "iris", "data.validation=0", "training.epochs=2", "--json")
    assert done.json["validation"] == {} and done.json["best"]["monitor"] == "train.loss"
    assert "validation" not in done.err
    assert "validation" not in read_metrics(Path("runs/iris"))[0]
    refused = mlpcli("eval", "runs/iris", "--split", "validation")
    assert refused.code == 2
    assert "there is no validation split: data.validation is 0\n    use --split test or train" in refused.err


# --- train --resume -----------------------------------------------------------------------------------------


def test_a_longer_training_is_the_same_as_one_that_was_long_from_the_start() -> None:
    succeeds("train", "iris", "training.epochs=2", "-o", "short")
    done = succeeds("train", "--resume", "short", "training.epochs=5", "--json")
    whole = succeeds("train", "iris", "training.epochs=5", "-o", "long", "--json")
    assert "continuing at epoch 3, step 12" in done.err
    for name in ("checkpoints/last.pt", "checkpoints/best.pt", "config.yaml"):
        assert Path("short", name).read_bytes() == Path("long", name).read_bytes()
    assert without_seconds("short") == without_seconds("long")
    assert done.json["epochs"] == 5 and done.json["test"] == whole.json["test"]
    resumed = json.loads(Path("short/environment.json").read_text())["resumed"]
    assert len(resumed) == 1 and resumed[0]["seed"] == 0


def test_resuming_a_finished_run_changes_nothing() -> None:
    first = succeeds("train", "iris", "training.epochs=2", "--json").json
    before = contents(Path("runs/iris"))
    again = succeeds("train", "--resume", "runs/iris", "--json").json
    after = contents(Path("runs/iris"))
    assert {key: again[key] for key in first if key != "wall_seconds"} == {
        key: value for key, value in first.items() if key != "wall_seconds"
    }
    for name in ("checkpoints/last.pt", "checkpoints/best.pt", "metrics.jsonl", "config.yaml"):
        assert after[name] == before[name]


def test_a_finished_run_without_its_metrics_can_still_be_resumed() -> None:
    first = succeeds("train", "iris", "training.epochs=2", "--json").json
    Path("runs/iris/metrics.jsonl").unlink()
    done = succeeds("train", "--resume", "runs/iris", "--json")
    assert "warning: metrics.jsonl lacks epochs [1, 2]" in done.err
    assert done.json == first
    longer = succeeds("train", "--resume", "runs/iris", "training.epochs=3", "--json").json
    assert [line["epoch"] for line in read_metrics(Path("runs/iris"))] == [3]
    assert longer["samples_per_second"] == pytest.approx(96 / longer["train_seconds"], rel=0.01)


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["model.width=3"], "model.width"),
        (["seed=1", "optimizer.lr=3", "training.batch_size=7"], "seed, optimizer.lr, training.batch_size"),
        (["optimizer={name: adam}", "training.epochs=9"], "optimizer.name, "),
        (["data.limit=10"], "data.limit"),
        (["name=other"], "name"),
    ],
)
def test_what_was_trained_cannot_change_on_resume(digits: Path, overrides: list[str], keys: str) -> None:
    before = contents(digits)
    done = mlpcli("train", "--resume", digits, *overrides)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {keys}") and "cannot change on resume" in done.err
    assert "these may change: training.epochs, " in done.err
    assert contents(digits) == before


def test_what_says_where_things_are_may_change_on_resume() -> None:
    succeeds("train", "iris", "training.epochs=1")
    overrides = ["training.device=cpu", "training.checkpoint_seconds=5", "training.early_stopping={patience: 9}"]
    succeeds("train", "--resume", "runs/iris", *overrides)
    config = load_config(Path("runs/iris/config.yaml"))
    assert config.training.checkpoint_seconds == 5 and config.training.early_stopping is not None
    assert config.training.early_stopping.patience == 9


STILL = ("optimizer.lr=1e-30", "training.epochs=9")
"""Nothing improves, so that early stopping counts on."""


@pytest.mark.parametrize(
    ("change", "epochs", "early"),
    [
        ([], 3, True),
        (["training.early_stopping.patience=4"], 5, True),
        (["~training.early_stopping"], 9, False),
        (["training.early_stopping.monitor=train.accuracy"], 6, True),
    ],
)
def test_a_run_that_stopped_early_continues_with_more_patience(
    change: list[str], epochs: int, early: bool
) -> None:
    first = succeeds("train", "iris", *STILL, "training.early_stopping={patience: 2}", "--json").json
    assert (first["epochs"], first["stopped_early"]) == (3, True)
    done = succeeds("train", "--resume", "runs/iris", *change, "--json").json
    assert (done["epochs"], done["stopped_early"]) == (epochs, early)


def write_other_images() -> None:
    write_idx(Path("data"))  # draws anew


@pytest.fixture
def trained_on_other_data() -> str:
    write_idx(Path("data"))
    succeeds("train", "mnist_linear", "training.epochs=1", "-o", "run")
    write_other_images()
    return "run"


def test_a_run_is_not_resumed_on_other_data(trained_on_other_data: str) -> None:
    before = contents(Path("run"))
    done = mlpcli("train", "--resume", trained_on_other_data, "training.epochs=2")
    assert (done.code, done.out) == (2, "")
    assert "error: the data is not what run was trained on: fingerprint " in done.err
    assert contents(Path("run")) == before


def test_evaluating_on_other_data_warns(trained_on_other_data: str) -> None:
    done = succeeds("eval", trained_on_other_data, "--json")
    assert done.err.startswith("warning: the data is not what run/checkpoints/best.pt was trained on")
    assert done.json["samples"] == 20
    write_idx(Path("elsewhere"))
    assert succeeds("eval", trained_on_other_data, "data.root=elsewhere", "--json").json["samples"] == 20
    absent = mlpcli("eval", trained_on_other_data, "data.root=nowhere", "data.download=false")
    assert absent.code == 2 and "nowhere" in absent.err


# --- interrupted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_training_after_its_state_is_saved(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = succeeds("train", "iris", "training.epochs=3", "-o", "whole", "--json").json
    steps = 0

    def step(self: console.Display) -> None:
        nonlocal steps
        steps += 1
        if steps == 8:  # in the second epoch
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(console.Display, "step", step)
        done = mlpcli("train", "iris", "training.epochs=3", "-o", "run", "--json")
    assert (done.code, done.out) == (code, "")
    message = (
        "interrupted in epoch 2 after step 8; saved run/checkpoints/last.pt\n"
        "    continue with: mlpcli train --resume run\n"
    )
    assert done.err.endswith(message)
    assert message.splitlines()[0] in Path("run/train.log").read_text()
    assert [each["status"] for each in succeeds("runs", ".", "--json").json["runs"]] == ["finished", "interrupted"]
    resumed = succeeds("train", "--resume", "run", "--json")
    assert "continuing at epoch 2, step 8" in resumed.err
    assert resumed.json["test"] == whole["test"] and without_seconds("run") == without_seconds("whole")
    assert Path("run/checkpoints/last.pt").read_bytes() == Path("whole/checkpoints/last.pt").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_training_leaves_nothing(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "load", lambda *_: signal.raise_signal(number))
    done = mlpcli("train", "iris")
    assert (done.code, done.out) == (code, "")
    assert "Traceback" not in done.err and not Path("runs").exists()


# --- diverged -----------------------------------------------------------------------------------------------


def test_a_diverging_run_names_the_place_and_keeps_the_last_finite_state() -> None:
    overrides = ["model={depth: 1}", "optimizer={name: gd, lr: 1.0}", "training={epochs: 50}", "data.validation=0"]
    done = mlpcli("train", "diabetes", *overrides, "-o", "run", "--json")
    assert (done.code, done.out) == (3, "")

    # gradient descent on the squares of a linear model, by hand: lr · 2 · largest eigenvalue > 2 makes it grow
    dataset = data.load(load_config(Path("run/config.yaml")).data, 0)
    x = dataset.preprocessing(dataset.train.inputs, torch.float32)
    assert dataset.target_scale is not None
    y = dataset.target_scale.standardize(dataset.train.targets).float()
    model, step = build_model(Path("run/checkpoints/last.pt")), 0
    start = mlpcli_init_weights()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), start, strict=True):
            parameter.copy_(value)
        while True:
            step += 1
            residual = model(x) - y
            if not torch.isfinite(residual.square().mean()):
                break
            model[0].weight -= 2 * residual.T @ x / len(x)
            model[0].bias -= 2 * residual.mean(0)
    assert f"error: training diverged at epoch {step}, step {step}: the loss is not finite\n" in done.err
    assert f"run/checkpoints/last.pt (epoch {step - 1}, step {step - 1})\n" in done.err
    assert "try a smaller optimizer.lr (now 1)" in done.err

    state = torch.load("run/checkpoints/last.pt", weights_only=True)
    assert state["position"]["epoch"] == step - 1
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    assert [line["epoch"] for line in read_metrics(Path("run"))] == list(range(1, step))
    assert summary_of("run") == {"status": "diverged", "epoch": step, "step": step, "where": "the loss"}
    assert "training diverged" in Path("run/train.log").read_text()
    (listed,) = succeeds("runs", "run", "--json").json["runs"]
    assert (listed["status"], listed["epochs"]) == ("diverged", step - 1)
    assert succeeds("eval", "run", "--json").json["metrics"]["r2"] < 1
    again = mlpcli("train", "--resume", "run", "-q")
    assert again.code == 3 and again.err == done.err[done.err.index("error:") :]


def mlpcli_init_weights() -> list[Tensor]:
    """The weights with which the linear model of diabetes starts: those after an epoch that moves nothing."""
    still = ["model={depth: 1}", "optimizer={name: gd, lr: 1e-30}", "training={epochs: 1}", "data.validation=0"]
    succeeds("train", "diabetes", *still, "-o", "still")
    return list(torch.load("still/checkpoints/last.pt", weights_only=True)["model"].values())


def test_the_first_layer_that_is_not_finite_is_named() -> None:
    overrides = ["model={depth: 3, width: 16}", "optimizer={name: sgd, lr: 1e20}", "training.batch_size=50"]
    done = mlpcli("train", "diabetes", *overrides)
    assert done.code == 3
    # 1e20 · 1e20 is more than float32 holds: the second affine layer, after the first step
    assert "diverged at epoch 1, step 2: the output of layer 2 (Linear(in_features=16, out_features=16" in done.err
    assert summary_of("runs/diabetes")["where"].startswith("the output of layer 2 ")


def test_a_model_whose_test_loss_is_not_finite_has_diverged() -> None:
    """One step of 1e30 leaves finite weights, which nothing but the test split looks at."""
    overrides = ["data.validation=0", "model={depth: 3}", "training={epochs: 1, batch_size: 1000}"]
    done = mlpcli("train", "iris", *overrides, "optimizer={name: sgd, lr: 1e30}", "-o", "run")
    assert (done.code, done.out) == (3, "")
    assert "error: training diverged at epoch 1, step 1: the test loss of the best epoch is not finite" in done.err
    assert summary_of("run")["status"] == "diverged" and "the test loss" in Path("run/train.log").read_text()
    gated = mlpcli("eval", "run", "--json", "--fail-over", "loss=1")
    assert gated.code == 1 and gated.json["metrics"]["loss"] is None  # JSON has no nan
    assert gated.err == "error: loss is nan, over the gate 1\n"


# --- eval ---------------------------------------------------------------------------------------------------


def build_model(checkpoint: Path, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """The network of a checkpoint, from its state dict alone: what `docs` promise that anyone can do."""
    weights = torch.load(checkpoint, weights_only=True)["model"]
    layers: dict[str, nn.Module] = {}
    for name, value in weights.items():
        index, kind = name.split(".")
        if kind == "weight":
            if layers:
                layers[f"σ{index}"] = activation()
            layers[index] = nn.Linear(value.shape[1], value.shape[0])
        getattr(layers[index], kind).data = value
    return nn.Sequential(*layers.values())


def outputs_of(checkpoint: Path, inputs: Tensor, activation: type[nn.Module] = nn.ReLU) -> Tensor:
    preprocessing = torch.load(checkpoint, weights_only=True)["data"]["preprocessing"]
    with torch.no_grad():
        prepared = (inputs.double() - preprocessing["shift"]) * preprocessing["scale"]
        return build_model(checkpoint, activation)(prepared.float()).double()


def splits_of(run: Path) -> data.Dataset:
    config = load_config(run / "config.yaml")
    return data.load(config.data, config.seed)


@pytest.mark.parametrize("which", ["best", "last"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_classification_is_measured_as_scikit_learn_does(digits: Path, split: str, which: str) -> None:
    result = succeeds("eval", digits, "--split", split, "--checkpoint", which, "--json").json
    samples = getattr(splits_of(digits), split)
    checkpoint = digits / f"checkpoints/{which}.pt"
    probabilities = outputs_of(checkpoint, samples.inputs).softmax(1).numpy()
    true, predicted = samples.targets.numpy(), probabilities.argmax(1)
    assert result["checkpoint"] == str(checkpoint) and result["split"] == split
    assert result["samples"] == len(true) and result["classes"] == list("0123456789")
    assert result["confusion"] == oracle.confusion_matrix(true, predicted, labels=range(10)).tolist()
    values = result["metrics"]
    assert values["accuracy"] == oracle.accuracy_score(true, predicted)
    assert values["error"] == pytest.approx(1 - values["accuracy"], abs=1e-15)
    assert values["top5_accuracy"] == oracle.top_k_accuracy_score(true, probabilities, k=5, labels=range(10))
    smoothed = 0.9 * oracle.log_loss(true, probabilities, labels=range(10))
    smoothed -= 0.1 * np.log(probabilities).mean()
    assert values["loss"] == pytest.approx(smoothed, rel=1e-5)
    precision, recall, _, support = oracle.precision_recall_fscore_support(
        true, predicted, labels=range(10), zero_division=np.nan
    )
    for index, row in enumerate(result["per_class"]):
        assert row["samples"] == support[index]
        for name, expected in (("precision", precision[index]), ("recall", recall[index])):
            assert row[name] is None if np.isnan(expected) else row[name] == pytest.approx(expected)


def test_the_numbers_are_those_of_the_training_to_the_last_digit(digits: Path) -> None:
    summary, lines = summary_of(digits), read_metrics(digits)
    best = summary["best"]["epoch"]
    assert succeeds("eval", digits, "--json").json["metrics"] == summary["test"]
    assert succeeds("eval", digits / "checkpoints/best.pt", "--json").json["metrics"] == summary["test"]
    for which, epoch in (("best", best), ("last", 4)):
        arguments = ["--split", "validation", "--checkpoint", which, "--json"]
        assert succeeds("eval", digits, *arguments).json["metrics"] == lines[epoch - 1]["validation"]
    measured = [line["validation"]["accuracy"] for line in lines]
    assert summary["best"]["value"] == max(measured) == measured[best - 1]
    assert summary["best"]["validation"] == lines[best - 1]["validation"]
    assert summary["best"]["train"] == lines[best - 1]["train"]
    assert (summary["train"], summary["validation"]) == (lines[-1]["train"], lines[-1]["validation"])


def test_evaluation_as_text(digits: Path) -> None:
    result = succeeds("eval", digits, "--json").json
    done = succeeds("eval", digits)
    assert done.err == ""
    title, metrics, confusion = done.out.rstrip().split("\n\n")
    assert title == f"{digits}/checkpoints/best.pt on test (300 samples)"
    assert dict(line.split() for line in metrics.splitlines()[1:]) == {
        name: f"{value:.6f}" for name, value in (result["metrics"] | result["scores"]).items()
    }
    rows = [line.split() for line in confusion.splitlines()[1:]]
    assert [row[0] for row in rows] == result["classes"]
    assert [[int(count) for count in row[1:11]] for row in rows] == result["confusion"]


def test_regression_is_measured_in_its_own_units() -> None:
    """Against scikit-learn's metrics of a model that is read from the checkpoint."""
    run = Path("runs/diabetes")
    summary = succeeds("train", "diabetes", "training.epochs=8", "--json").json
    dataset = splits_of(run)
    for split, samples in (("test", dataset.test), ("validation", dataset.validation), ("train", dataset.train)):
        assert samples is not None
        result = succeeds("eval", run, "--split", split, "--json").json
        scale = torch.load(run / "checkpoints/best.pt", weights_only=True)["data"]["target_scale"]
        standard = outputs_of(run / "checkpoints/best.pt", samples.inputs, nn.Tanh)
        predicted, true = (standard * scale["std"] + scale["mean"]).numpy(), samples.targets.numpy()
        assert true.max() > 200  # its own units
        expected = {
            "loss": oracle.mean_squared_error((samples.targets - scale["mean"]) / scale["std"], standard),
            "mse": oracle.mean_squared_error(true, predicted),
            "mae": oracle.mean_absolute_error(true, predicted),
            "rmse": oracle.root_mean_squared_error(true, predicted),
            "r2": oracle.r2_score(true, predicted),
        }
        assert result["metrics"] == pytest.approx(expected, rel=1e-5)
        assert result.keys() == {"checkpoint", "split", "samples", "metrics"}
        if split == "test":
            assert result["metrics"] == summary["test"]
    assert "rmse" in succeeds("eval", run).out and "confusion" not in succeeds("eval", run).out


@pytest.mark.parametrize(
    ("gates", "missed"),
    [
        (["--fail-under", "accuracy=0.1", "--fail-over", "loss=100"], []),
        (["--fail-under", "accuracy={accuracy}", "--fail-over", "accuracy={accuracy}"], []),  # met exactly
        (["--fail-under", "accuracy=1.01"], ["accuracy is {accuracy:.6g}, under the gate 1.01"]),
        (
            ["--fail-over", "loss=1e-9", "--fail-under", "accuracy=2", "--fail-under", "top5_accuracy=0"],
            ["accuracy is {accuracy:.6g}, under the gate 2", "loss is {loss:.6g}, over the gate 1e-09"],
        ),
    ],
)
def test_gates(digits: Path, gates: list[str], missed: list[str]) -> None:
    metrics = summary_of(digits)["test"]
    done = mlpcli("eval", digits, *(gate.format_map(metrics) for gate in gates), "--json")
    assert done.json["metrics"] == metrics  # printed all the same
    assert done.code == (1 if missed else 0)
    expected = "\n".join(line.format_map(metrics) for line in missed)
    assert done.err == (f"error: {expected}\n" if missed else "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--fail-under", "acuracy=0.9"],
            "'acuracy' is not one of loss, accuracy, error, top5_accuracy, balanced_accuracy, ",
        ),
        (["--fail-under", "acuracy=0.9"], "did you mean accuracy?"),
        (["--fail-over", "rmse=1"], "'rmse' is not one of loss, accuracy"),
        (
            ["--fail-under", "accuracy"],
            "--fail-under accuracy: expected METRIC=NUMBER, as in --fail-under accuracy",
        ),
        (["--fail-under", "accuracy=high"], "--fail-under accuracy=high: expected METRIC=NUMBER"),
        (["--fail-over", "loss=nan"], "--fail-over loss=nan: expected METRIC=NUMBER"),
        (["--fail-over", "=1"], "a gate's metric: '' is not one of"),
        (["--split", "tst"], "--split: 'tst' is not one of train, validation, test\n    did you mean test?"),
        (["--checkpoint", "lst"], "--checkpoint: 'lst' is not one of best, last\n    did you mean last?"),
        (["model.width=3"], "model.width cannot change here: the checkpoint was trained with another value"),
        (["seed=3", "training.device=cpu"], "seed cannot change here"),
        (["training.device=cuda:99"], "training.device: cuda:99 is not on this machine"),
        (["training.device=gpu"], "training.device"),
        (["nonsense"], "override 'nonsense' has no '='"),
    ],
)
def test_evaluations_that_cannot_be_carried_out(digits: Path, arguments: list[str], message: str) -> None:
    done = mlpcli("eval", digits, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def damaged(state: dict[str, Any], change: str) -> dict[str, Any]:
    """A checkpoint that torch reads and that is none all the same."""
    changes: dict[str, dict[str, Any]] = {
        "no data": {"data": {}},
        "odd data": {"data": 3},
        "another width": {"config": {**state["config"], "model": {"width": 31, "depth": 3}}},
        "no weights": {"model": {}},
        "odd weights": {"model": [1, 2]},
        "no config": {"config": None},
        "a wrong config": {"config": {"data": {"dataset": "digitz"}}},
        "no position": {"position": None},
    }
    return {**state, **changes[change]}


@pytest.mark.parametrize(
    "change",
    ["no data", "odd data", "another width", "no weights", "odd weights", "no config", "a wrong config"],
)
def test_checkpoints_that_hold_something_else(digits: Path, change: str) -> None:
    checkpoints.save(damaged(checkpoints.load(digits / "checkpoints/last.pt"), change), Path("odd.pt"))
    done = mlpcli("eval", "odd.pt")
    assert (done.code, done.out) == (2, "")
    assert ("digitz" if change == "a wrong config" else "config") in done.err


@pytest.mark.parametrize("change", ["no data", "no weights", "no position"])
def test_runs_whose_checkpoint_holds_something_else(digits: Path, change: str) -> None:
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/config.yaml").write_bytes((digits / "config.yaml").read_bytes())
    state = checkpoints.load(digits / "checkpoints/last.pt")
    checkpoints.save(damaged(state, change), Path("run/checkpoints/last.pt"))
    done = mlpcli("train", "--resume", "run")
    assert (done.code, done.out) == (2, "")
    assert "error: run/checkpoints/last.pt does not hold what its config asks for" in done.err


# --- check --------------------------------------------------------------------------------------------------


PHOTOS = ("cats_dogs", "cats_dogs_features", "cats_dogs_linear")
UNKNOWN_SHAPES = (*PHOTOS, "table_classification", "table_regression")
"""Starters of which only the data tells how wide the network's input is."""


@pytest.mark.parametrize("name", [name for name in starters.names() if name not in UNKNOWN_SHAPES])
def test_check_counts_what_torch_builds(name: str) -> None:
    report = succeeds("check", name, "--json").json
    config = load_config(starters.find(name))
    assert config_from_plain(report["config"]) == config
    section, facts = config.model, config.data.facts
    assert facts is not None
    model = build_mlp(
        facts.features,
        facts.outputs,
        depth=len(section.widths) + 1,
        width=section.widths,
        activation=section.activation,
        dropout=section.dropout,
        normalization=section.normalization,
        bias=section.bias,
        seed=0,
    )
    assert report["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert [layer["parameters"] for layer in report["layers"]] == [
        sum(parameter.numel() for parameter in layer.parameters()) for layer in model
    ]
    numbers = [facts.features]
    for layer in model:
        layer.register_forward_hook(lambda _module, _inputs, output: numbers.append(output.shape[1]))
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, facts.features)).sum().backward()
    assert [layer["outputs"] for layer in report["layers"]] == numbers[1:]
    full = config.optimizer.name in ("gd", "lbfgs")
    samples = report["training_samples"]
    assert report["step"]["flops"] * 2 == counter.get_total_flops() * (
        samples if full else config.training.batch_size
    )
    in_memory = config.training.batch_size or samples
    assert report["step"]["activation_bytes"] == 4 * sum(numbers) * in_memory
    assert report["step"]["parameter_bytes"] == report["step"]["gradient_bytes"] == 4 * report["parameters"]


@pytest.mark.parametrize(
    "optimizer",
    [
        "gd",
        "sgd",
        "{name: sgd, momentum: 0.9}",
        "adam",
        "adamw",
        "rmsprop",
        "{name: rmsprop, momentum: 0.5}",
        "adagrad",
    ],
)
def test_check_counts_what_the_optimizer_keeps(optimizer: str) -> None:
    config = parse_config(f"data: {{dataset: iris}}\noptimizer: {optimizer}", "c.yaml")
    weight = nn.Parameter(torch.ones(5, 7))
    torchs = make_optimizer([weight], **config.optimizer.model_dump())
    weight.sum().backward()
    torchs.step()
    kept = sum(value.numel() for value in torchs.state[weight].values() if torch.is_tensor(value) and value.ndim)
    assert checking.optimizer_copies(config) * weight.numel() == kept


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["data.validation=0"],
        ["data.test=0.33", "data.validation=0.07"],
        ["data.limit=100"],
        ["data.limit=33", "data.validation=0.5"],
        ["data.limit=20", "data.validation=0.9"],  # each class keeps a sample
        ["data.test=0.9", "data.validation=0.8"],
    ],
)
@pytest.mark.parametrize("name", ["digits", "iris", "diabetes"])
def test_check_knows_the_samples_without_reading_them(name: str, overrides: list[str]) -> None:
    known = succeeds("check", name, *overrides, "--json").json
    read = succeeds("check", name, *overrides, "--data", "--json").json
    assert known["training_samples"] == read["data"]["splits"]["train"]["samples"]
    assert {key: read[key] for key in known} == known


def test_check_says_what_only_the_data_can_tell() -> None:
    succeeds("init", "config.yaml", "--dataset", "table_classification")
    assert "layers: the data decides; read it with check --data" in succeeds("check", "config.yaml").out
    report = succeeds("check", "config.yaml", "--data", "--json").json
    summary = succeeds("train", "config.yaml", "training.epochs=1", "--json").json
    assert report["parameters"] == summary["parameters"]
    assert [layer["kind"] for layer in report["layers"]][:2] == ["periodic", "linear"]
    assert report["task"] == "classification" and report["config"]["data"]["task"] == "classification"


def test_check_describes_the_data() -> None:
    report = succeeds("check", "digits", "--data", "--json").json["data"]
    published = sklearn_sets.load_digits()
    assert sum(split["samples"] for split in report["splits"].values()) == len(published.target)
    together = np.sum([split["per_class"] for split in report["splits"].values()], axis=0)
    assert together.tolist() == np.bincount(published.target).tolist()
    assert {(split["minimum"], split["maximum"]) for split in report["splits"].values()} == {(0, 16)}
    text = succeeds("check", "digits", "--data").out
    assert f"fingerprint {report['fingerprint']}" in text and re.search(r"train +1,294 +uint8 +0 +16", text)
    means = succeeds("check", "diabetes", "--data", "--json").json["data"]["splits"]
    weighted = sum(split["samples"] * split["target_mean"][0] for split in means.values()) / 442
    assert weighted == pytest.approx(sklearn_sets.load_diabetes().target.mean())


def test_check_as_text() -> None:
    done = succeeds("check", "digits", "model.width=[32, 16]", "~scheduler")
    config, table, step = done.out.rstrip().split("\n\n")
    resolved = parse_config(config, "printed")
    assert resolved.model.widths == [32, 16] and resolved.scheduler.name == "constant"
    rows = [line.split() for line in table.splitlines()]
    assert ["0", "linear", "64", "→", "32", "2,080", "4.1", "k"] in rows
    assert ["sum", "2,778", "5.44", "k"] in rows
    assert re.match(r"a step: a mini-batch of 1,294 training samples, \S+ kFLOP forward and backward\n", step)
    assert done.err == "" and "the whole training split" in succeeds("check", "digits_gd").out


# --- init, schema -------------------------------------------------------------------------------------------


def validator() -> jsonschema.Draft202012Validator:
    schema = succeeds("schema").json
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_accepts_every_starter_and_rejects_mistakes() -> None:
    check = validator()
    for name in starters.names():
        check.validate(yaml.safe_load(starters.find(name).read_text()))
    for wrong in ("data: {dataset: digitz}", "data: {dataset: iris}\nmodel: {deep: 3}", "model: {depth: 2}"):
        assert not check.is_valid(yaml.safe_load(wrong))


def test_init_writes_a_config_and_its_schema() -> None:
    done = succeeds("init")
    assert done.out == "config.yaml\n" and "mlpcli train config.yaml" in done.err
    first, *_ = Path("config.yaml").read_text().splitlines()
    assert first == "# yaml-language-server: $schema=mlpcli.schema.json"
    assert json.loads(Path("mlpcli.schema.json").read_text()) == succeeds("schema").json
    assert load_config(Path("config.yaml")) == load_config(starters.find("digits"))
    assert sorted(os.listdir()) == ["config.yaml", "mlpcli.schema.json"]
    assert succeeds("train", "config.yaml", "training.epochs=1", "data.limit=50", "-q").out.startswith(
        "runs/digits"
    )


@pytest.mark.parametrize("name", [*starters.names(), *starters.CLOSEST])
def test_init_for_every_data_set(name: str) -> None:
    succeeds("init", "new/config.yaml", "--dataset", name)
    text = Path("new/config.yaml").read_text()
    config = load_config(Path("new/config.yaml"))
    assert config.name == name
    if name in starters.CLOSEST:
        assert config.data.dataset == name
        assert f"# {name}: adapted from the starter {starters.CLOSEST[name]}, not tuned." in text
    validator().validate(yaml.safe_load(text))


def test_init_knows_every_data_set() -> None:
    section = succeeds("schema").json["$defs"]
    known = {
        name
        for each in section.values()
        if "dataset" in each["properties"]
        for name in each["properties"]["dataset"].get("enum", [each["properties"]["dataset"].get("const")])
    }
    assert "cifar10" in known and known <= {*starters.names(), *starters.CLOSEST}


def test_init_never_overwrites_unless_told_to() -> None:
    Path("mine.yaml").write_text("mine")
    done = mlpcli("init", "mine.yaml")
    assert (done.code, done.out) == (2, "")
    assert "mine.yaml already exists\n    choose another name, or overwrite it with --force" in done.err
    assert contents(Path()) == {"mine.yaml": b"mine"}
    succeeds("init", "mine.yaml", "--force", "--dataset", "iris")
    assert load_config(Path("mine.yaml")).name == "iris"


def test_init_in_a_directory() -> None:
    Path("folder").mkdir()
    assert succeeds("init", "folder", "--json").json == {
        "config": "folder/config.yaml",
        "schema": "folder/mlpcli.schema.json",
    }
    assert mlpcli("init", "folder").code == 2
    quiet = succeeds("init", "other", "-q")
    assert (quiet.out, quiet.err) == ("other\n", "")
    assert "other.schema" not in succeeds("init", "verbose", "-v").err


def test_init_lists_the_starters() -> None:
    listed = succeeds("init", "--list", "--json").json
    assert list(listed) == starters.names()
    lines = succeeds("init", "--list").out.splitlines()
    assert [line.split()[0] for line in lines] == starters.names()
    assert all(line.endswith(text) for line, text in zip(lines, listed.values(), strict=True))
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "digit"], "no starter for 'digit'\n    did you mean digits? there are: "),
        (["--dataset", ""], "no starter for ''\n    there are: "),
    ],
)
def test_init_of_what_is_not_known(arguments: list[str], message: str) -> None:
    done = mlpcli("init", *arguments)
    assert done.code == 2 and message in done.err and os.listdir() == []


# --- runs, info, version, help ------------------------------------------------------------------------------


def test_runs_lists_each_with_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    succeeds("train", "iris", "training.epochs=2")
    assert mlpcli("train", "diabetes", "optimizer={name: sgd, lr: 1e20}", "model.activation=relu").code == 3
    with monkeypatch.context() as patch:
        patch.setattr(console.Display, "step", lambda _: signal.raise_signal(signal.SIGINT))
        assert mlpcli("train", "iris").code == 130
    listed = succeeds("runs", "--json").json["runs"]
    assert [(run["path"], run["status"], run["epochs"]) for run in listed] == [
        ("runs/iris", "finished", 2),
        ("runs/diabetes", "diverged", 0),
        ("runs/iris-2", "interrupted", 0),
    ]
    summary = summary_of("runs/iris")
    assert (listed[0]["test"], listed[0]["validation"]) == (summary["test"], summary["validation"])
    header, *rows = [line.split() for line in succeeds("runs").out.splitlines()]
    assert header == ["run", "status", "epochs", "seconds", "validation", "test"]
    assert rows[0][:3] == ["runs/iris", "finished", "2"]
    assert rows[0][-1] == f"{summary['test']['accuracy']:.4f}"
    assert rows[1][:3] == ["runs/diabetes", "diverged", "0"] and rows[1][-1] == "-"
    assert len(succeeds("runs", "runs/iris").out.splitlines()) == 2


def test_no_runs() -> None:
    done = mlpcli("runs")
    assert (done.code, done.out) == (2, "") and "there is no directory runs" in done.err
    Path("runs").mkdir()
    assert succeeds("runs").out == "no runs yet\n"
    assert succeeds("runs", "--json").json == {"runs": []}


def test_info() -> None:
    facts = succeeds("info", "--json").json
    assert torch.__version__.startswith(facts["versions"]["torch"])
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["threads"] == torch.get_num_threads() and facts["cpus"] == os.cpu_count()
    assert facts["runs"] == str(Path("runs").resolve())
    assert facts["cuda"] == []
    text = succeeds("info").out
    assert re.search(rf"^numpy +{re.escape(np.__version__)}$", text, re.MULTILINE)


def test_version() -> None:
    assert succeeds("--version").out == f"mlpcli {mlpcli_version()}\n"


def mlpcli_version() -> str:
    from importlib.metadata import version

    return version("mlpcli")


COMMON = ["--json", "--quiet", "-q", "--verbose", "-v", "--help", "-h"]

OPTIONS = {
    "sweep": [
        "CONFIG",
        "KEY=VALUE",
        "--resume",
        "DIR",
        "--status",
        "--output",
        "-o",
        "--storage",
        "URL",
        "--jobs",
        "-j",
        "--json",
        "--quiet",
        "-q",
        "--verbose",
        "-v",
        "--no-color",
    ],
    "train": [
        "CONFIG",
        "KEY=VALUE",
        "--resume",
        "RUN",
        "--output",
        "-o",
        "DIR",
        "--tensorboard",
        "--seeds",
        "--jobs",
        "--no-color",
        *COMMON,
    ],
    "eval": ["TARGET", "KEY=VALUE", "--checkpoint", "--split", "--fail-under", "--fail-over", *COMMON],
    "predict": [
        *("TARGET", "INPUT", "--output", "-o", "FILE", "--top", "--checkpoint", "--device", "--on-bad-file"),
        *COMMON,
    ],
    "export": ["TARGET", "KEY=VALUE", "--output", "-o", "FILE", "--format", "--checkpoint", *COMMON],
    "check": ["CONFIG", "KEY=VALUE", "--data", "--output", "-o", "FILE", *COMMON],
    "init": ["PATH", "--dataset", "--list", "--force", *COMMON],
    "autodiff graph": ["PROGRAM", "--at", "NAME=NUMBER", "--forward", "NAME", "--output", "-o", "FILE", *COMMON],
    "autodiff model": [
        *("TARGET", "CONFIG", "KEY=VALUE", "--samples", "--sample", "--checkpoint", "--output", "-o", "FILE"),
        *COMMON,
    ],
    "autodiff check": ["TARGET", "CONFIG", "KEY=VALUE", "--samples", "--limit", "--checkpoint", *COMMON],
    "autodiff error": [
        *(
            "PROGRAM",
            "TARGET",
            "CONFIG",
            "KEY=VALUE",
            "--at",
            "--by",
            "--samples",
            "--checkpoint",
            "--output",
            "-o",
        ),
        *COMMON,
    ],
    "autodiff cost": ["--width", "--depth", "--inputs", "--jacobian", "--output", "-o", "FILE", *COMMON],
    "regions": [
        *("TARGET", "CONFIG", "KEY=VALUE", "--plane", "--samples", "--axes", "--through", "--window", "--line"),
        *("--extend", "--at", "--history", "--split", "--checkpoint", "--output", "-o", "FILE"),
        *COMMON,
    ],
    "report": ["RUN", "KEY=VALUE", "--watch", "--landscape", *COMMON],
    "compare": ["RUN", "--output", "-o", "FILE", "--landscape", "--fail-on-regression", *COMMON],
    "schema": COMMON,
    "runs": ["DIR", "--sort", "--where", "KEY=VALUE", *COMMON],
    "info": COMMON,
}


def test_the_table_above_has_every_command_and_option() -> None:
    top: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    group = top.pop("autodiff")
    commands = top | {f"autodiff {name}": command for name, command in group.commands.items()}
    assert commands.keys() == OPTIONS.keys()
    for name, command in commands.items():
        options = {option for parameter in command.params for option in parameter.opts if option[0] == "-"}
        assert options == {option for option in OPTIONS[name] if option[0] == "-"} - {"--help", "-h"}


@pytest.mark.parametrize("command", OPTIONS)
def test_help_mentions_every_option(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERMINAL_WIDTH", "120")
    for option in ("--help", "-h"):
        done = succeeds(*command.split(), option)
        assert done.err == ""
        words = set(re.findall(r"[\w=-]+", done.out))
        assert set(OPTIONS[command]) <= words
    assert command.split()[0] in succeeds("--help").out


# --- how it can end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "No such command"),
        (["train", "iris", "--bogus"], "No such option"),
        (["train"], "error: train needs a CONFIG, or --resume RUN\n    for a first try: mlpcli train digits"),
        (["train", "--resume"], "requires an argument"),
        (["train", "--resume", "absent"], "there is no run directory absent"),
        (["train", "--resume", "absent", "iris"], "'iris' has no place here"),
        (["train", "--resume", "absent", "-o", "new"], "--output does not go with --resume"),
        (["train", "iris", "optimizer.lr"], "override 'optimizer.lr' has no '='"),
        (["train", "iris", "another.yaml"], "override 'another.yaml' has no '='"),
        (["train", "iris", "~scheduler=1"], "takes no value"),
        (["train", "iris", "training.device=cuda:99"], "training.device: cuda:99 is not on this machine"),
        (["train", "irs"], "did you mean iris?"),
        (["train", "mnist", "data.download=false"], "4 of its 4 files are absent"),
        (["train", "iris", "data.validation=1e-9"], "data.validation"),
        (["train", "iris", "model.normalization=batch", "training.batch_size=95"], "leave a last batch of 1"),
        (["check"], "Missing argument"),
        (["check", "iris", "--data", "data.validation=1e-9"], "data.validation"),
        (["eval"], "Missing argument"),
        (["eval", "absent"], "there is no run directory absent"),
        (["eval", "x" * 300], "there is no run directory xxx"),
        (["eval", "empty"], "empty is not a run directory: it has no config.yaml"),
        (["eval", "text"], "text is damaged, or not a checkpoint"),
        (["runs", "text"], "there is no directory text"),
        (["runs", "a", "b"], "unexpected extra argument"),
        (["train", "--resume", "x" * 300], "there is no run directory xxx"),
    ],
)
def test_usage_errors_exit_2_and_print_no_result(arguments: list[str], message: str) -> None:
    Path("text").write_text("text")
    Path("empty").mkdir()
    done = mlpcli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in re.sub(r"[│╭╮╰╯─]|\s+(?=│)", "", done.err)
    assert sorted(os.listdir()) == ["empty", "text"]


def test_config_problems_are_shown_with_their_places() -> None:
    Path("bad.yaml").write_text("data: {dataset: digits}\nmodel:\n  dept: 3\noptimizer: {name: sgd, lr: -1}\n")
    for command in (["train", "bad.yaml"], ["check", "bad.yaml"], ["check", "bad.yaml", "--json"]):
        done = mlpcli(*command, "seed=x")
        assert (done.code, done.out) == (2, "")
        heads = [line for line in done.err.splitlines() if line[0] not in " "]
        assert heads[0].startswith("bad.yaml:3:3: ") and heads[1].startswith("bad.yaml:4:28: ")
        assert heads[2].startswith("command line: seed: ") and heads[3] == "3 problems in the config"
        assert "did you mean depth?" in done.err and "    optimizer: {name: sgd, lr: -1}\n" in done.err
    assert not Path("runs").exists()


def test_files_that_cannot_be_written_exit_1() -> None:
    Path("runs").write_text("a file")
    done = mlpcli("train", "iris")
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: cannot write runs/iris: a part of this path is a file, not a directory\n"
    for arguments in (["train", "iris", "-o", "x" * 300], ["init", "x" * 300]):
        done = mlpcli(*arguments)
        assert (done.code, done.out) == (1, "") and done.err.endswith("x: the name is too long\n")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "error: not enough memory\n    try a smaller training.batch_size, "),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "error: not enough memory\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "error: not enough memory\n"),
        (OSError(28, "No space left on device"), "error: No space left on device\n"),
        (PermissionError(13, "Permission denied", "a/b"), "error: a/b: Permission denied\n"),
    ],
)
def test_failures_of_the_machine_exit_1(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "describe", raising(error))
    done = mlpcli("check", "iris")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(message)


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "describe", raising(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        mlpcli("check", "iris")


def raising(error: Exception) -> Any:
    def fail(*_: object) -> None:
        raise error

    return fail


# --- as a process -------------------------------------------------------------------------------------------

MODULE = [sys.executable, "-m", "mlpcli"]
SCRIPT = [str(Path(sys.executable).with_name("mlpcli"))]


def process(command: list[str], *arguments: str, stdout: Any = subprocess.PIPE, **variables: str) -> Done:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables}
    done = subprocess.run(
        [*command, *arguments], stdout=stdout, stderr=subprocess.PIPE, env=environment, text=True, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("command", [MODULE, SCRIPT], ids=["module", "script"])
def test_the_process_is_the_same_as_the_function(command: list[str]) -> None:
    assert process(command, "--version").out == succeeds("--version").out
    assert process(command, "check", "iris") == succeeds("check", "iris")
    wrong = process(command, "check", "iris", "model.depth=0")
    assert wrong == mlpcli("check", "iris", "model.depth=0") and wrong.code == 2
    assert "Traceback" not in wrong.err


def test_training_in_a_process_gives_the_same_run() -> None:
    """Whole runs do not depend on what the process did before: nothing global is drawn from."""
    done = process(SCRIPT, "train", "iris", "training.epochs=2", "--json")
    here = succeeds("train", "iris", "training.epochs=2", "--json")
    assert done.code == 0 and done.json["test"] == here.json["test"]
    first, second = (Path(f"runs/{name}/checkpoints/last.pt").read_bytes() for name in ("iris", "iris-2"))
    assert first == second


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_another_encoding(encoding: str) -> None:
    done = process(SCRIPT, "check", "iris", PYTHONIOENCODING=encoding)
    assert done.code == 0 and re.search(r"linear +4 \S+ 16", done.out)
    assert process(SCRIPT, "schema", PYTHONIOENCODING=encoding).json == succeeds("schema").json
    assert "Traceback" not in process(SCRIPT, "--help", PYTHONIOENCODING=encoding).err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_stdout_is_an_error_without_a_traceback() -> None:
    with open("/dev/full", "w") as full:
        done = process(SCRIPT, "schema", stdout=full)
    assert (done.code, done.err) == (1, "error: No space left on device\n")
