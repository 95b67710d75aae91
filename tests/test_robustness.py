"""Runs that are killed, interrupted, starved of disk, damaged or shared: nothing is lost, and all is said."""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mlpcli.cli import main
from mlpcli.explicit import Explicit
from mlpcli.runs import Run

MLPCLI = [sys.executable, "-m", "mlpcli"]
SLOW = ["digits", "training.epochs=100000", "scheduler=constant", "training.device=cpu"]


def cli(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def without_times(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line | {"seconds": 0} for line in lines]


def assert_same_diagnostics(one: Path, other: Path) -> None:
    """But for updates of `other` that an interruption left unknown."""
    lines, expected = (
        [json.loads(line) for line in (run / "diagnostics.jsonl").read_text().splitlines()] for run in (other, one)
    )
    for line, whole in zip(lines, expected, strict=True):
        for layer, known in zip(line["layers"], whole["layers"], strict=True):
            if layer["update_ratio"] is None:
                layer["update_ratio"] = known["update_ratio"]
        assert line == whole


def assert_same_run(one: Path, other: Path) -> None:
    names = [sorted(file.name for file in (run / "checkpoints").iterdir()) for run in (one, other)]
    assert names[0] == names[1]
    for name in ("config.yaml", *(f"checkpoints/{name}" for name in names[0])):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert without_times(one) == without_times(other)
    assert_same_diagnostics(one, other)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (one, other)]
    for summary in summaries:
        for key in ("train_seconds", "wall_seconds", "samples_per_second"):
            del summary[key]
    assert summaries[0] == summaries[1]
    assert not [path for path in (*one.rglob(".*"), *other.rglob(".*"))], "temporary files are left"


def test_killed_at_30_random_instants_it_always_resumes_to_the_same_bytes(tmp_path):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("storm.py")), str(tmp_path), "31", "1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kills, runs = map(int, done.stdout.split())
    assert kills == 30
    for index in range(runs):
        stormy = tmp_path / f"stormy-{index}"
        for leftover in stormy.rglob(".*.tmp"):  # of a write that was killed; the next write takes its place
            leftover.unlink()
        assert_same_run(tmp_path / "reference", stormy)


def send_at_steps(monkeypatch: pytest.MonkeyPatch, number: int, *steps: int) -> None:
    """Send this process a signal during those steps, counted from 1 over all trainings to come."""
    step, done = Explicit.step, itertools.count(1)

    def and_a_signal(self, *arguments):
        if next(done) in steps:
            os.kill(os.getpid(), number)
        return step(self, *arguments)

    monkeypatch.setattr(Explicit, "step", and_a_signal)


def interrupt(run: Path, *numbers: int) -> tuple[int, str]:
    """Train until some epochs are done, send the signals, and return the exit code and stderr."""
    process = subprocess.Popen(
        [*MLPCLI, "train", *SLOW, "-o", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("epoch 3/"):
            break
    for number in numbers:
        process.send_signal(number)
    rest = process.communicate(timeout=60)[1]
    return process.returncode, "".join(seen) + rest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(tmp_path, number, code, capsys):
    run = tmp_path / "run"
    returned, stderr = interrupt(run, number)
    assert returned == code
    assert "Traceback" not in stderr
    assert f"continue with: mlpcli train --resume {run}" in stderr
    assert "interrupted" in (run / "train.log").read_text()
    position = torch.load(run / "checkpoints/last.pt", weights_only=True)["position"]
    epochs = position["epoch"] + 2
    assert cli("train", "--resume", run, f"training.epochs={epochs}", "-q") == 0
    whole = tmp_path / "whole"
    assert cli("train", *SLOW, f"training.epochs={epochs}", "-o", whole, "-q") == 0
    assert_same_run(whole, run)


def test_interrupted_inside_an_epoch_and_resumed_is_uninterrupted(tmp_path, monkeypatch):
    config = ["digits", "training.epochs=3", "training.device=cpu", "model.dropout=0.5"]
    assert cli("train", *config, "-o", "whole", "-q") == 0
    # in the first epoch, in the second, and at the last step of the second
    send_at_steps(monkeypatch, signal.SIGINT, 5, 30, 42)
    assert cli("train", *config, "-o", "parts", "-q") == 130
    assert torch.load("parts/checkpoints/last.pt", weights_only=True)["position"]["step"] == 5
    assert cli("train", "--resume", "parts", "-q") == 130
    assert cli("train", "--resume", "parts", "-q") == 130
    assert cli("train", "--resume", "parts", "-q") == 0
    assert_same_run(Path("whole"), Path("parts"))


def test_a_second_ctrl_c_quits_at_once(tmp_path):
    from mlpcli.console import Signals

    with pytest.raises(KeyboardInterrupt), Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)


def test_a_full_disk_is_said_and_the_earlier_checkpoint_is_intact(tmp_path):
    config = ["digits", "training.epochs=4", "training.device=cpu"]
    assert cli("train", *config, "-o", "whole", "-q") == 0
    assert cli("train", *config, "training.epochs=2", "scheduler=constant", "-o", "run", "-q") == 0
    before = Path("run/checkpoints/last.pt").read_bytes()

    def no_space() -> None:  # the kernel refuses files of over 100 kB, as a full disk would
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [*MLPCLI, "train", "--resume", "run", "training.epochs=4"],
        capture_output=True,
        text=True,
        preexec_fn=no_space,
    )
    assert done.returncode == 1
    assert "error: cannot write run/checkpoints/last.pt" in done.stderr and "Traceback" not in done.stderr
    assert Path("run/checkpoints/last.pt").read_bytes() == before
    assert [path.name for path in Path("run/checkpoints").iterdir() if path.name.startswith(".")] == []
    assert cli("train", "--resume", "run", "training.epochs=4", "-q") == 0
    assert len(without_times(Path("run"))) == 4


