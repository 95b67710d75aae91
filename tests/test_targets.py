"""A run, a checkpoint file or a config, opened: which network, and which samples as it sees them."""

import logging
import random
import shutil
from pathlib import Path

import pytest
import torch
from command import succeeds

from mlpcli import data
from mlpcli.config import load_config
from mlpcli.errors import ConfigError, DataError, RunError, UsageError
from mlpcli.network import network_for
from mlpcli.starters import find
from mlpcli.targets import Opened, is_trained, open_any

CPU = ["training.device=cpu"]
SPLITS = ("train", "validation", "test")


def weights(opened: Opened) -> dict[str, torch.Tensor]:
    return opened.network.model.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def run() -> str:
    succeeds("train", "iris", "training.epochs=3", "data.validation=0.2", "-o", "run", "-q")
    return "run"


def test_a_config_is_opened_at_its_initial_weights() -> None:
    opened = open_any("iris", [*CPU, "model.width=7", "seed=3"])
    config = load_config(find("iris"), [*CPU, "model.width=7", "seed=3"])
    dataset = data.load(config.data, config.seed)
    assert opened.of == "iris at its initial weights"
    assert opened.config.model.widths == [7] and opened.config.seed == 3
    assert same(weights(opened), network_for(opened.config, dataset).model.state_dict())
    for name in SPLITS:
        found, expected = opened.split(name), getattr(dataset, name)
        assert torch.equal(found.inputs, expected.inputs) and torch.equal(found.targets, expected.targets)


def test_a_file_is_a_config_too() -> None:
    shutil.copy(find("iris"), "mine.yaml")
    shutil.copy(find("iris"), "without ending")
    opened = open_any("mine.yaml", [*CPU, "name=mine"])
    assert opened.of == "mine at its initial weights"
    assert same(weights(opened), weights(open_any("without ending", CPU)))


def test_a_run_is_opened_at_its_best_or_last_checkpoint(run: str) -> None:
    for which in ("best", "last"):
        opened = open_any(run, CPU, which=which)
        state = torch.load(f"run/checkpoints/{which}.pt", weights_only=True)
        assert opened.of == f"run/checkpoints/{which}.pt"
        assert same(weights(opened), state["model"])
        assert opened.network.description == opened.dataset.description
        assert [len(opened.split(name)) for name in SPLITS] == [len(opened.dataset.train), 24, 30]
    best = open_any(run, CPU)
    assert best.of == "run/checkpoints/best.pt" and not same(weights(best), weights(open_any("iris", CPU)))


def test_a_checkpoint_file_is_opened_whatever_its_name(run: str) -> None:
    shutil.copy("run/checkpoints/last.pt", "kept")
    opened, last = open_any("kept", CPU), open_any(run, CPU, which="last")
    assert opened.of == "kept" and same(weights(opened), weights(last))
    assert torch.equal(opened.split("test").inputs, last.split("test").inputs)


def test_a_missing_validation_split_is_told(run: str) -> None:
    opened = open_any("iris", [*CPU, "data.validation=0"])
    with pytest.raises(DataError) as told:
        opened.split("validation")
    assert str(told.value) == "there is no validation split: data.validation is 0\n    use --split test or train"
    assert len(opened.split("train")) == 120


def write_table(path: str, *, columns: tuple[int, ...] = (0, 1, 2), yes: str = "yes") -> None:
    """Rows of which x decides the class; `columns` says in which order they stand."""
    draw = random.Random(0)
    rows = [["x", "city", "label"]]
    for _ in range(120):
        x, city = draw.uniform(-1, 1), draw.choice(["Aachen", "Bonn", "Celle"])
        rows.append([f"{x:.4f}", city, yes if x > 0 else "no"])
    Path(path).write_text("".join(",".join(row[column] for column in columns) + "\n" for row in rows))


def test_splits_are_as_the_network_was_trained(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table("a.csv")
    write_table("b.csv", columns=(1, 2, 0))
    write_table("c.csv", yes="perhaps")
    overrides = ["data.path=a.csv", "data.target=label", "training.epochs=1"]
    succeeds("train", "table_classification", *overrides, "-o", "run", "-q")
    monkeypatch.setattr(logging.getLogger("mlpcli"), "propagate", True)  # which the command line has ended
    caplog.set_level(logging.WARNING, "mlpcli")
    before = open_any("run", CPU)
    assert not caplog.messages
    turned = open_any("run", [*CPU, "data.path=b.csv"])
    assert caplog.messages == ["the data is not what run/checkpoints/best.pt was trained on (another fingerprint)"]
    assert not torch.equal(turned.dataset.train.inputs, before.dataset.train.inputs)
    for name in SPLITS:
        a, b = before.split(name), turned.split(name)
        assert torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
    other = open_any("run", [*CPU, "data.path=c.csv"])
    with pytest.raises(DataError, match="class 'perhaps' is none of those that the model was trained on"):
        other.split("train")


def test_what_is_trained_and_what_is_a_config(run: str) -> None:
    shutil.copy("run/checkpoints/last.pt", "kept")
    shutil.copy(find("iris"), "mine.yaml")
    Path("iris").mkdir()
    trained = ["run", "kept", "run/checkpoints/best.pt", "absent.pt", "."]
    configs = ["iris", "mine.yaml", "absent", "absent.yaml"]
    assert [target for target in [*trained, *configs] if is_trained(target)] == trained


@pytest.mark.parametrize(
    ("target", "overrides", "error", "message"),
    [
        ("iriss", [], UsageError, "did you mean iris?"),
        ("iris", ["model.depth=0"], ConfigError, "model.depth"),
        ("absent.pt", [], RunError, "there is no run directory absent.pt"),
        (".", [], RunError, "is not a run directory"),
        ("run", ["model.width=3"], UsageError, "model.width cannot change here"),
    ],
)
def test_what_cannot_be_opened_is_told(
    target: str, overrides: list[str], error: type[Exception], message: str, request: pytest.FixtureRequest
) -> None:
    if target == "run":
        request.getfixturevalue("run")
    with pytest.raises(error, match=message):
        open_any(target, overrides)
