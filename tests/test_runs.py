"""The run directory and its checkpoints: whole or not at all, and no code of a checkpoint is ever run."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlpcli import checkpoints, runs
from mlpcli.errors import CheckpointError, RunError, StorageError
from mlpcli.runs import Run, list_runs, read_metrics, write_whole

HERE = Path(".")


def create(path: Path | None = None, name: str = "digits") -> Run:
    return Run.create(path, name, "data: {dataset: digits}\n", {"started": "2026-01-01"})


def everything(folder: Path = HERE) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- creating ---------------------------------------------------------------------------------------------


def test_a_run_is_numbered_after_those_that_exist() -> None:
    assert [str(create().path) for _ in range(3)] == ["runs/digits", "runs/digits-2", "runs/digits-3"]
    shutil.rmtree("runs/digits-2")
    assert str(create().path) == "runs/digits-2"
    Path("runs/digits-4").write_text("a file takes a name too")
    assert str(create().path) == "runs/digits-5"
    assert everything(Path("runs/digits-5")) == ["checkpoints", "config.yaml", "environment.json"]
    assert Path("runs/digits-5/config.yaml").read_text() == "data: {dataset: digits}\n"
    assert json.loads(Path("runs/digits-5/environment.json").read_text()) == {"started": "2026-01-01"}


def test_a_named_run_makes_its_parents_and_takes_an_empty_directory() -> None:
    assert create(Path("a/b/c")).path == Path("a/b/c")
    Path("empty").mkdir()
    create(Path("empty")).close()
    assert "empty/config.yaml" in everything()


def make_run() -> None:
    create(Path("taken")).close()


def make_folder() -> None:
    Path("taken/inside").mkdir(parents=True)


def make_file() -> None:
    Path("taken").write_text("mine")


def make_broken_link() -> None:
    Path("taken").symlink_to("nowhere")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_run, "taken already holds a run.*mlpcli train --resume taken"),
        (make_folder, "taken is a directory that is not empty"),
        (make_file, "taken is a file"),
        (make_broken_link, "taken is a file"),
    ],
)
def test_what_exists_is_never_taken(make: Callable[[], None], message: str) -> None:
    make()
    before = everything()
    with pytest.raises(RunError, match=f"(?s){message}"):
        create(Path("taken"))
    assert everything() == before


def test_a_run_has_the_permissions_that_the_umask_leaves() -> None:
    mask = os.umask(0o027)
    try:
        create()
    finally:
        os.umask(mask)
    assert Path("runs/digits").stat().st_mode & 0o777 == 0o750


def test_nothing_is_left_where_creating_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Run.create(None, "digits", "", {"not JSON": float("nan")})
    monkeypatch.setattr(Path, "rename", raises(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(StorageError, match="cannot write runs/digits: the disk is full"):
        create()
    assert everything() == ["runs"]


RACER = """
import sys
from mlpcli.runs import Run
sys.stdin.read()  # the parent lets all start at once
for _ in range(12):
    print(Run.create(None, "race", "", {}).path)
