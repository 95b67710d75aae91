"""Downloading what is absent: into a temporary folder first, so that what is there stays as it is."""

import io
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from mlpcli.data.files import Layout, exists
from mlpcli.errors import DataError

TIMEOUT = 30.0
"""Seconds after which a server that says nothing is given up."""

log = logging.getLogger(__name__)


def download(layout: Layout, fetch: Callable[[Path], None], urls: Sequence[str]) -> None:
    """Puts the absent files of `layout` in place; files that are there are not touched.

    Args:
        layout: which files there should be.
        fetch: writes the files into the folder that it is given, laid out like `layout.root`.
        urls: where they come from, for the error's advice.

    Raises:
        DataError: nothing came, or not what was expected; the root is then as it was before.
    """
    absent = layout.absent()
    created = [each for each in (layout.root, *layout.root.parents) if not exists(each)]
    log.info("downloading %s into %s", layout.name, layout.root)
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=layout.root, prefix=".download-") as name, _guarded():
            folder = Path(name)
            fetch(folder)
            lacking = [file for file in absent if not exists(folder / file)]
            if lacking:
                raise FileNotFoundError(f"the download does not contain {', '.join(lacking)}")
            for file in absent:
                _move(folder / file, layout.root / file)
    except Exception as error:
        raise _failed(layout, absent, error, urls) from error
    finally:
        for each in created:
            with suppress(OSError):  # all of them hold something unless the download failed
                each.rmdir()


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not exists(target):  # another run may have been faster
        os.replace(source, target)


@contextmanager
def _guarded() -> Iterator[None]:
    """A time limit on servers, nothing on stdout, and progress bars on a terminal only."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    bars = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        with redirect_stderr(bars), redirect_stdout(bars):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _failed(layout: Layout, absent: list[str], error: Exception, urls: Sequence[str]) -> DataError:
    reason = str(error).strip() or type(error).__name__
    lines = [
        f"{layout.name}: the download failed; what {layout.root} held is unchanged",
        *(f"    {line}" for line in reason.splitlines()),
        *layout.packed(absent),
        "  Try again later, or by hand: get",
        *(f"    {url}" for url in urls),
        f"  unpack them, and put into {layout.root}:",
        *(f"    {file}" for file in absent),
    ]
    return DataError("\n".join(lines))
