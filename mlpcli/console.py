"""What a person sees while a training runs: log lines, the bar, and what signals do."""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

from tqdm import tqdm

from mlpcli.config.rules import engine, not_explicit
from mlpcli.errors import Interrupted, MlpcliError, StorageError
from mlpcli.runs import read_metrics
from mlpcli.sparkline import encodable, losses, rounded
from mlpcli.tensorboard import Board
from mlpcli.training import Record, Trainer

log = logging.getLogger("mlpcli")

REFRESH_SECONDS = 0.25
"""How often the bar shows the running loss; reading it waits for the device."""


class StderrHandler(logging.Handler):
    """Writes log lines to stderr, above the bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, unless it is shown in another way and meant for train.log alone."""
        if getattr(record, "file_only", False):
            return
        write_line(self.format(record))


def write_line(text: str) -> None:
    """Write to stderr, above the bar where there is one."""
    try:
        tqdm.write(text, file=sys.stderr)
    except OSError:  # a full disk or a closed pipe: no reason to lose a training
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


class LogFileHandler(logging.FileHandler):
    """train.log. Losing a log line is no reason to lose a training, so a full disk is only mentioned once."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Close the file and say so."""
        log.removeHandler(self)
        log.warning("cannot write %s any more: %s", self.baseFilename, sys.exception())


def set_up_logging(quiet: bool, verbose: bool, speaks: bool = True) -> None:
    """Send the log to stderr: warnings with `quiet`, details with `verbose`; nothing of a process that does not
    speak."""
    if not speaks:
        log.handlers = [logging.NullHandler()]
        log.propagate = False
        return
    handler = StderrHandler()
    handler.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    handler.setFormatter(_Formatter())
    for earlier in log.handlers:
        earlier.close()
    log.handlers = [handler, Held()]
    log.setLevel(logging.DEBUG)
    log.propagate = False


class Held(logging.Handler):
    """Keeps what is said before there is a run directory, for its train.log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(record)


class _Formatter(logging.Formatter):
    """Plain lines; warnings and errors say so."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        return f"{record.levelname.lower()}: {message}" if record.levelno >= logging.WARNING else message


def log_to(path: Path) -> None:
    """Also append the log to a file.

    Raises:
        StorageError: it cannot be opened.
    """
    try:
        handler = LogFileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    handler.setLevel(logging.INFO)
    handler.setFormatter(_Formatter())
    held = [each for each in log.handlers if isinstance(each, Held)]
    for each in held:
        log.removeHandler(each)
        for record in each.records:
            handler.handle(record)
    log.addHandler(handler)


@contextmanager
def interrupted(outcome: str) -> Iterator[None]:
    """Says what came of a command that Ctrl-C ends."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {outcome}", 130) from None


class Signals:
    """Inside the `with`, the first Ctrl-C or SIGTERM is noted in `received`; a second Ctrl-C quits at once."""

    received: int | None = None

    def __init__(self, speaks: bool = True) -> None:
        self._speaks = speaks

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is None and self._speaks:
            with suppress(OSError):  # not print(): a handler may run inside another write to stderr
                os.write(2, b"\nfinishing the step and saving; Ctrl-C now quits at once\n")
        self.received = number


def clean_up_on_signals() -> None:
    """From now on Ctrl-C and SIGTERM raise, so that nothing half-made stays."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Display:
    """Shows a training: a bar on a terminal, elsewhere a line an epoch (in train.log always)."""

    def __init__(self, trainer: Trainer, quiet: bool) -> None:
        self.trainer = trainer
        quiet = quiet or not trainer.ranks.first
        self.refreshed = time.monotonic()
        self.bar: tqdm[Any] | None = None
        if sys.stderr.isatty() and not quiet:
            self.bar = tqdm(
                total=trainer.epochs * len(trainer.batches),
                initial=trainer.samples_done,
                unit=" samples",
                unit_scale=True,
                dynamic_ncols=True,
                file=sys.stderr,
                leave=False,
                delay=0.2,
            )

    def step(self) -> None:
        """After a step: refresh the bar now and then."""
        if self.bar is None or time.monotonic() - self.refreshed < REFRESH_SECONDS:
            return
        self.refreshed = time.monotonic()
        running = self.trainer.metrics.result()
        self.bar.set_description(f"epoch {self.trainer.epoch + 1}/{self.trainer.epochs}", refresh=False)
        self.bar.set_postfix_str(format_metrics(running), refresh=False)
        self.bar.update(self.trainer.samples_done - self.bar.n)

    def epoch(self, record: Record) -> None:
        """After an epoch: its line."""
        rate = len(self.trainer.batches) / record.seconds if record.seconds > 0 else 0
        validation = "" if record.validation is None else f"  validation {format_metrics(record.validation)}"
        best = "  best" if record.is_best and record.validation is not None else ""
        log.info(
            "epoch %d/%d  train %s%s  %s samples/s%s",
            record.epoch,
            self.trainer.epochs,
            format_metrics(record.train),
            validation,
            f"{rate:,.0f}",
            best,
            extra={"file_only": self.bar is not None},
        )

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


