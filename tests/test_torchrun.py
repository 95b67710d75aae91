"""Trainings that torchrun starts: what becomes of the others when one process fails, dies, hangs or is stopped."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from command import mlpcli, succeeds

from mlpcli import checkpoints
from mlpcli.errors import UnsafeCheckpointError

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]

RIGGED = """
import os, signal, time
from mlpcli import training
from mlpcli.cli import main
from mlpcli.errors import DataError

plain = training.Trainer.sgd_step

def step(self, *batch):
    if self.step == STEP and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        WHAT
    plain(self, *batch)

training.Trainer.sgd_step = step
main()
"""


def start(
    processes: int, *arguments: str, what: str = "", step: int = 30, restarts: int = 0
) -> subprocess.Popen[str]:
    """torchrun with `mlpcli ARGUMENTS`, whose rank 1 does `what` before a step of its first start."""
    program = ["-m", "mlpcli"]
    if what:
        Path("rigged.py").write_text(RIGGED.replace("STEP", str(step)).replace("WHAT", what))
        program = ["rigged.py"]
    return subprocess.Popen(
        [*TORCHRUN, str(processes), "--max-restarts", str(restarts), *program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def end_of(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout, and what stderr says besides torchrun."""
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def exit_codes(err: str) -> set[int]:
    """Of the processes that torchrun lists as failed, but for those that it ended itself."""
    return {int(code) for code in re.findall(r"exitcode\s*: (-?[0-9]+)", err)} - {-signal.SIGTERM, 143}


LONG = ["training.threads=1", "-q"]


def test_a_killed_process_is_started_again_and_the_run_ends_with_the_same_bytes() -> None:
    Path("a").mkdir()
    Path("b").mkdir()
    changes = ["training.epochs=8", "optimizer={name: adam, lr: 0.001}", *LONG]
    os.chdir("a")
    code, out, err = end_of(
        start(2, "train", "digits", *changes, what="os.kill(os.getpid(), signal.SIGKILL)", step=100, restarts=1)
    )
    assert code == 0, err
    assert out.startswith("runs/digits\n")
    assert "rank 1 of 2 died" in err
    os.chdir("../b")
    code, out, err = end_of(start(2, "train", "digits", *changes))
    assert code == 0 and out.startswith("runs/digits\n"), err
    os.chdir("..")
    for name in ("last", "best"):
        a, b = (checkpoints.load(Path(f"{run}/runs/digits/checkpoints/{name}.pt")) for run in "ab")
        assert a["position"]["epoch"] == b["position"]["epoch"]
        for state in (a, b):
            state["position"]["seconds"] = 0
            checkpoints.save(state, Path(f"{name}-{'a' if state is a else 'b'}"))
        assert Path(f"{name}-a").read_bytes() == Path(f"{name}-b").read_bytes()
    lines = [
        [
            json.loads(line) | {"seconds": 0}
            for line in Path(f"{run}/runs/digits/metrics.jsonl").read_text().splitlines()
        ]
        for run in "ab"
    ]
    assert lines[0] == lines[1] and len(lines[0]) == 8
    assert [path.name for path in Path("a/runs").iterdir()] == ["digits"]


@pytest.mark.parametrize(
    ("what", "said", "code"),
    [
        ("raise DataError('the disk of rank 1 is gone')", "error: the disk of rank 1 is gone", 2),
        ("raise ValueError('a bug on rank 1')", "ValueError: a bug on rank 1", 1),
    ],
)
def test_an_error_on_one_rank_ends_all_with_one_message(what: str, said: str, code: int) -> None:
    began = time.monotonic()
    failed, out, err = end_of(start(2, "train", "digits", "training.epochs=100000", *LONG, what=what))
    assert failed == 1  # torchrun's own, whatever the code of the process
    assert time.monotonic() - began < 30
    assert out == ""
    assert err.count(said) == 1
    assert exit_codes(err) == {code}
    assert err.count("error: ") == (1 if code == 2 else 0)
    # what was trained stays, and goes on
    succeeds("train", "--resume", "runs/digits", "training.epochs=3", "-q")


def test_a_rank_that_hangs_is_named() -> None:
    what = "signal.signal(signal.SIGTERM, signal.SIG_DFL); time.sleep(1000)"
    _, _, err = end_of(
        start(2, "train", "digits", "training.epochs=100000", "training.timeout=1", *LONG, what=what)
    )
    assert err.count("error: rank 1 of 2 did not answer within 1 s (training.timeout)") == 1
    assert 1 in exit_codes(err)


