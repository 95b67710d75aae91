"""Checkpoints: tensors and plain types in a torch zip file, written whole, read without running any code."""

import io
import pickle
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from mlpcli import sharding
from mlpcli.errors import CheckpointError, UnsafeCheckpointError
from mlpcli.runs import write_whole

FORMAT = 3


def save(state: Mapping[str, Any], *paths: Path) -> None:
    """Write `state` to each path in turn; each is the old or the new one, whole, at any instant.

    Two paths get a copy each, not two names of one file: what damages the one must not damage the other.

    Raises:
        StorageError: it could not be written; the earlier checkpoint is intact.
    """
    canonical = _canonical({"format": FORMAT, **state})
    for path in paths:
        write_whole(path, lambda file: _write(canonical, file))


def _write(state: dict[str, Any], file: BinaryIO) -> None:
    """torch.save straight into the file: in memory it would be as large again as model and optimizer.

    torch makes another exception of an OSError: it is raised here as it was.
    """
    watched = _Watched(file)
    try:
        torch.save(state, cast(BinaryIO, watched))  # which needs no more of it than `write`
    except Exception:
        if watched.error is not None:
            raise watched.error from None
        raise


class _Watched(io.RawIOBase):
    """A file that remembers why it could not be written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: Any, /) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise


def _canonical(value: Any) -> Any:
    """Equal states become equal bytes: pickle tells equal texts that are two objects from one, and torch saves
    the whole storage that a tensor is a view of."""
    if isinstance(value, Mapping):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_canonical(item) for item in value)
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, torch.Tensor) and not (
        value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes
    ):
        return value.clone(memory_format=torch.contiguous_format)
    return value


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: it is absent, damaged, not a checkpoint of mlpcli, or holds anything but tensors and
            plain types. Nothing in it is run.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"there is no checkpoint {path}")
        with zipfile.ZipFile(path) as archive:
            # torch stores records as they are; one that is marked as a directory it would not read, but leave to
            # whatever the memory held
            if any(record.compress_type or record.external_attr for record in archive.infolist()):
                raise zipfile.BadZipFile("its records are not stored as torch stores them")
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged: the record {damaged} has a wrong checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(state, dict) and "shards" in state:
            shards = state.pop("shards")
            sharding.together(state, sharding.read(_shards(path, shards["folder"]), shards["tensors"]))
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise UnsafeCheckpointError(
            f"{path} is refused: it holds more than tensors and plain values, and loading it could run code\n"
            f"    {_first_line(error)}"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle lets torch's reader fail in any way
        raise CheckpointError(f"{path} is damaged, or not a checkpoint: {_first_line(error)}") from error
    if not isinstance(state, dict) or "model" not in state or "config" not in state:
        raise CheckpointError(
            f"{path} is not a checkpoint of mlpcli: it lacks the config\n"
            "    a plain state dict can be loaded with torch.nn.Module.load_state_dict"
        )
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {state.get('format')}; this version reads format {FORMAT}")
    return state


def _shards(path: Path, name: str) -> Path:
    """The folder with the shards of a checkpoint, which lies beside it."""
    if not re.fullmatch(r"shards-[0-9]+-[0-9]+", name, re.ASCII):
        raise ValueError(f"{name!r} is no folder of shards")
    return path.with_name(name)


def new_shards(folder: Path, step: int) -> str:
    """A name for the shards of a step that no others have."""
    return next(name for number in count() if not (folder / (name := f"shards-{step}-{number}")).exists())


def keep_shards(folder: Path) -> None:
    """Remove the shards that no checkpoint in a folder refers to."""
    made = list(folder.glob("shards-*"))
    used = set()
    for path in folder.glob("*.pt") if made else ():
        with suppress(Exception):  # a damaged checkpoint has no shards that could be read
            used.add(torch.load(path, map_location="cpu", weights_only=True)["shards"]["folder"])
    for shards in made:
        if shards.name not in used:
            shutil.rmtree(shards, ignore_errors=True)


def put_together(folder: Path) -> None:
    """Write every checkpoint in a folder that refers to shards anew, in the ordinary way, and remove the shards.

    Raises:
        CheckpointError, StorageError: shards cannot be read, or a checkpoint cannot be written; those are left.
    """
    if not list(folder.glob("shards-*")):
        return
    for path in sorted(folder.glob("*.pt")):
        if "shards" in torch.load(path, map_location="cpu", weights_only=True):
            save({name: value for name, value in load(path).items() if name != "format"}, path)
    keep_shards(folder)


@contextmanager
def content_of(path: Path) -> Iterator[None]:
    """Turns what a state that was read from `path` lacks, or holds in another shape, into a CheckpointError."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else _first_line(error)
        raise CheckpointError(f"{path} does not hold what its config asks for: {reason}") from error


def _first_line(error: Exception) -> str:
    """What torch says first, which names the refused global or the damaged record."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    unsupported = [line for line in lines if "GLOBAL" in line]
    return (unsupported or lines or [type(error).__name__])[0][:300]
