"""Parsed data sets as memory-mapped files, so that each is parsed once. Losing them costs time, nothing else."""

import errno
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import from_numpy

from mlpcli import __version__
from mlpcli.data.dataset import Column, Source, Split

FORMAT = 2
"""Entries of another one, as those of another release, are made anew."""
ABOUT = "about.json"
"""The file of an entry that says of what it is the cache."""
WRITING = ".mlpcli-writing-"
"""What the names of half-written entries start with."""
ABANDONED = 3600.0
"""Seconds without a write after which the process that wrote such an entry is taken to be dead."""
WHOLE = 1 << 30
"""Bytes of an array up to which all of them are checked whenever it is loaded, which takes 0.5 s/GB at most."""
PIECES = 256
"""Of a larger array, as many pieces of 1 MiB, spread evenly, are checked."""

log = logging.getLogger("mlpcli")


@dataclass(frozen=True, eq=False)
class Entry:
    """What is in an entry of the cache.

    Attributes:
        arrays: by name; memory-mapped, and writing to them changes no file.
        value: plain JSON.
        problem: why it is not there for the next process too; empty where it is.
    """

    arrays: dict[str, NDArray[Any]]
    value: Any
    problem: str = ""


def folder() -> Path | None:
    """The cache: $MLPCLI_CACHE, else $XDG_CACHE_HOME/mlpcli, else ~/.cache/mlpcli; None without a home."""
    named, base = os.environ.get("MLPCLI_CACHE"), os.environ.get("XDG_CACHE_HOME", "")
    if named:
        return Path(os.path.abspath(os.path.expanduser(named)))
    if not os.path.isabs(base):  # the XDG specification has relative paths ignored
        base = os.path.expanduser("~/.cache")
    return Path(base, "mlpcli") if os.path.isabs(base) else None


def size() -> int:
    """Bytes in the cache."""
    where = folder()
    if where is None:
        return 0
    total = 0
    with suppress(OSError):
        for about in where.glob(f"*/{ABOUT}"):
            total += sum(file.stat().st_size for file in about.parent.iterdir())
    return total


def cached(name: str, read: Callable[[], Source], *, files: Sequence[Path] = (), version: str = "") -> Source:
    """What `read` returns, from the cache where it was read before and nothing it depends on has changed.

    The tensors of a cached source are memory-mapped; writing to them changes no file. There is one entry for
    each `name` and `files`, which a changed one replaces. What goes wrong with the cache is logged, and else as
    if there were none.

    Args:
        name: of the data set.
        read: reads and checks it; called where there is no entry, or one that is outdated or damaged.
        files: absolute paths of all that it reads. One whose size and times are unchanged is taken as unchanged.
        version: of what else the result depends on.
    """
    try:
        # Before they are read: what changes from now on is a change.
        path, state = _of_files(name, files, version)
    except OSError:
        return read()  # which says what is wrong
    entry = _load(path, state)
    if entry is None:
        source = read()
        try:
            # The mapped one, so that a first run needs no more memory than a second.
            entry = _store(path, state, lambda new: save(new, source))
        except OSError as error:
            log.debug("%s is not cached: %s", name, error)
            return source
    return source_of(entry)


def found(name: str, *, files: Sequence[Path]) -> Source | None:
    """What `cached` has under that name; None where it would call `read`."""
    try:
        entry = _load(*_of_files(name, files, ""))
    except OSError:
        return None
    return None if entry is None else source_of(entry)


def _of_files(name: str, files: Sequence[Path], version: str) -> tuple[Path | None, dict[str, Any]]:
    """The folder of an entry, and the state that it must have. Raises OSError where one of the files is absent."""
    # The time of the last change of an inode is the one that nobody can set back.
    stats = [os.stat(file) for file in files]
    state = _state([version, [[s.st_size, s.st_mtime_ns, s.st_ctime_ns] for s in stats]])
    return _path(name, list(map(str, files))), state


def stored(name: str, identity: Any, state: Any, make: Callable[[Path], Any]) -> Entry:
    """What `make` makes, from the cache where it was made before from the same `state`.

    There is one entry for each `name` and `identity`, which one made from another state replaces. It appears whole
    or not at all, and every array is checked whenever it is loaded: whole up to 1 GiB, in samples beyond, as the
    check would take longer than anybody waits. Where the cache cannot be written, that is logged, and the files
    are made in a temporary folder, from which they vanish with this process.

    Args:
        name: of the kind of entry; a word, with which the name of its folder starts.
        identity: what tells this entry from others of its kind, plain JSON.
        state: what the result depends on, plain JSON; small, as it is kept and compared.
        make: writes arrays as `<name>.npy` into the folder that it is given, and returns a plain JSON value. It
            may be called a second time, with another folder, where writing to the first one fails.

    Raises:
        OSError: the files can be written neither in the cache nor in the temporary folder.
    """
    path, state = _path(name, identity), _state(state)
    entry = _load(path, state)
    if entry is not None:
        return entry
    try:
        return _store(path, state, make)
    except OSError as error:
        problem = error.strerror or str(error)
        log.debug("%s is not cached: %s", name, error)
    with TemporaryDirectory(prefix=WRITING) as temporary:  # what is mapped stays until it is let go
        return replace(_made(Path(temporary), state, make), problem=problem)


