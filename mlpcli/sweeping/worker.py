"""A worker: takes one trial after the other, until none is left, the time is up, or it is told to stop."""

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from optuna.trial import TrialState

from mlpcli.config import Config, SweepPlan, config_from_plain
from mlpcli.data.workers import cores
from mlpcli.errors import ConfigError
from mlpcli.sweeping.directory import Place, run_path
from mlpcli.sweeping.reading import record_of
from mlpcli.sweeping.storing import opened
from mlpcli.sweeping.study import RUN, LostError, Taken, Trials, join, wants_another
from mlpcli.sweeping.text import finished
from mlpcli.sweeping.trial import Outcome, Stopped, train

log = logging.getLogger("mlpcli")

BEAT_SECONDS = 10.0
WAIT_SECONDS = 0.5
"""Between two looks at the trials of others."""
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Work:
    """What every worker of a command does.

    Attributes:
        plan: of the sweep.
        place: of its trials.
        directory: of the sweep, for the runs.
        jobs: how many workers share this machine's cores.
        until: time.monotonic() after which no other trial begins.
    """

    plan: SweepPlan
    place: Place
    directory: Path
    jobs: int
    until: float

    def __call__(self, _number: int) -> None:
        """Work; in a process of its own.

        Raises:
            FailedError: the storage is lost.
        """
        stop = _Stop()
        with opened(self.place, self.directory) as storage:
            trials = join(storage, self.place, self.plan)
            while not stop() and time.monotonic() < self.until:
                trials.retry()
                taken = trials.take()
                if taken is not None:
                    self.do(trials, taken, stop)
                elif trials.running():
                    time.sleep(WAIT_SECONDS)  # its worker may be lost, and then it is ours
                elif not any(map(wants_another, trials.all().values())):
                    return

    def do(self, trials: Trials, taken: Taken, stop: Callable[[], bool]) -> None:
        """One trial, from its values to its outcome."""
        torch.set_num_threads(min(torch.get_num_threads(), max(1, cores() // self.jobs)))
        try:
            parameters = trials.draw(taken)
            with _heartbeat(taken):
                outcome = self.outcome(taken, parameters, stop)
            taken.end(STATES[outcome.state], outcome.value, outcome.error)
        except Stopped:
            trials.give_back(taken.frozen(), "interrupted", lives=0)
            trials.retry()
            return
        except LostError:
            log.warning(
                "trial %d was given to another worker: this one was not heard of for too long", taken.index
            )
            return
        log.info("%s", finished(record_of(trials.sweep, taken.index, taken.frozen()), trials.sweep))

    def outcome(self, taken: Taken, parameters: dict[str, Any], stop: Callable[[], bool]) -> Outcome:
        """Train with these values."""
        try:
            config = configured(self.plan, parameters)
        except ConfigError as error:
            said = "; ".join(problem.message for problem in error.problems)
            return Outcome("failed", error=f"these values do not go together: {said}")
        path = taken.continues() or run_path(self.directory, taken.index)
        return train(config, path, lambda run: taken.sign(**{RUN: str(run.absolute())}), taken.report, stop)


def configured(plan: SweepPlan, parameters: dict[str, Any]) -> Config:
    """The config of a trial. Raises ConfigError where the values do not go together."""
    from_above = sorted(parameters, key=lambda key: key.count("."))  # optimizer before optimizer.lr
    changes = [f"{key}={json.dumps(parameters[key], ensure_ascii=False)}" for key in from_above]
    return config_from_plain(plan.stated, changes)


class _Stop:
    """Whether this worker was told to stop: SIGTERM, which the command sends for Ctrl-C too."""

    def __init__(self) -> None:
        self._told = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        self._told = True

    def __call__(self) -> bool:
        return self._told


@contextmanager
def _heartbeat(taken: Taken) -> Iterator[None]:
    """Inside, the others hear of this worker now and then."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            with suppress(Exception):  # the training itself meets what is wrong with the storage, and says so
                taken.sign()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