def test_a_wrong_config_is_said_once() -> None:
    _, out, err = end_of(start(2, "train", "digits", "optimizer.lr=fast"))
    assert out == "" and err.count("expected a number > 0, got text 'fast'") == 1
    assert exit_codes(err) == {2}


def test_other_commands_are_for_one_process() -> None:
    _, out, err = end_of(start(2, "runs"))
    assert out == "" and err.count("error: mlpcli runs is for one process") == 1
    assert exit_codes(err) == {2}


def test_ctrl_c_saves_in_the_same_step_on_all_ranks_and_shards_are_a_run_like_any_other() -> None:
    changes = ["scheduler=constant", "training.precision=float64", "report=false", *LONG]
    process = start(
        2,
        "train",
        "digits",
        "-o",
        "run",
        "training.parallel=fsdp",
        "training.checkpoint_seconds=0.2",
        "optimizer={name: adam, lr: 0.001}",
        *changes,
        "training.epochs=100000",
    )
    metrics = Path("run/metrics.jsonl")
    until = time.monotonic() + 60
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 2):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, _, err = end_of(process)
    assert err.count("continue with: mlpcli train --resume run") == 1, err
    folder = Path("run/checkpoints")
    shards = [path.name for path in folder.iterdir() if path.is_dir()]
    assert 1 <= len(shards) <= 2  # of the last and of the best
    assert succeeds("eval", "run", "--checkpoint", "last", "--json").json["samples"] == 359
    epoch = checkpoints.load(folder / "last.pt")["position"]["epoch"]
    succeeds("train", "--resume", "run", f"training.epochs={epoch + 1}", "-q")
    succeeds(
        "train",
        "digits",
        "-o",
        "one",
        "optimizer={name: adam, lr: 0.001}",
        *changes,
        f"training.epochs={epoch + 1}",
    )
    a, b = (checkpoints.load(Path(f"{run}/checkpoints/last.pt")) for run in ("run", "one"))
    assert a["position"]["step"] == b["position"]["step"]
    for name, weight in b["model"].items():
        torch.testing.assert_close(a["model"][name], weight, rtol=1e-9, atol=1e-10)


# --- shards that hold code ----------------------------------------------------------------------------------


class Wicked:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def dotted(path: Path) -> bytes:
    """A pickle that calls a method of what a list of shards may hold, by a name with a dot."""
    owned = pickle.dumps(str(path))[2:-1]  # without the protocol and the end
    return (
        b"\x80\x04\x8c\x07pathlib\x8c\x0fPosixPath.mkdir\x93\x8c\x07pathlib\x8c\x09PosixPath\x93"
        + owned
        + b"\x85R\x85R."
    )


def save_shards(state: dict[str, object], folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder, no_dist=True)


def refers_to_shards(folder: Path, tensors: list[str]) -> Path:
    state = {"format": checkpoints.FORMAT, "config": {}, "shards": {"folder": folder.name, "tensors": tensors}}
    torch.save(state, folder.with_name("last.pt"))
    return folder.with_name("last.pt")


@pytest.mark.parametrize("how", ["reduce", "dotted", "bytes"])
def test_shards_cannot_run_code(how: str, tmp_path: Path) -> None:
    folder, owned = tmp_path / "shards-1-0", tmp_path / "owned"
    folder.mkdir()
    if how == "bytes":  # what is no tensor, torch would unpickle
        save_shards({"model/0.weight": Wicked(owned)}, folder)
    else:
        (folder / ".metadata").write_bytes(pickle.dumps(Wicked(owned)) if how == "reduce" else dotted(owned))
    last = refers_to_shards(folder, ["model/0.weight"])
    with pytest.raises(UnsafeCheckpointError):
        checkpoints.load(last)
    assert not owned.exists()
    done = mlpcli("eval", last)
    assert done.code == 2 and "could run code" in done.err
    assert not owned.exists()


def test_shards_lie_beside_their_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "shards-1-0"
    folder.mkdir()
    save_shards({"model/0.weight": torch.ones(3)}, folder)
    last = refers_to_shards(folder, ["model/0.weight"])
    assert torch.equal(checkpoints.load(last)["model"]["0.weight"], torch.ones(3))
    for name in ("../shards-1-0", "/etc", "shards-1-0/.."):
        refers_to_shards(folder, ["model/0.weight"])
        torch.save({"config": {}, "shards": {"folder": name, "tensors": []}}, last)
        assert mlpcli("eval", last).code == 2
    refers_to_shards(folder, ["model/0.bias"])
    assert mlpcli("eval", last).code == 2
