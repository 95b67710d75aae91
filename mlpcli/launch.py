"""Whether torchrun started this process, and which start of it that was; known before torch is imported."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlpcli.errors import MlpcliError

PATIENCE = 2.0
"""Seconds in which rank 0 finds the mistakes that all ranks find."""


def launched() -> bool:
    """Whether torchrun, or what sets the same variables, started this process."""
    return all(os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def launch() -> dict[str, str]:
    """Which start of torchrun this process belongs to: the same after torchrun has started it anew."""
    parent = os.getppid()
    began = ""
    with suppress(OSError, IndexError):  # the 22nd field, which tells it from another process with its number
        began = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    return {
        "id": os.environ.get("TORCHELASTIC_RUN_ID", ""),
        "agent": f"{socket.gethostname()} {parent} {began}",
    }


def one_of_several() -> bool:
    """Whether there are other processes besides this one."""
    return launched() and os.environ["WORLD_SIZE"] != "1"


@contextmanager
def said_once() -> Iterator[None]:
    """Lets rank 0 of several processes say what is wrong for all of them, as long as it finds the same."""
    try:
        yield
    except MlpcliError:
        if one_of_several() and os.environ["RANK"] != "0":
            time.sleep(PATIENCE)  # torchrun ends this process when rank 0 has ended
        raise
