"""`mlpcli sweep`: what is tried, what comes out, and what happens to trials that go wrong."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna
import pytest
from command import Done, mlpcli, succeeds

from mlpcli.config import load_plan
from mlpcli.runs import read_metrics
from mlpcli.sweeping.directory import Place
from mlpcli.sweeping.storing import opened
from mlpcli.sweeping.study import LostError, Taken, Trials, join

IRIS = """
name: iris
data: {dataset: iris, validation: 0.3}
model: {depth: 2, width: 8}
optimizer: {name: sgd, lr: 0.1}
training: {epochs: 4, batch_size: 16, threads: 1, diagnostics: false}
"""
GRID = (
    IRIS
    + """
sweep:
  sampler: grid
  objective: validation.loss
  space:
    optimizer.lr: {log_uniform: [0.001, 1], points: 4}
    model.activation: {choice: [relu, tanh]}
"""
)
SLOW = (
    IRIS.replace("epochs: 4", "epochs: 100")
    + """
sweep:
  sampler: random
  trials: 4
  objective: validation.loss
  space:
    optimizer.lr: {log_uniform: [0.001, 0.1]}
"""
)


def written(text: str, name: str = "sweep.yaml") -> Path:
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    """`mlpcli sweep ARGUMENTS` in a process of its own."""
    command = [sys.executable, "-m", "mlpcli", "sweep", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)
    return found


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def alone(trial: dict[str, Any], config: str, name: str) -> dict[str, Any]:
    """What `mlpcli train` makes of a trial's values: the oracle of every trial."""
    path = written(config.partition("sweep:")[0], "alone.yaml")
    overrides = [f"{key}={json.dumps(value)}" for key, value in trial["parameters"].items()]
    return dict(succeeds("train", path, *overrides, "-o", f"alone/{name}", "-q", "--json").json)


# --- what is tried, and what comes out -------------------------------------------------------------------


def test_a_grid_finds_the_best_of_all_points() -> None:
    done = succeeds("sweep", written(GRID), "--json", "-q")
    sweep = done.json
    lrs = [0.001, 0.01, 0.1, 1.0]
    points = [(t["parameters"]["optimizer.lr"], t["parameters"]["model.activation"]) for t in sweep["trials"]]
    assert points == [(pytest.approx(lr), name) for lr in lrs for name in ("relu", "tanh")]
    values = []
    for trial in sweep["trials"]:
        summary = alone(trial, GRID, str(trial["number"]))
        lines = read_metrics(Path(f"alone/{trial['number']}"))
        assert trial["value"] == min(line["validation"]["loss"] for line in lines) == summary["best"]["value"]
        assert trial["curve"] == [[line["epoch"], line["validation"]["loss"]] for line in lines]
        values.append(trial["value"])
    assert sweep["best"]["number"] == values.index(min(values))
    assert sweep["counts"] == {"complete": 8}
    assert set(sweep["importances"]) == {"optimizer.lr", "model.activation"}


def test_the_files_of_a_sweep_say_the_same() -> None:
    best = succeeds("sweep", written(GRID), "--json", "-q").json["best"]
    folder = Path("sweeps/iris")
    rows = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert [row["state"] for row in rows] == ["complete"] * 8
    assert min(rows, key=lambda row: float(row["validation.loss"]))["trial"] == str(best["number"])
    assert (folder / "best.yaml").read_text() == (folder / best["run"] / "config.yaml").read_text()
    assert "<html" in (folder / "sweep.html").read_text() and "optimizer.lr" in (folder / "sweep.html").read_text()
    again = succeeds("train", folder / "best.yaml", "-q", "--json").json
    assert again["best"]["value"] == best["value"]
    listed = succeeds("runs", folder / "trials", "--json").json["runs"]
    assert [run["status"] for run in listed] == ["finished"] * 8
    text = succeeds("sweep", "--status", folder).out
    assert f"8 trials: 8 complete\nbest: trial {best['number']}, validation.loss {best['value']:.6g}" in text