"""


def test_processes_that_start_at_once_get_directories_of_their_own() -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
        racer.stdin = None
    paths = sorted(path for racer in racers for path in racer.communicate()[0].split())
    assert [racer.returncode for racer in racers] == [0] * 4
    assert paths == sorted(["runs/race", *(f"runs/race-{number}" for number in range(2, 49))])
    assert sorted(os.listdir("runs")) == sorted(os.path.basename(path) for path in paths)


def test_of_threads_that_ask_for_one_directory_one_gets_it() -> None:
    barrier = threading.Barrier(8)

    def ask(_: int) -> Run | None:
        barrier.wait()
        try:
            return create(Path("mine"))
        except RunError:
            return None

    with ThreadPoolExecutor(8) as pool:
        got = [run for run in pool.map(ask, range(8)) if run is not None]
    assert len(got) == 1
    assert everything() == ["mine", "mine/checkpoints", "mine/config.yaml", "mine/environment.json"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("file/run", "a part of this path is a file, not a directory"),
        ("file/deeper/run", "a part of this path is a file, not a directory"),
        ("x" * 300, "the name is too long"),
    ],
)
def test_places_where_no_run_can_be(path: str, reason: str) -> None:
    Path("file").touch()
    with pytest.raises(StorageError) as caught:
        create(Path(path))
    assert str(caught.value) == f"cannot write {path}: {reason}"
    assert everything() == ["file"]


# --- the lock, the list -----------------------------------------------------------------------------------


def test_a_run_is_trained_by_one_process_at_a_time() -> None:
    run = create()
    with pytest.raises(RunError, match=r"another process is training in runs/digits"):
        Run.open(run.path)
    assert [each["status"] for each in list_runs(Path("runs"))] == ["running"]
    run.close()
    assert [each["status"] for each in list_runs(Path("runs"))] == ["interrupted"]
    Run.open(run.path).close()


def test_the_list_is_in_the_order_of_the_starts_and_reads_only_what_is_whole() -> None:
    for name, started in (("second", "2026-01-02"), ("third", "2026-01-03"), ("first", "2026-01-01")):
        Run.create(None, name, "", {"started": started}).close()
    Path("runs/no run").mkdir()
    Path("runs/.third.half").mkdir()
    Path("runs/.third.half/config.yaml").touch()
    line = {"epoch": 1, "seconds": 0.25, "validation": {"loss": 0.5}}
    Path("runs/third/metrics.jsonl").write_text(f'{json.dumps(line)}\n{{"epoch": 2, "sec')
    Path("runs/third/summary.json").write_text('{"status": "finished", "test": {"accuracy": 1.0}}')
    Path("runs/second/summary.json").write_text("not JSON")
    Path("runs/first/environment.json").write_text("[]")
    first, second, third = list_runs(Path("runs"))
    assert [first["path"], second["path"], third["path"]] == ["runs/first", "runs/second", "runs/third"]
    assert (first["status"], second["status"]) == ("interrupted", "unknown")
    assert third == {
        "path": "runs/third",
        "status": "finished",
        "started": "2026-01-03",
        "epochs": 1,
        "seconds": 0.25,
        "validation": {"loss": 0.5},
        "test": {"accuracy": 1.0},
    }
    assert [each["path"] for each in list_runs(Path("runs/third"))] == ["runs/third"]


@pytest.mark.parametrize("path", ["absent", "file", "x" * 300])
def test_a_list_of_what_is_no_directory(path: str) -> None:
    Path("file").touch()
    with pytest.raises(RunError, match=f"there is no directory {path}"):
        list_runs(Path(path))


def test_a_directory_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "iterdir", raises(PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(RunError, match=r"cannot read \.: Permission denied"):
        list_runs(HERE)
    with pytest.raises(RunError, match="there is no run directory absent"):
        runs.require_run(Path("absent"))


def test_what_is_no_run_is_answered_with_those_that_are() -> None:
    create(name="digits").close()
    create(name="iris").close()
    with pytest.raises(RunError, match=r"there is no run directory runs/digit\n    runs in runs: digits, iris"):
        Run.open(Path("runs/digit"))
    with pytest.raises(RunError, match=r"runs is not a run directory: it has no config\.yaml"):
        Run.open(Path("runs"))
    with pytest.raises(RunError, match="there is no run directory nowhere/at/all"):
        Run.open(Path("nowhere/at/all"))


# --- files that are whole -----------------------------------------------------------------------------------


def raises(error: OSError) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def test_a_file_is_replaced() -> None:
    for content in (b"1", b"2"):
        write_whole(Path("last"), content)
        assert {name: Path(name).read_bytes() for name in everything()} == {"last": content}


REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "permission denied; choose another place or change its permissions",
    errno.EIO: "Input/output error",
}


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", REASONS)
def test_a_failed_write_leaves_the_old_file(number: int, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(Path("last"), b"old")
    monkeypatch.setattr(os, call, raises(OSError(number, os.strerror(number))))
    with pytest.raises(StorageError) as caught:
        write_whole(Path("last"), b"new")
    assert str(caught.value) == f"cannot write last: {REASONS[number]}"
    assert {name: Path(name).read_bytes() for name in everything()} == {"last": b"old"}


def test_a_ctrl_c_in_a_write_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(Path("last"), b"old")
    monkeypatch.setattr(os, "fsync", raises(KeyboardInterrupt()))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        write_whole(Path("last"), b"new")
    assert {name: Path(name).read_bytes() for name in everything()} == {"last": b"old"}


def test_what_a_killed_process_left_does_no_harm() -> None:
    Path(".last.tmp").write_bytes(b"half of a longer content")
    write_whole(Path("last"), b"new")
    assert {name: Path(name).read_bytes() for name in everything()} == {"last": b"new"}


# --- metrics ------------------------------------------------------------------------------------------------


def metrics(*epochs: int) -> list[dict[str, Any]]:
    return [{"epoch": epoch, "train": {"loss": 1 / epoch}} for epoch in epochs]


TAILS = (b"", b'{"epoch": 4, "tra', b"\n", b"[4]\n", b'{"step": 4}\n', b'{"epoch": "4"}\n', b"\0\0", b"\xff\xfe\n")


@pytest.mark.parametrize("tail", TAILS)
def test_metrics_are_kept_up_to_an_epoch_without_half_lines(tail: bytes) -> None:
    run = create()
    for line in metrics(1, 2, 3):
        run.append_metrics(line)
    file = run.path / "metrics.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + tail)
    assert read_metrics(run.path) == metrics(1, 2, 3)
    assert run.keep_metrics(3) == metrics(1, 2, 3)
    assert file.read_bytes() == whole
    file.write_bytes(whole + tail)
    assert run.keep_metrics(2) == metrics(1, 2)
    run.append_metrics(metrics(3)[0])
    assert file.read_bytes() == whole
    assert run.keep_metrics(0) == [] and file.read_bytes() == b""


def test_metrics_that_are_absent() -> None:
    run = create()
    assert run.keep_metrics(5) == []
    assert "metrics.jsonl" not in os.listdir(run.path)


def test_a_full_disk_while_metrics_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    run = create()
    run.append_metrics(metrics(1)[0])
    full = r"cannot write runs/digits/metrics\.jsonl: the disk is full"
    with monkeypatch.context() as patch, pytest.raises(StorageError, match=full):
        patch.setattr(os, "fsync", raises(OSError(errno.ENOSPC, "No space left on device")))
        run.append_metrics(metrics(2)[0])
    assert read_metrics(run.path)[:1] == metrics(1)


def test_values_that_are_no_json_are_not_written() -> None:
    run = create()
    with pytest.raises(ValueError, match="JSON"):
        run.write("summary.json", {"loss": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        run.append_metrics({"epoch": 1, "loss": float("inf")})
    assert read_metrics(run.path) == [] and "summary.json" not in os.listdir(run.path)
    run.write("config.yaml", "name: ü\n")
    assert (run.path / "config.yaml").read_bytes() == "name: ü\n".encode()


# --- checkpoints --------------------------------------------------------------------------------------------

STATE = {
    "config": {"name": "digits"},
    "model": {"0.weight": torch.arange(6.0).reshape(2, 3), "0.bias": torch.zeros(2, dtype=torch.float64)},
    "position": {"epoch": 3},
    "best": {"best": None, "epoch": 0},
}


@pytest.fixture
def checkpoint() -> Path:
    path = Path("last.pt")
    checkpoints.save(STATE, path)
    return path


def assert_loads(path: Path) -> None:
    state = checkpoints.load(path)
    assert all(torch.equal(state["model"][name], value) for name, value in STATE["model"].items())
    assert {**state, "model": None} == {**STATE, "model": None, "format": 3}


def failure(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    assert str(caught.value).count(str(path)) >= 1
    return str(caught.value)


def test_a_checkpoint_is_what_torch_reads_safely(checkpoint: Path) -> None:
    assert_loads(checkpoint)
    plain = torch.load(checkpoint, weights_only=True)
    assert torch.equal(plain["model"]["0.weight"], STATE["model"]["0.weight"])
    checkpoints.save(STATE, Path("best.pt"), checkpoint)
    assert checkpoint.read_bytes() == Path("best.pt").read_bytes()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_checkpoint(
    call: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, call, raises(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(StorageError, match=r"cannot write last\.pt: the disk is full"):
        checkpoints.save(STATE | {"position": {"epoch": 4}}, checkpoint)
    assert everything() == ["last.pt"]
    assert_loads(checkpoint)


class Attack:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch attacked",)


def write_pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(STATE | {"attack": Attack()}))


def write_zip(path: Path) -> None:
    torch.save(STATE | {"format": 2, "attack": Attack()}, path)


def write_zip_of_object(path: Path) -> None:
    torch.save(Attack(), path)


def write_legacy(path: Path) -> None:
    torch.save(STATE | {"format": 2, "attack": Attack()}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [write_zip, write_zip_of_object, write_pickled, write_legacy])
def test_code_in_a_checkpoint_is_never_run(write: Callable[[Path], None]) -> None:
    path = Path("evil.pt")
    write(path)
    message = failure(path)
    if write in (write_zip, write_zip_of_object):
        assert "evil.pt is refused: it holds more than tensors and plain values" in message
        assert "system" in message
    else:
        assert "evil.pt is damaged, or not a checkpoint" in message
    assert everything() == ["evil.pt"]
    # the attack is a real one
    if write is write_pickled:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert everything() == ["attacked", "evil.pt"]


def test_a_module_is_refused() -> None:
    torch.save(torch.nn.Linear(2, 3), "model.pt")
    assert "is refused: it holds more than tensors and plain values" in failure(Path("model.pt"))


def test_truncated_at_any_length(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    for length in [*range(0, len(whole), 23), *range(len(whole) - 60, len(whole))]:
        checkpoint.write_bytes(whole[:length])
        assert "last.pt is damaged, or not a checkpoint" in failure(checkpoint)


def test_changed_bits_are_found_or_change_nothing(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    found = 0
    for place in range(0, len(whole), 5):
        for mask in (0x01, 0x10, 0xFF):
            changed = bytearray(whole)
            changed[place] ^= mask
            checkpoint.write_bytes(changed)
            try:
                assert_loads(checkpoint)
            except CheckpointError:
                found += 1
    assert found > len(whole) / 5


def test_a_record_that_is_marked_as_a_directory_is_found(checkpoint: Path) -> None:
    """torch would leave its tensor to whatever the memory held."""
    whole = checkpoint.read_bytes()
    with zipfile.ZipFile(checkpoint) as archive:
        entries = len(archive.infolist())
    place = -1
    for _ in range(entries):
        place = whole.index(b"PK\x01\x02", place + 1)
        changed = bytearray(whole)
        changed[place + 38] |= 0x10  # the directory bit of MS-DOS
        checkpoint.write_bytes(changed)
        assert "last.pt is damaged" in failure(checkpoint)


def test_bytes_of_a_tensor_are_named_by_their_record(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    numbers = STATE["model"]["0.weight"].numpy().tobytes()
    place = whole.index(numbers)
    checkpoint.write_bytes(whole[:place] + bytes(len(numbers)) + whole[place + len(numbers) :])
    message = failure(checkpoint)
    assert "last.pt is damaged: the record" in message and "data/0 has a wrong checksum" in message


def test_a_damaged_pickle_with_a_good_checksum(checkpoint: Path) -> None:
    """Whatever torch's reader of pickles makes of it: an error of ours, or a state; never code, never another."""
    with zipfile.ZipFile(checkpoint) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    pickled = contents["archive/data.pkl"]
    found = 0
    for place in range(0, len(pickled), 2):
        for value in (0x00, ord("."), ord("c"), ord("R"), 0xFF):
            contents["archive/data.pkl"] = pickled[:place] + bytes([value]) + pickled[place + 1 :]
            with zipfile.ZipFile(checkpoint, "w") as archive:
                for name, content in contents.items():
                    record = zipfile.ZipInfo(name)
                    archive.writestr(record, content)
                    record.external_attr = 0
            try:
                checkpoints.load(checkpoint)
            except CheckpointError as error:
                assert "last.pt" in str(error)
                found += 1
    assert found > len(pickled)


