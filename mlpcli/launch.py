"""Whether torchrun started this process, and which start of it that was; known before torch is imported."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from mlpcli.errors import MlpcliError

PATIENCE = 2.0
"""Seconds in which rank 0 finds the mistakes that all ranks find."""


def launched() -> bool:
    """Whether torchrun started this process. Others may have set RANK and the like, in another sense."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(asked: str) -> dict[str, str]:
    """Which start of torchrun this process belongs to: the same after torchrun has started it anew.

    Args:
        asked: the text of the config that is to be trained.
    """
    parent = os.getppid()
    began = ""
    with suppress(OSError, IndexError):  # the 22nd field, which tells it from another process with its number
        began = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    return {
        "id": os.environ.get("TORCHELASTIC_RUN_ID", ""),
        "agent": f"{socket.gethostname()} {parent} {began}",
        "config": sha256(asked.encode()).hexdigest()[:16],
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
