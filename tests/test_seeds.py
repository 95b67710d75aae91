"""`train --seeds N`: what several seeds say together, against scipy; and that each run is what it is alone."""

import glob
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from command import mlpcli, succeeds
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlpcli.config import Config, config_from_plain, parse_config, to_plain
from mlpcli.errors import RunError, StorageError
from mlpcli.seed_runs import SeedRuns, summaries, summary
from mlpcli.tables import seeds as table

SHORT = ["iris", "training.epochs=4"]
MLPCLI = [sys.executable, "-m", "mlpcli"]
NAMES = [f"seed-{seed:04}" for seed in range(9)]


def content(path: str | Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(Path(path, "seeds.json").read_text(encoding="utf-8"))
    return value


def statuses(path: str | Path) -> list[str]:
    return [run["status"] for run in content(path)["runs"]]


def same_weights(one: str | Path, other: str | Path) -> bool:
    files = [f"checkpoints/{name}.pt" for name in ("last", "best")]
    return all(Path(one, name).read_bytes() == Path(other, name).read_bytes() for name in files)


# --- numbers ------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40))
def test_mean_deviation_and_interval_are_those_of_numpy_and_scipy(values: list[float]) -> None:
    found = summary(values)
    assert found["n"] == len(values) and (found["min"], found["max"]) == (min(values), max(values))
    assert found["mean"] == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)
    assert found["std"] == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-4)
    half = stats.t.ppf(0.975, len(values) - 1) * found["std"] / len(values) ** 0.5
    low, high = found["interval"]
    assert (high - low) / 2 == pytest.approx(half, rel=1e-4, abs=1e-9)
    assert (high + low) / 2 == pytest.approx(found["mean"], rel=1e-9, abs=1e-9)


def test_an_interval_that_can_be_computed_by_hand() -> None:
    found = summary([1.0, 3.0])
    assert found["std"] == pytest.approx(2**0.5)
    assert found["interval"] == pytest.approx([2 - 12.7062, 2 + 12.7062], abs=1e-4)
    assert summary([0.5]) == {"n": 1, "mean": 0.5, "std": None, "interval": None, "min": 0.5, "max": 0.5}


def test_a_number_that_a_run_lacks_is_counted_out() -> None:
    found = summaries([{"values": {"a": 1.0}}, {"values": {"a": 2.0, "b": 5.0}}, {"values": {}}])
    assert [(name, each["n"], each["mean"]) for name, each in found.items()] == [("a", 2, 1.5), ("b", 1, 5.0)]


def test_numbers_are_shown_with_the_digits_that_mean_something() -> None:
    values = {"test.loss": [0.51234, 0.51237, 0.51233], "train_seconds": [1200.0, 1500.0, 1350.0]}
    runs = [
        {"seed": seed, "status": "finished", "values": {name: each[seed] for name, each in values.items()}}
        for seed in range(3)
    ]
    lines = table("runs/x", {"runs": runs, "metrics": summaries(runs)}).splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["test", "loss", "0.512347", "±", "0.000052", "0.000021", "0.512330", "0.512370", "3"],
        ["train_seconds", "1,350", "±", "373", "150", "1,200", "1,500", "3"],
    ]
    assert lines[0] == "runs/x" and lines[-1] == "seeds 0 to 2: 3 finished"


