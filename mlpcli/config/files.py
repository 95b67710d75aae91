"""Reading a config file: never more of it than a config can have, and a clear error for what is none."""

import codecs
import os
from difflib import get_close_matches
from pathlib import Path

from mlpcli.config.text import Finding, Span, Text, clean
from mlpcli.config.yaml_source import MAX_SIZE, TOO_LARGE, TOO_LARGE_HINT
from mlpcli.errors import ConfigError, Problem

RUN_CONFIG = "config.yaml"


def read_text(path: Path) -> Text:
    """The text of the file, without a byte order mark.

    Raises:
        ConfigError: for what cannot be read, is too large, or is not UTF-8 text.
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = b"" if size > MAX_SIZE else file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        raise _refuse(name, "no such file", _missing_hint(path)) from None
    except IsADirectoryError:
        raise _refuse(name, "this is a directory, and a config is a file", _directory_hint(path)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _refuse(name, f"cannot be read: {reason}") from error
    if size > MAX_SIZE or len(data) > MAX_SIZE:
        found = f" ({size:,} bytes)" if size > MAX_SIZE else ""
        raise _refuse(name, f"{TOO_LARGE}{found}", TOO_LARGE_HINT)
    return Text(name, _decode(name, data))


def _decode(name: str, data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _refuse(name, "byte offset 0 starts UTF-16 text, and a config is UTF-8", "save it as UTF-8")
    body = data.removeprefix(codecs.BOM_UTF8)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        offset = error.start + len(data) - len(body)
        start = len(body[: error.start].decode())
        span = Span(Text(name, body.decode(errors="replace")), start, start + 1)
        message = f"byte offset {offset} (0x{data[offset]:02x}) is not UTF-8 text"
        raise ConfigError([Finding(span, message, "save the file as UTF-8").problem()]) from None


def _refuse(name: str, message: str, hint: str = "") -> ConfigError:
    location = Span(Text(name, "", has_lines=False), 0, 0).location
    return ConfigError([Problem(location, message, hint=clean(hint, 1000))])


def _missing_hint(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder}"
    try:
        siblings = os.listdir(folder)
    except OSError:
        return ""
    # Of files that differ in their suffix alone, the YAML comes last and wins.
    siblings.sort(key=lambda name: (name.lower().endswith((".yaml", ".yml")), name))
    by_stem = {os.path.splitext(name)[0].lower(): name for name in siblings}
    close = get_close_matches(path.stem.lower(), by_stem, n=1)
    return f"did you mean {folder / by_stem[close[0]]}?" if close else ""


def _directory_hint(path: Path) -> str:
    if not (path / RUN_CONFIG).is_file():
        return ""
    return f"use {path / RUN_CONFIG}, or continue the run: mlpcli train --resume {path}"
