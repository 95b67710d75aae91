"""Sums over the processes that train together, in place, of numbers that lie in one flat buffer.

Between hosts and between GPUs they are torch.distributed's own (gloo, NCCL). Processes of one host have a shorter
way: their buffers are memory that all of them see, so each adds up its share of every buffer where it lies. That
takes a fraction of the time of gloo, which carries them through sockets.
"""

import os
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

SHARED = Path("/dev/shm")
"""Files here are memory."""

SPIN_SECONDS = 50e-6
"""So long a process asks again and again whether the others are there, before it sleeps until they are."""


Answers = Callable[[str], AbstractContextManager[None]]
"""Given what is asked of all processes: tells what became of the others where that fails."""


class Sums(Protocol):
    """A buffer of this process, and the sum of it over all."""

    flat: Tensor
    """(numbers,) of this process; after a sum, of all."""

    piecewise: bool
    """Whether it pays to begin with a part while the rest is computed."""

    def begin(self, start: int, end: int) -> Callable[[], None]:
        """Sum a part of the buffer; it is done when what is returned was called."""
        ...


class GroupSums:
    """A buffer that torch.distributed sums.

    Args:
        flat: the buffer.
        group: of all processes.
        answers: tells why that fails.
    """

    piecewise = True

    def __init__(self, flat: Tensor, group: Any, answers: Answers) -> None:
        self.flat = flat
        self._group = group
        self._answers = answers

    def begin(self, start: int, end: int) -> Callable[[], None]:
        """Begin to sum a part of the buffer; what is returned waits for the end."""
        with self._answers("a sum"):
            work = dist.all_reduce(self.flat[start:end], group=self._group, async_op=True)

        def wait() -> None:
            with self._answers("a sum"):
                work.wait()

        return wait


class Meeting:
    """Sockets to every other process of this host, at which they wait for each other.

    Args:
        folder: where the sockets meet; each process of the host has the same.
        rank, size: which one this is, of how many.
        timeout: seconds to wait for another.
    """

    def __init__(self, folder: Path, rank: int, size: int, timeout: float) -> None:
        self._timeout = timeout
        self._others: list[socket.socket] = []
        until = time.monotonic() + timeout
        with socket.socket(socket.AF_UNIX) as mine:
            mine.bind(str(folder / f"{rank}.socket"))
            mine.listen(size)
            for other in range(rank):
                connection = socket.socket(socket.AF_UNIX)
                while True:
                    try:
                        connection.connect(str(folder / f"{other}.socket"))
                        break
                    except (FileNotFoundError, ConnectionRefusedError):
                        if time.monotonic() > until:
                            raise TimeoutError("timed out on a socket") from None
                        time.sleep(0.002)
                self._others.append(connection)
            mine.settimeout(timeout)
            self._others += [mine.accept()[0] for _ in range(rank + 1, size)]
        for connection in self._others:
            connection.setblocking(False)

    def wait(self) -> None:
        """Until every process has come here; what they wrote before is seen then.

        Raises:
            RuntimeError: one has ended, or does not come.
        """
        try:
            for other in self._others:
                other.send(b".")
            for other in self._others:
                if not self._read(other):
                    raise RuntimeError("another process has ended")
        except OSError as error:
            raise RuntimeError(f"another process has ended: {error.strerror}") from error

    def _read(self, other: socket.socket) -> bytes:
        until = time.perf_counter() + SPIN_SECONDS
        while True:
            try:
                return other.recv(1)
            except BlockingIOError:
                if time.perf_counter() > until and not self._comes(other):
                    raise RuntimeError("timed out") from None

    def _comes(self, other: socket.socket) -> bool:
        poll = select.poll()
        poll.register(other, select.POLLIN)
        return bool(poll.poll(1000 * self._timeout))

    def close(self) -> None:
        """Let the others see that this process has ended."""
        for other in self._others:
            other.close()


class SharedSums:
    """Buffers in memory that the processes of one host share.

    Each adds up its own slice of all buffers, and writes the sums into each of them.

    Args:
        buffers: of all processes, in their order.
        rank: which one this is.
        meeting: where they wait for each other.
        answers: tells why they do not come.
    """

    piecewise = False

    def __init__(self, buffers: Sequence[Tensor], rank: int, meeting: Meeting, answers: Answers) -> None:
        self.flat = buffers[rank]
        self._others = [buffer for other, buffer in enumerate(buffers) if other != rank]
        self._rank, self._size = rank, len(buffers)
        self._meeting = meeting
        self._answers = answers

    def begin(self, start: int, end: int) -> Callable[[], None]:
        """Sum a part of the buffer; it is done when this returns."""
        mine = slice(
            start + (end - start) * self._rank // self._size,
            start + (end - start) * (self._rank + 1) // self._size,
        )
        total = self.flat[mine]
        with self._answers("a sum"):
            self._meeting.wait()
            for other in self._others:
                total.add_(other[mine])
            for other in self._others:
                other[mine].copy_(total)
            self._meeting.wait()
        return _done


def _done() -> None:
    """Nothing is left to wait for."""


def share_memory(folder: Path, rank: int, numbers: int, dtype: torch.dtype) -> Tensor | None:
    """Make a file in `folder` whose memory is a buffer of zeros; None where there is no room for it."""
    path = folder / f"{rank}.numbers"
    length = max(1, numbers) * torch.empty((), dtype=dtype).element_size()
    try:
        with path.open("wb") as file:
            os.posix_fallocate(
                file.fileno(), 0, length
            )  # writing to memory that is not there would end the process
    except OSError:
        return None
    return map_shared(folder, rank, numbers, dtype)


def map_shared(folder: Path, rank: int, numbers: int, dtype: torch.dtype) -> Tensor:
    """The buffer of a process, which has made it."""
    return torch.from_file(str(folder / f"{rank}.numbers"), shared=True, size=numbers, dtype=dtype)


def new_folder() -> Path | None:
    """A folder for what processes share; None where files are not memory."""
    with suppress(OSError):
        if SHARED.is_dir() and hasattr(os, "posix_fallocate"):
            return Path(tempfile.mkdtemp(prefix="mlpcli-", dir=SHARED))
    return None


def remove_folder(folder: Path) -> None:
    """Take the names away; the memory stays as long as a process uses it."""
    shutil.rmtree(folder, ignore_errors=True)
