"""Checkpoints that stay: of which epochs, that they are what the training had, and that no interruption shows."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pytest
import torch
from command import interrupted, mlpcli, succeeds
from hypothesis import given
from hypothesis import strategies as st

from mlpcli import checkpoints, data, starters
from mlpcli.config import load_config
from mlpcli.errors import StorageError
from mlpcli.network import network_for
from mlpcli.runs import Run, kept_checkpoints, kept_epochs, read_metrics, write_whole

IRIS = ("train", "iris", "scheduler=constant", "model={width: 8, dropout: 0.2}", "training.threads=1", "-q")
STEPS = 6
"""Steps of an epoch of it."""


def kept(run: str) -> list[int]:
    return [epoch for epoch, _ in kept_checkpoints(Path(run))]


def contents(run: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(run, "checkpoints").iterdir()}


def assert_equal(one: Any, other: Any) -> None:
    """Nested values with tensors in them."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_equal(*pair)
    else:
        assert one == other


# --- which ------------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(1, 250))
def test_epochs_are_spread_evenly_with_both_ends_among_them(keep: int, epochs: int) -> None:
    found = list(kept_epochs(keep, epochs))
    assert len(found) == min(keep, epochs + 1)
    assert found == sorted(set(found)) and set(found) <= set(range(epochs + 1))
    if keep >= 1:
        assert found[-1] == epochs
    if keep >= 2:
        assert found[0] == 0
        gaps = [after - before for before, after in pairwise(found)]
        assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    ("keep", "epochs", "expected"),
    [
        (0, 20, []),
        (1, 20, [20]),
        (2, 20, [0, 20]),
        (5, 20, [0, 5, 10, 15, 20]),
        (4, 5, [0, 1, 3, 5]),
        (3, 1, [0, 1]),
        ("all", 3, [0, 1, 2, 3]),
    ],
)
def test_epochs_of_some_trainings(keep: int | Literal["all"], epochs: int, expected: list[int]) -> None:
    assert list(kept_epochs(keep, epochs)) == expected


def test_every_epoch_of_the_longest_training_takes_no_memory() -> None:
    every = kept_epochs("all", 100_000_000)
    assert len(every) == 100_000_001 and 77_777_777 in every


def test_files_are_in_the_order_of_their_epochs() -> None:
    run = Run.create(None, "iris", "", {})
    names = ["epoch-0002.pt", "epoch-9999.pt", "epoch-10000.pt"]
    for epoch in (10000, 2, 9999):
        run.kept(epoch).touch()
    for name in ("last.pt", "best.pt", ".epoch-0003.pt.tmp", "epoch-x.pt", "epoch-0004.pt.bak"):
        run.last.with_name(name).touch()
    folder = Path("runs/iris/checkpoints")
    expected = [(epoch, folder / name) for epoch, name in zip((2, 9999, 10000), names, strict=True)]
    assert kept_checkpoints(run.path) == expected
    assert kept_checkpoints(Path("nowhere")) == []


@pytest.mark.parametrize(("keep", "epochs"), [("0", []), ("1", [4]), ("3", [0, 2, 4]), ("all", [0, 1, 2, 3, 4])])
def test_a_run_has_these_files_and_no_others(keep: str, epochs: list[int]) -> None:
    succeeds(*IRIS, "training.epochs=4", f"training.keep_checkpoints={keep}", "-o", "run")
    files = [f"epoch-{epoch:04}.pt" for epoch in epochs]
    assert sorted(contents("run")) == ["best.pt", *files, "last.pt"]


@pytest.mark.parametrize(("keep", "epochs"), [("4", [0, 3]), ("3", [0]), ("1", [])])
def test_of_a_training_that_stops_early_those_up_to_there(keep: str, epochs: list[int]) -> None:
    still = ("optimizer.lr=1e-30", "training.epochs=9", "training.early_stopping={patience: 2}")
    succeeds(*IRIS, *still, f"training.keep_checkpoints={keep}", "-o", "run")
    assert len(read_metrics(Path("run"))) == 3
    assert kept("run") == epochs


@pytest.mark.parametrize("value", ["-1", "2.5", "some", "true", "null", "[3]", "1000001"])
def test_what_is_no_number_of_epochs(value: str) -> None:
    done = mlpcli("train", "iris", f"training.keep_checkpoints={value}")
    assert (done.code, done.out) == (2, "")
    assert "training.keep_checkpoints: expected all or an integer ≥ 0" in done.err
    assert not Path("runs").exists()


# --- what they hold ---------------------------------------------------------------------------------------


