"""Every error that mlpcli raises for a person to read, in one family.

* MlpcliError
  x UserError                 exit 2: bad usage, config or data; nothing was done
    + UsageError              a command line that cannot be carried out
    + ProgramError            a program for `autodiff` that cannot be read, or has no value or derivative there
    + ConfigError             a config, with every problem found in it
    + DataError               a data set that is absent, damaged or does not fit the config
    + DeviceError             a device or a compiler that this machine lacks
    + RunError                a run directory that is absent, taken, in use or incomplete
    + CheckpointError         a checkpoint that is damaged or foreign
      - UnsafeCheckpointError one that holds code
  x FailedError               exit 1: it failed while running
    + StorageError            a file that could not be written; earlier files are intact
    + GateMissed              a --fail-under, --fail-over or --fail-on-regression gate
  x DivergedError             exit 3: a non-finite loss or weight; the last finite checkpoint is kept
  x PeerFailed                the code of another process of the same training, which says why
  x Interrupted               exit 130 (Ctrl-C) or 143 (SIGTERM), after the state was saved

The message of each says what is wrong, where, what was expected and what to do. `cli.main` prints it
without a traceback and exits with `exit_code`.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class MlpcliError(Exception):
    """Base class: `str(error)` is the whole message for the user."""

    exit_code = 1


class UserError(MlpcliError):
    """The request cannot be carried out as it stands; nothing was changed."""

    exit_code = 2


class UsageError(UserError):
    """A command line that cannot be carried out."""


class ProgramError(UserError):
    """A program for `autodiff` that cannot be read, or that has no value or derivative where one is asked for."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a config.

    Attributes:
        location: `file:line:column`, or `command line: optimizer.lr` for an override.
        message: what is wrong and what was expected, on one line.
        excerpt: the offending line, or an empty string where there is none to show.
        column: 0-based display column in `excerpt` at which the caret stands.
        width: how many columns the caret spans, at least 1.
        hint: what to do about it ("did you mean ..."), or an empty string.
    """

    location: str
    message: str
    excerpt: str = ""
    column: int = 0
    width: int = 1
    hint: str = ""

    def __str__(self) -> str:
        lines = [f"{self.location}: {self.message}"]
        if self.excerpt:
            lines += [f"    {self.excerpt}", "    " + " " * self.column + "^" * max(1, self.width)]
        if self.hint:
            lines.append(f"    {self.hint}")
        return "\n".join(lines)


class ConfigError(UserError):
    """A config with problems, all of them at once."""

    shown = 50

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        texts = [str(problem) for problem in self.problems[: self.shown]]
        if len(self.problems) > self.shown:
            texts.append(f"... and {len(self.problems) - self.shown} more problems")
        super().__init__("\n".join(texts))


class DataError(UserError):
    """A data set that is absent, damaged or does not fit the config."""


class DeviceError(UserError):
    """A device or a compiler that this machine lacks."""


class RunError(UserError):
    """A run directory that is absent, taken, in use or incomplete."""


class CheckpointError(UserError):
    """A checkpoint that is damaged or foreign."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint that holds more than tensors and plain values, so that loading it could run code."""


class FailedError(MlpcliError):
    """Something failed while running."""

    exit_code = 1


class StorageError(FailedError):
    """A file that could not be written; what was there before is intact."""


class GateMissed(FailedError):
    """One or more --fail-under, --fail-over or --fail-on-regression gates were missed."""


class DivergedError(MlpcliError):
    """The loss or a weight became NaN or infinite; the last finite checkpoint is kept."""

    exit_code = 3


class PeerFailed(MlpcliError):
    """Another process of the same training failed, and says why: there is nothing to add."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of the training failed")
        self.exit_code = exit_code


class Interrupted(MlpcliError):
    """A signal ended the training after its state was saved: 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def message(error: MlpcliError) -> str:
    """An error as it is shown: config problems open with their place, so that editors can jump to it."""
    if isinstance(error, ConfigError):
        count = len(error.problems)
        return f"{error}\n{count} problem{'s' if count > 1 else ''} in the config"
    return str(error) if isinstance(error, Interrupted) else f"error: {error}"


def in_words(error: Exception) -> MlpcliError | None:
    """What an error that Python or torch raised says to a person, too little memory for one; None for a defect."""
    if isinstance(error, OSError):  # of stdout, for one: wherever a file is opened, its errors are known
        where = f"{error.filename}: " if error.filename is not None else ""
        return FailedError(f"{where}{error.strerror or error}")
    text = str(error)
    full = isinstance(error, RuntimeError) and ("out of memory" in text or "allocate memory" in text)
    if full or isinstance(error, MemoryError):
        return FailedError("not enough memory\n    try a smaller training.batch_size, model.width or data.limit")
    return None