def test_tpe_approaches_a_known_optimum() -> None:
    """A step of GD on a quadratic objective: the loss after it is a parabola in the learning rate."""
    config = """
data: {dataset: diabetes, validation: 0.2}
model: {depth: 1, init: zeros}
optimizer: {name: gd, lr: 0.1}
training: {epochs: 1, threads: 1, diagnostics: false}
"""
    path = written(config, "line.yaml")
    lrs = [0.1, 0.2, 0.3]
    losses = [succeeds("train", path, f"optimizer.lr={lr}", "-q", "--json").json["best"]["value"] for lr in lrs]
    curvature = (losses[0] - 2 * losses[1] + losses[2]) / (2 * 0.1**2)
    optimum = 0.2 - (losses[2] - losses[0]) / (2 * 0.1) / (2 * curvature)
    least = losses[1] - curvature * (optimum - 0.2) ** 2
    assert 0.05 < optimum < 0.3
    sweep = "sweep: {trials: 40, sampler: tpe, space: {optimizer.lr: {uniform: [0.001, 0.6]}}}\n"
    found = succeeds("sweep", written(config + sweep), "--json", "-q").json
    assert found["objective"] == "validation.loss"
    assert abs(found["best"]["parameters"]["optimizer.lr"] - optimum) < 0.01
    assert found["best"]["value"] == pytest.approx(least, abs=0.01 * (losses[2] - least))
    later = [abs(trial["parameters"]["optimizer.lr"] - optimum) for trial in found["trials"]]
    assert sum(later[20:]) / 20 < 0.5 * sum(later[:10]) / 10, "it learns where good trials are"


def test_random_trials_are_the_same_whoever_takes_them() -> None:
    config = written(SLOW.replace("epochs: 100", "epochs: 1"))
    one = succeeds("sweep", config, "-o", "one", "-q", "--json").json
    two = succeeds("sweep", config, "-o", "two", "--jobs", "2", "-q", "--json").json
    other = succeeds("sweep", config, "-o", "three", "seed=1", "-q", "--json").json
    assert [(t["parameters"], t["value"]) for t in one["trials"]] == [
        (t["parameters"], t["value"]) for t in two["trials"]
    ]
    assert one["trials"][0]["parameters"] != other["trials"][0]["parameters"]
    assert all(0.001 <= trial["parameters"]["optimizer.lr"] <= 0.1 for trial in one["trials"])


def test_values_may_be_lists_and_mappings() -> None:
    config = IRIS + (
        "sweep: {sampler: grid, space: {optimizer: {choice: [adam, {name: sgd, momentum: 0.9}]}, "
        "optimizer.lr: {choice: [0.01]}, model.width: {int: [4, 12], step: 4}}}\n"
    )
    sweep = succeeds("sweep", written(config), "-q", "--json").json
    assert [trial["parameters"]["optimizer"] for trial in sweep["trials"]] == ["adam"] * 3 + [
        {"name": "sgd", "momentum": 0.9}
    ] * 3
    assert [trial["parameters"]["model.width"] for trial in sweep["trials"]] == [4, 8, 12] * 2
    text = Path("sweeps/iris/trials/0005/config.yaml").read_text()
    assert "momentum: 0.9" in text and "lr: 0.01" in text and "width: 12" in text


# --- what goes wrong with a trial ------------------------------------------------------------------------


def test_a_trial_that_diverges_is_pruned_and_one_that_cannot_be_fails() -> None:
    config = IRIS + (
        "sweep: {sampler: grid, space: {optimizer.momentum: {choice: [0.5]}, optimizer: {choice: [sgd, adam]}, "
        "optimizer.lr: {choice: [0.1, 1e20]}}}\n"
    )
    done = succeeds("sweep", written(config), "--json")
    trials = done.json["trials"]
    assert [trial["state"] for trial in trials] == ["complete", "pruned", "failed", "failed"]
    assert "diverged" in trials[1]["error"] and "is not finite" in trials[1]["error"]
    assert "unknown key optimizer.momentum: the optimizer adam has no such key" in trials[2]["error"]
    assert "trial 1 of 4 pruned" in done.err and "trial 2 of 4 failed" in done.err
    listed = succeeds("runs", "sweeps/iris/trials", "--json").json["runs"]
    assert [run["status"] for run in listed] == ["finished", "diverged"]
    assert "Traceback" not in done.err


