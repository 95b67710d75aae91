"""Worker processes for what is computed piece by piece and written into memory that all of them share."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from multiprocessing.sharedctypes import Synchronized

from mlpcli.errors import FailedError, MlpcliError

PATIENCE = 1.0
"""Seconds after which a bar appears, on a terminal."""


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_each(pieces: int, work: Callable[[int], None], what: str) -> None:
    """Calls `work` with each of 0 … `pieces` − 1, in as many forked processes as there are cores.

    Whoever is free takes the next piece. Workers outlive a parent that was killed by a piece at most.

    Args:
        pieces: how many; a single one is done in this process.
        work: writes its results into shared memory. It must not use torch's threads, which a fork loses.
        what: is done, for the bar.

    Raises:
        FailedError: a worker died; what it says goes to stderr.
    """
    from tqdm import tqdm

    if pieces <= 1 or cores() == 1:
        for piece in tqdm(range(pieces), what, disable=not sys.stderr.isatty(), delay=PATIENCE, leave=False):
            work(piece)
        return
    context = get_context("fork")
    taken = context.Value("q", 0)
    workers = [
        context.Process(target=_take, args=(pieces, work, taken), daemon=True) for _ in range(min(cores(), pieces))
    ]
    bar = tqdm(total=pieces, desc=what, disable=not sys.stderr.isatty(), delay=PATIENCE, leave=False)
    with bar, _ended(workers):
        for worker in workers:
            worker.start()
        while running := [worker for worker in workers if worker.is_alive()]:
            wait([worker.sentinel for worker in running], timeout=0.1)
            bar.update(min(taken.value, pieces) - bar.n)
            _check(workers, what)
        _check(workers, what)


def _check(workers: Sequence[ForkProcess], what: str) -> None:
    codes = [worker.exitcode for worker in workers if worker.exitcode]
    if codes:
        how = "it ran out of memory" if codes[0] == -signal.SIGKILL else f"exit code {codes[0]}"
        raise FailedError(f"{what}: a worker process died: {how}")


@contextmanager
def _ended(workers: Sequence[ForkProcess]) -> Iterator[None]:
    """Leaves no worker behind."""
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of forks where there are threads; the workers use none of what those may hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
                worker.join()


def _take(pieces: int, work: Callable[[int], None], taken: "Synchronized[int]") -> None:
    """In a worker: takes pieces until there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = os.getppid()
    while os.getppid() == parent:
        with taken.get_lock():
            piece = taken.value
            taken.value += 1
        if piece >= pieces:
            return
        try:
            work(piece)
        except MlpcliError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(1)
