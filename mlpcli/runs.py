"""The run directory: create, lock, append, write whole files or nothing, list. No torch."""

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from mlpcli.errors import RunError, StorageError

T = TypeVar("T")

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
DIAGNOSTICS = "diagnostics.jsonl"
ENVIRONMENT = "environment.json"
SUMMARY = "summary.json"
LOG = "train.log"
LAST = "checkpoints/last.pt"
BEST = "checkpoints/best.pt"


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turns what the file system says while writing `path` into a StorageError."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space",
            errno.EDQUOT: "the disk quota is used up; free some space",
            errno.EFBIG: "the file would be larger than this system allows",
            errno.EROFS: "the file system is read-only; choose another place",
            errno.EACCES: "permission denied; choose another place or change its permissions",
            errno.EPERM: "permission denied; choose another place or change its permissions",
            errno.ENOTDIR: "a part of this path is a file, not a directory",
            errno.EEXIST: "a part of this path is a file, not a directory",
            errno.ENAMETOOLONG: "the name is too long",
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"cannot write {path}: {reason}") from error


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], None]) -> None:
    """Write a file so that at any instant it is the old one or the new one, whole, on the disk.

    Args:
        path: of the file.
        content: what it will hold, or what writes that.

    Raises:
        StorageError: it could not be written; `path` is as before.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with storage(path):
        try:
            with temporary.open("wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_json(value: Mapping[str, Any]) -> bytes:
    """A JSON object as a text file."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode(errors="backslashreplace")  # \udcff, of a file name that is not UTF-8, is good JSON


class Run:
    """A run directory that this process trains in, locked against every other process.

    The lock is the kernel's, on the directory itself, so it dies with the process, however that ends.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, path: Path | None, name: str, config: str, environment: Mapping[str, Any]) -> "Run":
        """Make a new run directory, whole or not at all.

        Args:
            path: where; None for the first free one of runs/<name>, runs/<name>-2, …
            name: of the run.
            config: text of config.yaml.
            environment: what environment.json holds.

        Raises:
            RunError: something is at `path` already.
            StorageError: it could not be written.
        """

        def fill(building: Path) -> int:
            (building / "checkpoints").mkdir()
            (building / CONFIG).write_text(config, encoding="utf-8")
            (building / ENVIRONMENT).write_bytes(to_json(environment))
            return lock(building)

        return cls(*make_directory(path, Path("runs") / name, fill))

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Open an existing run to train on in it.

        Raises:
            RunError: it is no run directory, or another process is training in it.
        """
        require_run(path)
        return cls(path, lock(path))

    def close(self) -> None:
        """Release the lock."""
        os.close(self._lock)

    @property
    def last(self) -> Path:
        """The checkpoint to continue from."""
        return self.path / LAST

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.path / BEST

    def kept(self, epoch: int) -> Path:
        """The checkpoint of an epoch that stays."""
        return (self.path / LAST).with_name(f"epoch-{epoch:04}.pt")

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add an epoch to metrics.jsonl, on the disk when this returns."""
        _append(self.path / METRICS, line)

    def keep_metrics(self, epochs: int) -> list[dict[str, Any]]:
        """Drop the lines after epoch `epochs` (and a half-written one) from metrics.jsonl; the others."""
        return _keep(self.path / METRICS, epochs)

    def append_diagnostics(self, line: Mapping[str, Any]) -> None:
        """Add an epoch to diagnostics.jsonl, on the disk when this returns."""
        _append(self.path / DIAGNOSTICS, line)

    def keep_diagnostics(self, epochs: int) -> list[dict[str, Any]]:
        """As `keep_metrics`, for diagnostics.jsonl."""
        return _keep(self.path / DIAGNOSTICS, epochs)

    def write(self, name: str, value: Mapping[str, Any] | str) -> None:
        """Write a whole text or JSON file of the run."""
        content = value.encode() if isinstance(value, str) else to_json(value)
        write_whole(self.path / name, content)


class Onlooker(Run):
    """A run directory that another process writes: whatever is to be written here is left to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def close(self) -> None:
        """There is no lock."""

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Nothing."""

    def append_diagnostics(self, line: Mapping[str, Any]) -> None:
        """Nothing."""

    def keep_metrics(self, epochs: int) -> list[dict[str, Any]]:
        """Nothing."""
        return []

    def keep_diagnostics(self, epochs: int) -> list[dict[str, Any]]:
        """Nothing."""
        return []

    def write(self, name: str, value: Mapping[str, Any] | str) -> None:
        """Nothing."""


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with storage(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _keep(path: Path, epochs: int) -> list[dict[str, Any]]:
    with storage(path):
        kept = [line for line in _read_lines(path) if line["epoch"] <= epochs]
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in kept)
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            write_whole(path, text.encode())
    return kept


def make_directory(path: Path | None, base: Path, fill: Callable[[Path], T]) -> tuple[Path, T]:
    """Make a new directory, whole or not at all.

    Args:
        path: where; None for the first free one of `base`, base-2, …
        base: its name is that of a run, or like one.
        fill: is called with the directory, which has another name then.

    Returns:
        Where it is, and what `fill` returned.

    Raises:
        RunError: something is at `path` already.
        StorageError: it could not be written.
    """
    parent = path.parent if path is not None else base.parent
    if path is not None and _is_taken(path):
        raise _taken(path)
    with storage(path or base):
        parent.mkdir(parents=True, exist_ok=True)
        building = parent / f".{base.name}.{secrets.token_hex(8)}"
        building.mkdir()
        try:
            filled = fill(building)
            return _move_into_place(building, path, base), filled
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise


def _is_taken(path: Path) -> bool:
    return os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir()))


def _taken(path: Path) -> RunError:
    if (path / CONFIG).is_file():
        return RunError(
            f"{path} already holds a run, and a run is never overwritten\n"
            f"    continue it with: mlpcli train --resume {path}\n"
            f"    or choose another directory with -o"
        )
    what = "a directory that is not empty" if path.is_dir() else "a file"
    return RunError(f"{path} is {what}\n    choose another directory with -o")


def _move_into_place(building: Path, path: Path | None, base: Path) -> Path:
    """Rename `building` to `path`, or to the first free of base, base-2, …: rename fails where one is taken."""
    number = 1
    while True:
        final = path or (base if number == 1 else base.with_name(f"{base.name}-{number}"))
        try:
            if not _is_taken(final):
                building.rename(final)
                return final
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) or not os.path.lexists(final):
                raise
        if path is not None:
            raise _taken(path)
        number += 1


def lock(path: Path) -> int:
    """A handle that locks a directory against every other process until it is closed here and wherever it was
    inherited.

    Raises:
        RunError: another process has the lock.
    """
    handle = os.open(path, os.O_RDONLY)
    for _ in range(5):
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        time.sleep(0.02)  # `is_being_trained` of another process holds the lock for an instant
    os.close(handle)
    raise RunError(f"another process is training in {path}\n    wait for it to end, or start a new run")


def is_being_trained(path: Path) -> bool:
    """Whether a living process holds the run's lock."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def require_run(path: Path) -> None:
    """Raises RunError unless `path` is a run directory."""
    if not os.path.exists(path):  # unlike Path.exists, no error for a name that no file can have
        siblings: list[str] = []
        with suppress(OSError):
            siblings = [sibling.name for sibling in _runs_in(path.parent)]
        known = f"\n    runs in {path.parent}: {', '.join(siblings[:20])}" if siblings else ""
        raise RunError(f"there is no run directory {path}{known}")
    if not is_run(path):
        inside = [run.name for run in _runs_in(path)] if os.path.isdir(path) else []
        known = f"\n    runs in it: {', '.join(inside[:20])}" if inside else ""
        raise RunError(f"{path} is not a run directory: it has no {CONFIG} or no checkpoints{known}")