def test_a_sweep_without_a_complete_trial_has_failed() -> None:
    config = IRIS + "sweep: {sampler: grid, space: {optimizer.lr: {choice: [1e20, 1e25]}}}\n"
    done = mlpcli("sweep", written(config), "-q")
    assert done.code == 1 and "2 trials: 2 pruned" in done.out
    assert "no trial of sweeps/iris is complete\n    see why: mlpcli sweep --status sweeps/iris" in done.err


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruner_ends_bad_trials(pruner: str) -> None:
    config = IRIS.replace("epochs: 4", "epochs: 9") + (
        "sweep: {sampler: grid, pruner: " + pruner + ", objective: validation.accuracy, "
        "space: {optimizer.lr: {choice: [0.2, 0.21, 0.22, 0.23, 0.24, 1e-6, 2e-6, 3e-6, 4e-6]}}}\n"
    )
    sweep = succeeds("sweep", written(config), "-q", "--json").json
    pruned = [trial for trial in sweep["trials"] if trial["state"] == "pruned"]
    assert pruned and sweep["counts"]["complete"] >= 3
    if pruner == "median":
        assert all(trial["parameters"]["optimizer.lr"] < 0.1 for trial in pruned)
    for trial in pruned:
        folder = Path("sweeps/iris") / trial["run"]
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["status"] == "pruned" and summary["epochs"] == len(read_metrics(folder)) < 9
        assert trial["value"] == trial["curve"][-1][1]
    assert "pruned" in {run["status"] for run in succeeds("runs", "sweeps/iris/trials", "--json").json["runs"]}


def test_data_that_is_absent_ends_the_sweep_before_it_begins() -> None:
    config = GRID.replace("data: {dataset: iris, validation: 0.3}", "data: {dataset: mnist, root: nowhere}")
    done = mlpcli("sweep", written(config.replace("validation.loss", "train.loss")))
    assert done.code == 2 and done.err.startswith("error: ") and "nowhere" in done.err
    assert not Path("sweeps").exists()


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpcli.sweeping.storing.importlib.util.find_spec", lambda _: None)
    done = mlpcli("sweep", written(GRID))
    assert (done.code, done.err) == (2, "error: sweep needs the package optuna\n    pip install 'mlpcli[sweep]'\n")


def test_time_that_is_up_leaves_trials_for_later() -> None:
    config = written(SLOW.replace("epochs: 100", "epochs: 30"))
    done = mlpcli("sweep", config, "sweep.timeout=0.001", "sweep.trials=12", "-o", "late")
    assert done.code == 1 and done.out == "late\n12 trials: 12 waiting\n"
    assert "12 trials wait; continue with: mlpcli sweep --resume late" in done.err
    done = succeeds("sweep", "--resume", "late", "~sweep.timeout", "--json", "-q")
    assert done.json["counts"] == {"complete": 12}
    done = succeeds("sweep", "--resume", "late", "sweep.trials=14", "--json", "-q")
    assert done.json["counts"] == {"complete": 14} and len(list(Path("late/trials").iterdir())) == 14
    refused = mlpcli("sweep", "--resume", "late", "sweep.sampler=tpe", "optimizer.weight_decay=0.1")
    assert refused.code == 2 and "is of another sweep: optimizer.weight_decay, sweep.sampler differ" in refused.err


# --- what is interrupted, killed and shared --------------------------------------------------------------


