"""Jobs in forked processes, so many at once: what one does to its process, or dies of, is nothing to the others.

A forked process has at once what the first one has imported, which a fresh one would take seconds for. So the
first one imports, and computes nothing: threads and CUDA do not survive a fork.
"""

import codecs
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

from mlpcli.errors import MlpcliError, in_words

POLL_SECONDS = 0.1
"""How often it is looked whether a signal came."""
ORPHAN_SECONDS = 1.0
"""How often a job looks whether the process that started it is still there."""
LONGEST = 10_000
"""Letters of an error: what a pipe takes without anyone reading it."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Said:
    """A line that a job wrote to stderr."""

    job: int
    line: str


@dataclass(frozen=True)
class Ended:
    """The end of a job.

    Attributes:
        code: its exit code; −k where signal k killed it.
        error: what went wrong, for a person; empty where nothing did, or nobody could say.
    """

    job: int
    code: int
    error: str


def run_jobs(
    waiting: deque[int], at_once: int, work: Callable[[int], None], signalled: Callable[[], int] = lambda: 0
) -> Generator[Said | Ended, None, None]:
    """Call `work` with each number in a process of its own, and tell what becomes of it.

    A job is in a session of its own, so that Ctrl-C reaches it through this process alone: as SIGTERM, once
    `signalled` says so; no further one is started then. SIGTERM raises KeyboardInterrupt in a job, unless `work`
    has another handler. A job gets it too where this process has died. Jobs that still run when the iterator is
    closed are killed.

    Args:
        waiting: the numbers of the jobs; each is taken from the left when its turn has come.
        at_once: how many run at the same time, at least 1.
        work: ends by returning, which is exit code 0, or by raising.
        signalled: the number of the signal to stop that came, 0 for none.
    """
    running: list[_Job] = []
    told = False
    try:
        while running or (waiting and not signalled()):
            if signalled() and not told:
                told = True
                for each in running:
                    each.process.terminate()
            while waiting and len(running) < at_once and not signalled():
                running.append(_started(work, waiting.popleft()))
            speaking = [each.stderr for each in running if not each.silent]
            wait([*(each.process.sentinel for each in running), *speaking], POLL_SECONDS)
            for each in tuple(running):
                ended = not each.process.is_alive()  # before what it said is read, so that this is all
                yield from each.said(to_the_end=ended)
                if ended:
                    running.remove(each)
                    yield each.close()
    finally:
        for each in running:
            each.process.kill()
            each.close()


class _Job:
    """A job that was started, as its starter sees it."""

    def __init__(self, number: int, process: ForkProcess, stderr: int, error: Connection) -> None:
        self.number, self.process, self.stderr, self._error = number, process, stderr, error
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line = ""
        self.silent = False  # for ever: it has closed its stderr, or has ended

    def said(self, *, to_the_end: bool) -> Iterator[Said]:
        """The lines since the last call, and at the end what came after the last of them."""
        with suppress(BlockingIOError):
            while piece := os.read(self.stderr, 1 << 16):
                self._line += self._decoder.decode(piece)
            self.silent = True
        *lines, self._line = self._line.split("\n")
        if to_the_end:
            lines.append(self._line)
        for line in lines:
            if line:
                yield Said(self.number, line)

    def close(self) -> Ended:
        """Wait for its end, and let go of it."""
        self.process.join()
        error = ""
        with suppress(EOFError, OSError):
            error = self._error.recv()
        code = self.process.exitcode or 0
        self._error.close()
        os.close(self.stderr)
        self.process.close()
        return Ended(self.number, code, error)


def _started(work: Callable[[int], None], number: int) -> _Job:
    context = get_context("fork")
    receives, sends = context.Pipe(duplex=False)
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    process = context.Process(target=_carry_out, args=(work, number, writes, sends, os.getpid()))
    with _signals_wait(), warnings.catch_warnings():
        # Python 3.12 warns of forks where there are threads; a job uses none of what those may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sends.close()
    os.close(writes)
    return _Job(number, process, reads, receives)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """What comes inside is delivered afterwards: a job that is just being made would take it for its starter's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _carry_out(work: Callable[[int], None], number: int, stderr: int, error: Connection, parent: int) -> None:
    """In the job's process."""
    os.setsid()
    os.dup2(stderr, 2)
    os.close(stderr)
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115  # open to the end
    for each in SIGNALS:
        signal.signal(each, signal.default_int_handler)
    threading.Thread(target=_end_as_an_orphan, args=(parent,), daemon=True).start()
    code, said = 0, ""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        work(number)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except MlpcliError as known:
        code, said = known.exit_code, str(known)
    except Exception as unknown:
        known_after_all = in_words(unknown)
        if known_after_all is None:
            traceback.print_exception(unknown)
        code, said = 1, str(known_after_all or f"{type(unknown).__name__}: {unknown}")
    with suppress(OSError):  # there may be no one to tell
        error.send(said[:LONGEST])
    sys.exit(code)


def _end_as_an_orphan(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(ORPHAN_SECONDS)
    main = threading.main_thread().ident
    assert main is not None, "it was started"
    signal.pthread_kill(main, signal.SIGTERM)  # of two threads, the one that may be waiting for something