def write_arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


def write_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt", "a" * 1000)


def write_packed(path: Path) -> None:
    """A checkpoint that was unpacked and packed again."""
    checkpoints.save(STATE, Path("whole.pt"))
    with zipfile.ZipFile("whole.pt") as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for record in source.infolist():
            archive.writestr(record.filename, source.read(record))


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a plain state dict": (lambda path: torch.save(STATE["model"], path), "is not a checkpoint of mlpcli"),
    "a tensor": (lambda path: torch.save(torch.zeros(3), path), "is not a checkpoint of mlpcli"),
    "another format": (
        lambda path: torch.save({**STATE, "format": 1}, path),
        "has format 1; this version reads format 3",
    ),
    "no format": (lambda path: torch.save(STATE, path), "has format None"),
    "text": (lambda path: path.write_text("data: {dataset: digits}\n"), "is damaged, or not a checkpoint"),
    "an empty file": (lambda path: path.touch(), "is damaged, or not a checkpoint"),
    "a directory": (lambda path: path.mkdir(), "there is no checkpoint"),
    "nothing": (lambda path: None, "there is no checkpoint"),
    "arrays": (write_arrays, "is damaged, or not a checkpoint"),
    "an archive": (write_archive, "is damaged, or not a checkpoint"),
    "packed again": (write_packed, "is damaged, or not a checkpoint"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_checkpoint(what: str) -> None:
    write, message = FOREIGN[what]
    path = Path("foreign.pt")
    write(path)
    assert message in failure(path)


def test_a_checkpoint_that_cannot_be_read(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZipFile", raises(OSError(errno.EIO, "Input/output error")))
    assert failure(checkpoint) == "last.pt cannot be read: Input/output error"