def check_whole(sweep: dict[str, Any], config: str, trials: int = 4) -> None:
    """Every trial was trained once, to its end, and as if nothing had happened."""
    assert sweep["counts"] == {"complete": trials}
    for trial in sweep["trials"]:
        assert trial["value"] == alone(trial, config, str(trial["number"]))["best"]["value"]
        lines = read_metrics(Path(f"alone/{trial['number']}"))
        assert trial["curve"] == [[line["epoch"], line["validation"]["loss"]] for line in lines]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_goes_on_where_it_stood(number: signal.Signals) -> None:
    process = started(written(SLOW), "--jobs", "2", "-o", "it")
    wait_for(lambda: len(list(Path("it/trials").glob("*/metrics.jsonl"))) == 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and out == ""
    assert err.endswith("interrupted; every trial was saved\n    continue with: mlpcli sweep --resume it\n"), err
    status = succeeds("sweep", "--status", "it", "--json").json
    assert status["counts"]["waiting"] >= 2 and "running" not in status["counts"]
    done = succeeds("sweep", "--resume", "it", "--json")
    assert len(list(Path("it/trials").iterdir())) == 4
    check_whole(done.json, SLOW)
    resumed = [json.loads(path.read_text()) for path in Path("it/trials").glob("*/environment.json")]
    assert sum("resumed" in each for each in resumed) >= 1


def test_a_worker_that_is_killed_is_replaced_and_its_trial_goes_on() -> None:
    process = started(written(SLOW), "-o", "it", "--json")
    wait_for(lambda: Path("it/trials/0000/metrics.jsonl").exists())
    (worker,) = children(process.pid)
    os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "a worker was killed by signal 9; another takes its place" in err
    check_whole(json.loads(out), SLOW)
    assert "resumed" in json.loads(Path("it/trials/0000/environment.json").read_text())


def test_a_sweep_that_is_killed_goes_on_where_its_checkpoints_stand() -> None:
    process = started(written(SLOW), "-o", "it")
    wait_for(lambda: Path("it/trials/0001/metrics.jsonl").exists())
    workers = children(process.pid)
    for each in (process.pid, *workers):
        os.kill(each, signal.SIGKILL)
    process.communicate(timeout=60)
    check_whole(succeeds("sweep", "--resume", "it", "--json", "-q").json, SLOW)
    assert len(list(Path("it/trials").iterdir())) == 4


def test_a_trial_that_kills_its_workers_fails_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(config: Any, path: Path, *_: Any) -> Any:
        if path.name == "0001":
            os.kill(os.getpid(), signal.SIGKILL)
        return train(config, path, *_)

    from mlpcli.sweeping.trial import train

    monkeypatch.setattr("mlpcli.sweeping.worker.train", kill)
    sweep = succeeds("sweep", written(GRID), "--json", "-q").json
    assert sweep["counts"] == {"complete": 7, "failed": 1}
    assert sweep["trials"][1]["error"] == "its worker was lost 3 times"


def shares(url: str, config: str) -> None:
    """Two commands with two workers each take every trial once; both know all of them in the end."""
    path = written(config)
    both = [started(path, "--storage", url, "--jobs", "2", "--json", "-o", name) for name in ("one", "two")]
    done = [(process.communicate(timeout=120), process.returncode) for process in both]
    assert [code for _, code in done] == [0, 0], done
    first, second = (json.loads(out) for (out, _), _ in done)
    assert first["counts"] == second["counts"] == {"complete": 8}
    assert [t["value"] for t in first["trials"]] == [t["value"] for t in second["trials"]]
    runs = Counter(path.name for path in Path().glob("*/trials/*"))
    assert runs == {f"{index:04}": 1 for index in range(8)}
    ended = re.findall(r"^trial (\d+) of 8 complete", "".join(err for (_, err), _ in done), re.MULTILINE)
    assert sorted(map(int, ended)) == list(range(8))
    for trial in first["trials"]:
        assert trial["value"] == alone(trial, config, str(trial["number"]))["best"]["value"]
    status = succeeds("sweep", path, "--status", "--storage", url)
    assert "8 trials: 8 complete" in status.out
    other = mlpcli("sweep", path, "model.width=9", "--storage", url)
    assert other.code == 2 and "is of another sweep: model.width differs" in other.err


def test_two_commands_share_a_database() -> None:
    shares("sqlite:///shared.db", GRID.replace("epochs: 4", "epochs: 20"))


def test_two_commands_share_postgresql() -> None:
    url = os.environ.get("MLPCLI_TEST_POSTGRES")
    if not url:
        pytest.skip("MLPCLI_TEST_POSTGRES is not set, so there is no PostgreSQL here; .ci/run starts one")
    name = f"iris{time.time_ns()}"
    shares(url, GRID.replace("epochs: 4", "epochs: 20").replace("name: iris", f"name: {name}"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "--storage nonsense: expected the URL of a database: sqlite, postgresql, mysql, mariadb"),
        ("mysql+nodriver://me:secret@host/db", "--storage mysql+nodriver://me:***@host/db: "),
        (
            "postgresql+psycopg://me:secret@127.0.0.1:9/db",
            "postgresql+psycopg://me:***@127.0.0.1:9/db: connection",
        ),
        ("sqlite:////no/such/folder/sweep.db", "sqlite:////no/such/folder/sweep.db: unable to open database file"),
    ],
)
def test_a_database_that_is_none_is_said_without_its_password(url: str, message: str) -> None:
    done: Done = mlpcli("sweep", written(GRID), "--storage", url)
    assert done.code in (1, 2) and message in done.err and "secret" not in done.err
    assert "Traceback" not in done.err and not Path("sweeps").exists()