def test_a_place_that_cannot_be_written_is_said_before_training(capsys):
    Path("file").write_text("")
    assert cli("train", "iris", "-o", "file/run", "-q") == 1
    assert "cannot write file/run" in capsys.readouterr().err


def test_the_second_process_on_a_run_is_refused(capsys):
    assert cli("train", "iris", "training.epochs=2", "-q") == 0
    capsys.readouterr()
    first = Run.open(Path("runs/iris"))
    assert cli("train", "--resume", "runs/iris", "training.epochs=3") == 2
    assert "another process is training in runs/iris" in capsys.readouterr().err
    assert cli("runs", "--json") == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["status"] == "running"
    first.close()
    assert cli("train", "--resume", "runs/iris", "training.epochs=3", "-q") == 0


def test_a_truncated_last_checkpoint_falls_back_to_the_best(capsys):
    config = ["iris", "training.epochs=8", "scheduler=constant", "training.device=cpu"]
    assert cli("train", *config, "-o", "whole", "-q") == 0
    assert cli("train", *config, "-o", "run", "-q") == 0
    last = Path("run/checkpoints/last.pt")
    last.write_bytes(last.read_bytes()[:-100])
    Path("run/summary.json").unlink()
    capsys.readouterr()
    assert cli("train", "--resume", "run", "-q") == 0
    stderr = capsys.readouterr().err
    assert "warning: run/checkpoints/last.pt is damaged" in stderr and "continuing from" in stderr
    assert_same_run(Path("whole"), Path("run"))


def test_a_run_without_any_readable_checkpoint_says_so(capsys):
    assert cli("train", "iris", "training.epochs=2", "-q") == 0
    for name in ("last", "best"):
        Path(f"runs/iris/checkpoints/{name}.pt").write_bytes(b"PK but no zip")
    assert cli("train", "--resume", "runs/iris", "training.epochs=3") == 2
    assert "best.pt is damaged, or not a checkpoint" in capsys.readouterr().err
    for name in ("last", "best"):
        Path(f"runs/iris/checkpoints/{name}.pt").unlink()
    assert cli("train", "--resume", "runs/iris", "training.epochs=3") == 2
    assert "both checkpoints/last.pt and checkpoints/best.pt are missing" in capsys.readouterr().err


def test_a_checkpoint_with_code_in_it_is_refused_before_the_code_runs(capsys):
    class Evil:
        def __reduce__(self):
            return Path.touch, (Path("owned"),)

    assert cli("train", "iris", "training.epochs=2", "-q") == 0
    torch.save({"model": Evil(), "config": {}}, "runs/iris/checkpoints/last.pt")
    assert cli("train", "--resume", "runs/iris", "training.epochs=3") == 2
    assert "is refused: it holds more than tensors" in capsys.readouterr().err
    assert not Path("owned").exists()


def test_data_that_changed_is_refused_on_resume(capsys, monkeypatch):
    assert cli("train", "iris", "training.epochs=2", "-q") == 0
    from mlpcli import data
    from mlpcli.data import embedded

    read = embedded.read

    def changed(name):
        source = read(name)
        source.train.inputs[0, 0] += 1
        return source

    monkeypatch.setattr(data.embedded if hasattr(data, "embedded") else embedded, "read", changed)
    assert cli("train", "--resume", "runs/iris", "training.epochs=3") == 2
    assert "the data is not what runs/iris was trained on" in capsys.readouterr().err


def test_fewer_epochs_than_are_done_cannot_be_asked_for(capsys):
    assert cli("train", "iris", "training.epochs=3", "scheduler=constant", "-q") == 0
    assert cli("train", "--resume", "runs/iris", "training.epochs=2") == 2
    assert "training.epochs=2 is less than the 3 epochs that runs/iris has begun" in capsys.readouterr().err


