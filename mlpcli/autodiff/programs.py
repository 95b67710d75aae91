"""What the command line says of a program: its text, and the values of its inputs."""

import math
import re
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from mlpcli.autodiff.graph import Graph
from mlpcli.autodiff.parsing import MOST_CHARACTERS, close_to, parse
from mlpcli.errors import ProgramError, UsageError

FILE_NAME = re.compile(r"[^\s()*+,=]*\.[A-Za-z]\w*|[^\s()*+,=]*[\\/][^\s()*+,=]*\.\w+")
"""What can only be meant as the name of a file."""


def load(program: str, at: Sequence[str]) -> tuple[Graph, dict[str, float]]:
    """The graph of a program, and the values of its inputs.

    Args:
        program: an expression, the path of a file, or `-` for stdin.
        at: `NAME=NUMBER` for each input.

    Raises:
        UsageError: it is no program and no file, or `at` cannot be read.
        ProgramError: the program cannot be read, or needs other inputs.
    """
    given = values(at)
    return parse(*read(program), given), given


def read(program: str) -> tuple[str, str]:
    """The text of a program, and the name that opens the places of its errors.

    Raises:
        UsageError: there is no such file, or it is no text.
        ProgramError: it is too long.
    """
    if program == "-":
        return _decoded(sys.stdin.buffer.read(MOST_CHARACTERS + 1), "stdin"), "stdin"
    path = Path(program)
    try:
        if path.is_file():
            with path.open("rb") as file:
                return _decoded(file.read(MOST_CHARACTERS + 1), program), program
    except ValueError:  # no path has a NUL
        pass
    except OSError as error:
        if FILE_NAME.fullmatch(program):
            raise UsageError(f"{program}: {error.strerror}") from None
    if FILE_NAME.fullmatch(program):
        raise UsageError(f"{program}: there is no such file, and it is no expression")
    return program.strip(), "expression"


def _decoded(content: bytes, name: str) -> str:
    if len(content) > MOST_CHARACTERS:
        raise ProgramError(f"{name}: the program has more than {MOST_CHARACTERS:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: byte {error.start:,} is not UTF-8, so this is no text") from None


def values(at: Sequence[str]) -> dict[str, float]:
    """`["x=1", "y=2.5"]` as `{"x": 1.0, "y": 2.5}`.

    Raises:
        UsageError: one is not NAME=NUMBER with a finite number, or a name has two.
    """
    found: dict[str, float] = {}
    for text in at:
        name, _, shown = text.partition("=")
        name, value = unicodedata.normalize("NFKC", name.strip()), _number(shown)  # as Python reads names
        if not name.isidentifier() or value is None:
            raise UsageError(f"--at {text}: expected NAME=NUMBER with a finite number, as in --at x=1.5")
        if name in found:
            raise UsageError(f"--at {text}: {name} has a value already")
        found[name] = value
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    return value if math.isfinite(value) else None


def direction(graph: Graph, name: str) -> dict[str, float]:
    """The direction of one input.

    Raises:
        UsageError: the graph has no such input.
    """
    if name not in graph.inputs:
        close = close_to(name, graph.inputs)
        hint = f"did you mean {close}?" if close else f"its inputs: {', '.join(list(graph.inputs)[:5]) or 'none'}"
        raise UsageError(f"--forward {name}: the leaf does not depend on such an input\n    {hint}")
    return {name: 1.0}
