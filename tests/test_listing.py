"""`runs --sort` and `--where`: which runs are listed and in which order."""

import json
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from command import mlpcli, succeeds

from mlpcli import listing
from mlpcli.config import dump_config, parse_config
from mlpcli.runs import Run

SGD = "data: {dataset: digits}\noptimizer: {name: sgd, lr: 0.1, momentum: 0.9}\nmodel: {width: [32, 32]}\n"
ADAM = "data: {dataset: iris}\noptimizer: {name: adam, lr: 1e-3}\ntraining: {clip_grad_norm: 1}\n"
TABLE = "data: {dataset: diabetes}\n"


def make(name: str, config: str, started: str, validation: dict[str, float], test: dict[str, float]) -> None:
    run = Run.create(None, name, dump_config(parse_config(config, "made.yaml")), {"started": started})
    for epoch in range(1, len(name) + 1):
        run.append_metrics({"epoch": epoch, "seconds": 0.5, "train": {"loss": 1.0}, "validation": validation})
    if test:
        run.write("summary.json", {"status": "finished", "test": test})
    run.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of four runs, for tests that only read them."""
    folder = tmp_path_factory.mktemp("listing")
    with chdir(folder):
        make_all()
    return folder


@pytest.fixture(autouse=True)
def _in_that_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def make_all() -> None:
    make("a", SGD, "2026-03-01", {"loss": 0.5, "accuracy": 0.7}, {"loss": 0.4, "accuracy": 0.8})
    make("bb", ADAM, "2026-02-01", {"loss": 0.3, "accuracy": 0.9}, {})
    make(
        "ccc", TABLE, "2026-01-01", {"loss": 0.2, "rmse": 50.0, "r2": 0.5}, {"loss": 0.6, "rmse": 60.0, "r2": 0.4}
    )
    Run.create(None, "dddd", "not: [YAML", {"started": "2026-04-01"}).close()


def names(*arguments: str) -> str:
    """The runs that are listed, in order, without `runs/`."""
    found = [Path(run["path"]).name for run in succeeds("runs", "--json", *arguments).json["runs"]]
    return " ".join(found)


@pytest.mark.parametrize(
    ("key", "order"),
    [
        (None, "ccc bb a dddd"),  # as they were started
        ("accuracy", "bb a ccc dddd"),  # of the test split, else of the validation split; best first
        ("loss", "bb a ccc dddd"),
        ("r2", "ccc bb a dddd"),
        ("rmse", "ccc bb a dddd"),
        ("epochs", "dddd a bb ccc"),
        ("seconds", "dddd a bb ccc"),
        ("started", "ccc bb a dddd"),
        ("path", "a bb ccc dddd"),
        ("status", "ccc a bb dddd"),
        ("optimizer.lr", "bb ccc a dddd"),
        ("optimizer.momentum", "ccc a bb dddd"),
        ("training.clip_grad_norm", "bb ccc a dddd"),  # null counts as absent
        ("data.dataset", "ccc a bb dddd"),
    ],
)
def test_the_order(key: str | None, order: str) -> None:
    assert names(*(["--sort", key] if key else [])) == order


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        (["optimizer.name=sgd"], "ccc a"),
        (["optimizer=sgd"], "ccc a"),
        (["data=iris"], "bb"),
        (["optimizer.lr=0.001"], "bb"),
        (["optimizer.lr=1e-3"], "bb"),
        (["model.width=[32,32]"], "a"),
        (["model.width=[32, 32]", "optimizer.momentum>0.5"], "a"),
        (["model.width=128"], "ccc bb"),
        (["training.early_stopping=null"], "ccc bb a"),
        (["training.clip_grad_norm!=null"], "bb"),
        (["model.bias=true"], "ccc bb a"),
        (["status=finished"], "ccc a"),
        (["status!=finished"], "bb dddd"),
        (["accuracy>=0.8"], "bb a"),
        (["accuracy>0.8"], "bb"),
        (["accuracy<=0.8", "epochs=1"], "a"),
        (["loss<0.5"], "bb a"),
        (["started>=2026-02-01"], "bb a dddd"),
        (["path=runs/a"], "a"),
        (["optimizer.betas=[0.9, 0.999]"], "bb"),
        (["optimizer.lr>small"], ""),  # a number is neither more nor less than a word
        (["seed=1"], ""),
    ],
)
def test_what_is_left(conditions: list[str], left: str) -> None:
    assert names(*(word for condition in conditions for word in ("--where", condition))) == left


def test_what_was_asked_for_is_a_column() -> None:
    out = succeeds("runs", "--where", "model.width!=[64]", "--where", "epochs<3", "--sort", "optimizer").out
    header, *rows = [line.split() for line in out.splitlines()]
    assert header == ["run", "status", "epochs", "seconds", "validation", "test", "model.width", "optimizer"]
    assert [(row[0], row[-1]) for row in rows] == [("runs/bb", "adam"), ("runs/a", "sgd")]
    assert rows[0][-2] == "128" and rows[1][-3:-1] == ["[32,", "32]"]
    assert succeeds("runs", "--where", "seed=1").out == "none of 4 runs is like that\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sort", "acuracy"], "--sort: no run has a key acuracy\n    did you mean accuracy?"),
        (["--where", "optimzer.lr=1"], "did you mean optimizer.lr?"),
        (["--where", "lr=1"], "did you mean optimizer.lr?"),
        (["--where", "frobnicate=1"], "and every key of a config"),
        (["--where", "status"], "--where status: expected KEY=VALUE"),
        (["--where", "=3"], "--where =3: expected KEY=VALUE"),
        (["--where", "seed=[1"], "--where seed=[1: "),
        (["--where", "accuracy=high"], "accuracy is a metric, so expected a number"),
        (["--where", "loss=mse"], "for that of the config write loss.name=mse"),
    ],
)
def test_what_no_run_can_have(arguments: list[str], message: str) -> None:
    done = mlpcli("runs", *arguments)
    assert (done.code, done.out) == (2, "") and message in done.err


def test_every_metric_is_sorted_with_the_best_first() -> None:
    for metric in listing.METRICS:
        runs = [{"test": {metric: value}, "validation": {}} for value in (0.2, 0.1, 0.3)]
        values = [run["test"][metric] for run in listing.listed(runs, [], metric)]
        assert values == sorted(values, reverse=metric in ("accuracy", "top5_accuracy", "r2"))


def test_json_has_the_runs_as_without_a_choice() -> None:
    def described(*arguments: str) -> Any:
        return json.loads(succeeds("runs", "--json", *arguments).out)["runs"]

    assert described("--sort", "path") == sorted(described(), key=lambda run: run["path"])