def test_ctrl_c_before_the_training_leaves_nothing_behind(capsys, monkeypatch):
    from mlpcli import data

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "load", interrupted)
    assert cli("train", "iris") == 130
    assert "interrupted before the training began" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_best_checkpoint_that_is_lost_is_not_taken_for_another(capsys):
    config = ["iris", "training.epochs=40", "scheduler=constant", "optimizer.lr=0.3", "training.device=cpu"]
    assert cli("train", *config, "-o", "run", "-q") == 0
    best = json.loads(Path("run/summary.json").read_text())["best"]["epoch"]
    assert best < 40, "or this run says nothing here"
    Path("run/checkpoints/best.pt").write_bytes(Path("run/checkpoints/last.pt").read_bytes())
    capsys.readouterr()
    # with epochs to come the best is chosen from them
    assert cli("train", "--resume", "run", "training.epochs=41", "-q") == 0
    assert f"best.pt is not of epoch {best}, the best so far" in capsys.readouterr().err
    assert json.loads(Path("run/summary.json").read_text())["best"]["epoch"] == 41
    assert cli("eval", "run", "--json") == 0
    measured = json.loads(capsys.readouterr().out)["metrics"]
    assert measured == json.loads(Path("run/summary.json").read_text())["test"]
    # without, it is written again where last.pt is of the same epoch
    Path("run/checkpoints/best.pt").unlink()
    Path("run/summary.json").unlink()
    assert cli("train", "--resume", "run", "-q") == 0
    assert "written again" in capsys.readouterr().err
    assert json.loads(Path("run/summary.json").read_text())["test"] == measured


def test_a_lost_best_checkpoint_of_a_finished_run_is_said(capsys):
    config = ["iris", "training.epochs=40", "scheduler=constant", "optimizer.lr=0.3", "training.device=cpu"]
    assert cli("train", *config, "-o", "run", "-q") == 0
    Path("run/checkpoints/best.pt").unlink()
    Path("run/summary.json").unlink()
    assert cli("train", "--resume", "run") == 2
    assert "the weights of the best epoch are lost" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_the_last_step_is_obeyed(number, monkeypatch, capsys):
    config = ["iris", "training.epochs=2", "training.batch_size=1000", "training.device=cpu"]
    assert cli("train", *config, "-o", "whole", "-q") == 0
    send_at_steps(monkeypatch, number, 2)
    assert cli("train", *config, "-o", "run", "-q") == 128 + number
    assert not Path("run/summary.json").exists()
    assert cli("train", "--resume", "run", "-q") == 0
    assert_same_run(Path("whole"), Path("run"))


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2>&1 >/dev/null | head -c 1 >/dev/null"])
def test_losing_stderr_does_not_lose_the_training(redirection):
    command = f"set -o pipefail; {sys.executable} -m mlpcli train iris training.epochs=3 -o run {redirection}"
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert "epoch 3/3" in Path("run/train.log").read_text()


def test_a_schedule_that_is_stretched_on_resume_says_so(capsys):
    assert cli("train", "iris", "scheduler=cosine", "training.epochs=2", "-q") == 0
    capsys.readouterr()
    assert cli("train", "--resume", "runs/iris", "training.epochs=3", "-q") == 0
    assert "cosine spans the whole training: so far it spanned 2 epochs" in capsys.readouterr().err
    assert "cosine spans the whole training" in Path("runs/iris/train.log").read_text()


def test_values_at_the_bounds_end_in_no_traceback(capsys):
    for override in (
        "optimizer.lr=1e39",
        "optimizer.weight_decay=1e39",
        "scheduler={name: cosine, warmup: 1e308}",
    ):
        assert cli("train", "iris", override) == 2
    assert cli("train", "iris", "scheduler={name: cosine, warmup: 60}") == 2
    assert "leaves nothing of 60 for the schedule" in capsys.readouterr().err
    assert cli("train", "iris", "optimizer.lr=1e30", "model.activation=relu", "-q") == 3


@pytest.mark.parametrize(
    "content", [b"", b"name: iris\ndata:\n  data", b"\xff\x00", b"seed: 3\ndata: {dataset: iris}\n"]
)
def test_a_damaged_config_of_a_run_is_written_anew_from_the_checkpoint(content, capsys):
    assert cli("train", "iris", "training.epochs=2", "scheduler=constant", "-q") == 0
    config = Path("runs/iris/config.yaml")
    before = config.read_text()
    config.write_bytes(content)
    assert cli("train", "--resume", "runs/iris", "training.epochs=3", "-q") == 0
    assert "config.yaml is not what the run was trained with" in capsys.readouterr().err
    assert config.read_text() == before.replace("epochs: 2", "epochs: 3")