def format_metrics(metrics: Mapping[str, float]) -> str:
    """`loss 0.1234 accuracy 0.9876`: what a person compares; the other metrics are in the files and in `eval`."""
    return " ".join(
        f"{name} {rounded(value)}" for name, value in metrics.items() if name in ("loss", "accuracy", "rmse", "r2")
    )


def fit(training: Any, quiet: bool, board: Board | None = None, *, speaks: bool = True) -> dict[str, Any]:
    """Train to the end, or to the first signal, and show it, to TensorBoard too with a board; what summary.json
    holds. Of a signal nothing is said at once unless this process `speaks`."""
    if training.ranks.first:
        log_to(training.run.path / "train.log")
    log.info("%s", _opening(training))
    display = Display(training.trainer, quiet)
    try:
        with Signals(speaks=speaks and training.ranks.first) as signals:
            for record in training.fit(lambda: signals.received or 0):
                if record is None:
                    display.step()
                else:
                    display.epoch(record)
                    if board is not None:
                        board.epoch(record.to_plain())
            if training.stopped_by:
                raise _interrupted(training, training.stopped_by)
        display.close()
        summary: dict[str, Any] = training.finish()
        curves = training.ranks.first and losses(
            read_metrics(training.run.path), unicode=encodable(sys.stderr.encoding)
        )
        if curves:
            log.info("%s", curves)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; the last checkpoint is {training.run.last}\n"
            f"    continue with: mlpcli train --resume {training.run.path}",
            130,
        ) from None
    except MlpcliError as error:
        log.error("%s", error, extra={"file_only": True})
        raise
    finally:
        display.close()
    return summary


def _opening(training: Any) -> str:
    dataset, trainer, network = training.dataset, training.trainer, training.network
    parameters = sum(p.numel() for p in network.model.parameters())
    splits = [f"{len(dataset.train):,} train"]
    if dataset.validation is not None:
        splits.append(f"{len(dataset.validation):,} validation")
    splits.append(f"{len(dataset.test):,} test")
    at = f", continuing at epoch {trainer.epoch + 1}, step {trainer.step}" if trainer.step else ""
    return (
        f"{training.run.path}: {dataset.description.name} ({', '.join(splits)}), {parameters:,} parameters, "
        f"{_arithmetic(training)}{at}"
    )


def _arithmetic(training: Any) -> str:
    """Device, threads and engine, and why it is not the explicit one."""
    settings = training.config.training
    device = str(training.network.device)
    ranks = training.ranks
    threads = f", {settings.threads} thread{'s' if settings.threads > 1 else ''}" if device == "cpu" else ""
    because = not_explicit(training.config)
    if ranks.several:
        device = f"{ranks.size} processes on {'CUDA' if training.network.device.type == 'cuda' else device}"
    return f"{device}{threads}, {engine(training.config)} engine{f' ({because})' if because else ''}"


def _interrupted(training: Any, number: int) -> Interrupted:
    trainer = training.trainer
    return Interrupted(
        f"interrupted in epoch {trainer.epoch + 1} after step {trainer.step}; saved {training.run.last}\n"
        f"    continue with: mlpcli train --resume {training.run.path}",
        exit_code=128 + number,
    )
