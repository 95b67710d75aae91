"""Parsed data sets as memory-mapped files, so that each is parsed once. Losing them costs time, nothing else."""

import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import from_numpy

from mlpcli import __version__
from mlpcli.data.dataset import Source, Split

FORMAT = 1
"""Entries of another one, as those of another release, are made anew."""
ABOUT = "about.json"
"""The file of an entry that says of what it is the cache."""
WRITING = ".mlpcli-writing-"
"""What the names of half-written entries start with."""
ABANDONED = 3600.0
"""Seconds after which the process that wrote such an entry is taken to be dead."""

log = logging.getLogger("mlpcli")


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
    where = folder()
    try:
        # Before they are read: what changes from now on is a change. The time of the last change of an inode is
        # the one that nobody can set back.
        stats = [os.stat(file) for file in files]
    except OSError:
        return read()  # which says what is wrong
    if where is None:
        log.debug("%s is not cached: there is no home folder", name)
        return read()
    state = {
        "format": FORMAT,
        "mlpcli": __version__,
        "version": version,
        "files": [[s.st_size, s.st_mtime_ns, s.st_ctime_ns] for s in stats],
    }
    identity = json.dumps([name, *map(str, files)])
    entry = where / f"{name}-{sha256(identity.encode()).hexdigest()[:16]}"
    source = _load(entry, state)
    if source is not None:
        return source
    source = read()
    try:
        _store(entry, state, source)
    except OSError as error:
        log.debug("%s is not cached: %s", name, error)
        return source
    # The mapped one, so that a first run needs no more memory than a second.
    return _load(entry, state) or source


def _load(entry: Path, state: dict[str, Any]) -> Source | None:
    """The source in an entry; None where there is none, or it is outdated or damaged."""
    try:
        content = json.loads((entry / ABOUT).read_bytes())
        about = content["about"]
        if zlib.crc32(json.dumps(about).encode()) != content["crc32"]:
            raise ValueError(f"{ABOUT} is not what was written")
        if about["state"] != state:
            log.debug("%s is outdated", entry)
            return None
        splits = []
        for each in about["splits"]:
            arrays = [np.load(entry / f"{file}.npy", mmap_mode="c") for file in each]
            if [_facts(array) for array in arrays] != list(each.values()):
                raise ValueError(f"{' or '.join(each)} is not what was written")
            splits.append(Split(*map(from_numpy, arrays)))
        train, *test = splits
        return Source(train, test[0] if test else None, about["classes"], about["target_names"])
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file lets its reader fail in any way
        log.debug("%s cannot be used: %s", entry, error)
        return None


def _store(entry: Path, state: dict[str, Any], source: Source) -> None:
    """Makes or replaces an entry: it is there whole or not at all. Raises OSError where that fails."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in entry.parent.glob(f"{WRITING}*"):
        with suppress(OSError):
            if time.time() - abandoned.stat().st_mtime > ABANDONED:
                shutil.rmtree(abandoned)
    with TemporaryDirectory(dir=entry.parent, prefix=WRITING, ignore_cleanup_errors=True) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        splits = []
        for name, split in (("train", source.train), ("test", source.test)):
            if split is None:
                continue
            arrays = {f"{name}-inputs": split.inputs.numpy(), f"{name}-targets": split.targets.numpy()}
            for file, array in arrays.items():
                np.save(new / f"{file}.npy", array)
            splits.append({file: _facts(array) for file, array in arrays.items()})
        about = {
            "state": state,
            "splits": splits,
            "classes": source.classes,
            "target_names": source.target_names,
        }
        content = {"about": about, "crc32": zlib.crc32(json.dumps(about).encode())}
        (new / ABOUT).write_text(json.dumps(content), encoding="utf-8")
        with suppress(FileNotFoundError):
            entry.rename(old)
        new.rename(entry)


def _facts(array: NDArray[Any]) -> list[Any]:
    """What tells an array from a damaged one: type, shape and CRC-32, at 2 GB/s."""
    return [array.dtype.str, list(array.shape), zlib.crc32(array.data)]
