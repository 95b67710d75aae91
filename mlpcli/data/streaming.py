"""Rows of a file that is larger than memory, gathered ahead of time by worker processes."""

import os
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mlpcli.data.workers import cores
from mlpcli.errors import FailedError

WORKERS = 4
"""At most so many gather: beyond, the disk is the limit."""


def streams(in_memory: Literal["auto"] | bool, size: int) -> bool:
    """Whether `size` bytes are streamed as `data.in_memory` says: `auto` streams more than half of free memory."""
    if in_memory != "auto":
        return not in_memory
    free = free_memory()
    return free is not None and size > free / 2


def free_memory() -> int | None:
    """Bytes that this process could still use, the page cache included; None where that cannot be told."""
    free = []
    with suppress(OSError, ValueError, IndexError):
        about = Path("/proc/meminfo").read_text()
        free.append(int(about.split("MemAvailable:")[1].split()[0]) * 1024)
    with suppress(OSError, ValueError):  # the limit of a container; "max" where there is none
        free.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    if not free:
        with suppress(OSError, ValueError, AttributeError):
            free.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(free, default=None)


def blocks(stored: Tensor, order: Iterable[Tensor]) -> Iterator[Tensor]:
    """The blocks `stored[rows]`, for each `rows` of `order` in turn.

    The processes end with the iterator, also where it is closed early.

    Args:
        stored: (m, features), mapped from a file, so that a process that is forked off shares it.
        order: int64 (n,) each, indices of rows.

    Returns:
        Tensors (n, features), each a copy of its own.

    Raises:
        FailedError: a worker died.
    """
    # arrays: a tensor would take a file in shared memory for each block
    rows = (each.numpy() for each in order)
    loader: DataLoader[Tensor] = DataLoader(
        _Rows(stored),
        batch_sampler=cast(Any, _Once(rows)),
        num_workers=min(WORKERS, cores()),
        collate_fn=cast(Any, _same),
        worker_init_fn=_ignore_interrupts,
        multiprocessing_context="fork",  # of what is mapped, anything else would make copies
    )
    gathered = None
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of forks where there are threads; the workers use none of what those may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            gathered = _started(loader)
        yield from gathered
    except (RuntimeError, OSError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise FailedError(f"data.in_memory: a process that gathers images died: {error}") from error
    finally:
        del gathered  # which ends its workers


def _started(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    """Its iterator, without torch's signal handler, through which the death of a worker raises in whatever runs
    then: whoever waits for the worker finds out anyway."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, before)


class _Rows(Dataset[Tensor]):
    """The rows of a tensor."""

    def __init__(self, stored: Tensor) -> None:
        self.stored = stored.numpy()

    def __getitems__(self, rows: NDArray[Any]) -> Tensor:
        return torch.from_numpy(self.stored[rows])


class _Once:
    """An iterator as what a DataLoader takes for a batch sampler."""

    def __init__(self, rows: Iterator[NDArray[Any]]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return self.rows


def _same(rows: Tensor) -> Tensor:
    return rows


def _ignore_interrupts(_worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the first one decides what comes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
