"""What is wrong in a table, and where: `path:line:column`, the line with a caret, and what to do.

Places are looked for once something is known to be wrong, with Python's csv module: it is slow, and says
where each record starts, which fast readers do not.
"""

import codecs
import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from mlpcli.config.text import Span, Text, clean, excerpt_of, quoted
from mlpcli.data.files import unreadable
from mlpcli.errors import DataError, Problem

CHUNK = 1 << 18
"""Bytes that are looked at together: they stay in the CPU's cache."""
DELIMITERS = {",": '","', ";": '";"', "\t": '"\\t"', "|": '"|"'}
"""Likely ones, as a config has them."""
SHOWN = 10
"""Columns that a message lists."""


@dataclass(frozen=True)
class Record:
    """A row of a CSV file, which spans several lines where quoted fields do.

    Attributes:
        line: number of its first line, from 1.
        raw: its text, without the end of its last line.
        fields: its values.
        broken: why it cannot be read to its end, or an empty string.
    """

    line: int
    raw: str
    fields: list[str]
    broken: str = ""


def records(path: Path, delimiter: str) -> Iterator[Record]:
    """The rows of a CSV file in order, without empty lines; a broken one is the last."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines: list[str] = []

        def remembered() -> Iterator[str]:
            for line in file:
                lines.append(line)
                yield line

        reader, before = csv.reader(remembered(), delimiter=delimiter, strict=True), 0
        while True:
            try:
                fields = next(reader, None)
                broken = ""
            except csv.Error as error:
                unclosed = "unexpected end" in str(error) or "field limit" in str(error)
                fields, broken = [], "the quote is never closed" if unclosed else "text follows a closing quote"
            if fields is None:
                return
            if fields or broken:
                yield Record(before + 1, "".join(lines).rstrip("\r\n"), fields, broken)
            if broken:
                return
            before = reader.line_num
            lines.clear()


def field_starts(raw: str, delimiter: str) -> list[int]:
    """Where each field of a record starts in its text."""
    starts = [0]
    position = 0
    while True:
        if raw.startswith('"', position):
            position += 1
            while (position := raw.find('"', position)) >= 0 and raw.startswith('""', position):
                position += 2
            if position < 0:
                return starts
        position = raw.find(delimiter, position)
        if position < 0:
            return starts
        position += 1
        starts.append(position)


def error_in(shown: str, record: Record, index: int, delimiter: str, message: str, hint: str = "") -> DataError:
    """The error at field `index` of a record, counted from 0; past the last one, at the record's end."""
    starts = [*field_starts(record.raw, delimiter), len(record.raw)]
    start = starts[min(index, len(starts) - 1)]
    end = len(record.raw) if index >= len(starts) - 2 else starts[index + 1] - 1
    above = record.raw[:start]
    line = record.line + line_breaks(above)
    column = start - max(above.rfind("\n"), above.rfind("\r"))
    # An empty field has the caret where it would start.
    excerpt, caret, width = excerpt_of(Span(Text(shown, record.raw), start, max(end, start)))
    return DataError(str(Problem(f"{clean(shown, 1000)}:{line}:{column}", message, excerpt, caret, width, hint)))


def line_breaks(text: str) -> int:
    """How many lines end in a text."""
    return len(re.findall(r"\r\n|\r|\n", text))


def find(path: Path, delimiter: str, index: int, wrong: Callable[[str], bool]) -> Record | None:
    """The first row below the header whose field `index` is `wrong`."""
    rows = records(path, delimiter)
    next(rows, None)
    return next((row for row in rows if index < len(row.fields) and wrong(row.fields[index])), None)


def malformed(shown: str, path: Path, delimiter: str, width: int) -> DataError | None:
    """The error for the first row that cannot be read or has not `width` fields; None where all rows are fine."""
    for row in records(path, delimiter):
        if row.broken:
            hint = 'a quote within quotes is written twice: ""'
            return error_in(shown, row, _broken_field(row, delimiter), delimiter, row.broken, hint)
        if len(row.fields) != width:
            found = "1 field" if len(row.fields) == 1 else f"{len(row.fields)} fields"
            message = f"this row has {found}, the header has {width}"
            hint = "put fields that contain the delimiter in double quotes"
            if row.line > 1 and len(row.fields) > width and delimiter == ",":
                hint += "; numbers are written with a decimal point and no thousands separator"
            return error_in(shown, row, min(width, len(row.fields)), delimiter, message, hint)
    return None


