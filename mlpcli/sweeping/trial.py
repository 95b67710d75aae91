"""One trial: one ordinary run, which says after every epoch how it does, and may be told to end."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlpcli import console, experiment, resuming
from mlpcli.config import Config
from mlpcli.errors import CheckpointError, DivergedError, Interrupted, MlpcliError, RunError
from mlpcli.experiment import Experiment
from mlpcli.runs import SUMMARY, is_run, read_metrics

log = logging.getLogger("mlpcli")


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: of the trial.
        value: of the objective at its best epoch; None unless it is complete.
        error: why it is not.
    """

    state: Literal["complete", "pruned", "failed"]
    value: float | None = None
    error: str | None = None


class Stopped(Exception):
    """The run was saved before its end, as it was asked for."""


def train(
    config: Config,
    path: Path,
    started: Callable[[Path], None],
    report: Callable[[int, float], bool],
    stop: Callable[[], bool],
) -> Outcome:
    """Train in `path`, or continue the run that is there already; what goes wrong with it is its outcome.

    Args:
        config: of the trial, whose `training.monitor` is the objective.
        path: of the run; another beside it is taken where that one cannot be continued.
        started: told the path of the run.
        report: told the objective after each epoch; whether the trial is to end there.
        stop: whether to save and end now; asked after each step.

    Raises:
        Stopped: the run was saved, and can be continued by calling this again.
        Exception: whatever `started` and `report` raise.
    """
    ours: list[BaseException] = []

    def noted(call: Callable[..., Any]) -> Callable[..., Any]:
        """What `call` raises is no fault of the trial."""

        def calling(*arguments: Any) -> Any:
            try:
                return call(*arguments)
            except Exception as error:
                ours.append(error)
                raise

        return calling

    with _log_of_its_own():
        try:
            return _train(config, path, noted(started), noted(report), stop)
        except Stopped:
            raise
        except DivergedError as error:
            log.error("%s", error)
            return Outcome("pruned", error=str(error))
        except Interrupted:
            raise
        except MlpcliError as error:
            log.error("%s", error)
            return Outcome("failed", error=str(error))
        except Exception as error:
            if error in ours:
                raise
            # out of memory, for one: other values need less
            log.exception("this trial failed")
            return Outcome("failed", error=f"{type(error).__name__}: {error}".splitlines()[0])


def _train(
    config: Config,
    path: Path,
    started: Callable[[Path], None],
    report: Callable[[int, float], bool],
    stop: Callable[[], bool],
) -> Outcome:
    training = _opened(config, path)
    try:
        console.log_to(training.run.path / "train.log")
        started(training.run.path)
        split, _, metric = str(training.config.training.monitor).partition(".")
        for line in read_metrics(training.run.path)[: training.trainer.epoch]:
            report(line["epoch"], line[split][metric])
        display = console.Display(training.trainer, quiet=True)
        for record in training.fit(stop):
            if record is not None:
                display.epoch(record)
                if report(record.epoch, record.to_plain()[split][metric]) and not training.trainer.finished:
                    return _pruned(training)
        if training.stopped_by:
            raise Stopped
        return Outcome("complete", training.finish()["best"]["value"])
    finally:
        training.run.close()


def _opened(config: Config, path: Path) -> Experiment:
    number = 1
    while True:
        here = path if number == 1 else path.with_name(f"{path.name}-{number}")
        if not is_run(here):
            return experiment.start(config, here)
        try:
            return resuming.resume(here, ())
        except (RunError, CheckpointError) as error:
            log.warning("%s", error)
        number += 1


def _pruned(training: Experiment) -> Outcome:
    best = training.trainer.best
    training.run.write(
        SUMMARY,
        {
            "status": "pruned",
            "epochs": training.trainer.epoch,
            "best": {"epoch": best.epoch, "monitor": training.trainer.monitor, "value": best.best},
        },
    )
    log.info("pruned after epoch %d: other trials were better by then", training.trainer.epoch)
    return Outcome("pruned", error=None)


@contextmanager
def _log_of_its_own() -> Iterator[None]:
    """What a run says goes to its train.log alone."""
    before = log.handlers
    log.handlers = [console.Held()]
    try:
        yield
    finally:
        for handler in log.handlers:
            handler.close()
        log.handlers = before