# --- a run a seed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_seed_is_what_it_is_alone(jobs: int) -> None:
    done = succeeds("train", *SHORT, "seed=3", "--seeds", "3", "--jobs", str(jobs), "--json")
    for seed in (3, 4, 5):
        succeeds("train", *SHORT, f"seed={seed}", "-o", f"alone/{seed}", "-q")
        run = Path("runs/iris-seeds", f"seed-{seed:04}")
        assert same_weights(run, f"alone/{seed}")
        assert (run / "config.yaml").read_bytes() == Path(f"alone/{seed}/config.yaml").read_bytes()
        summary = json.loads((run / "summary.json").read_text())
        values = next(run for run in done.json["runs"] if run["seed"] == seed)["values"]
        assert values["test.accuracy"] == summary["test"]["accuracy"]
        assert values["validation.loss"] == summary["best"]["validation"]["loss"]
        assert values["train_seconds"] == summary["train_seconds"]
    assert len({Path(f"alone/{seed}/checkpoints/best.pt").read_bytes() for seed in (3, 4, 5)}) == 3
    assert done.json == {"directory": "runs/iris-seeds", **content("runs/iris-seeds")}
    losses = [run["values"]["test.loss"] for run in done.json["runs"]]
    expected = stats.t.interval(0.95, 2, loc=sum(losses) / 3, scale=stats.sem(losses))
    assert done.json["metrics"]["test.loss"]["interval"] == pytest.approx(expected, rel=1e-5)
    listed = succeeds("runs", "runs/iris-seeds", "--json").json["runs"]
    assert sorted(run["path"] for run in listed) == [f"runs/iris-seeds/{name}" for name in NAMES[3:6]]
    assert {run["status"] for run in listed} == {"finished"}


def test_what_is_said() -> None:
    done = succeeds("train", *SHORT, "--seeds", "2")
    lines = done.out.splitlines()
    assert lines[0] == "runs/iris-seeds" and lines[-1] == "seeds 0 to 1: 2 finished"
    assert lines[1].split() == ["metric", "mean", "95", "%", "interval", "std", "least", "greatest", "seeds"]
    assert {line.split()[0] for line in lines[2:-1]} == {
        "test",
        "validation",
        "train_seconds",
        "samples_per_second",
    }
    assert [line[:12] for line in done.err.splitlines()] == ["seed 0: test", "seed 1: test"]
    quiet = succeeds("train", *SHORT, "--seeds", "2", "-q")
    assert quiet.err == "" and quiet.out.startswith("runs/iris-seeds-2\n"), "nothing is overwritten"
    verbose = succeeds("train", *SHORT, "--seeds", "2", "-v")
    assert "seed 1: epoch 4/4  train loss" in verbose.err
    assert "2/2" in succeeds("train", *SHORT, "--seeds", "2", terminal=True).err
    log = Path("runs/iris-seeds/seed-0001/train.log").read_text()
    assert "epoch 4/4" in log and "seed 0" not in log


def test_one_seed_alone_says_nothing_of_others() -> None:
    done = succeeds("train", *SHORT, "--seeds", "1", "-o", "one")
    assert "± –" in done.out and "\nseed 0: 1 finished\n" in done.out
    assert content("one")["metrics"]["test.loss"]["interval"] is None


def test_reports_and_boards_are_made_for_each_run(reports: None) -> None:
    pytest.importorskip("tensorboard")
    succeeds("train", *SHORT, "--seeds", "2", "--tensorboard", "-q", "-o", "both")
    for name in NAMES[:2]:
        assert Path("both", name, "report.html").exists() and glob.glob(f"both/{name}/tensorboard/*tfevents*")


def test_jobs_share_the_cores() -> None:
    def note(threads: int) -> None:
        with open("threads", "a") as file:
            file.write(f"{threads}\n")

    cores = patch("mlpcli.data.workers.cores", lambda: 6)
    with cores, patch("torch.get_num_threads", lambda: 6), patch("torch.set_num_threads", note):
        succeeds("train", *SHORT, "training.threads=5", "--seeds", "3", "--jobs", "2", "-q")
    told = Path("threads").read_text().split()
    assert told.count("3") == 3, "half of them each"
    assert told.count("5") == 3, "but what the config says goes before"


# --- what goes wrong ----------------------------------------------------------------------------------------


def other_config(seed: int, *overrides: str) -> Any:
    """Gives one seed a config of its own."""
    before = SeedRuns.config_of

    def config_of(self: SeedRuns, wanted: int) -> Config:
        config = before(self, wanted)
        return config_from_plain(to_plain(config), overrides) if wanted == seed else config

    return patch.object(SeedRuns, "config_of", config_of)


