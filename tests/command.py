"""Runs the command line inside the test's own process: importing torch anew would take 2 s a command.

CUDA is out of sight, for the tests compare bits.
"""

import contextlib
import io
import itertools
import json
import logging
import signal
import subprocess
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from mlpcli.cli import main


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document that is all of stdout."""
        return json.loads(self.out)


class Stream(io.StringIO):
    """A standard stream, on a terminal or not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def mlpcli(*arguments: str | PathLike[str], terminal: bool = False) -> Done:
    """`mlpcli ARGUMENTS`, with stderr on a terminal or not."""
    out, err = Stream(False), Stream(terminal)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job would ignore
    no_cuda = patch("torch.cuda.device_count", lambda: 0)
    try:
        with no_cuda, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(argument) for argument in arguments])
        code: Any = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        log = logging.getLogger("mlpcli")
        for each in log.handlers:
            each.close()
        log.handlers = []
    assert isinstance(code, int), code
    return Done(code, out.getvalue(), err.getvalue())


def succeeds(*arguments: str | PathLike[str], terminal: bool = False) -> Done:
    """`mlpcli ARGUMENTS`, which must exit with 0."""
    done = mlpcli(*arguments, terminal=terminal)
    assert done.code == 0, done
    return done


def interrupted(step: int, *arguments: str | PathLike[str]) -> Done:
    """`mlpcli ARGUMENTS`, which trains, interrupted after so many of its steps: it must exit with 130."""
    steps = itertools.count(1)

    def count(_: Any) -> None:
        if next(steps) == step:
            signal.raise_signal(signal.SIGINT)

    with patch("mlpcli.console.Display.step", count):
        done = mlpcli(*arguments)
    assert done.code == 130, done
    return done


def project_files(root: Path) -> list[str]:
    """The files of the project, relative to `root`: what git tracks, and what it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no git repository, so nothing tells its files from others")
    return [name for name in listed.stdout.split("\0") if name]