def reserve(path: Path, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array mapped from a new file, for a `make`. Raises OSError where there is no room for it."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    # Without this, a full disk would kill whoever writes to the mapped file.
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # the file system may not know how
                    raise
    return array


def save(new: Path, source: Source) -> dict[str, Any]:
    """Writes the arrays of `source` into the folder `new`; what is left of it is returned, as plain JSON."""
    for name, split in (("train", source.train), ("validation", source.validation), ("test", source.test)):
        if split is not None:
            np.save(new / f"{name}-inputs.npy", split.inputs.numpy())
            np.save(new / f"{name}-targets.npy", split.targets.numpy())
    return {
        "classes": source.classes,
        "target_names": source.target_names,
        "columns": [asdict(column) for column in source.columns],
    }


def source_of(entry: Entry) -> Source:
    """The inverse of `save`."""
    splits = {}
    for name in ("train", "validation", "test"):
        if f"{name}-inputs" in entry.arrays:
            inputs, targets = entry.arrays[f"{name}-inputs"], entry.arrays[f"{name}-targets"]
            splits[name] = Split(from_numpy(inputs), from_numpy(targets))
    return Source(
        splits["train"],
        splits.get("test"),
        entry.value["classes"],
        entry.value["target_names"],
        splits.get("validation"),
        [Column(**column) for column in entry.value["columns"]],
    )


def _path(name: str, identity: Any) -> Path | None:
    """The folder of an entry; None where there is no cache."""
    where = folder()
    if where is None:
        return None
    return where / f"{name}-{sha256(json.dumps([name, identity]).encode()).hexdigest()[:16]}"


def _state(of: Any) -> dict[str, Any]:
    return {"format": FORMAT, "mlpcli": __version__, "of": of}


def _load(path: Path | None, state: dict[str, Any]) -> Entry | None:
    """The entry at `path`; None where there is none, or it is outdated or damaged."""
    if path is None:
        return None
    try:
        content = json.loads((path / ABOUT).read_bytes())
        about = content["about"]
        if zlib.crc32(json.dumps(about).encode()) != content["crc32"]:
            raise ValueError(f"{ABOUT} is not what was written")
        if about["state"] != state:
            log.debug("%s is outdated", path)
            return None
        arrays = {name: np.load(path / f"{name}.npy", mmap_mode="c") for name in about["arrays"]}
        for name, array in arrays.items():
            if _facts(array) != about["arrays"][name]:
                raise ValueError(f"{name} is not what was written")
        return Entry(arrays, about["value"])
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file lets its reader fail in any way
        log.debug("%s cannot be used: %s", path, error)
        return None


def _store(path: Path | None, state: dict[str, Any], make: Callable[[Path], Any]) -> Entry:
    """Makes or replaces an entry: it is there whole or not at all. Raises OSError where it cannot be written."""
    if path is None:
        raise OSError("there is no home folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in path.parent.glob(f"{WRITING}*"):
        with suppress(OSError):
            if time.time() - max(each.stat().st_mtime for each in (abandoned, *abandoned.rglob("*"))) > ABANDONED:
                shutil.rmtree(abandoned)
    with TemporaryDirectory(dir=path.parent, prefix=WRITING, ignore_cleanup_errors=True) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        entry = _made(new, state, make)
        try:
            with suppress(FileNotFoundError):
                path.rename(old)
            new.rename(path)
        except OSError as error:  # perhaps another process was faster; what is mapped stays until it is let go
            log.debug("%s is not cached: %s", path.name, error)
            return entry if (path / ABOUT).exists() else replace(entry, problem=error.strerror or str(error))
    return entry


def _made(new: Path, state: dict[str, Any], make: Callable[[Path], Any]) -> Entry:
    """The entry that `make` makes, with all its files, in the folder `new`."""
    value = make(new)
    arrays = {file.stem: np.load(file, mmap_mode="c") for file in sorted(new.glob("*.npy"))}
    for name, array in arrays.items():
        if array.nbytes > WHOLE:  # a crash of the system must not leave a gap that no check would find
            with open(new / f"{name}.npy", "rb") as file:
                os.fsync(file.fileno())
    about = {"state": state, "arrays": {name: _facts(array) for name, array in arrays.items()}, "value": value}
    content = {"about": about, "crc32": zlib.crc32(json.dumps(about).encode())}
    (new / ABOUT).write_text(json.dumps(content), encoding="utf-8")
    return Entry(arrays, value)


def _facts(array: NDArray[Any]) -> list[Any]:
    """What tells an array from a damaged one: type, shape and CRC-32, at 2 GB/s."""
    content = array.reshape(-1).view(np.uint8)
    pieces = [content]
    if len(content) > WHOLE:
        starts = np.linspace(0, len(content) - 2**20, PIECES, dtype=np.int64)
        pieces = [content[start : start + 2**20] for start in starts]
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece.data, crc)
    return [array.dtype.str, list(array.shape), crc]