def test_a_seed_that_diverges_is_named_and_left_out() -> None:
    with other_config(1, "optimizer.lr=1e17"):
        done = mlpcli("train", "digits", "training.epochs=1", "--seeds", "3", "-o", "some")
    assert done.code == 3
    assert "warning: seed 1: training diverged at epoch" in done.err
    assert done.err.endswith("error: of 3 seeds, diverged: 1\n")
    assert "seeds 0 to 2: 2 finished, 1 diverged" in done.out
    assert statuses("some") == ["finished", "diverged", "finished"]
    found = content("some")
    values = [found["runs"][seed]["values"]["test.loss"] for seed in (0, 2)]
    assert found["metrics"]["test.loss"]["n"] == 2
    assert found["metrics"]["test.loss"]["mean"] == pytest.approx(sum(values) / 2)
    assert found["runs"][1]["values"] == {}


def test_a_seed_that_fails_is_named_and_can_be_had_again() -> None:
    before = SeedRuns.config_of

    def config_of(self: SeedRuns, seed: int) -> Config:
        if seed == 1:
            raise StorageError("the disk is full")
        return before(self, seed)

    with patch.object(SeedRuns, "config_of", config_of):
        done = mlpcli("train", *SHORT, "--seeds", "3", "-o", "some", "--json")
    assert done.code == 1 and "warning: seed 1 failed: the disk is full" in done.err
    remedy = "error: of 3 seeds, not finished: 1\n    continue with: mlpcli train --resume some\n"
    assert done.err.endswith(remedy)
    assert done.json["runs"][1] | {"values": None} == {
        "seed": 1,
        "run": "seed-0001",
        "status": "failed",
        "values": None,
        "error": "the disk is full",
    }
    resumed = succeeds("train", "--resume", "some", "--json")
    assert [run["status"] for run in resumed.json["runs"]] == ["finished"] * 3
    assert [line[:7] for line in resumed.err.splitlines()] == ["seed 1:"]


def test_a_killed_process_costs_its_seed_alone_and_goes_on_to_the_same_bytes() -> None:
    succeeds("train", *SHORT, "--seeds", "2", "-q", "-o", "whole")
    steps = itertools.count(1)

    def kill(_: Any) -> None:
        if next(steps) == 9 and Path("some/seed-0001").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    with patch("mlpcli.console.Display.step", kill):
        done = mlpcli("train", *SHORT, "--seeds", "2", "-o", "some")
    assert done.code == 1 and "seed 1 failed: signal 9 ended its process" in done.err
    assert statuses("some") == ["finished", "failed"]
    assert content("some")["metrics"]["test.loss"]["n"] == 1
    succeeds("train", "--resume", "some", "-q")
    assert all(same_weights(f"some/{name}", f"whole/{name}") for name in NAMES[:2])