def _broken_field(row: Record, delimiter: str) -> int:
    """Which field is not quoted as it should be."""
    starts = field_starts(row.raw, delimiter)
    for index, (start, end) in enumerate(zip(starts, [*starts[1:], len(row.raw) + 1], strict=True)):
        field = row.raw[start : end - 1]
        if field.startswith('"') and not re.fullmatch(r'"([^"]|"")*"', field):
            return index
    return len(starts) - 1


def check_bytes(shown: str, path: Path) -> bool:
    """Looks at all bytes of a CSV file.

    Returns:
        Whether its quotes may be unbalanced: there is an odd number of them.

    Raises:
        DataError: it cannot be read, is empty, is no text or is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    quotes = done = 0
    try:
        if path.is_dir():
            raise DataError(f"{shown}: this is a folder; expected a CSV file")
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                if done == 0:
                    _check_kind(shown, chunk)
                if b"\0" in chunk:
                    raise _at_byte(shown, path, done + chunk.index(b"\0"), "a NUL byte: this is no text file")
                waiting = len(decoder.getstate()[0])
                if waiting or not chunk.isascii():
                    try:
                        decoder.decode(chunk)
                    except UnicodeDecodeError as error:
                        raise _no_utf8(shown, path, done - waiting + error.start) from None
                quotes += chunk.count(b'"')
                done += len(chunk)
    except FileNotFoundError:
        raise absent(shown, path) from None
    except OSError as error:
        raise unreadable(path, error) from error
    if done == 0:
        raise DataError(
            f"{shown}:1:1: the file is empty\n    expected a header line with the names of the columns"
        )
    if decoder.getstate()[0]:
        raise _no_utf8(shown, path, done - len(decoder.getstate()[0]))
    return quotes % 2 == 1


def _check_kind(shown: str, start: bytes) -> None:
    if start.startswith(b"PAR1"):
        raise DataError(f"{shown}: this is a Parquet file, not CSV\n    set data.dataset: parquet")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{shown}:1:1: this is UTF-16, not UTF-8\n    save the file as UTF-8")
    if start.startswith((b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise DataError(f"{shown}: this is an archive or a spreadsheet, not CSV\n    unpack it, or save it as CSV")


def _no_utf8(shown: str, path: Path, offset: int) -> DataError:
    return _at_byte(shown, path, offset, "not UTF-8: {byte}", "save the file as UTF-8")


def _at_byte(shown: str, path: Path, offset: int, message: str, hint: str = "") -> DataError:
    """The error at a byte of the file; its place is counted in characters."""
    line = done = 0
    text = before = b""
    with path.open("rb") as file:
        for text in file:
            line += 1
            if done + len(text) > offset:
                before = text[: offset - done]
                break
            done += len(text)
    start = before.decode("utf-8-sig" if line == 1 else "utf-8", "replace")
    whole = text.decode("utf-8-sig" if line == 1 else "utf-8", "replace").rstrip("\r\n")
    message = message.format(byte=f"byte 0x{text[len(before)]:02x}, number {offset + 1} of the file")
    excerpt, caret, width = excerpt_of(Span(Text(shown, whole), len(start), len(start) + 1))
    place = f"{clean(shown, 1000)}:{line}:{len(start) + 1}"
    return DataError(str(Problem(place, message, excerpt, caret, width, hint)))


def absent(shown: str, path: Path) -> DataError:
    """The error for a table that is not there; it names a file of the same folder with a name like it."""
    try:
        near = get_close_matches(path.name, [each.name for each in path.parent.iterdir()], n=1)
    except OSError:
        near = []
    hint = f"\n    did you mean {path.parent / near[0]}?" if near else ""
    return DataError(f"{shown}: there is no such file{hint}")


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(quoted(name) for name in names[:SHOWN]) + more