def is_run(path: Path) -> bool:
    """Whether `path` looks like a run directory."""
    return os.path.isfile(path / CONFIG) and os.path.isdir((path / LAST).parent)


def _runs_in(directory: Path) -> list[Path]:
    """The runs in a directory, without those that are just being made."""
    return sorted(path for path in directory.iterdir() if not path.name.startswith(".") and is_run(path))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The epochs in a run's metrics.jsonl, up to the first line that is not whole.

    Raises:
        OSError: the file is there, but cannot be read.
    """
    return _read_lines(path / METRICS)


def read_diagnostics(path: Path) -> list[dict[str, Any]]:
    """As `read_metrics`, for a run's diagnostics.jsonl."""
    return _read_lines(path / DIAGNOSTICS)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    with suppress(FileNotFoundError, ValueError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            record = json.loads(line)
            if not isinstance(record, dict) or not isinstance(record.get("epoch"), int):
                break
            lines.append(record)
    return lines


def kept_epochs(keep: int | Literal["all"], epochs: int) -> Sequence[int]:
    """The epochs of a training whose checkpoints stay, ascending.

    They are spread evenly over 0 (the initial weights) to `epochs`, both among them; 1 is the last one alone.
    """
    if keep == "all" or keep > epochs:
        return range(epochs + 1)
    if keep == 1:
        return [epochs]
    return [index * epochs // (keep - 1) for index in range(keep)]


def kept_checkpoints(path: Path) -> list[tuple[int, Path]]:
    """The epochs whose checkpoints stayed in a run so far, ascending, each with its file."""
    files = (path / LAST).parent.glob("epoch-*.pt")
    found = [(re.fullmatch(r"epoch-([0-9]{4,})\.pt", file.name), file) for file in files]
    return sorted((int(match[1]), file) for match, file in found if match)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty where there is none that can be read."""
    with suppress(OSError, ValueError):
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict):
            return value
    return {}


def list_runs(directory: Path) -> list[dict[str, Any]]:
    """What is known of each run in `directory`, in the order in which they were started.

    Raises:
        RunError: there is no such directory, or it cannot be read.
    """
    if not os.path.isdir(directory):
        raise RunError(f"there is no directory {directory}\n    mlpcli train makes runs/ where it is started")
    try:
        paths = [directory] if is_run(directory) else _runs_in(directory)
    except OSError as error:
        raise RunError(f"cannot read {directory}: {error.strerror or error}") from error
    return sorted((describe(path) for path in paths), key=lambda run: (run["started"], run["path"]))


def status_of(path: Path, summary: Mapping[str, Any]) -> str:
    """`running`, what the summary says, `interrupted` where there is none, or `unknown` where it is damaged."""
    if is_being_trained(path):
        return "running"
    return str(summary.get("status", "unknown" if (path / SUMMARY).exists() else "interrupted"))


def describe(path: Path) -> dict[str, Any]:
    """A run's status and main numbers, from its small files alone."""
    summary, environment = read_json(path / SUMMARY), read_json(path / ENVIRONMENT)
    try:
        metrics = read_metrics(path)
        status = status_of(path, summary)
    except OSError:
        metrics, status = [], "unreadable"
    return {
        "path": str(path),
        "status": status,
        "started": str(environment.get("started", "")),
        "epochs": metrics[-1]["epoch"] if metrics else 0,
        "seconds": round(sum(float(line.get("seconds", 0)) for line in metrics), 3),
        "validation": metrics[-1].get("validation", {}) if metrics else {},
        "test": summary.get("test", {}),
    }
