"""How a command that several processes carry out together begins and ends: one of them says what went wrong."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NoReturn

from mlpcli.errors import MlpcliError, message
from mlpcli.ranks import Ranks, join


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process among those that torchrun started, until the end of the `with`.

    Alone, an error inside is raised as ever. Of several, the first that fails says why, all end with its exit
    code, and none of them waits for another any longer.
    """
    ranks = Ranks()
    try:
        ranks = join()
        yield ranks
    except BaseException as error:
        if not ranks.several:
            raise
        code = _exit_code(error)
        ranks.failed(error, code, partial(_say, error))
        _end(code)
    ranks.leave()


def _say(error: BaseException) -> None:
    if isinstance(error, MlpcliError):
        print(message(error), file=sys.stderr)
    elif not isinstance(error, SystemExit | KeyboardInterrupt):
        traceback.print_exception(error)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, MlpcliError):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _end(code: int) -> NoReturn:
    """At once: threads that wait for another process would keep this one, or abort it with a code of their own."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