LONG = [
    "digits",
    "training.epochs=60",
    "training.threads=1",
    "report=false",
    "training.device=cpu",
    "--seeds",
    "3",
]


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def started(output: str) -> "subprocess.Popen[str]":
    """Two seeds in the midst of their training, in a process group of their own, as a shell starts them."""
    process = subprocess.Popen(
        [*MLPCLI, "train", *LONG, "--jobs", "2", "-o", output],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    until(lambda: len(glob.glob(f"{output}/*/metrics.jsonl")) == 2)
    return process


def test_interrupted_or_killed_it_resumes_to_the_same_bytes() -> None:
    succeeds("train", *LONG, "-q", "-o", "whole")
    process = started("interrupted")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == ""
    assert err == (
        "\nfinishing the step and saving; Ctrl-C now quits at once\n"
        "interrupted; of 3 seeds 0 are finished\n"
        "    continue with: mlpcli train --resume interrupted\n"
    )
    assert statuses("interrupted") == ["interrupted", "interrupted", "missing"]
    killed = started("killed")
    killed.kill()
    killed.communicate()
    until(lambda: mlpcli("runs", "killed").out.count("interrupted") == 2)
    for name in ("interrupted", "killed"):
        succeeds("train", "--resume", name, "-q")
        assert statuses(name) == ["finished"] * 3
        assert all(same_weights(f"{name}/{run}", f"whole/{run}") for run in NAMES[:3])


def test_a_second_interruption_ends_it_at_once() -> None:
    process = started("some")
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.endswith("continue with: mlpcli train --resume some\n")
    assert all(run["status"] == "interrupted" for run in succeeds("runs", "some", "--json").json["runs"])


def test_what_is_wrong_for_every_seed_is_said_once_and_nothing_is_left() -> None:
    Path("table.yaml").write_text("data: {dataset: csv, path: gone.csv, target: y}\nmodel: {depth: 1}\n")
    done = mlpcli("train", "table.yaml", "--seeds", "5", "--jobs", "2")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: gone.csv: there is no such file\n"
    assert not list(Path("runs").iterdir())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["iris", "--seeds", "0"], "greater than or equal to 1"),
        (["iris", "--jobs", "2"], "--jobs needs --seeds N"),
        (["iris", "--seeds", "2", "--jobs", "0"], "greater than or equal to 1"),
        (
            ["--resume", "one", "--seeds", "2"],
            "--seeds does not go with one, which is no directory of several seeds",
        ),
        (["--resume", "nowhere", "--seeds", "2"], "--seeds does not go with nowhere"),
        (["iris", "model.depht=2", "--seeds", "2"], "did you mean depth?"),
        (["iris", "--seeds", "2", "seed=9223372036854775807"], "command line: seed: expected an integer"),
        (["iris", "--seeds", "2", "-o", "one"], "one already holds a run"),
        (["--resume", "one", "-o", "other"], "--output does not go with --resume"),
    ],
)
def test_what_cannot_be_done_exits_2_and_changes_nothing(arguments: list[str], problem: str) -> None:
    succeeds("train", "iris", "training.epochs=1", "-q", "-o", "one")
    before = sorted(Path(".").rglob("*"))
    done = mlpcli("train", *arguments)
    assert done.code == 2 and problem in done.err, done
    assert sorted(Path(".").rglob("*")) == before


def test_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    done = mlpcli("train", "iris", "--seeds", "2")
    assert done.code == 2 and "does not go with torchrun" in done.err and not Path("runs").exists()


# --- going on -----------------------------------------------------------------------------------------------


def test_more_epochs_and_more_seeds() -> None:
    constant = ["iris", "scheduler=constant"]
    succeeds("train", *constant, "training.epochs=6", "--seeds", "4", "-q", "-o", "whole")
    succeeds("train", *constant, "training.epochs=4", "--seeds", "2", "-q", "-o", "some")
    again = succeeds("train", "--resume", "some")
    assert again.err == "" and "seeds 0 to 1: 2 finished" in again.out, "there is nothing left to do"
    succeeds("train", "--resume", "some", "training.epochs=6", "-q")
    # seeds that are added are trained like the others, and those stay
    done = succeeds("train", "--resume", "some", "--seeds", "4", "-q", "--json")
    assert [run["seed"] for run in done.json["runs"]] == [0, 1, 2, 3]
    assert all(same_weights(f"some/{name}", f"whole/{name}") for name in NAMES[:4])
    assert "epochs: 6" in Path("some/config.yaml").read_text()


def test_a_seed_that_was_continued_by_itself_stays_so() -> None:
    succeeds("train", *SHORT, "scheduler=constant", "--seeds", "2", "-q", "-o", "some")
    succeeds("train", "--resume", "some/seed-0001", "training.epochs=6", "-q")
    longer = Path("some/seed-0001/checkpoints/last.pt").read_bytes()
    done = succeeds("train", "--resume", "some", "--seeds", "3", "--json")
    assert [line[:7] for line in done.err.splitlines()] == ["seed 2:"], "the others are finished"
    assert Path("some/seed-0001/checkpoints/last.pt").read_bytes() == longer
    summary = json.loads(Path("some/seed-0001/summary.json").read_text())
    assert done.json["runs"][1]["values"]["test.loss"] == summary["test"]["loss"]
    shorter = mlpcli("train", "--resume", "some", "training.epochs=5")
    assert shorter.code == 2 and "less than the 6 epochs" in shorter.err


