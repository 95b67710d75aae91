"""Stretches of a text, and how a problem at one of them is shown to a person."""

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from mlpcli.errors import Problem

Path = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""

EXCERPT = 100
BEFORE_CARET = 40
SHORT = 40


@dataclass(frozen=True, eq=False)
class Text:
    """A text that values were read from.

    Attributes:
        name: the file, or where else the text comes from; it opens every location.
        content: the text.
        order: problems are listed by this, then by position.
        subject: for an override, its key; such a text has no lines worth counting.
        has_lines: whether a location says line and column.
    """

    name: str
    content: str
    order: int = 0
    subject: str = ""
    has_lines: bool = True

    @cached_property
    def line_starts(self) -> list[int]:
        """Where each line starts."""
        return [0, *(end.end() for end in re.finditer(r"\r\n|\r|\n", self.content))]


@dataclass(frozen=True)
class Span:
    """`text.content[start:end]`."""

    text: Text
    start: int
    end: int

    @property
    def line(self) -> int:
        """Line number of the start, from 1."""
        return bisect_right(self.text.line_starts, self.start)

    @property
    def column(self) -> int:
        """Column of the start, in characters from 1."""
        return self.start - self.text.line_starts[self.line - 1] + 1

    @property
    def location(self) -> str:
        """`file:line:column`, or the name alone for a text without lines."""
        name = clean(self.text.name, 1000)
        return f"{name}:{self.line}:{self.column}" if self.text.has_lines else name

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to point at."""
        return self.start >= self.end


@dataclass(frozen=True)
class Finding:
    """Something wrong at a place; `problem` words it for a person.

    Attributes:
        span: where.
        message: what, without the path.
        hint: what to do, or an empty string.
        path: the key that it is about, which then opens the message.
    """

    span: Span
    message: str
    hint: str = ""
    path: Path = ()

    @property
    def order(self) -> tuple[int, int]:
        """Files before the command line, then from top to bottom."""
        return self.span.text.order, self.span.start

    def problem(self) -> Problem:
        """The problem with its location and, unless its span is empty, the line and a caret."""
        text, name = self.span.text, dotted(self.path)
        message = f"{name}: {self.message}" if name and name != text.subject else self.message
        excerpt, column, width = ("", 0, 1) if self.span.is_empty else excerpt_of(self.span)
        return Problem(self.span.location, message, excerpt, column, width, self.hint)


def excerpt_of(span: Span) -> tuple[str, int, int]:
    """The line on which `span` starts, dedented and cut; the caret's first column and its width."""
    starts = span.text.line_starts
    first = starts[span.line - 1]
    until = starts[span.line] if span.line < len(starts) else len(span.text.content)
    line = span.text.content[first:until].rstrip()
    start = span.start - first
    left = min(len(line) - len(line.lstrip()), start)
    if len(line) - left > EXCERPT:
        left = max(left, start - BEFORE_CARET)
    right = min(len(line), left + EXCERPT)
    end = max(min(span.end - first, right), start)
    before = "…" if line[:left].strip() else ""
    after = "…" if right < len(line) else ""
    shown = before + visible(line[left:right]) + after
    column = len(before) + columns(line[left:start])
    return shown, column, max(1, columns(line[start:end]))


def visible(text: str) -> str:
    """The text with a visible character in place of each one that would move or hide the caret."""
    return "".join("→" if char == "\t" else char if _is_shown(char) else "·" for char in text)


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) in ("Mn", "Me")


def columns(text: str) -> int:
    """How many columns of a terminal `visible(text)` takes."""
    return sum(_char_columns(char) for char in text)


def _char_columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if char.isprintable() and unicodedata.east_asian_width(char) in "WF" else 1


def clean(text: str, limit: int = SHORT) -> str:
    """The text on one line, printable, and cut to `limit` characters."""
    return visible(text if len(text) <= limit else text[: limit - 1] + "…")


def quoted(text: str) -> str:
    """The text in single quotes, on one line and short."""
    return f"'{clean(text)}'"


def dotted(path: Path) -> str:
    """`model.width[1]`; keys that are no words are quoted."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            word = part if re.fullmatch(r"[\w-]{1,40}", part) else quoted(part)
            shown += f".{word}" if shown else word
    return shown