def test_the_status_needs_no_torch_and_says_what_runs() -> None:
    process = started(written(SLOW), "-o", "it")
    wait_for(lambda: Path("it/trials/0000/metrics.jsonl").exists())
    code = (
        "import sys; from mlpcli.cli import main\n"
        "try: main(['sweep', '--status', 'it'])\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("it\n4 trials: ") and done.stdout.endswith("False\n")
    assert re.search(r"^running\ntrial +epoch +validation.loss +optimizer.lr\n\d ", done.stdout, re.MULTILINE)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def test_the_bar_counts_trials() -> None:
    done = mlpcli("sweep", written(GRID), terminal=True)
    assert done.code == 0 and "| 7/8 [" in done.err
    assert [f"trial {index} of 8 complete" in done.err for index in range(8)] == [True] * 8


# --- signs of life -------------------------------------------------------------------------------------------


def elsewhere(trials: Trials) -> Taken:
    """A trial that another machine has taken."""
    taken = trials.take()
    assert taken is not None
    trials.draw(taken)
    taken.sign(processes="of another machine", host="elsewhere")
    return taken


@pytest.fixture
def trials(tmp_path: Path) -> Iterator[Trials]:
    plan = load_plan(written(GRID))
    with opened(Place("iris"), tmp_path) as storage:
        joined = join(storage, Place("iris"), plan)
        joined.plan_missing()
        yield joined


def test_a_trial_is_lost_when_its_signs_of_life_stand_still(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("mlpcli.sweeping.study.time.monotonic", lambda: now)
    taken = elsewhere(trials)
    trials.retry()
    now += 50
    taken.report(1, 0.5)
    trials.retry()
    now += 50
    trials.retry()
    assert trials.all()[0].state.name == "RUNNING"
    now += 11
    trials.retry()
    again = trials.all()[0]
    assert again.state.name == "WAITING" and again.user_attrs["attempt"] == 2
    with pytest.raises(LostError):
        taken.report(2, 0.4)
    with pytest.raises(LostError):
        taken.end(optuna.trial.TrialState.COMPLETE, 0.4, None)
    second = trials.take()
    assert second is not None and second.index == 0
    assert trials.draw(second) == {"optimizer.lr": 0.001, "model.activation": "relu"}


def test_two_that_plan_at_once_plan_every_trial_once(trials: Trials) -> None:
    with patch.object(Trials, "all", lambda _: {}):
        trials.plan_missing()  # as one that has not seen yet what the other has planned
    assert len(trials.study.get_trials()) == 16
    taken = [trials.take() for _ in range(9)]
    assert [each.index if each else None for each in taken] == [*range(8), None]
    assert len({each.trial.number for each in taken if each}) == 8


def test_a_killed_writer_leaves_no_half_line(trials: Trials, tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    before = journal.read_bytes()
    journal.write_bytes(before + b'{"op_code": 4, "work')
    assert trials.take() is not None
    assert journal.read_bytes().startswith(before + b"{") and b"work{" not in journal.read_bytes()
    with opened(Place("iris"), tmp_path) as storage:
        assert len(join(storage, Place("iris"), trials.plan).all()) == 8