def test_each_is_what_a_training_of_so_many_epochs_ends_with() -> None:
    succeeds(*IRIS, "training.epochs=3", "training.keep_checkpoints=all", "-o", "run")
    config = load_config(starters.find("iris"), IRIS[2:-1])
    first, *others = kept_checkpoints(Path("run"))
    initial = network_for(config, data.load(config.data, config.seed)).model.state_dict()
    assert_equal(dict(checkpoints.load(first[1])["model"]), dict(initial))
    for epoch, path in others:
        succeeds(*IRIS, f"training.epochs={epoch}", "training.keep_checkpoints=all", "-o", f"short-{epoch}")
        state, short = (checkpoints.load(file) for file in (path, Path(f"short-{epoch}/checkpoints/last.pt")))
        assert state.pop("config")["training"].pop("epochs") == 3 and short.pop("config")
        assert_equal(state, short)
    assert contents("run")["epoch-0003.pt"] == contents("run")["last.pt"]


def test_they_can_be_evaluated() -> None:
    summary = succeeds(*IRIS, "training.epochs=3", "training.keep_checkpoints=2", "--json", "-o", "run").json
    done = succeeds("eval", "run/checkpoints/epoch-0003.pt", "--split", "validation", "--json")
    assert done.json["metrics"] == summary["validation"]
    initial = succeeds("eval", "run/checkpoints/epoch-0000.pt", "--split", "validation", "--json")
    assert initial.json["metrics"]["loss"] > summary["validation"]["loss"]


def test_each_is_written_once_and_never_inside_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    written: Counter[str] = Counter()

    def count(path: Path, content: Callable[[BinaryIO], None]) -> None:
        written[path.name] += 1
        write_whole(path, content)

    monkeypatch.setattr(checkpoints, "write_whole", count)
    every_step = "training.checkpoint_seconds=1e-9"
    succeeds(*IRIS, "training.epochs=2", "training.keep_checkpoints=all", every_step, "-o", "run")
    assert written.pop("last.pt") == 1 + 2 * (STEPS + 1) and written.pop("best.pt") <= 2
    assert written == {"epoch-0000.pt": 1, "epoch-0001.pt": 1, "epoch-0002.pt": 1}
    for epoch, path in kept_checkpoints(Path("run")):
        position = {"epoch": epoch, "step": epoch * STEPS, "step_in_epoch": 0, "seconds": 0.0}
        assert checkpoints.load(path)["position"] == position


# --- interrupted, resumed ---------------------------------------------------------------------------------

KEEPING = (*IRIS, "training.epochs=4", "training.keep_checkpoints=3")


@pytest.mark.parametrize("stop", [1, STEPS, STEPS + 2, 2 * STEPS, 4 * STEPS - 1])
def test_interrupted_and_resumed_they_are_the_same_bytes(stop: int) -> None:
    succeeds(*KEEPING, "-o", "whole")
    interrupted(stop, *KEEPING, "-o", "parts")
    done = [epoch for epoch in (0, 2, 4) if epoch * STEPS < stop]
    assert kept("parts") == done
    succeeds("train", "--resume", "parts", "-q")
    assert contents("parts") == contents("whole")


@pytest.mark.parametrize("epoch", [0, 1, 2, 4])
def test_killed_before_the_last_checkpoint_is_written_they_are_the_same_bytes(
    epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At epoch 0 the run has no other checkpoint yet, and starts from the beginning."""
    succeeds(*KEEPING, "-o", "whole")
    saves = 0

    def die(path: Path, content: Callable[[BinaryIO], None]) -> None:
        nonlocal saves
        saves += path.name == "last.pt"
        if saves > epoch:
            raise StorageError("the power is gone")
        write_whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_whole", die)
        assert mlpcli(*KEEPING, "-o", "parts").code == 1
    assert kept("parts") == [each for each in (0, 2, 4) if each <= epoch]
    for file in (path for each, path in kept_checkpoints(Path("parts")) if each == epoch):
        file.write_bytes(b"another")
    succeeds("train", "--resume", "parts", "-q")
    assert contents("parts") == contents("whole")


def test_what_is_kept_may_change_on_resume() -> None:
    succeeds(*IRIS, "training.epochs=4", "training.keep_checkpoints=2", "-o", "run")
    before = contents("run")["epoch-0000.pt"]
    succeeds("train", "--resume", "run", "training.epochs=8", "training.keep_checkpoints=3", "-q")
    assert kept("run") == [0, 4, 8]
    succeeds("train", "--resume", "run", "training.keep_checkpoints=0", "training.epochs=9", "-q")
    assert kept("run") == [0, 4, 8]
    succeeds("train", "--resume", "run", "training.keep_checkpoints=all", "training.epochs=11", "-q")
    assert kept("run") == [0, 4, 8, 9, 10, 11]  # of epoch 9 the last checkpoint was there
    assert contents("run")["epoch-0000.pt"] == before
    assert [checkpoints.load(path)["position"]["epoch"] for _, path in kept_checkpoints(Path("run"))] == kept(
        "run"
    )
