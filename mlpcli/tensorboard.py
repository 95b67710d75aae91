"""A run as TensorBoard shows it, in RUN/tensorboard: a side output, whose failure costs no training."""

import importlib.util
import logging
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from mlpcli.errors import StorageError, UsageError
from mlpcli.runs import DIAGNOSTICS, read_diagnostics, read_metrics, storage

log = logging.getLogger("mlpcli")


def check_installed() -> None:
    """Raises UsageError unless the package that knows TensorBoard's files is there."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs the package tensorboard\n    pip install 'mlpcli[tensorboard]'")


class Board:
    """Appends to a run's event files, in which the step of everything is the epoch.

    It goes on after the epochs that are done: what the files hold of later ones is taken back. Where there are no
    files yet, it starts with what the run has written down so far. After the first failure, which is only
    mentioned, it does nothing.

    Args:
        run: its directory.
        epochs: that are done.
    """

    def __init__(self, run: Path, epochs: int) -> None:
        self._run, self._folder = run, run / "tensorboard"
        self._file: BinaryIO | None = None
        self._seen = -1  # the last epoch of diagnostics.jsonl, and its size, that were taken over
        self._size = 0
        self._works = True
        self._attempt(lambda: self._open(epochs))

    def epoch(self, line: Mapping[str, Any]) -> None:
        """After an epoch: what metrics.jsonl holds of it, and what diagnostics.jsonl holds since the last call."""
        self._attempt(lambda: self._epoch(line))

    def finish(self, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """At the end: the values of the config with the final metrics, and the pictures that the run has."""
        self._attempt(lambda: self._finish(config, summary))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):  # on a full disk, where a failure was mentioned
                self._file.close()

    def _attempt(self, write: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            with storage(self._folder):
                write()
                if self._file is not None:
                    self._file.flush()
        except StorageError as error:
            self._works = False
            log.warning("%s\n    the training goes on without its files for TensorBoard", error)

    def _open(self, epochs: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._folder.mkdir(exist_ok=True)
        goes_on = any(self._folder.glob("*tfevents*"))
        self._file = (self._folder / f"events.out.tfevents.{time.time_ns()}").open("xb")
        self._write(0, file_version="brain.Event:2")
        if goes_on:
            self._write(epochs + 1, session_log=SessionLog(status=SessionLog.START))
            self._seen = epochs
            return
        for line in read_metrics(self._run):
            self._epoch(line)

    def _write(self, step: int, **what: Any) -> None:
        """One event; written here and now, where its failure is noticed, and not by a thread of its own."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        event = Event(wall_time=time.time(), step=step, **what)
        RecordWriter(self._file).write(event.SerializeToString())

    def _scalar(self, tag: str, value: Any, step: int) -> None:
        from torch.utils.tensorboard.summary import scalar

        if value is not None:
            self._write(step, summary=scalar(tag, value))

    def _epoch(self, line: Mapping[str, Any]) -> None:
        step = line["epoch"]
        for split in ("train", "validation"):
            for name, value in line.get(split, {}).items():
                self._scalar(f"{name}/{split}", value, step)
        for name in ("lr", "seconds"):
            self._scalar(f"training/{name}", line.get(name), step)
        path = self._run / DIAGNOSTICS
        size = path.stat().st_size if path.exists() else 0
        if size != self._size:
            for look in read_diagnostics(self._run):
                if look["epoch"] > self._seen:
                    self._look(look)
                    self._seen = look["epoch"]
            self._size = size

    def _look(self, look: Mapping[str, Any]) -> None:
        step = look["epoch"]
        self._scalar("diagnostics/loss", look["loss"], step)
        for layer in look["layers"]:
            name = f"layer_{layer['layer']}"
            for key in ("gradient_norm", "update_ratio", "dead"):
                self._scalar(f"{key}/{name}", layer[key], step)
            for key in ("weight", "activation"):
                if layer[key]["low"] is not None:
                    self._write(step, summary=_histogram(f"{key}/{name}", **layer[key]))

    def _finish(self, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard.summary import hparams

        step = summary["epochs"]
        metrics = {f"hparam/test_{name}": value for name, value in summary["test"].items()}
        for part in hparams(dict(flat(config)), metrics):
            self._write(step, summary=part)
        for tag, value in metrics.items():
            self._scalar(tag, value, step)
        for path in sorted((self._run / "plots").glob("*.png")):
            self._write(step, summary=_picture(f"plots/{path.stem}", path.read_bytes()))


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, bool | int | float | str]]:
    """The values of a config that are not null by their dotted keys, a list as its text."""
    found: list[tuple[str, bool | int | float | str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{key}.")
        elif value is not None:
            found.append((prefix + key, value if isinstance(value, bool | int | float | str) else str(value)))
    return found


def _histogram(tag: str, low: float, high: float, counts: list[int]) -> Any:
    """Counts in equal bins; the sums that TensorBoard wants besides are those of the bins' centres."""
    from torch.utils.tensorboard.summary import histogram_raw

    width = (high - low) / len(counts)
    centres = [low + (place + 0.5) * width for place in range(len(counts))]
    total = sum(count * centre for count, centre in zip(counts, centres, strict=True))
    squares = sum(count * centre**2 for count, centre in zip(counts, centres, strict=True))
    limits = [low + (place + 1) * width for place in range(len(counts))]
    return histogram_raw(tag, low, high, sum(counts), total, squares, limits, counts)


def _picture(tag: str, png: bytes) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = struct.unpack(">II", png[16:24])  # of the first chunk, IHDR
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
    return Summary(value=[Summary.Value(tag=tag, image=image)])
