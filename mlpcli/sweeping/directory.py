"""A sweep's own directory: what it is of, its trials, and its results. No torch, no optuna."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpcli.errors import RunError
from mlpcli.runs import make_directory, read_json, to_json, write_whole

SWEEP = "sweep.yaml"
STUDY = "sweep.json"
JOURNAL = "journal.log"
TRIALS = "trials"
TABLE = "trials.csv"
BEST = "best.yaml"
PAGE = "sweep.html"


@dataclass(frozen=True)
class Place:
    """Where a sweep's trials are planned and counted.

    Attributes:
        study: its name in the storage.
        url: of a database, as it was given; None for the journal in the sweep's directory.
    """

    study: str
    url: str | None = None

    def kept(self) -> dict[str, Any]:
        """What sweep.json holds: never a password."""
        return {"study": self.study, "storage": None if self.url is None else without_password(self.url)}


def without_password(url: str) -> str:
    """The URL of a database as it may be shown."""
    scheme, separator, rest = url.partition("://")
    account, at, server = rest.rpartition("@")
    user, colon, _ = account.partition(":")
    return f"{scheme}{separator}{user}{':***' if colon else ''}{at}{server}"


def create(output: Path | None, name: str, text: str, place: Place) -> Path:
    """Make a sweep's directory, whole or not at all: `output`, or the first free of sweeps/<name>, -2, …

    Raises:
        RunError: something is at `output` already.
        StorageError: it could not be written.
    """
    if output is not None and is_sweep(output):
        raise RunError(
            f"{output} already holds a sweep\n    continue it with: mlpcli sweep --resume {output}\n"
            "    or choose another directory with -o"
        )

    def fill(building: Path) -> None:
        (building / TRIALS).mkdir()
        (building / SWEEP).write_text(text, encoding="utf-8")
        (building / STUDY).write_bytes(to_json(place.kept()))

    return make_directory(output, Path("sweeps", name), fill)[0]


def is_sweep(path: Path) -> bool:
    """Whether `path` looks like a sweep's directory."""
    return os.path.isfile(path / SWEEP) and os.path.isdir(path / TRIALS)


def place_of(path: Path, url: str | None) -> Place:
    """Where the trials of the sweep in `path` are counted.

    Args:
        path: its directory.
        url: of its database, given anew; None to take what the directory knows.

    Raises:
        RunError: it is no sweep's directory, or its database needs a password that it does not know.
    """
    if not is_sweep(path):
        what = "is not a sweep's directory" if os.path.lexists(path) else "does not exist"
        raise RunError(f"{path} {what}\n    mlpcli sweep CONFIG makes one, and prints its path")
    facts = read_json(path / STUDY)
    if not isinstance(facts.get("study"), str):
        raise RunError(f"{path / STUDY} is damaged: it does not say which study it is")
    kept = facts.get("storage")
    if url is not None and kept is None:
        raise RunError(f"{path} has a journal of its own, so --storage has no place here\n    leave it out")
    if url is None and kept is not None and ":***@" in kept:
        raise RunError(
            f"{path} is counted in {kept}, whose password is not kept\n    give it again with --storage URL"
        )
    return Place(facts["study"], url or kept)


def run_path(path: Path, index: int) -> Path:
    """The run directory of a trial."""
    return path / TRIALS / f"{index:04}"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, no other process that does this too writes results into the sweep's directory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write(path: Path, name: str, content: str | Mapping[str, Any]) -> None:
    """Write one file of the sweep, whole. Raises StorageError."""
    write_whole(
        path / name, content.encode(errors="backslashreplace") if isinstance(content, str) else to_json(content)
    )