def test_what_was_changed_holds_for_seeds_that_were_not_reached_then() -> None:
    succeeds("train", *SHORT, "scheduler=cosine", "--seeds", "2", "-q", "-o", "some")
    with patch("mlpcli.verbs.seeds._until_the_end", lambda *_: None):  # as if killed at once
        mlpcli("train", "--resume", "some", "training.epochs=6", "-q")
    done = succeeds("train", "--resume", "some", "--json")
    assert [json.loads(Path("some", name, "summary.json").read_text())["epochs"] for name in NAMES[:2]] == [6, 6]
    assert "seed 1: warning: cosine spans the whole training" in done.err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["training.epochs=3"], "training.epochs=3 is less than the 4 epochs that a seed of some has finished"),
        (["optimizer.lr=1"], "optimizer.lr cannot change on resume"),
        (["seed=7"], "seed cannot change on resume"),
        (["--seeds", "1"], "--seeds 1 is less than the 2 seeds of some"),
        (["training.epochs=x"], "training.epochs: expected an integer"),
        (["iris"], "'iris' has no place here"),
    ],
)
def test_a_change_that_cannot_be_made_changes_nothing(arguments: list[str], problem: str) -> None:
    succeeds("train", *SHORT, "--seeds", "2", "-q", "-o", "some")
    before = {path: path.read_bytes() for path in Path("some").rglob("*") if path.is_file()}
    done = mlpcli("train", "--resume", "some", *arguments)
    assert done.code == 2 and problem in done.err, done
    assert {path: path.read_bytes() for path in Path("some").rglob("*") if path.is_file()} == before


def test_only_one_process_trains_in_it() -> None:
    runs = SeedRuns.create(Path("some"), parse_config("data: {dataset: iris}\nname: x", "x"), range(2))
    done = mlpcli("train", "--resume", "some")
    assert done.code == 2 and "another process is training in some" in done.err
    runs.close()
    SeedRuns.open(Path("some")).close()


@pytest.mark.parametrize("damage", ["edited", "gone"])
def test_an_edited_config_does_not_mix_other_trainings_in(damage: str) -> None:
    succeeds("train", *SHORT, "--seeds", "2", "-q", "-o", "some")
    config = Path("some/config.yaml")
    before, weights = config.read_text(), Path("some/seed-0001/checkpoints/best.pt").read_bytes()
    shutil.rmtree("some/seed-0001")
    edited = before.replace("epochs: 4", "epochs: 9")
    assert edited != before
    config.unlink() if damage == "gone" else config.write_text(edited)
    done = succeeds("train", "--resume", "some")
    assert "warning: some/config.yaml is not what the seeds are trained with; it is written anew\n" in done.err
    assert config.read_text() == before
    assert Path("some/seed-0001/checkpoints/best.pt").read_bytes() == weights
    assert "warning" not in succeeds("train", "--resume", "some").err


def test_a_damaged_list_of_seeds_is_named() -> None:
    Path("some").mkdir()
    for text in (
        "",
        "[]",
        '{"runs": [{}], "changes": []}',
        '{"runs": [], "changes": []}',
        '{"runs": [{"seed": 0}], "changes": [], "config": 1}',
    ):
        Path("some/seeds.json").write_text(text)
        with pytest.raises(RunError, match="cannot be read"):
            SeedRuns.open(Path("some"))


def test_its_runs_are_named_where_a_run_is_asked_for() -> None:
    succeeds("train", *SHORT, "--seeds", "2", "-q", "-o", "some")
    done = mlpcli("eval", "some")
    assert done.code == 2 and "runs in it: seed-0000, seed-0001" in done.err
    succeeds("eval", "some/seed-0001")
