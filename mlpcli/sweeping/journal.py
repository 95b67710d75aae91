"""The lock of a sweep's journal: the kernel's, so that it dies with the process that holds it."""

import fcntl
import os
from pathlib import Path

from optuna.storages.journal._file import BaseJournalFileLock

BLOCK = 4096


class JournalLock(BaseJournalFileLock):
    """Who holds it writes whole lines to the journal.

    Optuna's own are files, which a killed process leaves behind; the others wait for half a minute then.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._held = -1

    def acquire(self) -> bool:
        """Wait for the lock, and take away the half of a line that a killed process left."""
        handle = os.open(self._journal, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)
        self._held = handle  # one thread at a time gets here: the storage has a lock of its own
        size = os.fstat(handle).st_size
        whole = size
        while whole and os.pread(handle, 1, whole - 1) != b"\n":
            start = max(0, whole - BLOCK)
            whole = start + os.pread(handle, whole - start, start).rfind(b"\n") + 1
        if whole < size:
            os.ftruncate(handle, whole)
        return True

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._held)
