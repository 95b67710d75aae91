"""The files of a stored data set: which are absent, how to get them, and how to say that one is damaged."""

import os
import shlex
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path

from mlpcli.errors import DataError


@dataclass(frozen=True)
class Layout:
    """Which files a data set consists of.

    Attributes:
        name: of the data set, for messages.
        root: the absolute folder that `data.root` names.
        files: paths relative to `root`.
        archive: where the archive that holds them all would lie, relative to `root`, or an empty string.
    """

    name: str
    root: Path
    files: tuple[str, ...]
    archive: str = ""

    def absent(self) -> list[str]:
        """The files that are not there, in order. Raises DataError where that cannot be told."""
        if exists(self.root) and not self.root.is_dir():
            raise DataError(f"data.root: {self.root} is a file; expected the folder that holds the data sets")
        return [file for file in self.files if not exists(self.root / file)]

    def absent_error(self) -> DataError:
        """What is absent, where it was looked for, and how to get it."""
        absent = self.absent()
        lines = [f"{self.name}: {len(absent)} of its {len(self.files)} files are absent from data.root:"]
        lines += [f"  {self.root}{'' if self.root.is_dir() else '  (no such folder)'}"]
        lines += [f"    {'absent' if file in absent else 'found '}  {file}" for file in self.files]
        lines += self.packed(absent) or self._elsewhere()
        lines += ["  Set data.download=true to download what is absent, or put it there yourself."]
        return DataError("\n".join(lines))

    def packed(self, absent: list[str]) -> list[str]:
        """Lines that say how to unpack what lies there still packed; none where nothing does."""
        commands = []
        for file in (self.root / file for file in absent):
            beside, below = Path(f"{file}.gz"), file.parent / "gzip" / f"{file.name}.gz"
            if exists(beside):
                commands.append(f"gunzip -k {quoted(beside)}")
            elif exists(below):
                commands.append(f"gunzip -c {quoted(below)} > {quoted(file)}")
        archive = self.root / self.archive
        if self.archive and not commands and exists(archive):
            unpack = "unzip {} -d {}" if archive.suffix == ".zip" else "tar -xzf {} -C {}"
            commands.append(unpack.format(quoted(archive), quoted(archive.parent)))
        if not commands:
            return []
        return ["  There, but still packed. To unpack:", *(f"    {each}" for each in commands)]

    def _elsewhere(self) -> list[str]:
        """The folder above, where `data.root` names the set's own folder by mistake."""
        for folder in self.root.parents[:2]:
            if all(exists(folder / file) for file in self.files):
                return [f"  They are in {folder}: set data.root={quoted(folder)}"]
        return []


def quoted(path: Path) -> str:
    """`path` as a word of a shell command."""
    return shlex.quote(str(path))


def absolute(root: str) -> Path:
    """The absolute path of a folder that the config names; `~` is the home folder."""
    return Path(os.path.abspath(os.path.expanduser(root)))


def exists(path: Path) -> bool:
    """Whether something is at `path`. Raises DataError where a folder on the way cannot be searched."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable(path, error) from error
    return True


def read_checked(path: Path, checksum: str) -> bytes:
    """The bytes of a published file. Raises DataError where its MD5 is not `checksum`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    found = md5(content, usedforsecurity=False).hexdigest()
    if found != checksum:
        raise damaged(path, f"its MD5 is {found} ({len(content)} bytes), expected {checksum}")
    return content


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file or folder that the system does not let us read."""
    return DataError(
        f"{path}: cannot be read: {error.strerror or error}\n"
        "  Check that it is a file, and that its permissions and those of the folders above let you read it."
    )


def damaged(path: Path, how: str) -> DataError:
    """The error for a file that is not what it should be; `how` says what was expected and found."""
    return DataError(
        f"{path}: damaged: {how}\n"
        "  Delete this file and fetch it again: data.download=true downloads what is absent, and only that."
    )
